//! Operators that move elements and compute nothing: one strided walk for all.

use bytemuck::Pod;
use kinglet_kernels::{Grid, Level, u8_functions};
use smallvec::smallvec;

use super::types::sized;
use super::{Io, Layer, Unfit, View};
use crate::engine::graph::infer::{self, Facts};
use crate::engine::graph::op::FillValue;
use crate::engine::pool::Team;
use crate::tensor::{PerAxis, Shape};

/// The operand's elements in their order, under another shape.
#[derive(Debug)]
pub(super) struct Copy;

impl Layer for Copy {
    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        io.output.bytes.copy_from_slice(io.operands[0].bytes);
    }
}

#[derive(Debug)]
pub(super) struct Transpose {
    pub(super) axes: Vec<usize>,
    pub(super) level: Level,
}

impl Layer for Transpose {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let strides = strides(io.operands[0].shape());
        let strides: PerAxis<isize> = self.axes.iter().map(|&axis| strides[axis]).collect();
        let joined = joined(&io.output.fact.shape, [&strides[..]]);
        // Images of three planes of bytes.
        let (images, pitch, rows) = match joined[..] {
            [(rows, [1]), (3, [stride])] if stride == signed(rows) => (1, 3 * rows, rows),
            [(images, [pitch]), (rows, [1]), (3, [stride])]
                if [pitch, stride] == [3, 1].map(|by| by * signed(rows)) =>
            {
                (images, 3 * rows, rows)
            }
            _ => return walk(io, 0, &strides),
        };
        if io.output.fact.dtype.size() != Some(1) {
            return walk(io, 0, &strides);
        }
        let from = io.operands[0].bytes;
        let grid = Grid::new(&mut *io.output.bytes, pitch, [images, pitch], [1, PLANES_TILE]);
        team.share(&|| {
            while let Some(mut tile) = grid.take() {
                let [image, first] = tile.first();
                let to = tile.row(0);
                let plane = |nth: usize| &from[image * pitch + nth * rows + first / 3..][..to.len() / 3];
                u8_functions::interleave(self.level, [plane(0), plane(1), plane(2)], to);
            }
        });
    }
}

/// Axes in the opposite order.
pub(super) fn turn(io: &mut Io<'_>) {
    let mut strides = strides(io.operands[0].shape());
    strides.reverse();
    walk(io, 0, &strides);
}

#[derive(Debug)]
pub(super) struct Slice;

impl Layer for Slice {
    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        let facts: Facts<'_> = io.operands.iter().map(|operand| operand.fact).collect();
        // Inference has read the same bounds.
        let Ok(cuts) = infer::slice(&facts) else { return };
        let strides = strides(io.operands[0].shape());
        let first: isize = cuts.iter().zip(&strides).map(|(cut, stride)| signed(cut.first) * stride).sum();
        let strides: PerAxis<isize> = cuts.iter().zip(&strides).map(|(cut, stride)| cut.step * stride).collect();
        walk(io, first, &strides);
    }
}

#[derive(Debug)]
pub(super) struct Expand;

impl Layer for Expand {
    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        let strides = broadcast_strides(io.operands[0].shape(), &io.output.fact.shape);
        walk(io, 0, &strides);
    }
}

#[derive(Debug)]
pub(super) struct Concat(pub(super) isize);

impl Layer for Concat {
    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        let Ok(axis) = infer::axis(self.0, &io.output.fact.shape) else { return };
        let size = io.output.fact.dtype.size().unwrap_or(1);
        let run = |shape: &Shape| shape[axis..].iter().product::<usize>() * size;
        let pitch = run(&io.output.fact.shape);
        let mut at = 0;
        for operand in &io.operands {
            let length = run(operand.shape());
            if length > 0 {
                for (from, to) in operand.bytes.chunks_exact(length).zip(io.output.bytes.chunks_exact_mut(pitch)) {
                    to[at..at + length].copy_from_slice(from);
                }
            }
            at += length;
        }
    }
}

#[derive(Debug)]
pub(super) struct Gather(pub(super) isize);

impl Layer for Gather {
    fn check(&self, operands: &[View<'_>]) -> Result<(), Unfit> {
        check_indices(&operands[1], along(self.0, &operands[0]))
    }

    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        let [x, indices] = [io.operands[0], io.operands[1]];
        let Ok(axis) = infer::axis(self.0, x.shape()) else { return };
        let size = x.fact.dtype.size().unwrap_or(1);
        let extent = x.shape()[axis];
        let length = x.shape()[axis + 1..].iter().product::<usize>() * size;
        let count = indices.fact.elements();
        if length == 0 || count == 0 || extent == 0 {
            return;
        }
        for (from, to) in x.bytes.chunks_exact(extent * length).zip(io.output.bytes.chunks_exact_mut(count * length)) {
            for (index, to) in to.chunks_exact_mut(length).enumerate() {
                let place = place(&indices, index, extent);
                to.copy_from_slice(&from[place * length..][..length]);
            }
        }
    }
}

/// The place along an axis of so many that an index means, which `check_indices` has seen.
pub(super) fn place(indices: &View<'_>, at: usize, extent: usize) -> usize {
    meant(integer(indices, at), extent).expect("indices are checked before a run")
}

/// Negative indices count from the end of the axis.
fn meant(index: i64, extent: usize) -> Option<usize> {
    let place = if index < 0 { index.checked_add_unsigned(extent as u64)? } else { index };
    usize::try_from(place).ok().filter(|place| *place < extent)
}

