//! Proves that a graph keeps rows apart, or names the operator that may mix them.
//!
//! Two samples that differ in the number of rows alone are walked together: an axis is the rows' where its extent is a
//! multiple of the one number here and of the other there. Each operator must carry it from its operands to its output;
//! what is not known to do so mixes rows.

use super::infer::{Cut, Fact, Facts, axis, padded, reduced_axes, slice, transformed};
use super::op::{Arrangement, Op, Recurrent, Reduce, Resample, Role, Sampling, Top, WindowKind, Windows};
use super::samples::Samples;
use super::tried::BATCHES;
use super::{Graph, Node, ValueId};
use crate::tensor::{Shape, Tensor};

/// An operator that rows must not meet together in, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Obstacle {
    pub(in crate::engine) operator: String,
    pub(in crate::engine) reason: String,
}

/// How a value depends on the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carry {
    Fixed,
    /// This axis is the rows', and what is at a row comes from that row alone.
    Rows(usize),
    /// Its contents are the number of rows, as a shape has them.
    Count,
}

/// An operand at both numbers of rows.
struct Operand<'a> {
    carry: Carry,
    facts: [&'a Fact; 2],
}

/// Walks a graph whose inputs all have the rows on axis 0; so must its outputs.
pub(in crate::engine) fn analyse(graph: &Graph, samples: &Samples) -> Result<(), Obstacle> {
    let mut carries = vec![Carry::Fixed; graph.value_count()];
    graph.inputs.iter().for_each(|input| carries[input.index()] = Carry::Rows(0));
    let facts = |value: ValueId| {
        let [a, b] = [samples.0[0].get(value), samples.0[1].get(value)];
        a.zip(b)
            .map(|(a, b)| [a, b])
            .ok_or_else(|| Obstacle { operator: "the graph".into(), reason: "a value has no shape".into() })
    };
    for &input in &graph.inputs {
        let operator = format!("input {}", graph.name(input));
        check(Carry::Rows(0), facts(input)?)
            .map_err(|_| Obstacle { operator, reason: "its axis 0 is not that of the rows".into() })?;
    }
    for node in &graph.nodes {
        let obstacle = |reason: &str| Obstacle { operator: node.name.clone(), reason: reason.to_owned() };
        let out = facts(node.output)?;
        let operands =
            node.inputs.iter().map(|&input| Ok(Operand { carry: carries[input.index()], facts: facts(input)? }));
        let operands: Vec<Operand<'_>> = operands.collect::<Result<_, Obstacle>>()?;
        let carry = match out.map(|fact| fact.value.as_ref()) {
            [Some(a), Some(b)] => known(a, b),
            _ => carried(node, &operands, out).map_err(obstacle)?,
        };
        check(carry, out).map_err(obstacle)?;
        carries[node.output.index()] = carry;
    }
    for &output in &graph.outputs {
        let [a, b] = facts(output)?.map(|fact| fact.shape.first().copied());
        if carries[output.index()] != Carry::Rows(0) || [a, b] != BATCHES.map(Some) {
            let operator = format!("output {}", graph.name(output));
            return Err(Obstacle { operator, reason: "its axis 0 is not that of the rows".into() });
        }
    }
    Ok(())
}

/// A value that follows from shapes: the same for any number, rows that are all the same, or the number itself.
fn known(a: &Tensor, b: &Tensor) -> Carry {
    if a == b {
        return Carry::Fixed;
    }
    let Some(axis) = rows_axis(a.shape(), b.shape()) else { return Carry::Count };
    let outer: usize = a.shape()[..axis].iter().product();
    // What lies behind the axis: for every place before it as many as rows.
    let length = |tensor: &Tensor| tensor.bytes().len().checked_div(outer * tensor.shape()[axis]).unwrap_or(0);
    let length = if length(a) == length(b) { length(a) } else { 0 };
    let pattern: Vec<&[u8]> = a.bytes().chunks(length.max(1)).step_by(a.shape()[axis]).collect();
    let all = |tensor: &Tensor| {
        let rows = tensor.shape()[axis];
        length > 0 && tensor.bytes().chunks(length).enumerate().all(|(at, piece)| piece == pattern[at / rows])
    };
    if all(a) && all(b) { Carry::Rows(axis) } else { Carry::Count }
}

/// The axis whose extents are the same multiple of both numbers of rows.
fn rows_axis(a: &Shape, b: &Shape) -> Option<usize> {
    a.iter().zip(b.iter()).position(|(a, b)| a != b && is_rows(*a, *b))
}

