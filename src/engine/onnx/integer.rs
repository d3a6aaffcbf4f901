//! Products of integers whose zero points may follow from contents: sums are exact.
//!
//! Convolutions are those of floats, in pieces so small that every sum is an integer which a float holds.

use super::Importer;
use super::formula::Formula;
use super::image::{self, Operands};
use super::node::Source;
use super::quantization::{self, Bytes};
use crate::engine::EngineError;
use crate::engine::graph::op::{Binary, WindowAxis};
use crate::engine::graph::{Op, ValueId, numbers};
use crate::tensor::DType;

pub(super) fn matmul(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let a = Integers { x: importer.operand(node, 0)?, zero: importer.optional(node, 2)? };
    let b = Integers { x: importer.operand(node, 1)?, zero: importer.optional(node, 3)? };
    Ok(matmul_of(&mut Formula::with_name(importer, node), [a, b]))
}

pub(super) fn matmul_of(formula: &mut Formula<'_>, [a, b]: [Integers; 2]) -> ValueId {
    let [of_a, of_b] = [a, b].map(|of| of.zero.unwrap_or_else(|| formula.number_like(of.x, 0.0)));
    formula.op(Op::IntegerMatMul, &[a.x, b.x, of_a, of_b])
}

pub(super) fn conv(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let x = Integers { x: importer.operand(node, 0)?, zero: importer.optional(node, 2)? };
    let weights = Integers { x: importer.operand(node, 1)?, zero: importer.optional(node, 3)? };
    let sums = sums(importer, node, x, weights)?;
    let mut formula = Formula { dtype: DType::F32, name: node.shown(), importer };
    let sums = sums.into_iter().map(|sum| formula.cast(sum, DType::I32)).collect::<Vec<_>>();
    let (first, others) = sums.split_first().ok_or_else(|| node.invalid("its weights have no channels"))?;
    Ok(others.iter().fold(*first, |sum, other| formula.binary(Binary::Add, sum, *other)))
}

/// Integers and what stands for zero.
#[derive(Clone, Copy)]
pub(super) struct Integers {
    pub(super) x: ValueId,
    pub(super) zero: Option<ValueId>,
}

/// Convolutions of some channels each, as floats; they add up to that of all.
pub(super) fn sums(
    importer: &mut Importer,
    node: &Source<'_>,
    x: Integers,
    weights: Integers,
) -> Result<Vec<ValueId>, EngineError> {
    let axes = image::axes(node, &image::kernel(importer, node, weights.x)?)?;
    let groups = image::groups(node)?;
    let channels = importer.extents(weights.x).and_then(|extents| *extents.get(1)?);
    let channels = channels.ok_or_else(|| node.refuse("the channels of its weights are not known"))?;
    let together = together(importer, weights, channels, &axes);
    let together = together.ok_or_else(|| node.refuse("its sums are too long to be exact"))?;
    let x = meant(importer, node, x, false)?;
    let weights = meant(importer, node, weights, true)?;
    let mut formula = Formula { dtype: DType::F32, name: node.shown(), importer };
    if channels <= together {
        let operands = Operands { x, weights, bias: None };
        return Ok(vec![image::exact_conv(formula.importer, node, operands, groups, &axes)?]);
    }
    if groups > 1 {
        return Err(node.refuse("its sums are too long to be exact"));
    }
    let parts = (0..channels).step_by(together).map(|from| {
        let [from, to] = [from, from + together].map(|at| i64::try_from(at).unwrap_or(i64::MAX));
        let [x, weights] = [x, weights].map(|operand| formula.slice(operand, 1, from, to));
        image::exact_conv(formula.importer, node, Operands { x, weights, bias: None }, groups, &axes)
    });
    parts.collect()
}

/// What integers mean, as floats. Bytes with one zero point that is known stay bytes that are converted, for a pass that
/// makes products of them.
fn meant(importer: &mut Importer, node: &Source<'_>, of: Integers, by_channel: bool) -> Result<ValueId, EngineError> {
    let is_byte = matches!(importer.dtype(of.x), DType::U8 | DType::I8);
    let is_known = |zero| importer.graph.constant(zero).is_some_and(|zero| zero.element_count() == 1);
    if is_byte && of.zero.is_none_or(is_known) {
        let scale = Formula { dtype: DType::F32, name: node.shown(), importer }.number(1.0);
        return quantization::meaning(importer, node, Bytes { x: of.x, scale, zero: of.zero }, 1);
    }
    let mut formula = Formula { dtype: DType::F32, name: node.shown(), importer };
    Ok(difference(&mut formula, of, by_channel))
}

/// As `meant`, of any integers. Weights may have a zero point for each output channel.
fn difference(formula: &mut Formula<'_>, of: Integers, by_channel: bool) -> ValueId {
    let x = formula.cast(of.x, DType::F32);
    let Some(zero) = of.zero else { return x };
    let mut zero = formula.cast(zero, DType::F32);
    let rank = formula.importer.extents(of.x).map_or(0, |extents| extents.len());
    if by_channel && rank > 1 {
        let column: Vec<i64> = std::iter::once(-1).chain(std::iter::repeat_n(1, rank - 1)).collect();
        let column = formula.list(&column);
        zero = formula.reshape(zero, column);
    }
    formula.binary(Binary::Sub, x, zero)
}

/// How many channels may be added up together.
fn together(importer: &Importer, weights: Integers, channels: usize, axes: &[WindowAxis]) -> Option<usize> {
    let taps: usize = axes.iter().map(|axis| axis.kernel).product();
    let known = |value: ValueId| importer.graph.constant(value).and_then(numbers);
    let zeros = weights.zero.map_or_else(|| Some(vec![0.0]), known);
    if let (Some(elements), Some(zeros)) = (known(weights.x), zeros) {
        let each = channels * taps;
        let longest = elements.chunks_exact(each.max(1)).enumerate().map(|(channel, row)| {
            let zero = zeros.get(channel).or(zeros.first()).copied().unwrap_or(0.0);
            row.iter().map(|weight| (weight - zero).abs()).sum::<f64>()
        });
        if longest.fold(0.0, f64::max) * BYTE_MAX < EXACT_MAX {
            return Some(channels);
        }
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a quotient of small numbers")]
    let products = (EXACT_MAX / (BYTE_MAX * BYTE_MAX)) as usize;
    products.checked_div(taps).filter(|together| *together > 0)
}

/// The greatest difference of two bytes.
const BYTE_MAX: f64 = 255.0;

/// Up to here a float holds every integer.
const EXACT_MAX: f64 = (1 << 24) as f64;
