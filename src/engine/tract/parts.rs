//! Multiply-accumulates, for `inspect`.

use tract_onnx::tract_core::ops::Cost;
use tract_onnx::tract_core::ops::scan::Scan;
use tract_onnx::tract_hir::internal::TypedModel;

use super::load::has_other_free_axes;
use super::typed::{Extents, Source};

/// Multiply-accumulates of one row, where they do not depend on the request's shapes.
pub(super) fn macs(source: &Source) -> Option<u64> {
    if has_other_free_axes(&source.inputs) {
        return None;
    }
    model_macs(&source.typed(Extents::Batch(1)).ok()?)
}

fn model_macs(model: &TypedModel) -> Option<u64> {
    let mut macs = 0u64;
    for node in &model.nodes {
        let inputs = model.node_input_facts(node.id).ok()?;
        for (cost, count) in node.op.cost(&inputs).ok()? {
            if matches!(cost, Cost::FMA(_)) {
                macs = macs.checked_add(u64::try_from(count.as_i64()?).ok()?)?;
            }
        }
        if let Some(scan) = node.op_as::<Scan>() {
            let rounds = node.op.nested_model_multipliers(&inputs).first()?.1.as_i64()?;
            let body = model_macs(&scan.body)?.checked_mul(u64::try_from(rounds).ok()?)?;
            macs = macs.checked_add(body)?;
        }
    }
    Some(macs)
}
