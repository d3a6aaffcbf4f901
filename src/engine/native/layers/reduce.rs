//! Sums, averages and extremes along axes.

use bytemuck::Pod;
use half::bf16;
use kinglet_kernels::pool::{Element, Pool};
use kinglet_kernels::{Level, Window};
use smallvec::smallvec;

use super::arithmetic::Number;
use super::types::numbers;
use super::{Halves, Io, Layer};
use crate::engine::graph::infer::{self, Facts};
use crate::engine::graph::op::{Binary, Reduce, ReduceKind};
use crate::engine::pool::Team;
use crate::tensor::{DType, PerAxis, Shape};

#[derive(Debug)]
pub(super) struct Reduction {
    reduce: Reduce,
    level: Level,
}

impl Reduction {
    pub(super) fn new(reduce: &Reduce, level: Level) -> Self {
        Self { reduce: reduce.clone(), level }
    }

    /// Axes beside each other in front of others are the taps of a window over a channels-last image.
    fn pool_of(&self, together: Option<[usize; 3]>, lanes_min: usize) -> Option<(Pool, [usize; 3])> {
        let extents = together.filter(|[.., inner]| *inner >= lanes_min)?;
        match self.reduce.kind {
            ReduceKind::Mean => Some((Pool::Average { pad_after: None }, extents)),
            ReduceKind::Max => Some((Pool::Max, extents)),
            _ => None,
        }
    }

    /// Of bf16, which plain code does not have: what was a pool for the samples may have other extents in a request.
    fn run_halves(&self, together: Option<[usize; 3]>, io: &mut Io<'_>, team: &mut Team) {
        if let Some((pool, extents)) = self.pool_of(together, 1) {
            return self.pooled::<bf16>(pool, extents, io, team);
        }
        let mut of_none = [self.start::<f32>(DType::F32)];
        self.averaged(&mut of_none, 0);
        io.output.elements().fill(bf16::from_f32(of_none[0]));
    }

    fn pooled<E: Element + Pod + Send>(
        &self,
        pool: Pool,
        [outer, taps, inner]: [usize; 3],
        io: &mut Io<'_>,
        team: &mut Team,
    ) {
        let window = Window { kernel: [1, taps], out: [1, 1], ..Window::image(outer, [1, taps], inner) };
        let grid = Pool::grid(io.output.elements::<E>(), outer, inner);
        let x = io.operands[0];
        team.share(&|| pool.run(self.level, x.elements::<E>(), &window, &grid));
    }
}

impl Layer for Reduction {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let x = io.operands[0];
        let facts: Facts<'_> = io.operands.iter().map(|operand| operand.fact).collect();
        let Ok(reduced) = infer::reduced_axes(&self.reduce.axes, &facts) else { return };
        let together = together(x.shape(), &reduced);
        match (self.pool_of(together, LANES_MIN), x.fact.dtype) {
            (_, DType::Bf16) => return self.run_halves(together, io, team),
            (Some((pool, extents)), DType::F32) => return self.pooled::<f32>(pool, extents, io, team),
            _ => {}
        }
        match together.filter(|[.., inner]| *inner > 0) {
            Some(extents) => numbers!(x.fact.dtype, T => self.together::<T>(io, extents)),
            None => numbers!(x.fact.dtype, T => self.plain::<T>(io, &reduced)),
        }
    }

    fn halves(&self, operands: &Facts<'_>) -> Halves {
        let reduced = infer::reduced_axes(&self.reduce.axes, operands).ok();
        let pool = reduced.and_then(|reduced| self.pool_of(together(&operands[0].shape, &reduced), LANES_MIN));
        if pool.is_some() { Halves::ALIKE } else { Halves::NONE }
    }
}

/// The extents `[outer][taps][inner]` of a shape of which axes beside each other are reduced.
fn together(shape: &Shape, reduced: &[bool]) -> Option<[usize; 3]> {
    let product = |range: std::ops::Range<usize>| shape[range].iter().product::<usize>();
    let first = reduced.iter().position(|reduced| *reduced).unwrap_or(reduced.len());
    let end = reduced.iter().rposition(|reduced| *reduced).map_or(first, |last| last + 1);
    let (outer, taps, inner) = (product(0..first), product(first..end), product(end..reduced.len()));
    (taps > 0 && reduced[first..end].iter().all(|reduced| *reduced)).then_some([outer, taps, inner])
}

