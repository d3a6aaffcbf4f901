//! The shape that an operator makes of what is known of its inputs, one rule per operator family.
//!
//! Rules give a lower bound where something is unknown, and nothing where they know too little. Whether a size is too
//! large is not known here.

use super::bounds::{Inputs, List, elements, length};
use crate::engine::proto;

/// The shape of a node's first output.
pub(super) fn made(inputs: &Inputs<'_>) -> Option<List> {
    let op_type = inputs.node.op_type.as_str();
    match op_type {
        "ConstantOfShape" => Some(inputs.numbers(0)?.iter().copied().map(at_least_one).collect()),
        "Expand" => {
            let wanted: List = inputs.numbers(1)?.iter().copied().map(at_least_one).collect();
            broadcast(inputs.shape(0).unwrap_or_default(), &wanted)
        }
        "Tile" => zip(inputs.shape(0), inputs.numbers(1)?, |extent, times| extent * at_least_one(times)),
        "Range" => range(inputs),
        "HannWindow" | "HammingWindow" | "BlackmanWindow" => Some(inputs.numbers(0)?.to_vec()),
        "RandomNormal" | "RandomUniform" => inputs.attribute("shape"),
        "Pad" => padded(inputs),
        "Resize" | "Upsample" => resized(inputs),
        "OneHot" => {
            let mut shape = inputs.shape(0).unwrap_or_default().to_vec();
            shape.push(at_least_one(*inputs.numbers(1)?.first()?));
            Some(shape)
        }
        "ConvTranspose" => convolved(inputs, true),
        "Conv" | "MaxPool" | "AveragePool" => convolved(inputs, false),
        "Gather" => gathered(inputs),
        "Concat" => joined(inputs),
        "MatMul" => product(inputs.shape(0)?, inputs.shape(1)?),
        "Reshape" => reshaped(inputs),
        "Transpose" => transposed(inputs),
        _ if ELEMENTWISE.contains(&op_type) => {
            let count = inputs.node.input.len();
            (1..count).try_fold(inputs.shape(0)?.to_vec(), |shape, position| broadcast(&shape, inputs.shape(position)?))
        }
        _ => None,
    }
}

/// The elements of a node's output, where it computes a few numbers from others: extents are often put together.
pub(super) fn numbers(inputs: &Inputs<'_>) -> Option<List> {
    let all = || (0..inputs.node.input.len()).map(|position| inputs.numbers(position));
    let pairs = |combine: fn(f64, f64) -> f64| match (inputs.numbers(0)?, inputs.numbers(1)?) {
        (a, [b]) => Some(a.iter().map(|a| combine(*a, *b)).collect()),
        ([a], b) => Some(b.iter().map(|b| combine(*a, *b)).collect()),
        (a, b) => (a.len() == b.len()).then(|| a.iter().zip(b).map(|(a, b)| combine(*a, *b)).collect()),
    };
    match inputs.node.op_type.as_str() {
        "Identity" | "Cast" | "Squeeze" | "Unsqueeze" | "Reshape" | "Flatten" => Some(inputs.numbers(0)?.to_vec()),
        "Concat" => Some(all().collect::<Option<Vec<_>>>()?.concat()),
        "Add" => pairs(|a, b| a + b),
        "Sub" => pairs(|a, b| a - b),
        "Mul" => pairs(|a, b| a * b),
        "Pow" => pairs(f64::powf),
        "Neg" => Some(inputs.numbers(0)?.iter().map(|number| -number).collect()),
        _ => None,
    }
}

fn range(inputs: &Inputs<'_>) -> Option<List> {
    let scalar = |position| inputs.numbers(position)?.first().copied();
    let count = ((scalar(1)? - scalar(0)?) / scalar(2)?).ceil();
    // A step of zero never gets there.
    Some(vec![if count.is_nan() { f64::INFINITY } else { count.max(0.0) }])
}

