//! Extents that a model's products need to be equal, though its declaration leaves them free: tract multiplies matrices
//! without looking again at a request's shape. `[n, k]` times a constant of two rows makes `k` a 2 here; where no axis can
//! be set so, every shape is analysed by itself.

use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::scan::Scan;
use tract_onnx::tract_hir::internal::{TDim, TypedFact, TypedModel, TypedNode};

use super::typed::{Extents, Source};
use crate::engine::Dim;

/// Two extents that a node needs to be the same.
struct Disagreement {
    node: String,
    extents: [TDim; 2],
}

/// The symbolic model once the declared axes of its inputs hold what its operators need, or why there is none.
pub(super) fn settled(source: &mut Source) -> Result<TypedModel, String> {
    let axes: usize = source.inputs.iter().map(|spec| spec.dims.len()).sum();
    for _ in 0..=axes {
        let typed = source.typed(Extents::Symbolic)?;
        let Some(Disagreement { node, extents: [a, b] }) = disagreement(&typed) else { return Ok(typed) };
        if !settle(source, &a, &b) && !settle(source, &b, &a) {
            return Err(format!("node {node:?} needs equal extents: {a} and {b}"));
        }
    }
    Err("its operators need more equal extents than its inputs have axes".to_owned())
}

/// Lets a free axis be what another extent is; false where the first is none, or the second no single value or axis.
fn settle(source: &mut Source, free: &TDim, wanted: &TDim) -> bool {
    let TDim::Sym(free) = free else { return false };
    let wanted = match wanted {
        TDim::Sym(symbol) => Dim::Free(Some(symbol.to_string())),
        TDim::Val(value) => match usize::try_from(*value) {
            Ok(extent) => Dim::Fixed(extent),
            Err(_) => return false,
        },
        _ => return false,
    };
    source.set_axes(&free.to_string(), &wanted)
}

fn disagreement(model: &TypedModel) -> Option<Disagreement> {
    model.nodes.iter().find_map(|node| {
        let facts: Option<Vec<_>> = node.inputs.iter().map(|input| model.outlet_fact(*input).ok()).collect();
        if let Some(scan) = node.op_as::<Scan>() {
            return disagreement(&scan.body);
        }
        let [a, b] = unequal(node, &facts?)?;
        Some(Disagreement { node: node.name.clone(), extents: [a, b] })
    })
}

fn unequal(node: &TypedNode, facts: &[&TypedFact]) -> Option<[TDim; 2]> {
    node.op_as::<EinSum>()?.axes.iter_all_axes().find_map(|axis| {
        let dims = axis.inputs.iter().zip(facts).flat_map(|(at, fact)| at.iter().map(|at| &fact.shape[*at]));
        let mut dims = dims.filter(|dim| **dim != TDim::Val(1));
        let first = dims.next()?;
        Some([first.clone(), dims.find(|dim| *dim != first)?.clone()])
    })
}
