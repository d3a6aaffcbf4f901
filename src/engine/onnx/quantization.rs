//! Quantized tensors: floats to integers and back, and operators that work on integers, which are imported as their
//! float forms between two conversions. A pass finds the products of bytes in either writing.

use kinglet_kernels::Activation;

use super::Importer;
use super::formula::Formula;
use super::image::conv_of;
use super::integer::{self, Integers};
use super::low_bit;
use super::node::Source;
use super::product::{gemm_of, matmul_of};
use crate::engine::EngineError;
use crate::engine::graph::op::{Arrangement, Axes, Binary, Compare, Reduce, ReduceKind, Unary};
use crate::engine::graph::{Grain, Graph, Op, ValueId, floats, integers, tensor_of};
use crate::tensor::{DType, PerAxis, Shape, Tensor};

pub(super) fn quantize(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (x, scale) = (importer.operand(node, 0)?, importer.operand(node, 1)?);
    let dtype = match node.int("output_dtype", 0)? {
        0 => DType::U8,
        given => node.dtype(given)?,
    };
    let given = importer.optional(node, 2)?;
    let dtype = given.map_or(dtype, |zero| importer.dtype(zero));
    if let Some(of) = Blocks::of(importer, node, scale, given)? {
        return of.quantized(importer, node, x, dtype);
    }
    let zero = given.unwrap_or_else(|| {
        let mut formula = Formula { dtype, name: node.shown(), importer };
        let shape = formula.importer.graph.constant(scale).map_or(Shape::new(&[]), |scale| scale.shape().clone());
        let bytes = vec![0; shape.element_count().unwrap_or(1) * dtype.size().unwrap_or(1)];
        match Tensor::new(dtype, shape, bytes.into()) {
            Ok(zeros) => formula.importer.graph.add_constant(format!("{} zero point", node.shown()), zeros),
            Err(_) => formula.number(0.0),
        }
    });
    Ok(importer.graph.add(&node.shown(), Op::Quantize { axis: node.axis(1)? }, &[x, scale, zero]))
}

/// Scales and zero points of which each is for some elements along an axis, laid out for every element.
struct Blocks {
    scale: ValueId,
    zero: Option<ValueId>,
}

impl Blocks {
    fn of(
        importer: &mut Importer,
        node: &Source<'_>,
        scale: ValueId,
        zero: Option<ValueId>,
    ) -> Result<Option<Self>, EngineError> {
        let (size, axis) = (node.int("block_size", 0)?, node.axis(1)?);
        if size <= 0 {
            return Ok(None);
        }
        let (mut formula, x) = Formula::of(importer, node)?;
        let to = if axis == -1 { None } else { Some(axis + 1) };
        let extent = formula.extents(x, axis, to);
        let scalar = formula.list(&[]);
        let extent = formula.reshape_exactly(extent, scalar);
        let [first, step, size] = [0, 1, size].map(|integer| formula.integer(integer));
        let places = formula.op(Op::Arrange(Arrangement::Range), &[first, extent, step]);
        let blocks = formula.binary(Binary::Div, places, size);
        let mut spread = |of| formula.op(Op::Gather { axis }, &[of, blocks]);
        Ok(Some(Self { scale: spread(scale), zero: zero.map(spread) }))
    }

    fn quantized(
        &self,
        importer: &mut Importer,
        node: &Source<'_>,
        x: ValueId,
        dtype: DType,
    ) -> Result<ValueId, EngineError> {
        let [low, high] = match dtype {
            DType::U8 => [0.0, 255.0],
            DType::I8 => [-128.0, 127.0],
            DType::U16 => [0.0, 65_535.0],
            DType::I16 => [-32_768.0, 32_767.0],
            other => return Err(node.refuse(&format!("{other} is not quantized to"))),
        };
        let mut formula = Formula { dtype: DType::F32, name: node.shown(), importer };
        let part = formula.binary(Binary::Div, x, self.scale);
        let mut whole = formula.unary(Unary::Round, part);
        if let Some(zero) = self.zero {
            let zero = formula.cast(zero, DType::F32);
            whole = formula.binary(Binary::Add, whole, zero);
        }
        let kept = formula.op(Op::Activation(Activation::Clip { low, high }), &[whole]);
        Ok(formula.cast(kept, dtype))
    }

