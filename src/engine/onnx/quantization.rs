//! Quantized tensors: floats to integers and back, and operators that work on integers, which are imported as their
//! float forms between two conversions. A pass finds the products of bytes in either writing.

use kinglet_kernels::Activation;

use super::Importer;
use super::image::conv_of;
use super::node::Source;
use super::product::{gemm_of, matmul_of};
use crate::engine::EngineError;
use crate::engine::graph::op::{Axes, Binary, Compare, Reduce, ReduceKind, Unary};
use crate::engine::graph::{Grain, Graph, Op, ValueId, floats, integers, tensor_of};
use crate::tensor::{DType, Shape, Tensor};

pub(super) fn quantize(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (x, scale) = (importer.operand(node, 0)?, importer.operand(node, 1)?);
    let axis = axis(node)?;
    let zero = match importer.optional(node, 2)? {
        Some(zero) => zero,
        None => {
            let dtype = match node.int("output_dtype", 0)? {
                0 => DType::U8,
                given => i32::try_from(given)
                    .ok()
                    .and_then(super::dtype)
                    .ok_or_else(|| node.refuse(&format!("type {given} is none that is computed with")))?,
            };
            let shape = importer.graph.constant(scale).map_or(Shape::new(&[]), |scale| scale.shape().clone());
            let bytes = vec![0; shape.element_count().unwrap_or(1) * dtype.size().unwrap_or(1)];
            let zeros = Tensor::new(dtype, shape, bytes.into()).map_err(|error| node.invalid(&error.to_string()))?;
            importer.graph.add_constant(format!("{} zero point", node.shown()), zeros)
        }
    };
    Ok(importer.graph.add(&node.shown(), Op::Quantize { axis }, &[x, scale, zero]))
}

/// A scale and a zero point from what the operand has: its least and greatest element, and zero between them.
pub(super) fn quantize_dynamically(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    let (x, name) = (importer.operand(node, 0)?, node.shown());
    let graph = &mut importer.graph;
    let make = |graph: &mut Graph, number: f32| graph.add_constant(format!("{name} number"), tensor_of(&[], &[number]));
    let [zero, one, steps] = [0.0, 1.0, 255.0].map(|value| make(graph, value));
    let extreme = |graph: &mut Graph, kind, binary| {
        let reduced = graph.add(&name, Op::Reduce(Reduce { kind, axes: Axes::From(0), keep: false }), &[x]);
        graph.add(&name, Op::Binary(binary), &[reduced, zero])
    };
    let high = extreme(graph, ReduceKind::Max, Binary::Max);
    let low = extreme(graph, ReduceKind::Min, Binary::Min);
    let mut add = |op, operands: &[ValueId]| graph.add(&name, op, operands);
    let range = add(Op::Binary(Binary::Sub), &[high, low]);
    let step = add(Op::Binary(Binary::Div), &[range, steps]);
    // Of nothing but zeros any scale is right.
    let empty = add(Op::Compare(Compare::Equal), &[step, zero]);
    let scale = add(Op::Where, &[empty, one, step]);
    let below = add(Op::Binary(Binary::Sub), &[zero, low]);
    let place = add(Op::Binary(Binary::Div), &[below, scale]);
    let place = add(Op::Unary(Unary::Round), &[place]);
    let place = add(Op::Activation(Activation::Clip { low: 0.0, high: 255.0 }), &[place]);
    let zero_point = add(Op::Cast { to: DType::U8 }, &[place]);
    let bytes = add(Op::Quantize { axis: 1 }, &[x, scale, zero_point]);
    Ok(vec![bytes, scale, zero_point])
}

pub(super) fn dequantize(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (x, scale) = (importer.operand(node, 0)?, importer.operand(node, 1)?);
    let zero = importer.optional(node, 2)?;
    let axis = axis(node)?;
    meaning(importer, node, Bytes { x, scale, zero }, axis)
}

/// QLinearConv: `x`, `w` and `y` each have a scale and a zero point; the bias has the product of two scales.
pub(super) fn conv(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let x = triple(importer, node, 0)?;
    let w = triple(importer, node, 3)?;
    let bias = importer.optional(node, 8)?.map(|bias| scaled_bias(importer, node, bias, [x.scale, w.scale]));
    let bias = bias.transpose()?;
    let x = meaning(importer, node, x, 1)?;
    let w = meaning(importer, node, w, 0)?;
    let y = conv_of(importer, node, x, w, bias)?;
    requantized(importer, node, y, [6, 7])
}

pub(super) fn matmul(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (a, b) = (triple(importer, node, 0)?, triple(importer, node, 3)?);
    let a = meaning(importer, node, a, -2)?;
    let b = meaning(importer, node, b, -1)?;
    let y = matmul_of(importer, node, a, b);
    requantized(importer, node, y, [6, 7])
}

