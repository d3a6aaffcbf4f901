//! Signals: windows that are laid over them, and Fourier transforms.

use std::f64::consts::TAU;

use super::Importer;
use super::formula::Formula;
use super::node::Source;
use crate::engine::EngineError;
use crate::engine::graph::op::{Arrangement, Binary, Unary};
use crate::engine::graph::{Op, ValueId};
use crate::tensor::DType;

/// A sum of cosines, over as many places as the operand says.
pub(super) fn window(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let [mean, first, second] = match node.proto.op_type.as_str() {
        "BlackmanWindow" => [0.42, -0.5, 0.08],
        "HammingWindow" => [25.0 / 46.0, -21.0 / 46.0, 0.0],
        _ => [0.5, -0.5, 0.0],
    };
    let (is_periodic, dtype) = (node.int("periodic", 1)? != 0, node.dtype(node.int("output_datatype", 1)?)?);
    let (mut formula, size) = Formula::of(importer, node)?;
    let [zero, one] = [0.0, 1.0].map(|number| formula.number(number));
    let places = formula.op(Op::Arrange(Arrangement::Range), &[zero, size, one]);
    let places = formula.cast(places, DType::F64);
    let size = formula.cast(size, DType::F64);
    formula.dtype = DType::F64;
    let period = if is_periodic { size } else { formula.with(Binary::Sub, size, 1.0) };
    let part = formula.binary(Binary::Div, places, period);
    let mut sum = formula.number(mean);
    for (turns, factor) in [(1.0, first), (2.0, second)] {
        if factor != 0.0 {
            let angle = formula.with(Binary::Mul, part, TAU * turns);
            let wave = formula.unary(Unary::Cos, angle);
            let wave = formula.with(Binary::Mul, wave, factor);
            sum = formula.binary(Binary::Add, sum, wave);
        }
    }
    Ok(formula.importer.converted(&node.shown(), sum, dtype))
}

/// The axis is an attribute up to opset 19, an operand from 20 on; without a length it is the axis' own.
pub(super) fn fourier(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (inverse, onesided) = (node.int("inverse", 0)? != 0, node.int("onesided", 0)? != 0);
    if inverse && onesided {
        return Err(node.refuse("it turns one side of a transform back"));
    }
    let is_operand = importer.versions.get("").is_some_and(|version| *version > 19);
    let (length, axis) = (importer.optional(node, 1)?, importer.optional(node, 2)?);
    let given = node.int("axis", 1)?;
    let (mut formula, x) = Formula::of(importer, node)?;
    let axis = match (is_operand, axis) {
        (false, _) => formula.integer(given),
        (true, None) => formula.integer(-2),
        (true, Some(axis)) => axis,
    };
    let length = length.unwrap_or_else(|| {
        let shape = formula.extents(x, 0, None);
        formula.op(Op::Gather { axis: 0 }, &[shape, axis])
    });
    Ok(formula.op(Op::Fourier { inverse, onesided }, &[x, length, axis]))
}

/// Transforms of pieces of the second axis, which begin some steps from each other.
pub(super) fn short_time_fourier(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let onesided = node.int("onesided", 1)? != 0;
    let (step, window, length) = (importer.operand(node, 1)?, importer.optional(node, 2)?, importer.optional(node, 3)?);
    let (mut formula, x) = Formula::of(importer, node)?;
    let scalar = formula.list(&[]);
    let number = |formula: &mut Formula<'_>, of: ValueId| {
        let of = formula.cast(of, DType::I64);
        formula.reshape_exactly(of, scalar)
    };
    let step = number(&mut formula, step);
    let length = match (length, window) {
        (Some(length), _) => length,
        (None, Some(window)) => formula.extents(window, 0, None),
        (None, None) => return Err(node.invalid("it has neither a window nor a length")),
    };
    let length = number(&mut formula, length);
    let all = formula.extents(x, 1, Some(2));
    let all = number(&mut formula, all);
    let [zero, one] = [0, 1].map(|integer| formula.integer(integer));
    let slack = formula.binary(Binary::Sub, all, length);
    let steps = formula.binary(Binary::Div, slack, step);
    let count = formula.binary(Binary::Add, steps, one);
    let firsts = formula.op(Op::Arrange(Arrangement::Range), &[zero, count, one]);
    let firsts = formula.binary(Binary::Mul, firsts, step);
    let firsts = formula.unsqueeze(firsts, &[1]);
    let places = formula.op(Op::Arrange(Arrangement::Range), &[zero, length, one]);
    let places = formula.binary(Binary::Add, firsts, places);
    let mut pieces = formula.op(Op::Gather { axis: 1 }, &[x, places]);
    if let Some(window) = window {
        let window = formula.unsqueeze(window, &[1]);
        pieces = formula.binary(Binary::Mul, pieces, window);
    }
    let axis = formula.integer(2);
    Ok(formula.op(Op::Fourier { inverse: false, onesided }, &[pieces, length, axis]))
}
