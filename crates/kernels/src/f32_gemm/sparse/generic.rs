//! From sums that lie column by column to rows of results.

use super::super::generic::{Block, End, Job, end};
use crate::aligned::LANES_MAX;
use crate::vector::{Stored, Vector};

/// Sums that lie column by column, with what becomes of them: a job without a product.
#[derive(Debug)]
pub(in crate::f32_gemm) struct Planes<E> {
    pub(in crate::f32_gemm) sums: *const f32,
    /// From the sums of a column to those of the next. There are some of as many columns as fill the last vector.
    pub(in crate::f32_gemm) pitch: usize,
    pub(in crate::f32_gemm) rows: usize,
    pub(in crate::f32_gemm) results: Job<E>,
}

impl<E> Job<E> {
    /// Without a product.
    pub(in crate::f32_gemm) fn results(out: *mut E, out_pitch: usize, columns: usize, ends: Option<End<E>>) -> Self {
        Self {
            taps: 0,
            depth: 0,
            blocks: 1,
            rows: std::ptr::null(),
            panels: 1,
            weights: std::ptr::null(),
            weights_pitch: 0,
            next: std::ptr::null(),
            next_step: 0,
            next_pitch: 0,
            next_block: 0,
            out,
            out_pitch,
            columns,
            resume: false,
            skips: false,
            ends,
            codes: None,
        }
    }
}

/// # Safety
/// As `tile`; sums are readable for whole vectors of rows.
#[inline(always)]
pub(in crate::f32_gemm) unsafe fn planes<V: Vector, E: Stored<V>>(job: &Planes<E>) {
    // SAFETY: the caller's promise is that of these reads, writes and calls.
    unsafe {
        let mut turned = Turned([0.0; LANES_MAX * LANES_MAX]);
        let mut columns = [std::ptr::null(); LANES_MAX];
        let mut block = Block::first(&job.results);
        // All columns of a row are written before the next rows are.
        for row in (0..job.rows).step_by(V::LANES) {
            let count = V::LANES.min(job.rows - row);
            for first in (0..job.results.columns).step_by(V::LANES) {
                for (lane, column) in columns.iter_mut().enumerate() {
                    *column = job.sums.wrapping_add((first + lane) * job.pitch);
                }
                V::transpose(columns.as_ptr(), row, turned.0.as_mut_ptr(), V::LANES);
                let (mut below, mut at) = (block, 0);
                while at + ENDED <= count {
                    end_of::<V, E, ENDED>(&job.results, below, first, turned.0.as_ptr().add(at * V::LANES));
                    below = below.below(&job.results, ENDED);
                    at += ENDED;
                }
                while at < count {
                    end_of::<V, E, 1>(&job.results, below, first, turned.0.as_ptr().add(at * V::LANES));
                    below = below.below(&job.results, 1);
                    at += 1;
                }
            }
            block = block.below(&job.results, count);
        }
    }
}

/// What follows the sums of some rows, one vector of each.
///
/// # Safety
/// As `tile`; so many vectors are readable.
#[inline(always)]
unsafe fn end_of<V: Vector, E: Stored<V>, const M: usize>(
    job: &Job<E>,
    block: Block<E>,
    column: usize,
    from: *const f32,
) {
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        let mut sums = [[V::splat(0.0); 1]; M];
        for (m, [sum]) in sums.iter_mut().enumerate() {
            *sum = V::load(from.add(m * V::LANES));
        }
        end::<V, E, M, 1>(job, block, column, &mut sums);
    }
}

/// Vectors on cache lines.
#[repr(C, align(64))]
struct Turned([f32; LANES_MAX * LANES_MAX]);

/// Rows whose sums are ended together.
const ENDED: usize = 8;

/// Runs a kernel of a level.
pub(in crate::f32_gemm) fn call_planes<E>(kernel: unsafe fn(&Planes<E>), job: &Planes<E>) {
    // SAFETY: it is only found for a level, which proves its instructions; sums are those of a room, which has them for whole vectors.
    unsafe { kernel(job) }
}
