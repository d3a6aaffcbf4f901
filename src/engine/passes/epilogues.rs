//! Hands what follows a layer to the layer's own kernel: a sum with another value, and an activation.

use kinglet_kernels::Activation;
use kinglet_kernels::u8_functions::Sum;
use kinglet_kernels::u8s8_gemm::Finish;

use crate::engine::graph::op::{Binary, Conv, QuantizedConv};
use crate::engine::graph::samples::Samples;
use crate::engine::graph::{Graph, Node, Op, ValueId};

pub(super) fn fuse(graph: &mut Graph, samples: &Samples) {
    for at in 0..graph.nodes.len() {
        match graph.nodes[at].op {
            Op::Activation(activation) => activate(graph, at, activation),
            Op::Binary(Binary::Add) => add(graph, samples, at, None),
            Op::QuantizedAdd(sum) => add(graph, samples, at, Some(sum)),
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

/// The layer moves to where the sum is, because the other operand may be made after it. A sum of bytes says what becomes of
/// its two operands, of which the layer is to be the first.
fn add(graph: &mut Graph, samples: &Samples, at: usize, of_bytes: Option<Sum>) {
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
    match (&mut fused.op, of_bytes) {
        (Op::Conv(conv), None) => conv.residual = true,
        (Op::Linear(linear), None) => linear.residual = true,
        (Op::QuantizedConv(conv), Some(sum)) => {
            conv.conv.residual = true;
            let [first, second] = sum.of;
            conv.plus = Some(if other == b { sum } else { Sum { of: [second, first], ..sum } });
        }
        _ => return,
    }
    fused.output = graph.nodes[at].output;
    graph.nodes[layer].inputs.clear();
    graph.nodes[at] = fused;
}

fn takes_sum(graph: &Graph, node: &Node) -> bool {
    let each_channel_alone = |conv: &Conv| {
        graph.coded(node.inputs[1]).is_none()
            && graph.constant(node.inputs[1]).is_none_or(|weights| conv.is_depthwise(weights.shape()))
    };
    match &node.op {
        Op::Conv(conv) => !each_channel_alone(conv) && !conv.residual && conv.activation == Activation::None,
        Op::QuantizedConv(QuantizedConv { conv, product, .. }) => {
            !each_channel_alone(conv) && !conv.residual && product.finish != Finish::Floats
        }
        Op::Linear(linear) => !linear.residual && linear.activation == Activation::None,
        _ => false,
    }
}
