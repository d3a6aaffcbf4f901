//! Operators that choose elements by their values, or by indices along an axis, and running sums.

use super::Importer;
use super::node::Source;
use crate::engine::EngineError;
use crate::engine::graph::op::{Arg, Top};
use crate::engine::graph::{Op, ValueId};

pub(super) fn arg(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let arg = Arg {
        greatest: node.proto.op_type == "ArgMax",
        axis: node.axis(0)?,
        keep: node.int("keepdims", 1)? != 0,
        last: node.int("select_last_index", 0)? != 0,
    };
    let x = importer.operand(node, 0)?;
    Ok(importer.graph.add(&node.shown(), Op::Arg(arg), &[x]))
}

/// Elements and where they are, in order whether that is asked for or not.
pub(super) fn top(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?];
    let (axis, greatest) = (node.axis(-1)?, node.int("largest", 1)? != 0);
    let places = importer.graph.add(&node.shown(), Op::Top(Top { axis, greatest }), &operands);
    let elements = importer.graph.add(&node.shown(), Op::GatherElements { axis }, &[operands[0], places]);
    Ok(vec![elements, places])
}

pub(super) fn cumulative_sum(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let op = Op::CumulativeSum { exclusive: node.int("exclusive", 0)? != 0, reverse: node.int("reverse", 0)? != 0 };
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?];
    Ok(importer.graph.add(&node.shown(), op, &operands))
}

pub(super) fn gather_elements(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let op = Op::GatherElements { axis: node.axis(0)? };
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?];
    Ok(importer.graph.add(&node.shown(), op, &operands))
}

pub(super) fn scatter_elements(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let op = Op::ScatterElements { axis: node.axis(0)?, with: node.reduction()? };
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?, importer.operand(node, 2)?];
    Ok(importer.graph.add(&node.shown(), op, &operands))
}
