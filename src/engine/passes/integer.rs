//! Products of integers that are scaled at once, as some exporters write quantized layers: integers multiplied, cast to
//! floats, and multiplied with a constant. That is a layer of what the integers mean, with the scale in its weights.

use kinglet_kernels::Activation;

use crate::engine::graph::op::{Binary, Linear};
use crate::engine::graph::{Grain, Graph, Node, Op, ValueId, floats, floats_in, numbers, tensor_of};
use crate::tensor::{DType, Tensor};

/// Products of matrices, which others recognize what they belong to by.
pub(super) fn scale_products(graph: &mut Graph) {
    scale(graph, scaled_matmul);
}

/// Convolutions, when channels are last.
pub(super) fn scale_convolutions(graph: &mut Graph) {
    scale(graph, scaled_conv);
}

fn scale(graph: &mut Graph, scaled: fn(&mut Graph, usize) -> Option<Node>) {
    for at in 0..graph.nodes.len() {
        if graph.nodes[at].op == Op::Binary(Binary::Mul)
            && let Some(node) = scaled(graph, at)
        {
            graph.nodes[at] = node;
        }
    }
}

/// The operand that nobody else takes and that is a cast of integers, the node that makes those, and the constant scales.
fn scaled(graph: &Graph, at: usize) -> Option<(usize, &Tensor)> {
    let [a, b] = [graph.nodes[at].inputs[0], graph.nodes[at].inputs[1]];
    [(a, b), (b, a)].into_iter().find_map(|(sums, scales)| {
        let scales = graph.constant(scales).filter(|scales| scales.dtype() == DType::F32)?;
        Some((cast_of(graph, sums, at, DType::F32)?, scales))
    })
}

/// What makes the operand of a cast.
fn cast_of(graph: &Graph, value: ValueId, taker: usize, to: DType) -> Option<usize> {
    let cast = graph.sole_maker(value, taker).filter(|&cast| graph.nodes[cast].op == Op::Cast { to })?;
    graph.sole_maker(graph.nodes[cast].inputs[0], cast)
}

/// A convolution of what bytes mean. Its sums were cast to integers.
fn scaled_conv(graph: &mut Graph, at: usize) -> Option<Node> {
    let (to_integers, scales) = scaled(graph, at)?;
    let is_cast = graph.nodes[to_integers].op == Op::Cast { to: DType::I32 };
    let made = if is_cast { graph.sole_maker(graph.nodes[to_integers].inputs[0], to_integers)? } else { return None };
    let Op::Conv(conv) = &graph.nodes[made].op else { return None };
    let is_plain = conv.exact && !conv.bias && !conv.residual && conv.activation == Activation::None;
    let (weights, rank) = (graph.nodes[made].inputs[1], conv.window.axes + 2);
    let shape = graph.constant(weights)?.shape().clone();
    let of_channels = channel_scales(scales, *shape.first()?, rank)?;
    let mut conv = conv.clone();
    conv.exact = false;
    let weights = rescaled(graph, weights, 0, &of_channels).filter(|_| is_plain)?;
    let Node { name, inputs, .. } = graph.nodes[made].clone();
    Some(Node { name, op: Op::Conv(conv), inputs: vec![inputs[0], weights], output: graph.nodes[at].output })
}

/// A product of bytes with constant ones of which many are zero, whose zero points are known.
fn scaled_matmul(graph: &mut Graph, at: usize) -> Option<Node> {
    let (product, scales) = scaled(graph, at)?;
    let Node { op: Op::IntegerMatMul, inputs, name, .. } = &graph.nodes[product] else { return None };
    let &[x, weights, zero, of_weights] = &inputs[..] else { return None };
    let one = |value| graph.constant(value).filter(|zero: &&Tensor| zero.element_count() == 1);
    let (zero_is_byte, of_weights) = (one(zero)?.dtype() == DType::U8, numbers(one(of_weights)?)?[0]);
    let tensor = graph.constant(weights)?;
    let &[_, columns] = &tensor.shape()[..] else { return None };
    let scales = channel_scales(scales, columns, scales.shape().len())?;
    #[expect(clippy::cast_possible_truncation, reason = "differences of bytes")]
    let meant: Vec<f32> = numbers(tensor)?.iter().map(|element| (element - of_weights) as f32).collect();
    // A layer whose scale may follow from contents has a bias in floats, too; but it multiplies its zeros.
    let zeros = meant.iter().filter(|element| **element == 0.0).count();
    if !zero_is_byte || zeros < meant.len() / 5 * 2 {
        return None;
    }
    let (name, shape) = (name.clone(), tensor.shape().clone());
    let grain = Some(Grain { axis: 1, scales: vec![1.0] });
    let integers = graph.add_grained(format!("{name} weights"), tensor_of(&shape, &meant), grain);
    let weights = rescaled(graph, integers, 1, &scales)?;
    let unit = graph.add_constant(format!("{name} unit"), tensor_of(&[1], &[1.0]));
    let floats = graph.add_value(format!("{name} operand"));
    graph.nodes[product] =
        Node { name: name.clone(), op: Op::Dequantize { axis: 1 }, inputs: vec![x, unit, zero], output: floats };
    let linear = Linear { bias: false, residual: false, activation: Activation::None };
    Some(Node { name, op: Op::Linear(linear), inputs: vec![floats, weights], output: graph.nodes[at].output })
}

/// One scale for each channel of something of so many axes, of scales that are one number or lie along the last axis.
fn channel_scales(scales: &Tensor, channels: usize, rank: usize) -> Option<Vec<f32>> {
    let (elements, shape) = (floats(scales)?, scales.shape());
    if shape.len() > rank {
        return None;
    }
    match elements[..] {
        [scale] => Some(vec![scale; channels]),
        _ if elements.len() == channels && shape.last() == Some(&channels) => Some(elements),
        _ => None,
    }
}

/// Weights that are integers, with a scale for each channel along an axis.
fn rescaled(graph: &mut Graph, weights: ValueId, axis: usize, scales: &[f32]) -> Option<ValueId> {
    let is_integral = graph.grain(weights).is_some_and(|grain| grain.scales == [1.0]);
    let tensor = graph.constant(weights).filter(|_| is_integral)?;
    let (shape, elements) = (tensor.shape().clone(), floats_in(tensor)?);
    let inner: usize = shape[axis + 1..].iter().product();
    let scaled = |(at, element): (usize, &f32)| element * scales[at / inner.max(1) % scales.len()];
    let scaled: Vec<f32> = elements.iter().enumerate().map(scaled).collect();
    let grain = Some(Grain { axis, scales: scales.to_vec() });
    Some(graph.add_grained("scaled weights", tensor_of(&shape, &scaled), grain))
}
