//! Folds scales and shifts of channels, and biases, into the weights of the layer before them, or of the one behind.

use crate::engine::graph::op::{Binary, Padding};
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
    for at in 0..graph.nodes.len() {
        while let Some(before) = before(graph, samples, at) {
            absorb(graph, at, before);
        }
    }
}

/// What is done to the channels of a layer's operand, and to nothing else's.
struct Before {
    /// The node that does it.
    maker: usize,
    /// The operand before that is done to it.
    value: ValueId,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

/// What a layer can do by itself of what is done to its operand. Zeros around an image are not shifted: there a shift
/// stays, and a scale in front of it changes places with it.
fn before(graph: &mut Graph, samples: &Samples, at: usize) -> Option<Before> {
    let node = &graph.nodes[at];
    let weights = *node.inputs.get(1)?;
    let (channels, padded) = match &node.op {
        Op::Conv(conv) if !conv.exact && !conv.residual => {
            let none = Padding::Given { before: [0; 2], after: [0; 2] };
            (graph.constant(weights)?.shape()[1] * conv.groups, conv.window.padding != none)
        }
        Op::Linear(linear) if !linear.residual => (graph.constant(weights)?.shape()[0], false),
        _ => return None,
    };
    // Weights that are integers times a scale may become bytes.
    if graph.grain(weights).is_some() {
        return None;
    }
    let first = done(graph, samples, node.inputs[0], at, channels)?;
    if !padded || first.shift.iter().all(|shift| *shift == 0.0) {
        return Some(first);
    }
    let second = done(graph, samples, first.value, first.maker, channels)?;
    let only = |all: &[f32], one: f32| all.iter().all(|x| x.to_bits() == one.to_bits());
    let divides = second.scale.iter().all(|scale| scale.abs() >= SCALE_MIN);
    if !only(&first.scale, 1.0) || !only(&second.shift, 0.0) || !divides {
        return None;
    }
    let shift: Vec<f32> = first.shift.iter().zip(&second.scale).map(|(shift, scale)| shift / scale).collect();
    let shift = graph.add_constant(format!("{} shift", graph.nodes[first.maker].name), tensor_of(&[channels], &shift));
    let stays = &mut graph.nodes[first.maker];
    (stays.op, stays.inputs) = (Op::Binary(Binary::Add), vec![second.value, shift]);
    Some(Before { value: stays.output, ..second })
}

/// What the node that alone makes a value for the node at `taker` does to its channels.
fn done(graph: &Graph, samples: &Samples, value: ValueId, taker: usize, channels: usize) -> Option<Before> {
    let maker = graph.sole_maker(value, taker)?;
    let node = &graph.nodes[maker];
    let rank = samples.rank(value)?;
    let is_row = samples.fixed(value)?.last() == Some(&Some(channels));
    let (scale, shift) = channelwise(graph, node, rank, channels).filter(|_| is_row)?;
    let value = *node.inputs.iter().find(|&&input| graph.constant(input).is_none())?;
    samples.same_shape(value, node.output).then_some(Before { maker, value, scale, shift })
}

/// The layer of weights that do it too.
fn absorb(graph: &mut Graph, at: usize, before: Before) {
    let node = graph.nodes[at].clone();
    let Some(tensor) = graph.constant(node.inputs[1]).cloned() else { return };
    let Some(mut weights) = floats(&tensor) else { return };
    let inner: usize = tensor.shape().iter().skip(2).product();
    let (rows, columns) = (tensor.shape()[0], tensor.shape()[1]);
    // The channel that a weight meets, and the one that it adds to.
    let (groups, has_bias, by_rows) = match &node.op {
        Op::Conv(conv) => (conv.groups, conv.bias, true),
        Op::Linear(linear) => (1, linear.bias, false),
        _ => return,
    };
    let place = |at: usize| match by_rows {
        true => {
            let out = at / (columns * inner);
            (out / (rows / groups) * columns + at / inner % columns, out)
        }
        false => (at / columns, at % columns),
    };
    let out = if by_rows { rows } else { columns };
    let bias = if has_bias { graph.constant(node.inputs[2]).and_then(floats) } else { None };
    let mut bias: Vec<f64> = bias.map_or_else(|| vec![0.0; out], |bias| bias.into_iter().map(f64::from).collect());
    for (at, weight) in weights.iter_mut().enumerate() {
        let (from, to) = place(at);
        bias[to] += f64::from(*weight) * f64::from(before.shift[from]);
        *weight *= before.scale[from];
    }
    #[expect(clippy::cast_possible_truncation, reason = "sums are rounded once")]
    let bias: Vec<f32> = bias.into_iter().map(|sum| sum as f32).collect();
    let weights = graph.add_constant(format!("{} weights", node.name), tensor_of(tensor.shape(), &weights));
    let bias = graph.add_constant(format!("{} bias", node.name), tensor_of(&[out], &bias));
    graph.nodes[before.maker].inputs.clear();
    let node = &mut graph.nodes[at];
    node.inputs = vec![before.value, weights, bias];
    match &mut node.op {
        Op::Conv(conv) => conv.bias = true,
        Op::Linear(linear) => linear.bias = true,
        _ => {}
    }
}

/// Shifts are not divided by less.
const SCALE_MIN: f32 = 1e-3;

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
        Op::ConvTranspose(conv) if conv.activation == kinglet_kernels::Activation::None => {
            graph.constant(graph.nodes[layer].inputs[1])?.shape()[1] * conv.groups
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
    let channels = scale.len();
    let inner: usize = tensor.shape().iter().skip(2).product();
    let each = (weights.len() / channels.max(1)).max(1);
    // Where the weights of one channel are: in rows, in columns, or in columns of each group's rows.
    let (bias, channel): (bool, Box<dyn Fn(usize) -> usize>) = match &node.op {
        Op::Conv(conv) => (conv.bias, Box::new(move |at| at / each)),
        Op::Linear(linear) => (linear.bias, Box::new(|at| at % channels)),
        Op::ConvTranspose(conv) => {
            let (rows, columns) = (tensor.shape()[0] / conv.groups, tensor.shape()[1]);
            let group = move |at: usize| at / (columns * inner) / rows;
            (conv.bias, Box::new(move |at| group(at) * columns + at / inner % columns))
        }
        _ => return,
    };
    weights.iter_mut().enumerate().for_each(|(at, weight)| *weight *= scale[channel(at)]);
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
        Op::ConvTranspose(conv) => conv.bias = true,
        _ => {}
    }
}
