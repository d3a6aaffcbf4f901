//! Operators that move elements or change their type.

use super::Importer;
use super::formula::Formula;
use super::low_bit;
use super::node::Source;
use crate::engine::EngineError;
use crate::engine::graph::op::{Arrangement, Binary, FillValue, PadKind};
use crate::engine::graph::{Op, ValueId, numbers};
use crate::tensor::DType;

pub(super) fn identity(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    importer.operand(node, 0)
}

/// It drops nothing, unless it is told to train.
pub(super) fn dropout(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    importer.expect_test(node)?;
    let known = |at: usize| match importer.optional(node, at)? {
        None => Ok(Some(0.0)),
        Some(value) => Ok(importer.graph.constant(value).and_then(|tensor| Some(*numbers(tensor)?.first()?))),
    };
    // Told to train, it drops nothing where the part to drop is nothing.
    if known(2)? != Some(0.0) && (importer.optional(node, 1)?.is_none() || known(1)? != Some(0.0)) {
        return Err(node.refuse("it may be told to train"));
    }
    let x = importer.operand(node, 0)?;
    if !node.has_output(1) {
        return Ok(vec![x]);
    }
    // Up to opset 9 the mask was of the operand's type.
    if importer.versions.get("").is_some_and(|version| *version < 10) {
        return Err(node.refuse("its mask is no truth value"));
    }
    let shape = importer.graph.add(&node.shown(), Op::Shape { from: 0, to: None }, &[x]);
    let value = FillValue { dtype: DType::Bool, bytes: vec![1] };
    Ok(vec![x, importer.graph.add(&node.shown(), Op::Fill { value }, &[shape])])
}

/// Extents are an attribute up to opset 12, an operand from 13 on, and equal where they are missing: up to the last one
/// from 18 on, which may be less.
pub(super) fn split(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    let x = importer.operand(node, 0)?;
    let (name, axis, count) = (node.shown(), node.axis(0)?, node.proto.output.len());
    let axis_operand = importer.list_of(&name, &[i64::try_from(axis).unwrap_or(i64::MAX)]);
    let part = |importer: &mut Importer, start: ValueId, end: ValueId| {
        importer.graph.add(&name, Op::Slice, &[x, start, end, axis_operand])
    };
    let listed = importer.list(node, "split", 1)?;
    if let Some(list) = listed {
        let parts = importer.graph.constant(list).map(|list| list.element_count());
        if parts.is_some_and(|parts| parts != count) {
            return Err(node.invalid(&format!("it has {count} outputs, and {} extents", parts.unwrap_or_default())));
        }
        let mut from = importer.list_of(&name, &[0]);
        let parts = (0..count).map(|at| {
            let at = importer.list_of(&name, &[i64::try_from(at).unwrap_or(i64::MAX)]);
            let extent = importer.graph.add(&name, Op::Gather { axis: 0 }, &[list, at]);
            let to = importer.graph.add(&name, Op::Binary(Binary::Add), &[from, extent]);
            part(importer, std::mem::replace(&mut from, to), to)
        });
        return Ok(parts.collect());
    }
    let given = node.int("num_outputs", i64::try_from(count).unwrap_or(i64::MAX))?;
    let count = i64::try_from(count).ok().filter(|count| *count == given && given > 0);
    let count = count.ok_or_else(|| node.invalid(&format!("it has not {given} outputs")))?;
    let to = if axis == -1 { None } else { Some(axis + 1) };
    let extent = importer.graph.add(&name, Op::Shape { from: axis, to }, &[x]);
    let (parts, rest) = (importer.list_of(&name, &[count]), importer.list_of(&name, &[count - 1]));
    let raised = importer.graph.add(&name, Op::Binary(Binary::Add), &[extent, rest]);
    let each = importer.graph.add(&name, Op::Binary(Binary::Div), &[raised, parts]);
    let bound = |importer: &mut Importer, at: i64| {
        let at = importer.list_of(&name, &[at]);
        importer.graph.add(&name, Op::Binary(Binary::Mul), &[each, at])
    };
    let parts = (0..count).map(|at| {
        let (start, end) = (bound(importer, at), bound(importer, at + 1));
        part(importer, start, end)
    });
    Ok(parts.collect())
}

/// How many elements there are.
pub(super) fn size(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let x = importer.operand(node, 0)?;
    Ok(importer.graph.add(&node.shown(), Op::Size, &[x]))
}

pub(super) fn cast(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let to = node.int("to", 0)?;
    let to = node.dtype(to)?;
    let x = importer.operand(node, 0)?;
    Ok(importer.converted(&node.shown(), x, to))
}

/// To the type of another operand.
pub(super) fn cast_like(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (x, like) = (importer.operand(node, 0)?, importer.operand(node, 1)?);
    let to = importer.dtype(like);
    Ok(importer.converted(&node.shown(), x, to))
}