impl Reduction {
    /// What nothing is folded to.
    fn start<T: Number>(&self, of: DType) -> T {
        let [least, greatest] = if of == DType::Bool { [T::zeroed(), T::ONE] } else { T::BOUNDS };
        match self.reduce.kind {
            ReduceKind::Sum | ReduceKind::Mean => T::zeroed(),
            ReduceKind::Prod => T::ONE,
            ReduceKind::Max => least,
            ReduceKind::Min => greatest,
        }
    }

    /// Axes beside each other: `[outer][taps][inner]`, the taps of each reduced.
    fn together<T: Number>(&self, io: &mut Io<'_>, extents: [usize; 3]) {
        let x = io.operands[0];
        let start = self.start(x.fact.dtype);
        let out: &mut [T] = bytemuck::cast_slice_mut(io.output.bytes);
        out.fill(start);
        // Each call has its function compiled into it.
        match self.reduce.kind {
            ReduceKind::Sum | ReduceKind::Mean => fold(x.elements(), out, extents, start, T::function(Binary::Add)),
            ReduceKind::Prod => fold(x.elements(), out, extents, start, T::function(Binary::Mul)),
            ReduceKind::Max => fold(x.elements(), out, extents, start, T::function(Binary::Max)),
            ReduceKind::Min => fold(x.elements(), out, extents, start, T::function(Binary::Min)),
        }
        self.averaged(out, extents[1]);
    }

    fn averaged<T: Number>(&self, sums: &mut [T], count: usize) {
        if self.reduce.kind == ReduceKind::Mean {
            let divide = T::function(Binary::Div);
            sums.iter_mut().for_each(|sum| *sum = divide(*sum, T::of_count(count)));
        }
    }

    /// Any axes, element by element.
    fn plain<T: Number>(&self, io: &mut Io<'_>, reduced: &[bool]) {
        let x = io.operands[0];
        let start = self.start(x.fact.dtype);
        let out: &mut [T] = bytemuck::cast_slice_mut(io.output.bytes);
        out.fill(start);
        let mut strides: PerAxis<usize> = smallvec![0; reduced.len()];
        let mut stride = 1;
        for axis in (0..reduced.len()).rev() {
            if !reduced[axis] {
                (strides[axis], stride) = (stride, stride * x.shape()[axis]);
            }
        }
        let fold = T::function(match self.reduce.kind {
            ReduceKind::Sum | ReduceKind::Mean => Binary::Add,
            ReduceKind::Prod => Binary::Mul,
            ReduceKind::Max => Binary::Max,
            ReduceKind::Min => Binary::Min,
        });
        // What is neither greater nor less than a number comes first, so that it is kept.
        each(x.elements(), x.shape(), &strides, 0, out, &|folded, element| fold(element, folded));
        self.averaged(out, x.shape().iter().zip(reduced).filter(|(_, reduced)| **reduced).map(|(&e, _)| e).product());
    }
}

/// Several chains side by side where a row is folded to one element, one for each element where it is to more. What is
/// neither greater nor less than a number comes first, so that it is kept.
#[inline(always)]
fn fold<T: Number>(from: &[T], out: &mut [T], [_, taps, inner]: [usize; 3], start: T, function: fn(T, T) -> T) {
    for (out, from) in out.chunks_exact_mut(inner).zip(from.chunks_exact(taps * inner)) {
        if let [out] = out {
            let mut chains = [start; CHAINS];
            let (whole, rest) = from.as_chunks::<CHAINS>();
            for elements in whole {
                for (chain, &element) in chains.iter_mut().zip(elements) {
                    *chain = function(element, *chain);
                }
            }
            let all = chains.iter().chain(rest);
            *out = all.fold(start, |folded, &element| function(element, folded));
            continue;
        }
        for from in from.chunks_exact(inner) {
            out.iter_mut().zip(from).for_each(|(folded, &element)| *folded = function(element, *folded));
        }
    }
}

/// So many sums hide how long one addition takes.
const CHAINS: usize = 16;

/// Folds elements into their places, axis by axis.
fn each<T: Pod>(from: &[T], shape: &[usize], strides: &[usize], at: usize, out: &mut [T], fold: &impl Fn(T, T) -> T) {
    match (shape, strides) {
        ([extent, shape @ ..], [stride, strides @ ..]) if !from.is_empty() => {
            for (index, from) in from.chunks_exact(from.len() / extent).enumerate() {
                each(from, shape, strides, at + index * stride, out, fold);
            }
        }
        _ => {
            if let [element] = from {
                out[at] = fold(out[at], *element);
            }
        }
    }
}

/// Fewer lanes are left to plain code.
const LANES_MIN: usize = 4;
