//! Hands what follows a layer to the layer's own kernel: a sum with another value, and an activation.

use kinglet_kernels::Activation;

use crate::engine::graph::op::Binary;
use crate::engine::graph::samples::Samples;
use crate::engine::graph::{Graph, Node, Op, ValueId};

pub(super) fn fuse(graph: &mut Graph, samples: &Samples) {
    for at in 0..graph.nodes.len() {
        match graph.nodes[at].op {
            Op::Activation(activation) => activate(graph, at, activation),
            Op::Binary(Binary::Add) => add(graph, samples, at),
            _ => {}
        }
    }
}

fn activate(graph: &mut Graph, at: usize, activation: Activation) {
    let taken = graph.nodes[at].inputs[0];
    let Some(layer) = graph.sole_maker(taken, at) else { return };
    match &mut graph.nodes[layer].op {
        Op::Conv(conv) if conv.activation == Activation::None => conv.activation = activation,
        Op::Linear(linear) if linear.activation == Activation::None => linear.activation = activation,
        Op::ConvTranspose(conv) if conv.activation == Activation::None && activation.split().1.is_none() => {
            conv.activation = activation;
        }
        _ => return,
    }
    graph.retire(at, graph.nodes[layer].output);
}

/// The layer moves to where the sum is, because the other operand may be made after it.
fn add(graph: &mut Graph, samples: &Samples, at: usize) {
    let [a, b] = [graph.nodes[at].inputs[0], graph.nodes[at].inputs[1]];
    let layer = |value: ValueId, other: ValueId| {
        let layer = graph.sole_maker(value, at)?;
        (graph.constant(other).is_none() && takes_sum(graph, &graph.nodes[layer]) && samples.same_shape(value, other))
            .then_some((layer, other))
    };
    let Some((layer, other)) = layer(a, b).into_iter().chain(layer(b, a)).max_by_key(|(layer, _)| *layer) else {
        return;
    };
    let mut fused = graph.nodes[layer].clone();
    fused.inputs.push(other);
    match &mut fused.op {
        Op::Conv(conv) => conv.residual = true,
        Op::Linear(linear) => linear.residual = true,
        _ => return,
    }
    fused.output = graph.nodes[at].output;
    graph.nodes[layer].inputs.clear();
    graph.nodes[at] = fused;
}

fn takes_sum(graph: &Graph, node: &Node) -> bool {
    match &node.op {
        Op::Conv(conv) => {
            let weights = graph.constant(node.inputs[1]);
            let depthwise = weights.is_none_or(|weights| conv.is_depthwise(weights.shape()));
            !depthwise && !conv.residual && conv.activation == Activation::None
        }
        Op::Linear(linear) => !linear.residual && linear.activation == Activation::None,
        _ => false,
    }
}
