//! Operators that bring elements to a common scale, by what they are made of.

use super::Importer;
use super::formula::Formula;
use super::node::{Along, Source};
use crate::engine::EngineError;
use crate::engine::graph::op::{Axes, Binary, Compare, Padding, Pool, PoolKind, ReduceKind, Spatial, Unary};
use crate::engine::graph::{Op, ValueId, floats};

/// Given statistics make it a scale and a shift of each channel, known at load where they are. Told to train it takes
/// those of the batch, and gives running ones too.
pub(super) fn batch_normalization(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    importer.expect_test(node)?;
    if node.int("spatial", 1)? == 0 {
        return Err(node.refuse("it normalises elements by themselves"));
    }
    let trains = node.int("training_mode", 0)? != 0;
    let [scale, bias, mean, variance] = [
        importer.operand(node, 1)?,
        importer.operand(node, 2)?,
        importer.operand(node, 3)?,
        importer.operand(node, 4)?,
    ];
    let (epsilon, momentum) = (node.float("epsilon", 1e-5)?, node.float("momentum", 0.9)?);
    if !trains {
        let known = [scale, bias, mean, variance].map(|value| importer.graph.constant(value).and_then(floats));
        if let [Some(_), Some(_), Some(_), Some(_)] = known {
            return known_batch_normalization(importer, node, known.map(Option::unwrap_or_default));
        }
    }
    let (mut formula, x) = Formula::of(importer, node)?;
    let mut outputs = Vec::new();
    let mut used = [mean, variance];
    if trains {
        let lines = formula.list(&[0, 0, -1]);
        let flat = formula.reshape(x, lines);
        let [mean, _, variance] = formula.centred(flat, &Along::given(&[0, 2]));
        let all = formula.list(&[-1]);
        let own = [mean, variance].map(|of| formula.reshape(of, all));
        for (own, before) in own.into_iter().zip(used) {
            let kept = formula.with(Binary::Mul, before, momentum);
            let added = formula.with(Binary::Mul, own, 1.0 - f64::from(momentum));
            outputs.push(formula.binary(Binary::Add, kept, added));
        }
        used = own;
    }
    let raised = formula.with(Binary::Add, used[1], epsilon);
    let deviation = formula.unary(Unary::Sqrt, raised);
    let scale = formula.binary(Binary::Div, scale, deviation);
    let moved = formula.binary(Binary::Mul, used[0], scale);
    let shift = formula.binary(Binary::Sub, bias, moved);
    outputs.insert(0, formula.scaled([x, scale, shift]));
    Ok(outputs)
}

fn known_batch_normalization(
    importer: &mut Importer,
    node: &Source<'_>,
    [scale, bias, mean, variance]: [Vec<f32>; 4],
) -> Result<Vec<ValueId>, EngineError> {
    let x = importer.operand(node, 0)?;
    if [&bias, &mean, &variance].iter().any(|other| other.len() != scale.len()) {
        return Err(node.invalid("its statistics have not the same number of channels"));
    }
    let epsilon = node.float("epsilon", 1e-5)?;
    let scale: Vec<f32> =
        scale.iter().zip(&variance).map(|(scale, variance)| scale / (variance + epsilon).sqrt()).collect();
    let shift: Vec<f32> = bias.iter().zip(&mean).zip(&scale).map(|((bias, mean), scale)| bias - mean * scale).collect();
    let mut channels = |what: &str, elements: &[f32]| {
        let tensor = crate::engine::graph::tensor_of(&[elements.len()], elements);
        importer.graph.add_constant(format!("{} {what}", node.shown()), tensor)
    };
    let operands = [x, channels("scale", &scale), channels("shift", &shift)];
    Ok(vec![importer.graph.add(&node.shown(), Op::Affine { axis: 1 }, &operands)])
}

/// Channels in groups, each group of an image by itself. Up to opset 20 a group had one scale, then each channel its own.
pub(super) fn group_normalization(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (scale, bias) = (importer.operand(node, 1)?, importer.operand(node, 2)?);
    let (groups, epsilon) = (node.int("num_groups", 0)?, node.float("epsilon", 1e-5)?);
    if groups <= 0 {
        return Err(node.invalid("num_groups must be positive"));
    }
    let by_channel = importer.versions.get("").is_some_and(|version| *version > 20);
    let (mut formula, x) = Formula::of(importer, node)?;
    let shape = formula.extents(x, 0, None);
    let lines = formula.list(&[0, groups, -1]);
    let lines = formula.reshape(x, lines);
    let [_, difference, variance] = formula.centred(lines, &Along::given(&[2]));
    let raised = formula.with(Binary::Add, variance, epsilon);
    let deviation = formula.unary(Unary::Sqrt, raised);
    let normal = formula.binary(Binary::Div, difference, deviation);
    if by_channel {
        let normal = formula.reshape_exactly(normal, shape);
        return Ok(formula.scaled([normal, scale, bias]));
    }
    let scaled = formula.scaled([normal, scale, bias]);
    Ok(formula.reshape_exactly(scaled, shape))
}

