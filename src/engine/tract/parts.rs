//! What a model consists of, for `inspect`: operators, parameters, multiply-accumulates.

use std::collections::BTreeMap;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, TensorProto};
use tract_onnx::tract_core::ops::Cost;
use tract_onnx::tract_core::ops::scan::Scan;
use tract_onnx::tract_hir::internal::TypedModel;

use super::NAME;
use super::load::has_other_free_axes;
use super::typed::{Extents, Source};
use crate::engine::Part;

/// Operators and parameters of a graph as its author wrote it.
#[derive(Debug, Default)]
pub(super) struct Counted {
    operators: BTreeMap<String, usize>,
    parameters: u64,
}

pub(super) fn count(graph: &GraphProto) -> Counted {
    let mut counted = Counted::default();
    counted.add(graph);
    counted
}

impl Counted {
    pub(super) fn into_part(self, macs: Option<u64>, reason: String) -> Part {
        let mut operators: Vec<(String, usize)> = self.operators.into_iter().collect();
        operators.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Part { engine: NAME, operators, parameters: self.parameters, macs, reason }
    }

    fn add(&mut self, graph: &GraphProto) {
        let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
        self.parameters += graph.initializer.iter().chain(sparse).map(weights).sum::<u64>();
        for node in &graph.node {
            *self.operators.entry(node.op_type.clone()).or_default() += 1;
            for attribute in &node.attribute {
                // Classical models keep their weights in attributes.
                self.parameters += attribute.floats.len() as u64;
                self.parameters += attribute.t.iter().map(weights).sum::<u64>();
                attribute.g.iter().chain(&attribute.graphs).for_each(|body| self.add(body));
            }
        }
    }
}

/// Elements of a tensor that can be weights; long integers are shapes and indices.
fn weights(tensor: &TensorProto) -> u64 {
    let structure = [DataType::Int64, DataType::Bool, DataType::String].map(|data_type| data_type as i32);
    match structure.contains(&tensor.data_type) {
        true => 0,
        false => tensor.dims.iter().map(|&dim| u64::try_from(dim).unwrap_or(0)).product(),
    }
}

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
