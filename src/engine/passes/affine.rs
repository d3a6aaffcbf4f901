//! Folds scales and shifts of channels, and biases, into the weights of the layer before them.

use crate::engine::graph::op::Binary;
use crate::engine::graph::samples::Samples;
use crate::engine::graph::{Graph, Node, Op, ValueId, floats, tensor_of};

pub(super) fn fold(graph: &mut Graph, samples: &Samples) {
    for at in 0..graph.nodes.len() {
        // Each fold makes the next node's operand a layer's own output.
        if let Some((layer, scale, shift)) = found(graph, samples, at) {
            scaled(graph, layer, &scale, &shift);
            graph.retire(at, graph.nodes[layer].output);
        }
    }
}

/// A node that scales and shifts the channels of a layer which nothing else takes: the layer's position, and what is
/// done to each channel.
fn found(graph: &Graph, samples: &Samples, at: usize) -> Option<(usize, Vec<f32>, Vec<f32>)> {
    let node = &graph.nodes[at];
    let taken = node.inputs.iter().find(|&&input| graph.constant(input).is_none())?;
    let layer = graph.sole_maker(*taken, at)?;
    let channels = match &graph.nodes[layer].op {
        Op::Conv(conv) if !conv.residual && conv.activation == kinglet_kernels::Activation::None => {
            graph.constant(graph.nodes[layer].inputs[1])?.shape()[0]
        }
        Op::Linear(linear) if !linear.residual && linear.activation == kinglet_kernels::Activation::None => {
            graph.constant(graph.nodes[layer].inputs[1])?.shape()[1]
        }
        _ => return None,
    };
    let rank = samples.rank(*taken)?;
    let (scale, shift) = channelwise(graph, node, rank, channels)?;
    Some((layer, scale, shift))
}

/// What a node does to each channel, the last axis of an operand of this rank.
fn channelwise(graph: &Graph, node: &Node, rank: usize, channels: usize) -> Option<(Vec<f32>, Vec<f32>)> {
    let constant = |at: usize| along_channels(graph, node.inputs[at], rank, channels);
    let (ones, zeros) = (vec![1.0; channels], vec![0.0; channels]);
    match node.op {
        Op::Affine { axis } if axis + 1 == rank => {
            Some((floats(graph.constant(node.inputs[1])?)?, floats(graph.constant(node.inputs[2])?)?))
        }
        Op::Binary(Binary::Add) => Some((ones, constant(1).or_else(|| constant(0))?)),
        Op::Binary(Binary::Mul) => Some((constant(1).or_else(|| constant(0))?, zeros)),
        Op::Binary(Binary::Sub) => Some((ones, constant(1)?.iter().map(|x| -x).collect())),
        Op::Binary(Binary::Div) => Some((constant(1)?.iter().map(|x| 1.0 / x).collect(), zeros)),
        _ => None,
    }
}

/// A constant that is one element, or one for each channel of the last axis.
fn along_channels(graph: &Graph, value: ValueId, rank: usize, channels: usize) -> Option<Vec<f32>> {
    let constant = graph.constant(value)?;
    let elements = floats(constant)?;
    let (last, others) = constant.shape().split_last().map_or((1, &[][..]), |(last, others)| (*last, others));
    if constant.shape().len() > rank || others.iter().any(|&extent| extent != 1) {
        return None;
    }
    match last {
        1 => Some(vec![elements[0]; channels]),
        _ => (last == channels).then_some(elements),
    }
}

fn scaled(graph: &mut Graph, layer: usize, scale: &[f32], shift: &[f32]) {
    let node = graph.nodes[layer].clone();
    let Some(tensor) = graph.constant(node.inputs[1]).cloned() else { return };
    let Some(mut weights) = floats(&tensor) else { return };
    let (bias, by_rows) = match &node.op {
        Op::Conv(conv) => (conv.bias, true),
        Op::Linear(linear) => (linear.bias, false),
        _ => return,
    };
    let channels = scale.len();
    let inner = if by_rows { weights.len() / channels.max(1) } else { 1 };
    weights.iter_mut().enumerate().for_each(|(at, weight)| *weight *= scale[at / inner % channels]);
    let before = if bias { graph.constant(node.inputs[2]).and_then(floats) } else { None };
    let before = before.unwrap_or_else(|| vec![0.0; channels]);
    let bias: Vec<f32> =
        before.iter().zip(scale).zip(shift).map(|((bias, scale), shift)| bias * scale + shift).collect();
    let weights = graph.add_constant(format!("{} weights", node.name), tensor_of(tensor.shape(), &weights));
    let bias = graph.add_constant(format!("{} bias", node.name), tensor_of(&[channels], &bias));
    let node = &mut graph.nodes[layer];
    node.inputs.truncate(1);
    node.inputs.extend([weights, bias]);
    match &mut node.op {
        Op::Conv(conv) => conv.bias = true,
        Op::Linear(linear) => linear.bias = true,
        _ => {}
    }
}
