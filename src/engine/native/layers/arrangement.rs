//! Operators that put elements elsewhere, or make them from their places.

use bytemuck::Pod;

use super::arithmetic::Number;
use super::movement::{self, integer, place};
use super::types::{numbers, sized};
use super::{Io, Layer, Unfit, View};
use crate::engine::graph::op::{Arrangement, Binary};
use crate::engine::pool::Team;
use crate::tensor::{PerAxis, Shape};

#[derive(Debug)]
pub(super) struct Arrange(pub(super) Arrangement);

impl Layer for Arrange {
    fn check(&self, operands: &[View<'_>]) -> Result<(), Unfit> {
        let batch = match self.0 {
            Arrangement::GatherTuples { batch } => batch,
            Arrangement::ScatterTuples { .. } => 0,
            _ => return Ok(()),
        };
        let (_, _, named) = parts(operands[1].shape(), batch);
        movement::check_indices(&operands[1], operands[0].shape()[batch..batch + named].iter().copied())
    }

    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        match &self.0 {
            Arrangement::Turn => movement::turn(io),
            Arrangement::Triangle { upper } => triangle(io, *upper),
            Arrangement::Tile => tile(io),
            Arrangement::Range => numbers!(io.output.fact.dtype, T => range::<T>(io)),
            Arrangement::Diagonal { offset, .. } => numbers!(io.output.fact.dtype, T => diagonal::<T>(io, *offset)),
            Arrangement::OneHot { axis } => sized!(io.output.fact.dtype, T => one_hot::<T>(io, *axis)),
            Arrangement::GatherTuples { batch } => gather(io, *batch),
            Arrangement::ScatterTuples { with } => scatter(io, *with),
            Arrangement::Reverse { batch, time } => reverse(io, *batch, *time),
            Arrangement::Centre { .. } => centre(io),
        }
    }
}

fn triangle(io: &mut Io<'_>, upper: bool) {
    let x = io.operands[0];
    let offset = io.operands.get(1).map_or(0, |offset| integer(offset, 0));
    let size = x.fact.dtype.size().unwrap_or(1);
    let &[.., rows, columns] = &x.shape()[..] else { return };
    let line = columns * size;
    io.output.bytes.copy_from_slice(x.bytes);
    for (at, to) in io.output.bytes.chunks_exact_mut(line.max(1)).enumerate() {
        // The first place on the diagonal, or behind it, of those that a line has.
        let diagonal = i64::try_from(at % rows).unwrap_or(i64::MAX).saturating_add(offset);
        let before = |place: i64| usize::try_from(place.max(0)).unwrap_or(columns).min(columns) * size;
        match upper {
            true => to[..before(diagonal)].fill(0),
            false => to[before(diagonal.saturating_add(1))..].fill(0),
        }
    }
}

fn tile(io: &mut Io<'_>) {
    let x = io.operands[0];
    let axes = before_and_after(io);
    repeat(x.bytes, &axes, io.output.bytes);
}

/// The extents of every axis.
fn before_and_after(io: &Io<'_>) -> PerAxis<[usize; 2]> {
    io.operands[0].shape().iter().zip(io.output.fact.shape.iter()).map(|(from, to)| [*from, *to]).collect()
}

/// Writes what lies behind some axes, given by their extents before and after, as often as it is repeated.
fn repeat(from: &[u8], axes: &[[usize; 2]], to: &mut [u8]) {
    let [[extent, out], inner @ ..] = axes else { return to.copy_from_slice(from) };
    if to.is_empty() {
        return;
    }
    let (length, written) = (from.len() / extent, to.len() / out);
    let (first, others) = to.split_at_mut(extent * written);
    for (from, to) in from.chunks_exact(length).zip(first.chunks_exact_mut(written)) {
        repeat(from, inner, to);
    }
    others.chunks_exact_mut(first.len()).for_each(|again| again.copy_from_slice(first));
}

fn range<T: Number>(io: &mut Io<'_>) {
    let [start, step] = [io.operands[0], io.operands[2]].map(|operand| operand.elements::<T>()[0]);
    let (add, times) = (T::function(Binary::Add), T::function(Binary::Mul));
    for (at, to) in io.output.elements::<T>().iter_mut().enumerate() {
        *to = add(start, times(T::of_count(at), step));
    }
}

fn diagonal<T: Number>(io: &mut Io<'_>, offset: i64) {
    let columns = io.output.fact.shape[1];
    let out = io.output.elements::<T>();
    out.fill(T::zeroed());
    for (row, line) in out.chunks_exact_mut(columns.max(1)).enumerate() {
        let place = i64::try_from(row).unwrap_or(i64::MAX).saturating_add(offset);
        if let Some(element) = usize::try_from(place).ok().and_then(|place| line.get_mut(place)) {
            *element = T::ONE;
        }
    }
}