    fn dequantized(&self, importer: &mut Importer, node: &Source<'_>, x: ValueId) -> ValueId {
        let mut formula = Formula { dtype: DType::F32, name: node.shown(), importer };
        let mut whole = formula.cast(x, DType::F32);
        if let Some(zero) = self.zero {
            let zero = formula.cast(zero, DType::F32);
            whole = formula.binary(Binary::Sub, whole, zero);
        }
        formula.binary(Binary::Mul, whole, self.scale)
    }
}

pub(super) fn quantize_dynamically(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    dynamic(importer, node).map(Vec::from)
}

/// Bytes, a scale and a zero point from what the operand has: its least and greatest element, and zero between them.
fn dynamic(importer: &mut Importer, node: &Source<'_>) -> Result<[ValueId; 3], EngineError> {
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
    Ok([bytes, scale, zero_point])
}

pub(super) fn dequantize(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (x, scale) = (importer.operand(node, 0)?, importer.operand(node, 1)?);
    let zero = importer.optional(node, 2)?;
    if let Some(coded) = low_bit::dequantized(importer, node, x, scale, zero)? {
        return Ok(coded);
    }
    if let Some(of) = Blocks::of(importer, node, scale, zero)? {
        return Ok(of.dequantized(importer, node, x));
    }
    let axis = node.axis(1)?;
    meaning(importer, node, Bytes { x, scale, zero }, axis)
}

/// QLinearConv: `x`, `w` and `y` each have a scale and a zero point; the bias has the product of two scales.
pub(super) fn conv(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let x = triple(importer, node, 0)?;
    let w = triple(importer, node, 3)?;
    if importer.graph.constant(w.x).is_none() {
        return computed_conv(importer, node, x, w);
    }
    let bias = importer.optional(node, 8)?.map(|bias| scaled_bias(importer, node, bias, [x.scale, w.scale]));
    let bias = bias.transpose()?;
    let x = meaning(importer, node, x, 1)?;
    let w = meaning(importer, node, w, 0)?;
    let y = conv_of(importer, node, x, w, bias)?;
    requantized(importer, node, y, [6, 7])
}

