//! Convolutions over three axes, written with those over two: the depth's taps become channels.

use super::Importer;
use super::formula::Formula;
use super::image::{Operands, conv_over, conv_transpose_over};
use super::node::Source;
use crate::engine::EngineError;
use crate::engine::graph::op::{AxisPadding, Binary, PadKind, WindowAxis};
use crate::engine::graph::{Op, ValueId};

/// Each output depth is an image with as many channels as the depths that it sees have together.
pub(super) fn conv(
    importer: &mut Importer,
    node: &Source<'_>,
    operands: Operands,
    groups: usize,
    [depth, lines, columns]: [WindowAxis; 3],
) -> Result<ValueId, EngineError> {
    let Operands { x, weights, bias } = operands;
    let mut formula = Formula { dtype: importer.dtype(x), name: node.shown(), importer };
    let (parts, out) = seen(&mut formula, x, depth).ok_or_else(|| node.invalid("its depth overflows"))?;
    let size = formula.extents(x, 3, None);
    let channels = formula.extents(x, 1, Some(2));
    let taps = formula.list(&[number(depth.kernel)]);
    let channels = formula.binary(Binary::Mul, channels, taps);
    let all = formula.list(&[-1]);
    let shape = formula.concat(0, &[all, channels, size]);
    let images = formula.op(Op::Transpose { axes: vec![0, 3, 1, 2, 4, 5] }, &[parts]);
    let images = formula.reshape(images, shape);
    let weights = flat_weights(&mut formula, weights, [lines.kernel, columns.kernel]);
    let flat = Operands { x: images, weights, bias };
    let y = conv_over(formula.importer, node, flat, groups, (&[lines, columns], false))?;
    let behind = formula.extents(y, 1, None);
    let rows = formula.extents(x, 0, Some(1));
    let shape = formula.concat(0, &[rows, out, behind]);
    let y = formula.reshape_exactly(y, shape);
    Ok(formula.op(Op::Transpose { axes: vec![0, 2, 1, 3, 4] }, &[y]))
}

/// For every tap of the depth what it sees, put beside each other behind the channels, and how many windows there are.
fn seen(formula: &mut Formula<'_>, x: ValueId, depth: WindowAxis) -> Option<(ValueId, ValueId)> {
    let reach = number(depth.reach()?);
    let stride = formula.list(&[number(depth.stride)]);
    let size = formula.extents(x, 2, Some(3));
    let [before, after] = match depth.padding {
        AxisPadding::Given { before, after } => [before, after].map(|pad| formula.list(&[number(pad)])),
        AxisPadding::Same { odd_before } => {
            let (rest, less) = (formula.list(&[number(depth.stride) - 1]), formula.list(&[reach]));
            let out = formula.binary(Binary::Add, size, rest);
            let out = formula.binary(Binary::Div, out, stride);
            let needed = formula.binary(Binary::Mul, out, stride);
            let needed = formula.binary(Binary::Sub, needed, stride);
            let needed = formula.binary(Binary::Add, needed, less);
            let needed = formula.binary(Binary::Sub, needed, size);
            let (none, odd, two) = (formula.list(&[0]), formula.list(&[i64::from(odd_before)]), formula.list(&[2]));
            let needed = formula.binary(Binary::Max, needed, none);
            let before = formula.binary(Binary::Add, needed, odd);
            let before = formula.binary(Binary::Div, before, two);
            [before, formula.binary(Binary::Sub, needed, before)]
        }
    };
    let [none, one, axis] = [[0, 0].as_slice(), &[1], &[2]].map(|list| formula.list(list));
    let pads = formula.concat(0, &[none, before, none, none, after, none]);
    let padded = formula.op(Op::Pad(PadKind::Constant), &[x, pads]);
    let size = formula.extents(padded, 2, Some(3));
    let last = formula.list(&[reach]);
    let slack = formula.binary(Binary::Sub, size, last);
    let steps = formula.binary(Binary::Div, slack, stride);
    let out = formula.binary(Binary::Add, steps, one);
    let span = formula.binary(Binary::Mul, steps, stride);
    let parts = (0..depth.kernel).map(|tap| {
        let from = formula.list(&[number(tap * depth.dilation)]);
        let to = formula.binary(Binary::Add, from, span);
        let to = formula.binary(Binary::Add, to, one);
        let part = formula.op(Op::Slice, &[padded, from, to, axis, stride]);
        formula.unsqueeze(part, &[2])
    });
    let parts: Vec<ValueId> = parts.collect();
    Some((formula.concat(2, &parts), out))
}

