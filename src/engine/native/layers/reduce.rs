//! Sums, averages and extremes along axes.

use bytemuck::Pod;
use kinglet_kernels::{Level, Window, f32_pool};

use super::arithmetic::Number;
use super::types::numbers;
use super::{Io, Layer};
use crate::engine::graph::infer::{self, Facts};
use crate::engine::graph::op::{Binary, Reduce, ReduceKind};
use crate::engine::pool::Team;
use crate::tensor::DType;

#[derive(Debug)]
pub(super) struct Reduction {
    reduce: Reduce,
    level: Level,
}

impl Reduction {
    pub(super) fn new(reduce: &Reduce, level: Level) -> Self {
        Self { reduce: reduce.clone(), level }
    }

    fn pool(&self) -> Option<f32_pool::Pool> {
        match self.reduce.kind {
            ReduceKind::Mean => Some(f32_pool::Pool::Average { pad_after: None }),
            ReduceKind::Max => Some(f32_pool::Pool::Max),
            _ => None,
        }
    }
}

impl Layer for Reduction {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let x = io.operands[0];
        let facts: Facts<'_> = io.operands.iter().map(|operand| operand.fact).collect();
        let Ok(reduced) = infer::reduced_axes(&self.reduce.axes, &facts) else { return };
        let product = |range: std::ops::Range<usize>| x.shape()[range].iter().product::<usize>();
        let first = reduced.iter().position(|reduced| *reduced).unwrap_or(reduced.len());
        let end = reduced.iter().rposition(|reduced| *reduced).map_or(first, |last| last + 1);
        let (outer, taps, inner) = (product(0..first), product(first..end), product(end..reduced.len()));
        let together = x.fact.dtype == DType::F32 && reduced[first..end].iter().all(|reduced| *reduced);
        // Axes beside each other in front of others are the taps of a window over a channels-last image.
        if let (Some(pool), true, true) = (self.pool(), together && taps > 0, inner >= LANES_MIN) {
            let window = Window { kernel: [1, taps], out: [1, 1], ..Window::image(outer, [1, taps], inner) };
            let grid = f32_pool::Pool::grid(io.output.elements(), outer, inner);
            team.share(&|| pool.run(self.level, x.elements(), &window, &grid));
            return;
        }
        numbers!(x.fact.dtype, T => self.plain::<T>(io, &reduced));
    }
}

impl Reduction {
    /// Any axes, element by element.
    fn plain<T: Number>(&self, io: &mut Io<'_>, reduced: &[bool]) {
        let x = io.operands[0];
        let [least, greatest] = if x.fact.dtype == DType::Bool { [T::zeroed(), T::ONE] } else { T::BOUNDS };
        let start = match self.reduce.kind {
            ReduceKind::Sum | ReduceKind::Mean => T::zeroed(),
            ReduceKind::Prod => T::ONE,
            ReduceKind::Max => least,
            ReduceKind::Min => greatest,
        };
        let out: &mut [T] = bytemuck::cast_slice_mut(io.output.bytes);
        out.fill(start);
        let mut strides = vec![0; reduced.len()];
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
        if self.reduce.kind == ReduceKind::Mean {
            let count: usize =
                x.shape().iter().zip(reduced).filter(|(_, reduced)| **reduced).map(|(&e, _)| e).product();
            let divide = T::function(Binary::Div);
            out.iter_mut().for_each(|sum| *sum = divide(*sum, T::of_count(count)));
        }
    }
}

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