/// Pads are the begins of all axes and then their ends; a fourth input names the axes they are of.
fn padded(inputs: &Inputs<'_>) -> Option<List> {
    let pads = inputs.numbers(1).map(<[f64]>::to_vec).or_else(|| inputs.attribute("pads"))?;
    let (begins, ends) = pads.split_at(pads.len() / 2);
    let sums: List = begins.iter().zip(ends).map(|(begin, end)| begin + end).collect();
    let named = inputs.node.input.get(3).is_some_and(|axes| !axes.is_empty());
    let shape = inputs.shape(0).filter(|_| !named);
    zip(shape, &sums, |extent, added| (extent + added).max(0.0))
}

/// Scales stand second in the oldest form, then third, sizes fourth.
fn resized(inputs: &Inputs<'_>) -> Option<List> {
    if let Some(sizes) = inputs.numbers(3).filter(|sizes| !sizes.is_empty()) {
        return Some(sizes.iter().copied().map(at_least_one).collect());
    }
    let given = |position| inputs.numbers(position).filter(|scales| !scales.is_empty());
    let position = if inputs.node.input.len() > 2 { 2 } else { 1 };
    let attribute = || proto::attribute(inputs.node, "scales").map(|a| a.floats.iter().map(|&s| s.into()).collect());
    let scales: List = given(position).map(<[f64]>::to_vec).or_else(attribute)?;
    zip(inputs.shape(0), &scales, |extent, scale| (extent * scale).floor().max(0.0))
}

/// Convolutions and pools: the input's extents behind the first two axes, grown by pads, dilations and strides.
fn convolved(inputs: &Inputs<'_>, is_transposed: bool) -> Option<List> {
    let input = inputs.shape(0);
    let weights = inputs.shape(1).filter(|_| inputs.node.op_type.starts_with("Conv"));
    let list = |name: &str| inputs.attribute(name).unwrap_or_default();
    let [kernel, strides, dilations, pads, added, given] =
        ["kernel_shape", "strides", "dilations", "pads", "output_padding", "output_shape"].map(list);
    let known = [input.map_or(0, |shape| shape.len().saturating_sub(2)), strides.len(), pads.len() / 2, added.len()];
    let spatial = known.into_iter().chain([given.len(), kernel.len()]).max()?;
    let at = |list: &List, axis: usize, otherwise: f64| list.get(axis).copied().unwrap_or(otherwise);
    let group = float_or(inputs, "group");
    let channels = match weights {
        Some([_, each, ..]) if is_transposed => each * group,
        Some([all, ..]) => *all,
        _ => input.and_then(|shape| shape.get(1)).copied().unwrap_or(1.0),
    };
    let mut shape = vec![input.and_then(|shape| shape.first()).copied().unwrap_or(1.0), channels];
    for axis in 0..spatial {
        let extent = input.and_then(|shape| shape.get(axis + 2)).copied().unwrap_or(1.0);
        let width = weights.and_then(|shape| shape.get(axis + 2)).copied().unwrap_or_else(|| at(&kernel, axis, 1.0));
        let reach = (width - 1.0) * at(&dilations, axis, 1.0) + 1.0;
        let stride = at(&strides, axis, 1.0).max(1.0);
        let pad = at(&pads, axis, 0.0) + at(&pads, axis + pads.len() / 2, 0.0);
        let made = match given.get(axis) {
            Some(given) => *given,
            None if is_transposed => (extent - 1.0) * stride + reach + at(&added, axis, 0.0) - pad,
            None => ((extent + pad - reach) / stride).floor() + 1.0,
        };
        shape.push(made.max(1.0));
    }
    Some(shape)
}

fn gathered(inputs: &Inputs<'_>) -> Option<List> {
    let (shape, indices) = (inputs.shape(0)?, inputs.shape(1)?);
    let axis = axis(proto::int_or(inputs.node, "axis", 0), shape.len())?;
    Some([&shape[..axis], indices, &shape[axis + 1..]].concat())
}

fn joined(inputs: &Inputs<'_>) -> Option<List> {
    let mut shape = inputs.shape(0)?.to_vec();
    let axis = axis(proto::int_or(inputs.node, "axis", 0), shape.len())?;
    for position in 1..inputs.node.input.len() {
        shape[axis] += inputs.shape(position)?.get(axis)?;
    }
    Some(shape)
}

