//! Finds operators that exporters have written as several, and puts one node in their place.

mod attention;
mod functions;
mod normalize;
mod one_hot;

use kinglet_kernels::Activation;
use kinglet_kernels::f32_functions::Function;

use super::number;
use crate::engine::graph::op::Binary;
use crate::engine::graph::samples::Samples;
use crate::engine::graph::{Graph, Op, ValueId};

/// Nodes that are replaced stay behind, for [`Graph::drop_dead`] to find.
pub(super) fn recover(graph: &mut Graph, samples: &Samples) {
    let mut at = 0;
    while at < graph.nodes.len() {
        functions::recover(graph, at);
        normalize::recover(graph, samples, at);
        attention::recover(graph, samples, at);
        one_hot::recover(graph, samples, at);
        at += 1;
    }
}

fn is_near(number: f32, expected: f32) -> bool {
    (number - expected).abs() <= 1e-4 * expected.abs()
}

/// What a node computes a value from, if it is this operator of two.
fn binary(graph: &Graph, value: ValueId, before: usize, binary: Binary) -> Option<[ValueId; 2]> {
    let node = &graph.nodes[graph.maker(value, before)?];
    (node.op == Op::Binary(binary)).then(|| [node.inputs[0], node.inputs[1]])
}

/// The operand of a function.
fn function(graph: &Graph, value: ValueId, before: usize, function: Function) -> Option<ValueId> {
    let node = &graph.nodes[graph.maker(value, before)?];
    (node.op == Op::Activation(Activation::Function(function))).then(|| node.inputs[0])
}

/// A value times a number, by a product or a quotient.
fn scaled(graph: &Graph, value: ValueId, before: usize) -> Option<(ValueId, f32)> {
    if let Some([a, b]) = binary(graph, value, before, Binary::Mul) {
        let right = number(graph, b).map(|number| (a, number));
        return right.or_else(|| number(graph, a).map(|number| (b, number)));
    }
    let [a, b] = binary(graph, value, before, Binary::Div)?;
    Some((a, 1.0 / number(graph, b)?))
}
