//! Operators that are written with others.

use kinglet_kernels::Activation;
use kinglet_kernels::f32_functions::Function;

use super::Importer;
use super::formula::Formula;
use super::node::{Along, Source};
use crate::engine::EngineError;
use crate::engine::graph::op::{Binary, Compare, ReduceKind, Unary};
use crate::engine::graph::{Op, ValueId};
use crate::tensor::DType;

/// Sum and Mean of any number of operands.
pub(super) fn sum(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let operands = importer.operands(node)?;
    let (mut formula, first) = Formula::of(importer, node)?;
    let sum = operands[1..].iter().fold(first, |sum, &other| formula.binary(Binary::Add, sum, other));
    Ok(match node.proto.op_type.as_str() {
        "Mean" => formula.with(Binary::Div, sum, operands.len() as f64),
        _ => sum,
    })
}

pub(super) fn elu(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (mut formula, x) = Formula::of(importer, node)?;
    let below = formula.exponential_less_one(x, node.float("alpha", 1.0)?);
    Ok(formula.choose(x, Compare::Less, 0.0, [below, x]))
}

pub(super) fn selu(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (alpha, gamma) = (node.float("alpha", 1.673_263_2)?, node.float("gamma", 1.050_701)?);
    let (mut formula, x) = Formula::of(importer, node)?;
    let below = formula.exponential_less_one(x, alpha);
    let either = formula.choose(x, Compare::Less, 0.0, [below, x]);
    Ok(formula.with(Binary::Mul, either, gamma))
}

pub(super) fn celu(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let alpha = node.float("alpha", 1.0)?;
    let (mut formula, x) = Formula::of(importer, node)?;
    let part = formula.with(Binary::Div, x, alpha);
    let below = formula.exponential_less_one(part, alpha);
    Ok(formula.choose(x, Compare::Less, 0.0, [below, x]))
}

pub(super) fn thresholded_relu(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (mut formula, x) = Formula::of(importer, node)?;
    let zero = formula.number(0.0);
    Ok(formula.choose(x, Compare::Greater, node.float("alpha", 1.0)?, [x, zero]))
}

pub(super) fn shrink(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (bound, bias) = (node.float("lambd", 0.5)?, node.float("bias", 0.0)?);
    let (mut formula, x) = Formula::of(importer, node)?;
    let is_whole = bound.fract() == 0.0 && bias.fract() == 0.0;
    if !matches!(formula.dtype, DType::F32 | DType::F64) && !is_whole {
        return Err(node.refuse("it takes a part of one from integers"));
    }
    let (raised, lowered) = (formula.with(Binary::Add, x, bias), formula.with(Binary::Sub, x, bias));
    let zero = formula.number(0.0);
    let above = formula.choose(x, Compare::Greater, bound, [lowered, zero]);
    Ok(formula.choose(x, Compare::Less, -bound, [raised, above]))
}

pub(super) fn softsign(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (mut formula, x) = Formula::of(importer, node)?;
    let size = formula.unary(Unary::Abs, x);
    let size = formula.with(Binary::Add, size, 1.0);
    Ok(formula.binary(Binary::Div, x, size))
}

pub(super) fn mish(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (mut formula, x) = Formula::of(importer, node)?;
    let soft = formula.unary(Unary::Softplus, x);
    let tanh = formula.function(Function::Tanh, soft);
    Ok(formula.binary(Binary::Mul, x, tanh))
}

pub(super) fn gelu(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let function = match node.text("approximate")?.as_deref().unwrap_or("none") {
        "none" => Function::Gelu,
        "tanh" => Function::GeluTanh,
        other => return Err(node.invalid(&format!("approximate {other:?} is neither \"none\" nor \"tanh\""))),
    };
    let (mut formula, x) = Formula::of(importer, node)?;
    Ok(formula.function(function, x))
}

/// All axes from the given one on are normalised as one. Mean and inverse deviation are computed where they are asked for.
pub(super) fn layer_normalization(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    let (axis, epsilon) = (node.axis(-1)?, node.float("epsilon", 1e-5)?);
    let (scale, shift) = (importer.operand(node, 1)?, importer.optional(node, 2)?);
    let asked = node.has_output(1) || node.has_output(2);
    let (mut formula, x) = Formula::of(importer, node)?;
    let shift = shift.unwrap_or_else(|| formula.with(Binary::Mul, scale, 0.0));
    if axis == -1 && !asked {
        return Ok(vec![formula.normalized([x, scale, shift], epsilon)]);
    }
    let shape = formula.op(Op::Shape { from: 0, to: None }, &[x]);
    let rows = formula.op(Op::Flatten { axis }, &[x]);
    let all = formula.importer.list_of(&formula.name, &[-1]);
    let factors = [scale, shift].map(|factor| formula.op(Op::Reshape { allow_zero: false }, &[factor, all]));
    let normalized = formula.normalized([rows, factors[0], factors[1]], epsilon);
    let mut outputs = vec![formula.op(Op::Reshape { allow_zero: true }, &[normalized, shape])];
    if asked {
        let from = formula.op(Op::Shape { from: 0, to: Some(axis) }, &[x]);
        let behind = formula.op(Op::Shape { from: axis, to: None }, &[x]);
        let zero = formula.importer.list_of(&formula.name, &[0]);
        let one = formula.importer.list_of(&formula.name, &[1]);
        let nothing = formula.op(Op::Binary(Binary::Mul), &[behind, zero]);
        let ones = formula.op(Op::Binary(Binary::Add), &[nothing, one]);
        let kept = formula.op(Op::Concat { axis: 0 }, &[from, ones]);
        let [mean, _, variance] = formula.centred(rows, &Along::given(&[-1]));
        let raised = formula.with(Binary::Add, variance, epsilon);
        let deviation = formula.unary(Unary::Sqrt, raised);
        let inverse = formula.unary(Unary::Reciprocal, deviation);
        outputs.extend([mean, inverse].map(|one| formula.op(Op::Reshape { allow_zero: true }, &[one, kept])));
    }
    Ok(outputs)
}

