//! Functions of elements, and reductions.

use kinglet_kernels::Activation;
use kinglet_kernels::f32_functions::Function;

use super::Importer;
use super::formula::Formula;
use super::node::Source;
use crate::engine::EngineError;
use crate::engine::graph::op::{Binary, Compare, ReduceKind, Unary};
use crate::engine::graph::{Op, ValueId, floats};
use crate::tensor::DType;

pub(super) fn unary(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let unary = match node.proto.op_type.as_str() {
        "Neg" => Unary::Neg,
        "Abs" => Unary::Abs,
        "Log" => Unary::Log,
        "Sqrt" => Unary::Sqrt,
        "Reciprocal" => Unary::Reciprocal,
        "Floor" => Unary::Floor,
        "Ceil" => Unary::Ceil,
        "Softplus" => Unary::Softplus,
        "Sign" => Unary::Sign,
        "Round" => Unary::Round,
        "Sin" => Unary::Sin,
        "Cos" => Unary::Cos,
        "Tan" => Unary::Tan,
        "Asin" => Unary::Asin,
        "Acos" => Unary::Acos,
        "Atan" => Unary::Atan,
        "Sinh" => Unary::Sinh,
        "Cosh" => Unary::Cosh,
        "Asinh" => Unary::Asinh,
        "Acosh" => Unary::Acosh,
        "BitwiseNot" => Unary::BitNot,
        _ => Unary::Atanh,
    };
    one(importer, node, Op::Unary(unary))
}

/// Functions that there are kernels for.
pub(super) fn function(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let function = match node.proto.op_type.as_str() {
        "Exp" => Function::Exp,
        "Tanh" => Function::Tanh,
        "Erf" => Function::Erf,
        _ => Function::Sigmoid,
    };
    one(importer, node, Op::Activation(Activation::Function(function)))
}

/// Min and Max of any number of operands are chains of two.
pub(super) fn binary(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let binary = match node.proto.op_type.as_str() {
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Min" => Binary::Min,
        "BitwiseAnd" => Binary::BitAnd,
        "BitwiseOr" => Binary::BitOr,
        "BitwiseXor" => Binary::BitXor,
        _ => Binary::Max,
    };
    if let Some(affine) = along_axis(importer, node, binary)? {
        return Ok(affine);
    }
    let operands = importer.operands(node)?;
    let (&first, others) = operands.split_first().ok_or_else(|| node.invalid("it has no operands"))?;
    let chain = |chain, &other: &ValueId| importer.graph.add(&node.shown(), Op::Binary(binary), &[chain, other]);
    Ok(others.iter().fold(first, chain))
}

/// Up to opset 6 the second operand may lie along an axis that is named, and those behind it. Where the first one's rank is
/// not known, sums and products with an element for each place of one axis are a scale and a shift.
fn along_axis(importer: &mut Importer, node: &Source<'_>, binary: Binary) -> Result<Option<ValueId>, EngineError> {
    let is_named =
        importer.versions.get("") == Some(&6) && crate::engine::proto::attribute(node.proto, "axis").is_some();
    let given = if is_named { node.axis(0)? } else { return Ok(None) };
    let refused = || node.refuse("its operands are broadcast along a named axis");
    let other = importer.operand(node, 1)?;
    let rank = importer.extents(other).ok_or_else(refused)?.len();
    let (mut formula, x) = Formula::of(importer, node)?;
    if let Some(extents) = formula.importer.extents(x) {
        let axis = if given < 0 { extents.len().checked_add_signed(given) } else { usize::try_from(given).ok() };
        let behind = axis.and_then(|axis| extents.len().checked_sub(axis + rank));
        let behind = behind.ok_or_else(|| node.invalid(&format!("axis {given} is none of its operand's")))?;
        let axes: Vec<i64> = (rank..rank + behind).filter_map(|axis| i64::try_from(axis).ok()).collect();
        let other = formula.unsqueeze(other, &axes);
        return Ok(Some(formula.binary(binary, x, other)));
    }
    let (Ok(axis), 1, DType::F32) = (usize::try_from(given), rank, formula.dtype) else { return Err(refused()) };
    let zeros = formula.with(Binary::Mul, other, 0.0);
    let ones = formula.with(Binary::Add, zeros, 1.0);
    let operands = match binary {
        Binary::Add => [x, ones, other],
        Binary::Mul => [x, other, zeros],
        Binary::Sub => [x, ones, formula.with(Binary::Mul, other, -1.0)],
        _ => return Err(refused()),
    };
    Ok(Some(formula.op(Op::Affine { axis }, &operands)))
}

/// Of integers with the divisor's sign, unless it is told to be the remainder that C has.
pub(super) fn modulo(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let binary = if node.int("fmod", 0)? == 0 { Binary::Modulo } else { Binary::Remainder };
    two(importer, node, Op::Binary(binary))
}

pub(super) fn shift(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let binary = match node.text("direction")?.as_deref() {
        Some("LEFT") => Binary::ShiftLeft,
        Some("RIGHT") => Binary::ShiftRight,
        other => return Err(node.invalid(&format!("direction {other:?} is neither \"LEFT\" nor \"RIGHT\""))),
    };
    two(importer, node, Op::Binary(binary))
}

pub(super) fn compare(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let compare = match node.proto.op_type.as_str() {
        "Equal" => Compare::Equal,
        "Less" => Compare::Less,
        "LessOrEqual" => Compare::LessOrEqual,
        "Greater" => Compare::Greater,
        "GreaterOrEqual" => Compare::GreaterOrEqual,
        "And" => Compare::And,
        _ => Compare::Or,
    };
    importer.expect_trailing(node)?;
    two(importer, node, Op::Compare(compare))
}