/// That all indices mean places of axes: those at a position of the last axis of `extents` one after the other.
pub(super) fn check_indices(indices: &View<'_>, extents: impl Iterator<Item = usize> + Clone) -> Result<(), Unfit> {
    for (at, extent) in (0..indices.fact.elements()).zip(extents.cycle()) {
        let index = integer(indices, at);
        if meant(index, extent).is_none() {
            return Err(Unfit::Index { index, extent });
        }
    }
    Ok(())
}

/// The extent of an axis; none where inference found none.
pub(super) fn along(axis: isize, operand: &View<'_>) -> impl Iterator<Item = usize> + Clone {
    infer::axis(axis, operand.shape()).ok().map(|axis| operand.shape()[axis]).into_iter()
}

/// An element of INT32 or INT64.
pub(super) fn integer(integers: &View<'_>, at: usize) -> i64 {
    match integers.fact.dtype.size() {
        Some(4) => integers.elements::<i32>()[at].into(),
        _ => integers.elements::<i64>()[at],
    }
}

#[derive(Debug)]
pub(super) struct Fill(pub(super) FillValue);

impl Layer for Fill {
    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        io.output.bytes.chunks_exact_mut(self.0.bytes.len().max(1)).for_each(|to| to.copy_from_slice(&self.0.bytes));
    }
}

/// Elements from one index to the next along each axis of a dense tensor.
pub(super) fn strides(shape: &Shape) -> PerAxis<isize> {
    let mut strides: PerAxis<isize> = smallvec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * signed(shape[axis]);
    }
    strides
}

/// Strides of an operand seen under the shape it is broadcast to.
pub(super) fn broadcast_strides(shape: &Shape, to: &Shape) -> PerAxis<isize> {
    let own = strides(shape);
    let missing = to.len() - shape.len();
    let stride = |axis: usize| match axis.checked_sub(missing) {
        Some(at) if shape[at] != 1 => own[at],
        _ => 0,
    };
    (0..to.len()).map(stride).collect()
}

/// Copies what strides see of the first operand, in the output's order.
fn walk(io: &mut Io<'_>, first: isize, strides: &[isize]) {
    let axes = joined(&io.output.fact.shape, [strides]);
    let from = io.operands[0];
    sized!(io.output.fact.dtype, T => copy(from.elements::<T>(), first, &axes, io.output.elements()));
}

/// Extents and strides with neighbouring axes made one where every operand walks over both in one stride.
pub(super) fn joined<const N: usize>(shape: &Shape, operands: [&[isize]; N]) -> PerAxis<(usize, [isize; N])> {
    let mut joined: PerAxis<(usize, [isize; N])> = PerAxis::new();
    for (axis, &extent) in shape.iter().enumerate().filter(|(_, extent)| **extent != 1) {
        let own = operands.map(|strides| strides[axis]);
        match joined.last_mut() {
            Some((last, strides)) if *strides == own.map(|stride| stride * signed(extent)) => {
                (*last, *strides) = (*last * extent, own);
            }
            _ => joined.push((extent, own)),
        }
    }
    joined
}

/// Copies elements, `axes` being extents and strides from the outermost on. Inference has checked that all that is read
/// lies in `from`.
fn copy<T: Pod>(from: &[T], first: isize, axes: &[(usize, [isize; 1])], to: &mut [T]) {
    let at = |offset: isize| usize::try_from(offset).expect("inference keeps a walk inside its operand");
    match *axes {
        [] => to.copy_from_slice(&from[at(first)..][..to.len()]),
        _ if to.is_empty() => {}
        [(extent, [1])] => to.copy_from_slice(&from[at(first)..][..extent]),
        [(_, [0])] => to.fill(from[at(first)]),
        [(_, [stride])] => {
            let mut offset = first;
            for to in to {
                *to = from[at(offset)];
                offset += stride;
            }
        }
        [(rows, [1]), (columns, [stride])] if stride > 1 => {
            let stride = stride.unsigned_abs();
            transpose(&from[at(first)..], [rows, columns], stride, to);
        }
        [(extent, [stride]), ref inner @ ..] => {
            let length = to.len() / extent;
            let mut offset = first;
            for to in to.chunks_exact_mut(length) {
                copy(from, offset, inner, to);
                offset += stride;
            }
        }
    }
}

/// Rows of the output are columns of the input: in blocks, so that a line of the cache is used up before it is left.
fn transpose<T: Pod>(from: &[T], [rows, columns]: [usize; 2], stride: usize, to: &mut [T]) {
    match columns {
        2 => return interleave::<T, 2>(from, rows, stride, to),
        3 => return interleave::<T, 3>(from, rows, stride, to),
        4 => return interleave::<T, 4>(from, rows, stride, to),
        _ => {}
    }
    for first in (0..rows).step_by(BLOCK) {
        let block = first..(first + BLOCK).min(rows);
        for column in 0..columns {
            let line = &from[column * stride + block.start..column * stride + block.end];
            for (row, &element) in block.clone().zip(line) {
                to[row * columns + column] = element;
            }
        }
    }
}

/// As `transpose`, for the few planes of an image.
fn interleave<T: Pod, const PLANES: usize>(from: &[T], rows: usize, stride: usize, to: &mut [T]) {
    let planes: [&[T]; PLANES] = std::array::from_fn(|plane| &from[plane * stride..][..rows]);
    for (row, to) in to.chunks_exact_mut(PLANES).enumerate() {
        for (to, plane) in to.iter_mut().zip(planes) {
            *to = plane[row];
        }
    }
}

fn signed(extent: usize) -> isize {
    isize::try_from(extent).unwrap_or(isize::MAX)
}

/// Bytes of three planes that one core brings together at a time.
const PLANES_TILE: usize = 3 * (8 << 10);

/// Elements of a cache line, of the common size.
const BLOCK: usize = 16;
