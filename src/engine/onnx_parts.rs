//! What a model file consists of, for `inspect`: operators as its author wrote them, and parameters.

use std::collections::BTreeMap;

use super::Part;
use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::onnx::{GraphProto, TensorProto};

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
    /// Takes out operators that somebody else runs, once for each time they are named.
    pub(super) fn split(&mut self, operators: &[&str]) -> Self {
        let mut taken = Self::default();
        for operator in operators {
            if let Some(count) = self.operators.get_mut(*operator).filter(|count| **count > 0) {
                *count -= 1;
                *taken.operators.entry((*operator).to_owned()).or_default() += 1;
            }
        }
        self.operators.retain(|_, count| *count > 0);
        taken
    }

    pub(super) fn into_part(self, engine: &'static str, macs: Option<u64>, reason: String) -> Part {
        let mut operators: Vec<(String, usize)> = self.operators.into_iter().collect();
        operators.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Part { engine, operators, parameters: self.parameters, macs, reason }
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