/// Every input depth gives an image with a channel for each of its taps, which are then put where they belong.
pub(super) fn conv_transpose(
    importer: &mut Importer,
    node: &Source<'_>,
    operands: Operands,
    groups: usize,
    [(depth, extra), lines, columns]: [(WindowAxis, usize); 3],
) -> Result<ValueId, EngineError> {
    let AxisPadding::Given { before, after } = depth.padding else {
        return Err(node.refuse("its padding follows from the output's extents"));
    };
    let Operands { x, weights, bias } = operands;
    let reach = depth.reach().ok_or_else(|| node.invalid("its depth overflows"))?;
    let mut formula = Formula { dtype: importer.dtype(x), name: node.shown(), importer };
    let behind = formula.extents(x, 3, None);
    let (rows, channels, size) =
        (formula.extents(x, 0, Some(1)), formula.extents(x, 1, Some(2)), formula.extents(x, 2, Some(3)));
    let all = formula.list(&[-1]);
    let shape = formula.concat(0, &[all, channels, behind]);
    let images = formula.op(Op::Transpose { axes: vec![0, 2, 1, 3, 4] }, &[x]);
    let images = formula.reshape(images, shape);
    let weights = flat_weights(&mut formula, weights, [lines.0.kernel, columns.0.kernel]);
    let flat = Operands { x: images, weights, bias: None };
    let more = [vec![lines.1, columns.1], Vec::new()];
    let y = conv_transpose_over(formula.importer, node, flat, groups, &[lines.0, columns.0], more)?;
    let behind = formula.extents(y, 2, None);
    let taps = formula.list(&[-1, number(depth.kernel)]);
    let shape = formula.concat(0, &[rows, size, taps, behind]);
    let y = formula.reshape(y, shape);
    // `[image, channel, depth, tap, line, column]`.
    let y = formula.op(Op::Transpose { axes: vec![0, 2, 1, 3, 4, 5] }, &[y]);
    let mut sum = None;
    for tap in 0..depth.kernel {
        let part = formula.slice(y, 3, number(tap), number(tap) + 1);
        // As many zeros behind each depth as make its distance to the next the stride.
        let zeros = formula.list(&[0, 0, 0, 0, 0, 0, 0, 0, 0, number(depth.stride) - 1, 0, 0]);
        let part = formula.op(Op::Pad(PadKind::Constant), &[part, zeros]);
        let lined = formula.list(&[0, 0, -1]);
        let size = formula.extents(part, 4, None);
        let shape = formula.concat(0, &[lined, size]);
        let part = formula.reshape(part, shape);
        let offset = number(tap * depth.dilation);
        let first = offset - number(before);
        let last = number(reach) + number(extra) - number(depth.stride) - offset - number(after);
        let pads = formula.list(&[0, 0, first, 0, 0, 0, 0, last, 0, 0]);
        let part = formula.op(Op::Pad(PadKind::Constant), &[part, pads]);
        sum = Some(sum.map_or(part, |sum| formula.binary(Binary::Add, sum, part)));
    }
    let sum = sum.ok_or_else(|| node.invalid("its kernel has no elements"))?;
    let Some(bias) = bias else { return Ok(sum) };
    let of_channels = formula.list(&[-1, 1, 1, 1]);
    let bias = formula.reshape(bias, of_channels);
    Ok(formula.binary(Binary::Add, sum, bias))
}

/// Weights whose depth's taps are channels.
fn flat_weights(formula: &mut Formula<'_>, weights: ValueId, [lines, columns]: [usize; 2]) -> ValueId {
    let importer = &mut *formula.importer;
    if let Some(constant) = importer.graph.constant(weights) {
        let extents = constant.shape().to_vec();
        let (grain, name) = (importer.graph.grain(weights).cloned(), importer.graph.name(weights).to_owned());
        if let &[out, depth, taps, lines, columns] = extents.as_slice() {
            let flat = crate::tensor::Shape::new(&[out, depth * taps, lines, columns]);
            if let Ok(flat) = constant.clone().reshaped(flat) {
                return importer.graph.add_grained(name, flat, grain.filter(|grain| grain.axis == 0));
            }
        }
    }
    let shape = formula.list(&[0, -1, number(lines), number(columns)]);
    formula.reshape(weights, shape)
}

fn number(extent: usize) -> i64 {
    i64::try_from(extent).unwrap_or(i64::MAX)
}