fn is_rows(a: usize, b: usize) -> bool {
    a.is_multiple_of(BATCHES[0]) && b.is_multiple_of(BATCHES[1]) && a / BATCHES[0] == b / BATCHES[1]
}

/// The carried axis is the rows' in truth, and no other extent depends on them.
fn check(carry: Carry, out: [&Fact; 2]) -> Result<(), &'static str> {
    let [a, b] = out.map(|fact| &fact.shape);
    if a.len() != b.len() {
        return Err("its rank depends on the number of rows");
    }
    for (axis, (a, b)) in a.iter().zip(b.iter()).enumerate() {
        let fits = if carry == Carry::Rows(axis) { a != b && is_rows(*a, *b) } else { a == b };
        if !fits {
            return Err("an axis of its output does not follow the rows");
        }
    }
    match carry {
        Carry::Rows(axis) if axis >= a.len() => Err("its output has no axis for the rows"),
        _ => Ok(()),
    }
}

fn carried(node: &Node, operands: &[Operand<'_>], out: [&Fact; 2]) -> Result<Carry, &'static str> {
    let first = operands.first().ok_or("it has no operands")?;
    let shapes_alone = matches!(node.op, Op::Reshape { .. } | Op::Expand | Op::Fill { .. } | Op::Slice | Op::Resize(_));
    if operands.iter().any(|operand| operand.carry == Carry::Count) && !shapes_alone {
        return Err("it computes with the number of rows");
    }
    if operands.iter().all(|operand| operand.carry == Carry::Fixed) {
        return Ok(Carry::Fixed);
    }
    let rank = first.facts[0].shape.len();
    match &node.op {
        Op::Pool(_) => sole(operands, |axis| axis == 0),
        Op::Conv(_) | Op::ConvTranspose(_) | Op::QuantizedConv(_) => match operands.get(1) {
            Some(weights) if weights.carry == Carry::Fixed => sole(operands, |axis| axis == 0),
            _ => Err(MIXES),
        },
        Op::Windows(windows) => windowed(windows, operands),
        Op::Linear(_) | Op::Normalize { .. } | Op::QuantizedLinear(_) | Op::DynamicLinear { .. } => {
            sole(operands, |axis| axis + 1 < rank)
        }
        Op::Affine { axis } => sole(operands, |rows| rows != *axis),
        Op::Attention(_) => attention(operands),
        Op::Activation(_) | Op::Unary(_) | Op::Cast { .. } | Op::Not => Ok(first.carry),
        Op::Binary(_) | Op::Compare(_) | Op::Where => broadcast(operands, out),
        // A list of sizes has the number of rows in it.
        Op::Resize(resize) if resize.by_sizes => sole(&operands[..1], |axis| axis == 0),
        Op::Resize(_) => sole(operands, |axis| axis == 0),
        Op::Pad(_) => padding(operands),
        Op::Recurrent(op) => recurrent(op, operands),
        Op::Softmax { axis, .. } => {
            let axis = place(*axis, first)?;
            sole(operands, |rows| rows != axis)
        }
        Op::Reduce(reduce) => reduction(reduce, operands),
        Op::Transpose { axes } => match first.carry {
            Carry::Rows(rows) => axes.iter().position(|axis| *axis == rows).map(Carry::Rows).ok_or("it drops the rows"),
            other => Ok(other),
        },
        Op::Reshape { .. } | Op::Flatten { .. } | Op::Squeeze | Op::Unsqueeze => reshaped(first, out),
        Op::Concat { axis } => {
            let axis = place(*axis, first)?;
            match first.carry {
                Carry::Rows(rows) if rows != axis && operands.iter().all(|other| other.carry == first.carry) => {
                    Ok(first.carry)
                }
                _ => Err(MIXES),
            }
        }
        Op::Gather { axis } => gather(operands, place(*axis, first)?),
        Op::Slice => sliced(operands),
        Op::Expand => broadcast(&operands[..1], out),
        Op::MatMul | Op::QuantizedMatMul(_) => matmul(operands, out),
        Op::Arg(_) | Op::Top(_) | Op::CumulativeSum { .. } | Op::GatherElements { .. } | Op::ScatterElements { .. } => {
            selected(node, operands, first)
        }
        Op::Arrange(arrangement) => arranged(arrangement, operands, first),
        Op::Sample(sampling) => sampled(sampling, operands, rank),
        Op::Contract(_) => Err(MIXES),
        Op::Fourier { .. } => fourier(operands, rank),
        Op::Fill { .. } => rows_axis(&out[0].shape, &out[1].shape).map(Carry::Rows).ok_or(MIXES),
        Op::Shape { .. } | Op::Size => Ok(Carry::Count),
        Op::Quantize { axis } | Op::Dequantize { axis } => {
            let single = operands[1].facts[0].elements() == 1;
            let scaled = if single { None } else { Some(place(*axis, first)?) };
            sole(operands, |rows| scaled != Some(rows))
        }
        Op::QuantizedAdd(_) => broadcast(operands, out),
        Op::IntegerMatMul => integer_matmul(operands, out),
        Op::LookUp => Ok(first.carry),
        Op::Trees(_) => sole(operands, |axis| axis == 0),
        Op::NonZero | Op::NonMaxSuppression { .. } | Op::Unique(_) | Op::Several(_) | Op::Part(_) => Err(MIXES),
    }
}

fn place(given: isize, operand: &Operand<'_>) -> Result<usize, &'static str> {
    axis(given, &operand.facts[0].shape).map_err(|_| "its axis is none")
}

/// The rows' axis of the first operand where it is allowed. Others are fixed, or have the rows on the same axis.
fn sole(operands: &[Operand<'_>], allowed: impl Fn(usize) -> bool) -> Result<Carry, &'static str> {
    let first = operands[0].carry;
    let others = operands[1..].iter().all(|other| other.carry == Carry::Fixed || other.carry == first);
    match first {
        Carry::Rows(axis) if allowed(axis) && others => Ok(first),
        _ => Err(MIXES),
    }
}

/// What chooses elements along an axis does so in every row by itself, if the axis is not the rows'.
fn selected(node: &Node, operands: &[Operand<'_>], first: &Operand<'_>) -> Result<Carry, &'static str> {
    match &node.op {
        Op::Arg(arg) => {
            let axis = place(arg.axis, first)?;
            let Carry::Rows(rows) = sole(operands, |rows| rows != axis)? else { return Err(MIXES) };
            Ok(Carry::Rows(if arg.keep || rows < axis { rows } else { rows - 1 }))
        }
        Op::Top(Top { axis, .. }) => {
            let axis = place(*axis, first)?;
            sole(operands, |rows| rows != axis)
        }
        Op::CumulativeSum { .. } => {
            let given = operands[1].facts[0].integers("an axis").map_err(|_| "its axis is not known")?;
            let given = given.first().and_then(|axis| isize::try_from(*axis).ok()).ok_or(MIXES)?;
            let axis = place(given, first)?;
            sole(operands, |rows| rows != axis)
        }
        Op::GatherElements { axis } | Op::ScatterElements { axis, .. } => {
            let axis = place(*axis, first)?;
            let all = operands.iter().all(|operand| operand.carry == first.carry);
            let as_many =
                |rows: usize| operands.iter().all(|other| other.facts[0].shape[rows] == first.facts[0].shape[rows]);
            match first.carry {
                Carry::Rows(rows) if rows != axis && all && as_many(rows) => Ok(first.carry),
                _ => Err(MIXES),
            }
        }
        _ => Err(MIXES),
    }
}

fn arranged(op: &Arrangement, operands: &[Operand<'_>], first: &Operand<'_>) -> Result<Carry, &'static str> {
    let rank = first.facts[0].shape.len();
    match op {
        Arrangement::Turn => match first.carry {
            Carry::Rows(rows) => Ok(Carry::Rows(rank - 1 - rows)),
            other => Ok(other),
        },
        Arrangement::Triangle { .. } => sole(operands, |rows| rows + 2 < rank),
        Arrangement::Tile => {
            let repeats = operands[1].facts[0].integers("how often it is repeated").map_err(|_| MIXES)?;
            sole(operands, |rows| repeats.get(rows) == Some(&1))
        }
        Arrangement::OneHot { axis } => {
            let Carry::Rows(rows) = sole(operands, |_| true)? else { return Err(MIXES) };
            let classes = if *axis < 0 { (rank + 1).saturating_add_signed(*axis) } else { axis.unsigned_abs() };
            Ok(Carry::Rows(if rows < classes { rows } else { rows + 1 }))
        }
        Arrangement::GatherTuples { batch } => match [operands[0].carry, operands[1].carry] {
            [Carry::Rows(x), Carry::Rows(indices)] if x == indices && x < *batch => Ok(first.carry),
            [Carry::Fixed, Carry::Rows(rows)] if rows + 1 < operands[1].facts[0].shape.len() => Ok(Carry::Rows(rows)),
            _ => Err(MIXES),
        },
        Arrangement::Reverse { batch, .. } => match [operands[0].carry, operands[1].carry] {
            [Carry::Rows(x), Carry::Rows(0)] if x == *batch => Ok(first.carry),
            _ => Err(MIXES),
        },
        _ => Err(MIXES),
    }
}

fn padding(operands: &[Operand<'_>]) -> Result<Carry, &'static str> {
    let facts: Facts<'_> = operands.iter().map(|operand| operand.facts[0]).collect();
    let pads = padded(&facts).map_err(|_| "its padding is none")?;
    sole(operands, |axis| pads[axis] == [0, 0])
}

fn reduction(reduce: &Reduce, operands: &[Operand<'_>]) -> Result<Carry, &'static str> {
    let facts: Facts<'_> = operands.iter().map(|operand| operand.facts[0]).collect();
    let reduced = reduced_axes(&reduce.axes, &facts).map_err(|_| "its axes are none")?;
    let Carry::Rows(rows) = sole(operands, |rows| !reduced[rows])? else { return Ok(Carry::Fixed) };
    let before = reduced[..rows].iter().filter(|reduced| **reduced).count();
    Ok(Carry::Rows(if reduce.keep { rows } else { rows - before }))
}

fn windowed(windows: &Windows, operands: &[Operand<'_>]) -> Result<Carry, &'static str> {
    match windows.kind {
        // Places are counted from the first row.
        WindowKind::Place { .. } => Err(MIXES),
        _ => sole(operands, |axis| axis < 2),
    }
}

/// Neither the axis that is transformed nor that of the parts of a number may be the rows'.
fn fourier(operands: &[Operand<'_>], rank: usize) -> Result<Carry, &'static str> {
    let facts: Facts<'_> = operands.iter().map(|operand| operand.facts[0]).collect();
    let along = transformed(false, &facts).map_err(|_| MIXES)?.axis;
    sole(operands, |rows| rows != along && rows + 1 < rank)
}

fn integer_matmul(operands: &[Operand<'_>], out: [&Fact; 2]) -> Result<Carry, &'static str> {
    match operands.split_at_checked(2) {
        Some((sides, zeros)) if zeros.iter().all(|zero| zero.carry == Carry::Fixed) => matmul(sides, out),
        _ => Err(MIXES),
    }
}

fn sampled(op: &Sampling, operands: &[Operand<'_>], rank: usize) -> Result<Carry, &'static str> {
    match op {
        Sampling::Grid(_) => sole(operands, |rows| rows == 0),
        // A list of sizes has the number of rows in it.
        Sampling::Fold(_) => sole(&operands[..1], |rows| rows == 0),
        Sampling::Determinant => sole(operands, |rows| rows + 2 < rank),
        Sampling::Resample(Resample { axes: Some(axes), .. }) => sole(&operands[..1], |rows| {
            let shape = &operands[0].facts[0].shape;
            !axes.iter().any(|&at| axis(at, shape).is_ok_and(|at| at == rows))
        }),
        Sampling::Resample(_) | Sampling::AffineGrid { .. } | Sampling::Regions(_) => Err(MIXES),
    }
}

/// Operands of the output's axes, counted from the last: the rows of all lie on one axis of it.
fn broadcast(operands: &[Operand<'_>], out: [&Fact; 2]) -> Result<Carry, &'static str> {
    let rank = out[0].shape.len();
    let mut found = None;
    for operand in operands {
        let shape = &operand.facts[0].shape;
        if let Carry::Rows(axis) = operand.carry {
            let at = axis + rank - shape.len();
            if found.is_some_and(|other| other != at) {
                return Err("it combines different rows");
            }
            found = Some(at);
        }
    }
    let Some(at) = found.or_else(|| rows_axis(&out[0].shape, &out[1].shape)) else { return Err(MIXES) };
    // One that is repeated for every row has one element there, or no such axis.
    let repeats = |operand: &Operand<'_>| {
        let shape = &operand.facts[0].shape;
        operand.carry != Carry::Fixed || (at + shape.len()).checked_sub(rank).is_none_or(|own| shape[own] == 1)
    };
    if operands.iter().all(repeats) { Ok(Carry::Rows(at)) } else { Err("it combines different rows") }
}

/// Rows stay whole where as many elements stand before their axis as did: behind it are then those of the rows, one row
/// after the other.
fn reshaped(first: &Operand<'_>, out: [&Fact; 2]) -> Result<Carry, &'static str> {
    let Carry::Rows(from) = first.carry else { return Err(MIXES) };
    let to = rows_axis(&out[0].shape, &out[1].shape).ok_or("it folds the rows into another axis")?;
    let before = |shape: &Shape, axis: usize| shape[..axis].iter().product::<usize>();
    if before(&first.facts[0].shape, from) == before(&out[0].shape, to) {
        Ok(Carry::Rows(to))
    } else {
        Err("it folds the rows into another axis")
    }
}

fn gather(operands: &[Operand<'_>], axis: usize) -> Result<Carry, &'static str> {
    let indices = operands.get(1).ok_or(MIXES)?;
    match (operands[0].carry, indices.carry) {
        (Carry::Rows(rows), Carry::Fixed) if rows < axis => Ok(Carry::Rows(rows)),
        (Carry::Rows(rows), Carry::Fixed) if rows > axis => Ok(Carry::Rows(rows + indices.facts[0].shape.len() - 1)),
        (Carry::Fixed, Carry::Rows(rows)) => Ok(Carry::Rows(axis + rows)),
        _ => Err(MIXES),
    }
}

fn sliced(operands: &[Operand<'_>]) -> Result<Carry, &'static str> {
    let Carry::Rows(rows) = operands[0].carry else { return Err(MIXES) };
    let cuts = |sample: usize| {
        let facts: Facts<'_> = operands.iter().map(|operand| operand.facts[sample]).collect();
        slice(&facts).map_err(|_| "its bounds are none")
    };
    let [mut first, mut second] = [cuts(0)?, cuts(1)?];
    for (sample, cuts) in [&mut first, &mut second].into_iter().enumerate() {
        if cuts.remove(rows) != (Cut { first: 0, step: 1, count: operands[0].facts[sample].shape[rows] }) {
            return Err("it takes some of the rows");
        }
    }
    if first == second { Ok(Carry::Rows(rows)) } else { Err("its bounds depend on the number of rows") }
}

fn matmul(operands: &[Operand<'_>], out: [&Fact; 2]) -> Result<Carry, &'static str> {
    let [a, b] = operands else { return Err(MIXES) };
    let ranks = [a, b].map(|operand| operand.facts[0].shape.len());
    let rank = out[0].shape.len();
    // Axes of the output are counted from the last, as those of the operands are; each has a row and a column axis.
    let at = |axis: usize, own: usize| (axis + rank).checked_sub(own);
    match (a.carry, b.carry) {
        _ if ranks[0] < 2 || ranks[1] < 2 => Err(MIXES),
        (Carry::Rows(axis), Carry::Fixed) if axis + 1 < ranks[0] => {
            let batched = axis + 2 < ranks[0];
            let repeats = at(axis, ranks[0])
                .and_then(|at| (at + ranks[1]).checked_sub(rank))
                .is_none_or(|own| b.facts[0].shape[own] == 1);
            if batched && !repeats { Err(MIXES) } else { at(axis, ranks[0]).map(Carry::Rows).ok_or(MIXES) }
        }
        (Carry::Rows(x), Carry::Rows(y))
            if x + 2 < ranks[0] && y + 2 < ranks[1] && at(x, ranks[0]) == at(y, ranks[1]) =>
        {
            at(x, ranks[0]).map(Carry::Rows).ok_or(MIXES)
        }
        _ => Err(MIXES),
    }
}

/// A row's states come from its own steps.
fn recurrent(op: &Recurrent, operands: &[Operand<'_>]) -> Result<Carry, &'static str> {
    let [x, weights @ ..] = operands else { return Err(MIXES) };
    let roles = [Role::Bias, Role::Bias].iter().chain(&op.more);
    let of_rows = |(role, operand): (&Role, &Operand<'_>)| match role {
        Role::Bias | Role::Peepholes => operand.carry == Carry::Fixed,
        Role::Lengths => operand.carry == Carry::Rows(0),
        Role::Hidden | Role::Cell => operand.carry == Carry::Rows(1),
    };
    if x.carry == Carry::Rows(1) && roles.zip(weights).all(of_rows) { Ok(Carry::Rows(2)) } else { Err(MIXES) }
}

/// Queries, keys and values of a row attend to each other; a mask is the row's, or the same for all.
fn attention(operands: &[Operand<'_>]) -> Result<Carry, &'static str> {
    let (heads, mask) = operands.split_at_checked(3).ok_or(MIXES)?;
    let of_row = |operand: &Operand<'_>| operand.carry == Carry::Rows(0);
    let same_for_all = |mask: &Operand<'_>| {
        let shape = &mask.facts[0].shape;
        mask.carry == Carry::Fixed && (shape.len() < 4 || shape[0] == 1)
    };
    let fits = |mask: &Operand<'_>| same_for_all(mask) || of_row(mask) && mask.facts[0].shape.len() == 4;
    if heads.iter().all(of_row) && mask.iter().all(fits) { Ok(Carry::Rows(0)) } else { Err(MIXES) }
}

const MIXES: &str = "it may mix rows";