/// With weights that are computed: sums of integers, scaled once.
fn computed_conv(importer: &mut Importer, node: &Source<'_>, x: Bytes, w: Bytes) -> Result<ValueId, EngineError> {
    let bias = importer.optional(node, 8)?;
    let (to, zero) = (importer.operand(node, 6)?, importer.operand(node, 7)?);
    let integers = |of: Bytes| Integers { x: of.x, zero: of.zero };
    let sums = integer::sums(importer, node, integers(x), integers(w))?;
    let rank = importer.extents(w.x).map_or(0, |extents| extents.len());
    let mut formula = Formula { dtype: DType::F32, name: node.shown(), importer };
    let [sum] = sums[..] else { return Err(node.refuse("its weights are no constant, and its sums are long")) };
    let column: Vec<i64> = std::iter::once(-1).chain(std::iter::repeat_n(1, rank.saturating_sub(2))).collect();
    let column = formula.list(&column);
    let sum = match bias {
        Some(bias) => {
            let bias = formula.cast(bias, DType::F32);
            let bias = formula.reshape(bias, column);
            formula.binary(Binary::Add, sum, bias)
        }
        None => sum,
    };
    let scale = formula.binary(Binary::Mul, x.scale, w.scale);
    let scale = formula.binary(Binary::Div, scale, to);
    let scale = formula.reshape(scale, column);
    let scaled = formula.binary(Binary::Mul, sum, scale);
    let one = formula.number(1.0);
    Ok(formula.op(Op::Quantize { axis: 1 }, &[scaled, one, zero]))
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

/// MatMulIntegerToFloat of ONNX Runtime's own operators.
pub(super) fn matmul_to_floats(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (a, b) = (Bytes::at(importer, node, [0, 2, 4])?, Bytes::at(importer, node, [1, 3, 5])?);
    let bias = importer.optional(node, 6)?;
    Ok(product(importer, node, [a, b], bias))
}

/// DynamicQuantizeMatMul of ONNX Runtime's own operators: floats become bytes before they are multiplied.
pub(super) fn matmul_dynamically(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (b, bias) = (Bytes::at(importer, node, [1, 2, 3])?, importer.optional(node, 4)?);
    let [x, scale, zero] = dynamic(importer, node)?;
    Ok(product(importer, node, [Bytes { x, scale, zero: Some(zero) }, b], bias))
}

/// A product of integers as floats, in the order that the pass finds which makes a layer of it.
pub(super) fn product(
    importer: &mut Importer,
    node: &Source<'_>,
    [a, b]: [Bytes; 2],
    bias: Option<ValueId>,
) -> ValueId {
    let mut formula = Formula::with_name(importer, node);
    let sums = integer::matmul_of(&mut formula, [a, b].map(|of| Integers { x: of.x, zero: of.zero }));
    let sums = formula.cast(sums, DType::F32);
    let scale = formula.binary(Binary::Mul, a.scale, b.scale);
    let y = formula.binary(Binary::Mul, sums, scale);
    bias.map_or(y, |bias| formula.binary(Binary::Add, y, bias))
}

/// Integers and what they mean.
#[derive(Clone, Copy)]
pub(super) struct Bytes {
    pub(super) x: ValueId,
    pub(super) scale: ValueId,
    pub(super) zero: Option<ValueId>,
}

impl Bytes {
    pub(super) fn at(
        importer: &Importer,
        node: &Source<'_>,
        [x, scale, zero]: [usize; 3],
    ) -> Result<Self, EngineError> {
        let zero = importer.optional(node, zero)?;
        Ok(Self { x: importer.operand(node, x)?, scale: importer.operand(node, scale)?, zero })
    }
}

pub(super) fn triple(importer: &Importer, node: &Source<'_>, at: usize) -> Result<Bytes, EngineError> {
    Bytes::at(importer, node, [at, at + 1, at + 2])
}

pub(super) fn requantized(
    importer: &mut Importer,
    node: &Source<'_>,
    y: ValueId,
    [scale, zero]: [usize; 2],
) -> Result<ValueId, EngineError> {
    let (scale, zero) = (importer.operand(node, scale)?, importer.operand(node, zero)?);
    Ok(importer.graph.add(&node.shown(), Op::Quantize { axis: 1 }, &[y, scale, zero]))
}

/// Integers as floats: a constant that remembers what it consists of, or an operator.
pub(super) fn meaning(
    importer: &mut Importer,
    node: &Source<'_>,
    of: Bytes,
    axis: isize,
) -> Result<ValueId, EngineError> {
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
            numbers(zeros).ok_or_else(|| node.refuse("its zero point is no integer of up to 32 bits"))?
        }
    };
    let elements = numbers(tensor).ok_or_else(|| node.refuse("its operand is not of integers of up to 32 bits"))?;
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
    let narrow = |bytes: &[u8]| [bytes[0], bytes[1]];
    let bytes = tensor.bytes();
    match tensor.dtype() {
        DType::U8 => Some(bytes.iter().map(|&byte| byte.into()).collect()),
        DType::I8 => Some(bytes.iter().map(|&byte| byte.cast_signed().into()).collect()),
        DType::U16 => Some(bytes.chunks_exact(2).map(|two| u16::from_le_bytes(narrow(two)).into()).collect()),
        DType::I16 => Some(bytes.chunks_exact(2).map(|two| i16::from_le_bytes(narrow(two)).into()).collect()),
        _ => integers(tensor).map(PerAxis::into_vec),
    }
}