pub(super) fn concat(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let operands = importer.operands(node)?;
    let axis = node.axis(i64::MAX)?;
    Ok(importer.graph.add(&node.shown(), Op::Concat { axis }, &operands))
}

pub(super) fn expand(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    two(importer, node, Op::Expand)
}

pub(super) fn flatten(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let op = Op::Flatten { axis: node.axis(1)? };
    one(importer, node, op)
}

pub(super) fn gather(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let op = Op::Gather { axis: node.axis(0)? };
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?];
    match low_bit::looked_up(importer, node, operands)? {
        Some(coded) => Ok(coded),
        None => two(importer, node, op),
    }
}

/// Paddings are an attribute up to opset 10, an operand from 11 on, of some axes alone from 18 on.
pub(super) fn pad(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let kind = match node.text("mode")?.as_deref().unwrap_or("constant") {
        "constant" => PadKind::Constant,
        "edge" => PadKind::Edge,
        "reflect" => PadKind::Reflect,
        "wrap" => PadKind::Wrap,
        other => return Err(node.refuse(&format!("mode {other:?} has no layer"))),
    };
    let x = importer.operand(node, 0)?;
    let pads = importer.list(node, "pads", 1)?.ok_or_else(|| node.invalid("it has no pads"))?;
    let (given, axes) = (importer.optional(node, 2)?, importer.optional(node, 3)?);
    let (mut formula, _) = Formula::of(importer, node)?;
    let value = match (node.float("value", 0.0)?, given, axes) {
        (_, Some(value), _) => Some(value),
        (0.0, None, None) => None,
        (value, None, _) => Some(formula.number(value)),
    };
    let operands: Vec<ValueId> = [x, pads].into_iter().chain(value).chain(axes).collect();
    Ok(formula.op(Op::Pad(kind), &operands))
}

pub(super) fn reshape(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let op = Op::Reshape { allow_zero: node.int("allowzero", 0)? != 0 };
    two(importer, node, op)
}

pub(super) fn shape(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let bound = |name: &str, default| node.int(name, default).map(|at| isize::try_from(at).unwrap_or(isize::MAX));
    let (from, to) = (bound("start", 0)?, bound("end", i64::MAX)?);
    one(importer, node, Op::Shape { from, to: (to != isize::MAX).then_some(to) })
}

/// Bounds are attributes up to opset 9, operands from 10 on.
pub(super) fn slice(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let missing = || node.invalid("it has no bounds");
    let mut operands = vec![importer.operand(node, 0)?];
    operands.push(importer.list(node, "starts", 1)?.ok_or_else(missing)?);
    operands.push(importer.list(node, "ends", 2)?.ok_or_else(missing)?);
    let axes = importer.list(node, "axes", 3)?;
    let steps = importer.optional(node, 4)?;
    if axes.is_none() && steps.is_some() {
        return Err(node.refuse("it has steps and no axes"));
    }
    operands.extend(axes.into_iter().chain(steps));
    Ok(importer.graph.add(&node.shown(), Op::Slice, &operands))
}

pub(super) fn squeeze(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let x = importer.operand(node, 0)?;
    let axes = importer.list(node, "axes", 1)?;
    let operands: Vec<ValueId> = [Some(x), axes].into_iter().flatten().collect();
    Ok(importer.graph.add(&node.shown(), Op::Squeeze, &operands))
}

pub(super) fn unsqueeze(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let x = importer.operand(node, 0)?;
    let axes = importer.list(node, "axes", 1)?.ok_or_else(|| node.invalid("it has no axes"))?;
    Ok(importer.graph.add(&node.shown(), Op::Unsqueeze, &[x, axes]))
}

pub(super) fn transpose(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    if let Some(turned) = low_bit::turned(importer, node)? {
        return Ok(turned);
    }
    let Some(axes) = node.extents("perm")? else {
        let x = importer.operand(node, 0)?;
        let rank = importer.extents(x).map(|extents| extents.len());
        let turned = rank.map(|rank| Op::Transpose { axes: (0..rank).rev().collect() });
        return one(importer, node, turned.unwrap_or(Op::Arrange(Arrangement::Turn)));
    };
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..axes.len()) {
        return Err(node.invalid(&format!("{axes:?} are not all axes, each once")));
    }
    one(importer, node, Op::Transpose { axes })
}

fn one(importer: &mut Importer, node: &Source<'_>, op: Op) -> Result<ValueId, EngineError> {
    let x = importer.operand(node, 0)?;
    Ok(importer.graph.add(&node.shown(), op, &[x]))
}

fn two(importer: &mut Importer, node: &Source<'_>, op: Op) -> Result<ValueId, EngineError> {
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?];
    Ok(importer.graph.add(&node.shown(), op, &operands))
}