/// QGemm of ONNX Runtime's own operators: floats where it has no scale for its output.
pub(super) fn gemm(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    if node.int("transA", 0)? != 0 {
        return Err(node.refuse("its left side is transposed"));
    }
    let (a, b) = (triple(importer, node, 0)?, triple(importer, node, 3)?);
    let bias = importer.optional(node, 6)?.map(|bias| scaled_bias(importer, node, bias, [a.scale, b.scale]));
    let bias = bias.transpose()?;
    let a = meaning(importer, node, a, 1)?;
    let columns = if node.int("transB", 0)? != 0 { 0 } else { 1 };
    let b = meaning(importer, node, b, columns)?;
    let y = gemm_of(importer, node, a, b, bias)?;
    if importer.optional(node, 7)?.is_none() {
        return Ok(y);
    }
    requantized(importer, node, y, [7, 8])
}

/// Integers and what they mean.
#[derive(Clone, Copy)]
struct Bytes {
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
}

fn triple(importer: &Importer, node: &Source<'_>, at: usize) -> Result<Bytes, EngineError> {
    let zero = importer.optional(node, at + 2)?;
    Ok(Bytes { x: importer.operand(node, at)?, scale: importer.operand(node, at + 1)?, zero })
}

fn requantized(
    importer: &mut Importer,
    node: &Source<'_>,
    y: ValueId,
    [scale, zero]: [usize; 2],
) -> Result<ValueId, EngineError> {
    let (scale, zero) = (importer.operand(node, scale)?, importer.operand(node, zero)?);
    Ok(importer.graph.add(&node.shown(), Op::Quantize { axis: 1 }, &[y, scale, zero]))
}

/// Integers as floats: a constant that remembers what it consists of, or an operator.
fn meaning(importer: &mut Importer, node: &Source<'_>, of: Bytes, axis: isize) -> Result<ValueId, EngineError> {
    let Bytes { x, scale, zero } = of;
    let constant = |value: ValueId| importer.graph.constant(value);
    let (Some(tensor), Some(scales)) = (constant(x), constant(scale).and_then(floats)) else {
        let operands: Vec<ValueId> = [x, scale].into_iter().chain(zero).collect();
        return Ok(importer.graph.add(&node.shown(), Op::Dequantize { axis }, &operands));
    };
    let shape = tensor.shape().clone();
    let rank = isize::try_from(shape.len()).unwrap_or(isize::MAX);
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).unwrap_or(usize::MAX);
    let zeros = match zero {
        None => vec![0; scales.len()],
        Some(zero) => {
            let zeros = constant(zero).ok_or_else(|| node.refuse("its zero point is no constant"))?;
            numbers(zeros).ok_or_else(|| node.refuse("its zero point is no integer of 8 or 32 bits"))?
        }
    };
    let elements = numbers(tensor).ok_or_else(|| node.refuse("its operand is not of integers of 8 or 32 bits"))?;
    let fits = scales.len() == 1 || shape.get(axis) == Some(&scales.len());
    // Some writers give one zero point for many scales.
    if !fits || (zeros.len() != scales.len() && zeros.len() != 1) {
        return Err(node.invalid(&format!(
            "{} scales and {} zero points do not fit axis {axis} of shape {shape}",
            scales.len(),
            zeros.len()
        )));
    }
    let inner: usize = if scales.len() == 1 { 1 } else { shape[axis + 1..].iter().product() };
    let place = |at: usize| at / inner.max(1) % scales.len();
    let mean = |(at, element): (usize, &i64)| {
        let zero = if zeros.len() == 1 { zeros[0] } else { zeros[place(at)] };
        (element - zero) as f32 * scales[place(at)]
    };
    let meant: Vec<f32> = elements.iter().enumerate().map(mean).collect();
    Ok(importer.graph.add_grained(node.shown(), tensor_of(&shape, &meant), Some(Grain { axis, scales })))
}

/// A bias in units of the product of two scales.
fn scaled_bias(
    importer: &mut Importer,
    node: &Source<'_>,
    bias: ValueId,
    scales: [ValueId; 2],
) -> Result<ValueId, EngineError> {
    let constant = |value: ValueId| importer.graph.constant(value);
    let refused = || node.refuse("its bias or a scale is no constant");
    let elements = constant(bias).and_then(integers).ok_or_else(refused)?;
    let [x, w] = scales.map(|scale| constant(scale).and_then(floats));
    let (x, w) = (x.ok_or_else(refused)?, w.ok_or_else(refused)?);
    if x.len() != 1 || (w.len() != 1 && w.len() != elements.len()) {
        return Err(node.invalid("its bias has not an element for each scale of the weights"));
    }
    let meant = |(at, element): (usize, &i64)| *element as f32 * (x[0] * w[if w.len() == 1 { 0 } else { at }]);
    let meant: Vec<f32> = elements.iter().enumerate().map(meant).collect();
    Ok(importer.graph.add_constant(format!("{} bias", node.shown()), tensor_of(&[meant.len()], &meant)))
}

/// Elements of a constant of integers.
fn numbers(tensor: &Tensor) -> Option<Vec<i64>> {
    match tensor.dtype() {
        DType::U8 => Some(tensor.bytes().iter().map(|&byte| byte.into()).collect()),
        DType::I8 => Some(tensor.bytes().iter().map(|&byte| byte.cast_signed().into()).collect()),
        _ => integers(tensor),
    }
}

fn axis(node: &Source<'_>) -> Result<isize, EngineError> {
    if node.int("block_size", 0)? != 0 {
        return Err(node.refuse("its scales are for blocks"));
    }
    node.axis(1)
}
