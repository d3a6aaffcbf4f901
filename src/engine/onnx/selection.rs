//! Operators that choose elements by their values, or by indices along an axis, and running sums.

use super::Importer;
use super::node::Source;
use crate::engine::EngineError;
use crate::engine::graph::op::{Arg, Top, Unique, UniquePart};
use crate::engine::graph::{Op, ValueId, tensor_of, tensor_of_integers};

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

pub(super) fn non_zero(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let x = importer.operand(node, 0)?;
    Ok(importer.graph.add(&node.shown(), Op::NonZero, &[x]))
}

/// The elements, or what lies along an axis, where a list of truth values holds.
pub(super) fn compress(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (x, chosen) = (importer.operand(node, 0)?, importer.operand(node, 1)?);
    let list = importer.list_of(&node.shown(), &[-1]);
    let flat = |importer: &mut Importer, value| {
        importer.graph.add(&node.shown(), Op::Reshape { allow_zero: false }, &[value, list])
    };
    let (x, axis) = match crate::engine::proto::attribute(node.proto, "axis") {
        Some(_) => (x, node.axis(0)?),
        None => (flat(importer, x), 0),
    };
    let places = importer.graph.add(&node.shown(), Op::NonZero, &[chosen]);
    let places = flat(importer, places);
    Ok(importer.graph.add(&node.shown(), Op::Gather { axis }, &[x, places]))
}

/// Boxes that no better one of their class overlaps; without a greatest count there are none.
pub(super) fn non_max_suppression(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let op = Op::NonMaxSuppression { by_centre: node.int("center_point_box", 0)? != 0 };
    let mut operands = vec![importer.operand(node, 0)?, importer.operand(node, 1)?];
    let missing = [tensor_of_integers(&[], &[0]), tensor_of(&[], &[0.0]), tensor_of(&[], &[f32::NEG_INFINITY])];
    for (at, missing) in missing.into_iter().enumerate() {
        operands.push(match importer.optional(node, 2 + at)? {
            Some(given) => given,
            None => importer.graph.add_constant(node.shown(), missing),
        });
    }
    Ok(importer.graph.add(&node.shown(), op, &operands))
}

pub(super) fn unique(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    let x = importer.operand(node, 0)?;
    let axis = match crate::engine::proto::attribute(node.proto, "axis") {
        Some(_) => Some(node.axis(0)?),
        None => None,
    };
    let sorted = node.int("sorted", 1)? != 0;
    let parts = [UniquePart::Values, UniquePart::First, UniquePart::Which, UniquePart::Counts];
    let mut made = Vec::new();
    for part in parts {
        made.push(importer.graph.add(&node.shown(), Op::Unique(Unique { axis, sorted, part }), &[x]));
    }
    Ok(made)
}