fn one_hot<T: Pod>(io: &mut Io<'_>, axis: isize) {
    let [classes, values] = [io.operands[0], io.operands[2]];
    let shape = &io.output.fact.shape;
    let axis = if axis < 0 { shape.len().saturating_add_signed(axis) } else { axis.unsigned_abs() };
    let (depth, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let &[off, on] = values.elements::<T>() else { return };
    let out: &mut [T] = bytemuck::cast_slice_mut(io.output.bytes);
    out.fill(off);
    for (at, &class) in classes.elements::<i64>().iter().enumerate() {
        let class = if class < 0 { class.saturating_add(i64::try_from(depth).unwrap_or(i64::MAX)) } else { class };
        if let Some(class) = usize::try_from(class).ok().filter(|class| *class < depth) {
            out[(at / inner * depth + class) * inner + at % inner] = on;
        }
    }
}

/// The place of what a tuple of indices means, in pieces of what lies behind the axes that it names.
fn met(indices: &View<'_>, tuple: usize, axes: &[usize]) -> usize {
    axes.iter()
        .enumerate()
        .fold(0, |at, (axis, &extent)| at * extent + place(indices, tuple * axes.len() + axis, extent))
}

fn gather(io: &mut Io<'_>, batch: usize) {
    let [x, indices] = [io.operands[0], io.operands[1]];
    let (rows, tuples, named) = parts(indices.shape(), batch);
    let axes = &x.shape()[batch..batch + named];
    let length = x.shape()[batch + named..].iter().product::<usize>() * x.fact.dtype.size().unwrap_or(1);
    let row = axes.iter().product::<usize>() * length;
    for at in 0..rows * tuples {
        let from = at / tuples * row + met(&indices, at, axes) * length;
        io.output.bytes[at * length..][..length].copy_from_slice(&x.bytes[from..][..length]);
    }
}

fn scatter(io: &mut Io<'_>, with: Option<Binary>) {
    let [x, indices, updates] = [io.operands[0], io.operands[1], io.operands[2]];
    let (_, tuples, named) = parts(indices.shape(), 0);
    let axes = &x.shape()[..named];
    let count = x.shape()[named..].iter().product::<usize>();
    let length = count * x.fact.dtype.size().unwrap_or(1);
    io.output.bytes.copy_from_slice(x.bytes);
    for at in 0..tuples {
        let place = met(&indices, at, axes);
        let Some(with) = with else {
            io.output.bytes[place * length..][..length].copy_from_slice(&updates.bytes[at * length..][..length]);
            continue;
        };
        numbers!(x.fact.dtype, T => {
            let function = T::function(with);
            let to = &mut io.output.elements::<T>()[place * count..][..count];
            to.iter_mut().zip(&updates.elements::<T>()[at * count..]).for_each(|(to, update)| *to = function(*to, *update));
        });
    }
}

/// Rows of a batch, tuples of each, and how many axes a tuple names.
fn parts(indices: &Shape, batch: usize) -> (usize, usize, usize) {
    let (named, before) = indices.split_last().map_or((0, &[][..]), |(named, before)| (*named, before));
    (before[..batch].iter().product(), before[batch..].iter().product(), named)
}

fn reverse(io: &mut Io<'_>, batch: usize, time: usize) {
    let [x, lengths] = [io.operands[0], io.operands[1]];
    let (shape, size) = (x.shape(), x.fact.dtype.size().unwrap_or(1));
    let behind = |axis: usize| shape[axis + 1..].iter().product::<usize>();
    let (steps, line) = (shape[time], behind(batch.max(time)) * size);
    for (at, to) in io.output.bytes.chunks_exact_mut(line.max(1)).enumerate() {
        let along = |axis: usize| at * line / size / behind(axis).max(1) % shape[axis];
        let (row, step) = (along(batch), along(time));
        let turned = usize::try_from(lengths.elements::<i64>()[row]).unwrap_or(0).min(steps);
        let from = if step < turned { turned - 1 - step } else { step };
        let place = at * line + from * behind(time) * size - step * behind(time) * size;
        to.copy_from_slice(&x.bytes[place..][..line]);
    }
}

fn centre(io: &mut Io<'_>) {
    let x = io.operands[0];
    let axes = before_and_after(io);
    io.output.bytes.fill(0);
    put(x.bytes, &axes, io.output.bytes);
}

/// Copies the middle of what lies behind some axes, given by their extents before and after.
fn put(from: &[u8], axes: &[[usize; 2]], to: &mut [u8]) {
    let [[extent, out], inner @ ..] = axes else { return to.copy_from_slice(from) };
    if from.is_empty() || to.is_empty() {
        return;
    }
    let (length, written) = (from.len() / extent, to.len() / out);
    let (skipped, before) = (extent.saturating_sub(*out) / 2, out.saturating_sub(*extent) / 2);
    let lines = from.chunks_exact(length).skip(skipped).zip(to.chunks_exact_mut(written).skip(before));
    lines.for_each(|(from, to)| put(from, inner, to));
}
