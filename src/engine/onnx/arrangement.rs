//! Operators that put elements elsewhere, or make them from their places.

use super::Importer;
use super::formula::Formula;
use super::node::Source;
use crate::engine::EngineError;
use crate::engine::graph::op::{Arrangement, Axes, Binary};
use crate::engine::graph::{Op, ValueId};
use crate::tensor::DType;

pub(super) fn triangle(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let op = Arrangement::Triangle { upper: node.int("upper", 1)? != 0 };
    let operands: Vec<ValueId> =
        [Some(importer.operand(node, 0)?), importer.optional(node, 1)?].into_iter().flatten().collect();
    Ok(importer.graph.add(&node.shown(), Op::Arrange(op), &operands))
}

pub(super) fn tile(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?];
    Ok(importer.graph.add(&node.shown(), Op::Arrange(Arrangement::Tile), &operands))
}

pub(super) fn range(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?, importer.operand(node, 2)?];
    Ok(importer.graph.add(&node.shown(), Op::Arrange(Arrangement::Range), &operands))
}

pub(super) fn eye(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let dtype = match node.int("dtype", 0)? {
        0 => None,
        given => Some(node.dtype(given)?),
    };
    let op = Arrangement::Diagonal { offset: node.int("k", 0)?, dtype };
    let x = importer.operand(node, 0)?;
    Ok(importer.graph.add(&node.shown(), Op::Arrange(op), &[x]))
}

/// Classes and their number may be of any type of numbers.
pub(super) fn one_hot(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let [depth, values] = [importer.operand(node, 1)?, importer.operand(node, 2)?];
    let axis = node.axis(-1)?;
    let (mut formula, classes) = Formula::of(importer, node)?;
    let [classes, depth] = [classes, depth].map(|operand| formula.cast(operand, DType::I64));
    Ok(formula.op(Op::Arrange(Arrangement::OneHot { axis }), &[classes, depth, values]))
}

/// One where the greatest element of a line is, zero elsewhere. Up to opset 12 all axes from the given one on are one.
pub(super) fn hardmax(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let flattens = importer.versions.get("").is_some_and(|version| *version < 13);
    let given = node.axis(if flattens { 1 } else { -1 })?;
    let (mut formula, x) = Formula::of(importer, node)?;
    let shape = formula.extents(x, 0, None);
    let (lines, axis) = if flattens { (formula.op(Op::Flatten { axis: given }, &[x]), -1) } else { (x, given) };
    let arg = crate::engine::graph::op::Arg { greatest: true, axis, keep: false, last: false };
    let classes = formula.op(Op::Arg(arg), &[lines]);
    let depth = formula.extents(lines, axis, if axis == -1 { None } else { Some(axis + 1) });
    let [off, on] = [0.0, 1.0].map(|number| formula.number(number));
    let [off, on] = [off, on].map(|number| formula.unsqueeze(number, &[0]));
    let values = formula.concat(0, &[off, on]);
    let hot = formula.op(Op::Arrange(Arrangement::OneHot { axis }), &[classes, depth, values]);
    Ok(formula.reshape_exactly(hot, shape))
}

pub(super) fn gather_tuples(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let batch = usize::try_from(node.int("batch_dims", 0)?).map_err(|_| node.invalid("batch_dims is negative"))?;
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?];
    Ok(importer.graph.add(&node.shown(), Op::Arrange(Arrangement::GatherTuples { batch }), &operands))
}

pub(super) fn scatter_tuples(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let op = Arrangement::ScatterTuples { with: node.reduction()? };
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?, importer.operand(node, 2)?];
    Ok(importer.graph.add(&node.shown(), Op::Arrange(op), &operands))
}

pub(super) fn reverse(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let axis = |name: &str, default| {
        usize::try_from(node.int(name, default)?).map_err(|_| node.invalid(&format!("{name} is negative")))
    };
    let op = Arrangement::Reverse { batch: axis("batch_axis", 1)?, time: axis("time_axis", 0)? };
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?];
    Ok(importer.graph.add(&node.shown(), Op::Arrange(op), &operands))
}

pub(super) fn centre(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let axes = node.ints("axes")?.map_or(Axes::From(0), |axes| Axes::given(&axes));
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?];
    Ok(importer.graph.add(&node.shown(), Op::Arrange(Arrangement::Centre { axes }), &operands))
}

/// Channels to blocks of pixels: those of a block follow each other, or those of a channel do.
pub(super) fn depth_to_space(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let block = block_size(node)?;
    let (split, axes) = match node.text("mode")?.as_deref().unwrap_or("DCR") {
        "DCR" => ([0, block, block, -1], vec![0, 3, 4, 1, 5, 2]),
        "CRD" => ([0, -1, block, block], vec![0, 1, 4, 2, 5, 3]),
        other => return Err(node.invalid(&format!("mode {other:?} is neither \"DCR\" nor \"CRD\""))),
    };
    let (mut formula, x) = Formula::of(importer, node)?;
    let size = formula.extents(x, 2, None);
    let split = formula.list(&split);
    let shape = formula.concat(0, &[split, size]);
    let parts = formula.reshape(x, shape);
    let parts = formula.op(Op::Transpose { axes }, &[parts]);
    let (kept, block) = (formula.list(&[0, -1]), formula.list(&[block]));
    let size = formula.binary(Binary::Mul, size, block);
    let shape = formula.concat(0, &[kept, size]);
    Ok(formula.reshape(parts, shape))
}

pub(super) fn space_to_depth(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let block = block_size(node)?;
    let (mut formula, x) = Formula::of(importer, node)?;
    let block = formula.list(&[block]);
    let extent = |formula: &mut Formula<'_>, axis: isize| {
        let extent = formula.extents(x, axis, Some(axis + 1));
        formula.binary(Binary::Div, extent, block)
    };
    let [lines, columns] = [extent(&mut formula, 2), extent(&mut formula, 3)];
    let kept = formula.list(&[0, 0]);
    let shape = formula.concat(0, &[kept, lines, block, columns, block]);
    let parts = formula.reshape(x, shape);
    let parts = formula.op(Op::Transpose { axes: vec![0, 3, 5, 1, 2, 4] }, &[parts]);
    let kept = formula.list(&[0, -1]);
    let shape = formula.concat(0, &[kept, lines, columns]);
    Ok(formula.reshape(parts, shape))
}

fn block_size(node: &Source<'_>) -> Result<i64, EngineError> {
    let block = node.int("blocksize", 0)?;
    if (1..=1 << 15).contains(&block) { Ok(block) } else { Err(node.invalid(&format!("blocksize {block} is none"))) }
}