fn product(left: &[f64], right: &[f64]) -> Option<List> {
    let (batch, [rows, _]) = left.split_last_chunk::<2>()?;
    let (other, [_, columns]) = right.split_last_chunk::<2>()?;
    let mut shape = broadcast(batch, other)?;
    shape.extend([rows, columns]);
    Some(shape)
}

/// A -1 takes what the others leave, a 0 the extent that was there.
fn reshaped(inputs: &Inputs<'_>) -> Option<List> {
    let (shape, wanted) = (inputs.shape(0)?, inputs.numbers(1)?);
    let kept = |(axis, &extent): (usize, &f64)| if extent == 0.0 { shape.get(axis).copied() } else { Some(extent) };
    let mut made: List = wanted.iter().enumerate().map(kept).collect::<Option<_>>()?;
    let known: f64 = made.iter().filter(|extent| **extent > 0.0).product();
    if let Some(rest) = made.iter_mut().find(|extent| **extent < 0.0) {
        *rest = (elements(shape) / known).floor();
    }
    // With free axes the rest is a guess, and not always a low one.
    (elements(&made) <= elements(shape)).then_some(made)
}

fn transposed(inputs: &Inputs<'_>) -> Option<List> {
    let shape = inputs.shape(0)?;
    match proto::attribute(inputs.node, "perm") {
        None => Some(shape.iter().rev().copied().collect()),
        Some(order) => order.ints.iter().map(|&from| shape.get(usize::try_from(from).ok()?).copied()).collect(),
    }
}

/// The shape two tensors have together, or nothing where they do not fit.
fn broadcast(left: &[f64], right: &[f64]) -> Option<List> {
    let rank = left.len().max(right.len());
    let at = |shape: &[f64], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1.0, |axis| shape[axis]);
    let extent = |axis| match (at(left, axis), at(right, axis)) {
        (left, right) if left == right || right == 1.0 => Some(left),
        (left, right) => (left == 1.0).then_some(right),
    };
    (0..rank).map(extent).collect()
}

/// Combines an axis' extent, or 1 where the shape is not known, with its number.
fn zip(shape: Option<&[f64]>, numbers: &[f64], combine: impl Fn(f64, f64) -> f64) -> Option<List> {
    match shape {
        None => Some(numbers.iter().map(|number| combine(1.0, *number)).collect()),
        Some(shape) if length(shape) == length(numbers) => {
            Some(shape.iter().zip(numbers).map(|(extent, number)| combine(*extent, *number)).collect())
        }
        Some(_) => None,
    }
}

fn axis(axis: i64, rank: usize) -> Option<usize> {
    let counted = if axis < 0 { axis.checked_add(i64::try_from(rank).ok()?)? } else { axis };
    usize::try_from(counted).ok().filter(|axis| *axis < rank)
}

#[expect(clippy::cast_precision_loss, reason = "beyond 2^53 every limit is passed")]
fn float_or(inputs: &Inputs<'_>, name: &str) -> f64 {
    proto::int_or(inputs.node, name, 1) as f64
}

/// Extents that make no sense are for tract to refuse; a negative one would be an immense one to it.
fn at_least_one(extent: f64) -> f64 {
    extent.abs().max(1.0)
}

/// Operators whose output has the shape its inputs have together.
const ELEMENTWISE: [&str; 40] = [
    "Abs",
    "Add",
    "And",
    "Cast",
    "Ceil",
    "Clip",
    "Cos",
    "Div",
    "Dropout",
    "Equal",
    "Erf",
    "Exp",
    "Floor",
    "Greater",
    "GreaterOrEqual",
    "Identity",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Pow",
    "Reciprocal",
    "Relu",
    "Round",
    "Sigmoid",
    "Sin",
    "Sqrt",
    "Sub",
    "Sum",
    "Tanh",
    "Where",
    "Xor",
];
