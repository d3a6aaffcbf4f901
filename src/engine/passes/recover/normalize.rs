//! Layer normalisation.

use super::{binary, number};
use crate::engine::graph::infer::{self, Facts};
use crate::engine::graph::op::{Binary, Reduce, ReduceKind, Unary};
use crate::engine::graph::samples::Samples;
use crate::engine::graph::{Graph, Op, ValueId, floats, tensor_of};

/// `(x - mean) / sqrt(variance + epsilon) * scale + shift` over the last axis, or without scale and shift.
pub(super) fn recover(graph: &mut Graph, samples: &Samples, at: usize) {
    let Some((x, epsilon)) = normalized(graph, samples, at) else { return };
    let Some(width) = samples.fixed(x).and_then(|shape| *shape.last()?) else { return };
    let row = |graph: &Graph, value: ValueId| {
        let constant = graph.constant(value)?;
        let is_row = constant.shape().iter().rev().skip(1).all(|extent| *extent == 1);
        if is_row && constant.element_count() == width { floats(constant) } else { None }
    };
    // The product and the sum that follow belong to it, if nothing comes between.
    let follows = |graph: &Graph, of: usize, binary: Binary| {
        let taker = graph.sole_taker(of)?;
        let (value, node) = (graph.nodes[of].output, &graph.nodes[taker]);
        if node.op != Op::Binary(binary) {
            return None;
        }
        let other = if node.inputs[0] == value { node.inputs[1] } else { node.inputs[0] };
        Some((taker, row(graph, other)?))
    };
    let scaled = follows(graph, at, Binary::Mul);
    let scaled_at = scaled.as_ref().map_or(at, |(taker, _)| *taker);
    let shifted = follows(graph, scaled_at, Binary::Add);
    let last = shifted.as_ref().map_or(scaled_at, |(taker, _)| *taker);
    let scale = scaled.map_or_else(|| vec![1.0; width], |(_, scale)| scale);
    let shift = shifted.map_or_else(|| vec![0.0; width], |(_, shift)| shift);
    let name = graph.nodes[last].name.clone();
    let scale = graph.add_constant(format!("{name} scale"), tensor_of(&[width], &scale));
    let shift = graph.add_constant(format!("{name} shift"), tensor_of(&[width], &shift));
    graph.nodes[last].op = Op::Normalize { epsilon };
    graph.nodes[last].inputs = vec![x, scale, shift];
}

/// What a quotient divides by its standard deviation, and what is added to the variance.
fn normalized(graph: &Graph, samples: &Samples, at: usize) -> Option<(ValueId, f32)> {
    let [difference, deviation] = binary(graph, graph.nodes[at].output, at + 1, Binary::Div)?;
    let x = centred(graph, samples, difference, at)?;
    let root = &graph.nodes[graph.maker(deviation, at)?];
    if root.op != Op::Unary(Unary::Sqrt) {
        return None;
    }
    let [a, b] = binary(graph, root.inputs[0], at, Binary::Add)?;
    let (variance, epsilon) = number(graph, b).map(|e| (a, e)).or_else(|| number(graph, a).map(|e| (b, e)))?;
    let square = mean(graph, samples, variance, at)?;
    let squared = match binary(graph, square, at, Binary::Mul) {
        Some([a, b]) => (a == b).then_some(a)?,
        None => {
            let [base, power] = binary(graph, square, at, Binary::Pow)?;
            number(graph, power).filter(|power| power.to_bits() == 2f32.to_bits()).map(|_| base)?
        }
    };
    // Some exporters write the difference twice.
    (squared == difference || centred(graph, samples, squared, at) == Some(x)).then_some((x, epsilon))
}

/// What a difference takes its mean from.
fn centred(graph: &Graph, samples: &Samples, difference: ValueId, before: usize) -> Option<ValueId> {
    let [x, average] = binary(graph, difference, before, Binary::Sub)?;
    (mean(graph, samples, average, before)? == x).then_some(x)
}

/// What a value is the mean of, over the last axis.
fn mean(graph: &Graph, samples: &Samples, value: ValueId, before: usize) -> Option<ValueId> {
    let node = &graph.nodes[graph.maker(value, before)?];
    let Op::Reduce(Reduce { kind: ReduceKind::Mean, axes, keep: true }) = &node.op else { return None };
    let facts: Option<Facts<'_>> = node.inputs.iter().map(|&input| samples.0[0].get(input)).collect();
    let reduced = infer::reduced_axes(axes, &facts?).ok()?;
    let (last, others) = reduced.split_last()?;
    (*last && !others.contains(&true)).then(|| node.inputs[0])
}