pub(super) fn not(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    one(importer, node, Op::Not)
}

pub(super) fn choose(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?, importer.operand(node, 2)?];
    Ok(importer.graph.add(&node.shown(), Op::Where, &operands))
}

pub(super) fn relu(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (mut formula, x) = Formula::of(importer, node)?;
    Ok(match formula.dtype {
        DType::F32 | DType::F64 => formula.op(Op::Activation(Activation::RELU), &[x]),
        _ => formula.with(Binary::Max, x, 0.0),
    })
}

pub(super) fn leaky_relu(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let slope = node.float("alpha", 0.01)?;
    one(importer, node, Op::Activation(Activation::LeakyRelu { slope }))
}

pub(super) fn hard_sigmoid(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (alpha, beta) = (node.float("alpha", 0.2)?, node.float("beta", 0.5)?);
    one(importer, node, Op::Activation(Activation::HardSigmoid { alpha, beta }))
}

pub(super) fn hard_swish(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    one(importer, node, Op::Activation(Activation::HardSwish))
}

/// A power of the base's type, whatever that of the exponent.
pub(super) fn power(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    importer.expect_trailing(node)?;
    let (base, exponent) = (importer.operand(node, 0)?, importer.operand(node, 1)?);
    let [to, from] = [base, exponent].map(|value| importer.dtype(value));
    let mut formula = Formula { dtype: to, name: node.shown(), importer };
    // An integer to the power of a float is computed in floats.
    let is_float = |dtype| matches!(dtype, DType::F32 | DType::F64);
    let within = if is_float(from) && !is_float(to) { DType::F64 } else { to };
    let [base, exponent] = [base, exponent].map(|operand| formula.cast(operand, within));
    let power = formula.binary(Binary::Pow, base, exponent);
    Ok(formula.cast(power, to))
}

/// Bounds are attributes up to opset 10, operands from 11 on: numbers that a kernel may keep results within, or computed
/// ones, and those of other types.
pub(super) fn clip(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let x = importer.operand(node, 0)?;
    let bounds = [importer.optional(node, 1)?, importer.optional(node, 2)?];
    let is_float = importer.dtype(x) == DType::F32;
    let is_number = |bound: &ValueId| importer.graph.constant(*bound).and_then(floats).is_some();
    if bounds == [None, None] && !is_float {
        return Ok(x);
    }
    if !is_float || !bounds.iter().flatten().all(is_number) {
        let binaries = [Binary::Max, Binary::Min].into_iter().zip(bounds);
        let kept = |x, (binary, bound): (Binary, Option<ValueId>)| match bound {
            Some(bound) => importer.graph.add(&node.shown(), Op::Binary(binary), &[x, bound]),
            None => x,
        };
        return Ok(binaries.fold(x, kept));
    }
    let bound = |name: &str, at: usize, default: f32| match importer.optional(node, at)? {
        None => node.float(name, default),
        Some(value) => {
            let constant = importer.graph.constant(value).and_then(floats);
            constant
                .and_then(|bound| bound.first().copied())
                .ok_or_else(|| node.refuse("its bounds are no constants of FP32"))
        }
    };
    let (low, high) = (bound("min", 1, f32::NEG_INFINITY)?, bound("max", 2, f32::INFINITY)?);
    one(importer, node, Op::Activation(Activation::Clip { low, high }))
}

pub(super) fn softmax(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let axis = node.axis(-1)?;
    let (mut formula, x) = Formula::of(importer, node)?;
    Ok(formula.softmax(x, axis, is_log(node)))
}

/// Up to opset 12 all axes from the given one on are one.
pub(super) fn softmax_of_two_axes(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (x, axis) = (importer.operand(node, 0)?, node.axis(1)?);
    Ok(softmax_from(importer, node, x, axis))
}

/// Along this axis and all behind it as one.
pub(super) fn softmax_from(importer: &mut Importer, node: &Source<'_>, x: ValueId, axis: isize) -> ValueId {
    let dtype = importer.dtype(x);
    let mut formula = Formula { dtype, name: node.shown(), importer };
    let last = formula.importer.extents(x).and_then(|extents| isize::try_from(extents.len()).ok()).map(|rank| rank - 1);
    if axis == -1 || Some(axis) == last {
        return formula.softmax(x, -1, is_log(node));
    }
    let shape = formula.extents(x, 0, None);
    let flat = formula.op(Op::Flatten { axis }, &[x]);
    let softmax = formula.softmax(flat, -1, is_log(node));
    formula.reshape_exactly(softmax, shape)
}

/// Axes are an attribute of older versions, an operand of newer ones.
pub(super) fn reduce(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let kind = match node.proto.op_type.as_str() {
        "ReduceSum" => ReduceKind::Sum,
        "ReduceMean" => ReduceKind::Mean,
        "ReduceMax" => ReduceKind::Max,
        "ReduceMin" => ReduceKind::Min,
        _ => ReduceKind::Prod,
    };
    let Some(along) = importer.axes(node)? else { return importer.operand(node, 0) };
    let keep = node.int("keepdims", 1)? != 0;
    let (mut formula, x) = Formula::of(importer, node)?;
    Ok(formula.reduce(kind, &along, keep, x))
}

fn two(importer: &mut Importer, node: &Source<'_>, op: Op) -> Result<ValueId, EngineError> {
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?];
    Ok(importer.graph.add(&node.shown(), op, &operands))
}

fn is_log(node: &Source<'_>) -> bool {
    node.proto.op_type == "LogSoftmax"
}

fn one(importer: &mut Importer, node: &Source<'_>, op: Op) -> Result<ValueId, EngineError> {
    let x = importer.operand(node, 0)?;
    Ok(importer.graph.add(&node.shown(), op, &[x]))
}