/// Reductions of functions of the operand, or whose result is one of them.
pub(super) fn reduce(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let axes = importer.axes(node)?;
    let keep = node.int("keepdims", 1)? != 0;
    let (mut formula, x) = Formula::of(importer, node)?;
    let Some(along) = axes else {
        return Err(node.refuse("it reduces no axis"));
    };
    let kind = node.proto.op_type.as_str();
    Ok(match kind {
        "ReduceL1" => {
            let size = formula.unary(Unary::Abs, x);
            formula.reduce(ReduceKind::Sum, &along, keep, size)
        }
        "ReduceL2" | "ReduceSumSquare" => {
            let square = formula.binary(Binary::Mul, x, x);
            let sum = formula.reduce(ReduceKind::Sum, &along, keep, square);
            if kind == "ReduceL2" { formula.unary(Unary::Sqrt, sum) } else { sum }
        }
        "ReduceLogSum" => {
            let sum = formula.reduce(ReduceKind::Sum, &along, keep, x);
            formula.unary(Unary::Log, sum)
        }
        // Powers are of what is not above the greatest element, which is kept finite so that the difference is a number.
        _ => {
            let greatest = formula.reduce(ReduceKind::Max, &along, true, x);
            let greatest = finite(&mut formula, greatest);
            let below = formula.binary(Binary::Sub, x, greatest);
            let power = formula.function(Function::Exp, below);
            let sum = formula.reduce(ReduceKind::Sum, &along, keep, power);
            let log = formula.unary(Unary::Log, sum);
            let greatest = formula.reduce(ReduceKind::Max, &along, keep, x);
            let greatest = finite(&mut formula, greatest);
            formula.binary(Binary::Add, log, greatest)
        }
    })
}

fn finite(formula: &mut Formula<'_>, x: ValueId) -> ValueId {
    if formula.dtype == DType::F32 {
        return formula.op(Op::Activation(Activation::Clip { low: f32::MIN, high: f32::MAX }), &[x]);
    }
    let raised = formula.with(Binary::Max, x, f64::MIN);
    formula.with(Binary::Min, raised, f64::MAX)
}

/// Each image and channel by itself.
pub(super) fn instance_normalization(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (scale, shift) = (importer.operand(node, 1)?, importer.operand(node, 2)?);
    let epsilon = node.float("epsilon", 1e-5)?;
    let (mut formula, x) = Formula::of(importer, node)?;
    let [_, difference, variance] = formula.centred(x, &Along::from(2));
    let variance = formula.with(Binary::Add, variance, epsilon);
    let deviation = formula.unary(Unary::Sqrt, variance);
    let normal = formula.binary(Binary::Div, difference, deviation);
    Ok(formula.scaled([normal, scale, shift]))
}

pub(super) fn mean_variance_normalization(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let axes = node.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    let along = Along::given(&axes);
    let (mut formula, x) = Formula::of(importer, node)?;
    let [_, difference, variance] = formula.centred(x, &along);
    let deviation = formula.unary(Unary::Sqrt, variance);
    let deviation = formula.with(Binary::Add, deviation, 1e-9);
    Ok(formula.binary(Binary::Div, difference, deviation))
}

/// Exclusive or: truth values that differ.
pub(super) fn xor(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    importer.expect_trailing(node)?;
    let other = importer.operand(node, 1)?;
    let (mut formula, x) = Formula::of(importer, node)?;
    let same = formula.op(Op::Compare(Compare::Equal), &[x, other]);
    Ok(formula.op(Op::Not, &[same]))
}

/// What does not equal itself.
pub(super) fn is_nan(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (mut formula, x) = Formula::of(importer, node)?;
    let same = formula.op(Op::Compare(Compare::Equal), &[x, x]);
    Ok(formula.op(Op::Not, &[same]))
}

pub(super) fn is_inf(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let detects = [node.int("detect_negative", 1)? != 0, node.int("detect_positive", 1)? != 0];
    let (mut formula, x) = Formula::of(importer, node)?;
    let (compared, to) = match detects {
        [true, true] => (formula.unary(Unary::Abs, x), f32::INFINITY),
        [true, false] => (x, f32::NEG_INFINITY),
        [false, true] => (x, f32::INFINITY),
        [false, false] => return Err(node.refuse("it detects neither infinity")),
    };
    let to = formula.number(to);
    Ok(formula.op(Op::Compare(Compare::Equal), &[compared, to]))
}