/// Over the sum of what channels beside it hold: channels are the pixels of an average's window.
pub(super) fn local_response(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (alpha, beta, bias) = (node.float("alpha", 1e-4)?, node.float("beta", 0.75)?, node.float("bias", 1.0)?);
    let size = usize::try_from(node.int("size", 0)?).ok().filter(|size| (1..=1 << 20).contains(size));
    let size = size.ok_or_else(|| node.invalid("size must be positive"))?;
    let (mut formula, x) = Formula::of(importer, node)?;
    let shape = formula.extents(x, 0, None);
    let lines = formula.list(&[0, 0, -1]);
    let lines = formula.reshape(x, lines);
    let square = formula.binary(Binary::Mul, lines, lines);
    let before = (size - 1) / 2;
    let window = Spatial {
        axes: 1,
        kernel: [1, size],
        stride: [1, 1],
        dilation: [1, 1],
        padding: Padding::Given { before: [0, before], after: [0, size - 1 - before] },
    };
    let pool = Pool { kind: PoolKind::Average { count_padding: true }, window, ceil: false };
    let mean = formula.op(Op::Pool(pool), &[square]);
    let weighted = formula.with(Binary::Mul, mean, alpha);
    let raised = formula.with(Binary::Add, weighted, bias);
    let divisor = formula.with(Binary::Pow, raised, beta);
    let divisor = formula.reshape_exactly(divisor, shape);
    Ok(formula.binary(Binary::Div, x, divisor))
}

/// Lines of the length one; those of nothing but zeros stay so.
pub(super) fn lp_normalization(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (axis, p) = (node.int("axis", -1)?, node.int("p", 2)?);
    let (mut formula, x) = Formula::of(importer, node)?;
    let length =
        length(&mut formula, x, &Along::given(&[axis]), p).ok_or_else(|| node.invalid("p must be positive"))?;
    let (zero, one) = (formula.number(0.0), formula.number(1.0));
    let empty = formula.compare(Compare::Equal, length, zero);
    let divisor = formula.op(Op::Where, &[empty, one, length]);
    Ok(formula.binary(Binary::Div, x, divisor))
}

pub(super) fn global_lp_pool(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let p = node.int("p", 2)?;
    let (mut formula, x) = Formula::of(importer, node)?;
    length(&mut formula, x, &Along { axes: Axes::From(2), operand: None }, p)
        .ok_or_else(|| node.invalid("p must be positive"))
}

/// The root of the sum of powers.
fn length(formula: &mut Formula<'_>, x: ValueId, along: &Along, p: i64) -> Option<ValueId> {
    let p = u16::try_from(p).ok().filter(|p| *p > 0)?;
    let size = formula.unary(Unary::Abs, x);
    let power = match p {
        1 => size,
        2 => formula.binary(Binary::Mul, x, x),
        _ => formula.with(Binary::Pow, size, p),
    };
    let sum = formula.reduce(ReduceKind::Sum, along, true, power);
    Some(match p {
        1 => sum,
        2 => formula.unary(Unary::Sqrt, sum),
        _ => formula.with(Binary::Pow, sum, 1.0 / f64::from(p)),
    })
}

/// A slope for all elements, or for those along trailing axes; up to opset 6 for each channel.
pub(super) fn prelu(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let slope = importer.operand(node, 1)?;
    let of_channels = importer.versions.get("") == Some(&6)
        && importer.graph.constant(slope).is_none_or(|slope| slope.element_count() > 1);
    let (mut formula, x) = Formula::of(importer, node)?;
    let below = if of_channels {
        let zeros = formula.with(Binary::Mul, slope, 0.0);
        formula.op(Op::Affine { axis: 1 }, &[x, slope, zeros])
    } else {
        formula.binary(Binary::Mul, x, slope)
    };
    Ok(formula.choose(x, Compare::Less, 0.0, [below, x]))
}
