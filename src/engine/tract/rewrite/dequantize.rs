//! Breaks up a pattern that tract answers wrongly: where `DequantizeLinear` leads to a `QuantizeLinear` through
//! operators it takes for elementwise, tract replaces the whole chain by a table of 256 answers. It takes softmax for
//! elementwise, and it reads the table with the type of the chain's end even if the chain begins with the other
//! signedness. Such a chain's `DequantizeLinear` becomes the arithmetic it stands for, which tract does not look into.

use std::collections::HashMap;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::{constants, consumers};
use crate::engine::proto;

/// Splits the `DequantizeLinear` of every chain whose table would be wrong.
pub(super) fn split(graph: &mut GraphProto) {
    let wrong: Vec<usize> = {
        let consumers = consumers(graph);
        let constants = constants(graph);
        let outputs: Vec<&str> = graph.output.iter().map(|value| value.name.as_str()).collect();
        let chains = Chains { graph, consumers, constants, outputs };
        (0..graph.node.len()).filter(|&position| chains.table_is_wrong(position)).collect()
    };
    if wrong.is_empty() {
        return;
    }
    let mut nodes = Vec::with_capacity(graph.node.len() + 2 * wrong.len());
    for (position, node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
        if wrong.binary_search(&position).is_ok() {
            nodes.extend(arithmetic(&node));
        } else {
            nodes.push(node);
        }
    }
    graph.node = nodes;
}

struct Chains<'a> {
    graph: &'a GraphProto,
    consumers: HashMap<&'a str, Vec<usize>>,
    constants: HashMap<&'a str, &'a TensorProto>,
    outputs: Vec<&'a str>,
}

impl Chains<'_> {
    /// Whether this node is a `DequantizeLinear` of a computed value whose chain ends in a `QuantizeLinear` and is not
    /// known to be served right.
    fn table_is_wrong(&self, position: usize) -> bool {
        let first = &self.graph.node[position];
        let computed = first.input.first().is_some_and(|input| !self.constants.contains_key(input.as_str()));
        if first.op_type != "DequantizeLinear" || !computed || !self.per_tensor(first) {
            return false;
        }
        let mut safe = true;
        let mut node = first;
        // The chain is a path in a graph without cycles; the bound only stands against broken ones.
        for _ in 0..self.graph.node.len() {
            let Some(next) = self.only_consumer(node) else { return false };
            if next.op_type == "QuantizeLinear" {
                let same = matches!((self.zero_type(first), self.zero_type(next)), (Some(a), Some(b)) if a == b);
                return !(safe && same);
            }
            if next.input.iter().filter(|input| !self.constants.contains_key(input.as_str())).count() > 1 {
                return false;
            }
            safe &= SAFE.contains(&next.op_type.as_str());
            node = next;
        }
        false
    }

    fn only_consumer(&self, node: &NodeProto) -> Option<&NodeProto> {
        let output = node.output.first()?;
        match self.consumers.get(output.as_str())?.as_slice() {
            [one] if node.output.len() == 1 && !self.outputs.contains(&output.as_str()) => Some(&self.graph.node[*one]),
            _ => None,
        }
    }

    /// Whether scale and zero point are one constant each; tract itself does the arithmetic where they are not.
    fn per_tensor(&self, node: &NodeProto) -> bool {
        let scale = node.input.get(1).and_then(|scale| self.constants.get(scale.as_str()));
        scale.is_some_and(|scale| scale.dims.iter().product::<i64>() == 1)
    }

    /// The integer type of a quantised value, from its zero point; none is u8.
    fn zero_type(&self, node: &NodeProto) -> Option<i32> {
        match node.input.get(2).filter(|zero| !zero.is_empty()) {
            None => Some(DataType::Uint8 as i32),
            Some(zero) => self.constants.get(zero.as_str()).map(|zero| zero.data_type),
        }
    }
}

/// (x - zero) * scale in floats, exact for 8-bit integers as the original is.
fn arithmetic(node: &NodeProto) -> Vec<NodeProto> {
    let output = &node.output[0];
    let name = |step: &str| format!("{output}.{step}");
    let to_float = || vec![proto::int("to", DataType::Float as i64)];
    let mut nodes = vec![proto::node("Cast", &[&node.input[0]], &[&name("float")], to_float())];
    let mut value = name("float");
    if let Some(zero) = node.input.get(2).filter(|zero| !zero.is_empty()) {
        nodes.push(proto::node("Cast", &[zero], &[&name("zero")], to_float()));
        nodes.push(proto::node("Sub", &[&value, &name("zero")], &[&name("centred")], vec![]));
        value = name("centred");
    }
    nodes.push(proto::node("Mul", &[&value, &node.input[1]], &[output], vec![]));
    nodes
}

/// Operators after which tract's table, or its own quantised form, was seen to be right.
const SAFE: [&str; 16] = [
    "Relu",
    "Sigmoid",
    "Tanh",
    "LeakyRelu",
    "HardSigmoid",
    "HardSwish",
    "Elu",
    "Selu",
    "Erf",
    "Clip",
    "Identity",
    "Reshape",
    "Flatten",
    "Transpose",
    "MaxPool",
    "Squeeze",
];
