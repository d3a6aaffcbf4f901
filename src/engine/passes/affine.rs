//! Folds scales and shifts of channels, and biases, into the weights of the layer before them, or of the one behind.

use kinglet_kernels::Activation;

use crate::engine::graph::op::{Binary, Padding};
use crate::engine::graph::samples::Samples;
use crate::engine::graph::{Coded, FloatsMut, Graph, Node, Op, ValueId, floats, tensor_of};
use crate::tensor::{DType, Tensor};

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
    let [channels, _] = channels(graph, &graph.nodes[at])?;
    let node = &graph.nodes[at];
    let padded = match &node.op {
        Op::Conv(conv) if !conv.exact => conv.window.padding != (Padding::Given { before: [0; 2], after: [0; 2] }),
        Op::Linear(_) => false,
        _ => return None,
    };
    // Weights that are integers times a scale may become bytes.
    if graph.grain(node.inputs[1]).is_some() || graph.coded(node.inputs[1]).is_some() {
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

/// Gives a layer weights that do it too.
fn absorb(graph: &mut Graph, at: usize, before: Before) {
    let Some(mut own) = Constants::of(graph, at) else { return };
    let mut sums: Vec<f64> = own.bias.iter().map(|bias| f64::from(*bias)).collect();
    own.reweigh(&graph.nodes[at].op, |[from, to], weights| {
        for weight in weights {
            sums[to] += f64::from(*weight) * f64::from(before.shift[from]);
            *weight *= before.scale[from];
        }
    });
    #[expect(clippy::cast_possible_truncation, reason = "sums are rounded once")]
    own.bias.iter_mut().zip(sums).for_each(|(bias, sum)| *bias = sum as f32);
    graph.nodes[before.maker].inputs.clear();
    own.put(graph, at, before.value);
}

/// Shifts are not divided by less.
const SCALE_MIN: f32 = 1e-3;

/// A node that scales and shifts the channels of a layer which nothing else takes: the layer's position, and what is
/// done to each channel.
fn found(graph: &Graph, samples: &Samples, at: usize) -> Option<(usize, Vec<f32>, Vec<f32>)> {
    let node = &graph.nodes[at];
    let taken = node.inputs.iter().find(|&&input| graph.constant(input).is_none())?;
    let layer = graph.sole_maker(*taken, at)?;
    let [_, channels] = channels(graph, &graph.nodes[layer])?;
    let rank = samples.rank(*taken)?;
    let (scale, shift) = channelwise(graph, node, rank, channels)?;
    let layer_node = &graph.nodes[layer];
    let can = graph
        .coded(layer_node.inputs[1])
        .is_none_or(|coded| coded.scaled(columns_axis(&layer_node.op), &scale).is_some());
    can.then_some((layer, scale, shift))
}

/// The axis of weights along which channels lie that a layer makes.
fn columns_axis(op: &Op) -> usize {
    usize::from(!matches!(op, Op::Conv(_)))
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
    let (last, others) = constant.shape().split_last().map_or((1, &[][..]), |(last, others)| (*last, others));
    if constant.shape().len() > rank || others.iter().any(|&extent| extent != 1) {
        return None;
    }
    let elements = floats(constant)?;
    match last {
        1 => Some(vec![elements[0]; channels]),
        _ => (last == channels).then_some(elements),
    }
}

fn scaled(graph: &mut Graph, layer: usize, scale: &[f32], shift: &[f32]) {
    let node = &graph.nodes[layer];
    let is_coded = graph.coded(node.inputs[1]).is_some();
    let is_first = matches!(&node.op, Op::Conv(conv) if !conv.scale && !is_coded);
    // A bias leaves weights as they are, and where they are.
    let is_scaled = scale.iter().any(|scale| scale.to_bits() != 1f32.to_bits());
    let stay = is_first || !is_scaled;
    let Some(mut own) = (if stay { Constants::left(graph, layer) } else { Constants::of(graph, layer) }) else {
        return;
    };
    if is_scaled && is_first {
        own.scale = Some(scale.to_vec());
    } else if is_scaled {
        own.scale_by(&graph.nodes[layer].op, scale);
    }
    let factors = scale.iter().zip(shift);
    own.bias.iter_mut().zip(factors).for_each(|(bias, (scale, shift))| *bias = *bias * scale + shift);
    let x = graph.nodes[layer].inputs[0];
    own.put(graph, layer, x);
}

/// Channels that a layer takes and makes, if it is one whose constants can be others and nothing follows in it.
fn channels(graph: &Graph, node: &Node) -> Option<[usize; 2]> {
    let (weights, others) = node.inputs.get(1..)?.split_first()?;
    let floats = |value: ValueId| graph.constant(value).filter(|constant| constant.dtype() == DType::F32);
    let coded = graph.coded(*weights).map(|coded| &coded.shape);
    let shape = coded.or_else(|| floats(*weights).map(Tensor::shape))?;
    if others.iter().any(|&other| floats(other).is_none()) {
        return None;
    }
    let (rows, columns) = (*shape.first()?, *shape.get(1)?);
    match &node.op {
        Op::Conv(conv) if !conv.residual && conv.activation == Activation::None => Some([columns * conv.groups, rows]),
        Op::Linear(linear) if !linear.residual && linear.activation == Activation::None => Some([rows, columns]),
        Op::ConvTranspose(conv) if conv.activation == Activation::None => Some([rows, columns * conv.groups]),
        _ => None,
    }
}

/// Weights of a layer, and its bias, zeros where it has none.
struct Constants {
    weights: Weights,
    /// What weights are multiplied by while they are packed.
    scale: Option<Vec<f32>>,
    bias: Vec<f32>,
}

enum Weights {
    /// Those that the graph has.
    Left(ValueId),
    Floats(Tensor),
    Codes(Coded),
}

impl Constants {
    /// With weights that stay as they are.
    fn left(graph: &Graph, layer: usize) -> Option<Self> {
        let node = &graph.nodes[layer];
        let [_, out] = channels(graph, node)?;
        let has_bias = match &node.op {
            Op::Conv(conv) => conv.bias,
            Op::Linear(linear) => linear.bias,
            Op::ConvTranspose(conv) => conv.bias,
            _ => false,
        };
        let constant = |at: usize| floats(graph.constant(*node.inputs.get(at)?)?);
        let bias = if has_bias { constant(2)? } else { vec![0.0; out] };
        let scale = match &node.op {
            Op::Conv(conv) if conv.scale => Some(constant(conv.scale_at())?),
            _ => None,
        };
        Some(Self { weights: Weights::Left(node.inputs[1]), scale, bias })
    }

    /// Taken out of the graph and scaled, for `put` to bring back.
    fn of(graph: &mut Graph, layer: usize) -> Option<Self> {
        let mut own = Self::left(graph, layer)?;
        let value = graph.nodes[layer].inputs[1];
        let takers = graph.nodes.iter().flat_map(|node| &node.inputs).chain(&graph.outputs);
        let is_sole = takers.filter(|taken| **taken == value).take(2).count() == 1;
        own.weights = match graph.coded(value) {
            Some(coded) => Weights::Codes(coded.clone()),
            None if is_sole => Weights::Floats(graph.take(value)?),
            None => Weights::Floats(graph.constant(value)?.clone()),
        };
        if let Some(scale) = own.scale.take() {
            own.scale_by(&graph.nodes[layer].op, &scale);
        }
        Some(own)
    }

    /// Multiplies what adds to each channel.
    fn scale_by(&mut self, op: &Op, scale: &[f32]) {
        match &mut self.weights {
            Weights::Left(_) => {}
            Weights::Floats(_) => {
                self.reweigh(op, |[_, to], weights| weights.iter_mut().for_each(|w| *w *= scale[to]));
            }
            Weights::Codes(coded) => {
                if let Some(scaled) = coded.scaled(columns_axis(op), scale) {
                    *coded = scaled;
                }
            }
        }
    }

    /// Changes all weights: those with one channel that they meet and one that they add to, together and in order.
    fn reweigh(&mut self, op: &Op, mut change: impl FnMut([usize; 2], &mut [f32])) {
        let Weights::Floats(weights) = &mut self.weights else { return };
        let shape = weights.shape().clone();
        let mut elements = FloatsMut::of(std::mem::replace(weights, tensor_of(&[0], &[])));
        let (rows, columns, inner) = (shape[0], shape[1], shape[2..].iter().product::<usize>());
        for (row, row_weights) in elements.as_mut().chunks_exact_mut((columns * inner).max(1)).enumerate() {
            let in_group = |groups: usize| row / (rows / groups) * columns;
            let (first, is_met) = match op {
                Op::Conv(conv) => (in_group(conv.groups), true),
                Op::ConvTranspose(conv) => (in_group(conv.groups), false),
                _ => (0, false),
            };
            for (column, taps) in row_weights.chunks_exact_mut(inner.max(1)).enumerate() {
                let other = first + column;
                change(if is_met { [other, row] } else { [row, other] }, taps);
            }
        }
        *weights = elements.into_tensor(&shape);
    }

    /// Has a layer work with these on `x`.
    fn put(self, graph: &mut Graph, layer: usize, x: ValueId) {
        let name = graph.nodes[layer].name.clone();
        let weights_name = format!("{name} weights");
        let weights = match self.weights {
            Weights::Left(value) => value,
            Weights::Floats(weights) => graph.add_constant(weights_name, weights),
            Weights::Codes(coded) => graph.add_coded(weights_name, coded),
        };
        let mut each =
            |what: &str, all: &[f32]| graph.add_constant(format!("{name} {what}"), tensor_of(&[all.len()], all));
        let bias = each("bias", &self.bias);
        let scale = self.scale.map(|scale| each("scale", &scale));
        let node = &mut graph.nodes[layer];
        node.inputs = [x, weights, bias].into_iter().chain(scale).collect();
        match &mut node.op {
            Op::Conv(conv) => (conv.bias, conv.scale) = (true, scale.is_some()),
            Op::Linear(linear) => linear.bias = true,
            Op::ConvTranspose(conv) => conv.bias = true,
            _ => {}
        }
    }
}
