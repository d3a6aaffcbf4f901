//! The loop over one group of columns.

use super::CHUNK;
use crate::activation::Activation;
use crate::vector::{Stored, Vector, activate};

/// Elements of a chunk by their places in it.
///
/// # Safety
/// As the methods of [`Vector`].
pub(super) trait Pick: Vector {
    type Chunk: Copy;

    /// `count` elements are readable, at most as many as a chunk has.
    unsafe fn chunk(from: *const f32, count: usize) -> Self::Chunk;
    /// As many places as there are lanes are readable, each within a chunk.
    unsafe fn pick(chunk: Self::Chunk, places: *const u8) -> Self;
}

/// The kernel of an instruction set.
#[derive(Debug)]
pub(super) struct Kernels {
    pub(super) name: &'static str,
    pub(super) lanes: usize,
    /// Columns of a group.
    pub(super) width: usize,
    pub(super) blocks: unsafe fn(Job<'_>, &[u32]),
    /// Where elements are found by a permutation.
    pub(super) places: Option<Places>,
}

/// Takes the steps of each chunk of the row, and `[step][column]` within a chunk.
pub(super) type Places = unsafe fn(Job<'_>, &[usize], &[u8]);

/// What a group works on.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) row: &'a [f32],
    /// `[step][column]`.
    pub(super) values: &'a [f32],
    pub(super) bias: &'a [f32],
    pub(super) residual: Option<&'a [f32]>,
    pub(super) activation: Activation,
    /// Of at most as many columns as a group has.
    pub(super) out: &'a mut [f32],
}

/// Runs the kernel of a level. Offsets are `[step][vector]`: the elements of the row that blocks meet.
pub(super) fn call_blocks(kernels: &Kernels, job: Job<'_>, offsets: &[u32]) {
    job.check(kernels, offsets.len() * kernels.lanes);
    // SAFETY: it is found in the table of a level, which proves its instructions; extents were checked, and offsets are within
    // the row, as they were packed.
    unsafe { (kernels.blocks)(job, offsets) }
}

/// As `call_blocks`, where there is such a kernel.
pub(super) fn call_places(kernels: &Kernels, job: Job<'_>, steps: &[usize], places: &[u8]) {
    let elements = steps.iter().sum::<usize>() * kernels.width;
    job.check(kernels, elements);
    assert!(places.len() >= elements, "there are places for all steps");
    assert_eq!(steps.len(), job.row.len().div_ceil(CHUNK), "every chunk has its steps");
    let kernel = kernels.places.expect("what was packed has a kernel");
    // SAFETY: as in `call_blocks`; places are within chunks, as they were packed.
    unsafe { kernel(job, steps, places) }
}

impl Job<'_> {
    fn check(&self, kernels: &Kernels, elements: usize) {
        assert!(self.values.len() >= elements, "there are weights for all steps");
        assert!(self.bias.len() >= kernels.width && self.out.len() <= kernels.width, "there is a bias for all columns");
    }
}

/// # Safety
/// The processor has the instructions of `V`, the job has `P` vectors of columns, and what `call_blocks` says holds.
#[inline(always)]
pub(super) unsafe fn blocks<V: Vector, const P: usize>(job: Job<'_>, offsets: &[u32]) {
    // SAFETY: the caller's promise is that of these reads and calls.
    unsafe {
        let (mut sums, mut values) = ([V::splat(0.0); P], job.values.as_ptr());
        for offsets in offsets.chunks_exact(P) {
            for (sum, &offset) in sums.iter_mut().zip(offsets) {
                let x = V::splat(*job.row.as_ptr().add(offset as usize));
                *sum = x.mul_add(V::load(values), *sum);
                values = values.add(V::LANES);
            }
        }
        end(job, &sums);
    }
}

/// # Safety
/// As `blocks`, of what `call_places` says.
#[inline(always)]
pub(super) unsafe fn places<V: Pick, const P: usize>(job: Job<'_>, steps: &[usize], places: &[u8]) {
    // SAFETY: the caller's promise is that of these reads and calls.
    unsafe {
        let mut sums = [V::splat(0.0); P];
        let (mut values, mut places) = (job.values.as_ptr(), places.as_ptr());
        for (row, &steps) in job.row.chunks(CHUNK).zip(steps) {
            let chunk = V::chunk(row.as_ptr(), row.len());
            for _ in 0..steps {
                for (p, sum) in sums.iter_mut().enumerate() {
                    let x = V::pick(chunk, places.add(p * V::LANES));
                    *sum = x.mul_add(V::load(values.add(p * V::LANES)), *sum);
                }
                (values, places) = (values.add(P * V::LANES), places.add(P * V::LANES));
            }
        }
        end(job, &sums);
    }
}

/// What follows the sums of a group.
///
/// # Safety
/// As `blocks`.
#[inline(always)]
unsafe fn end<V: Vector, const P: usize>(job: Job<'_>, sums: &[V; P]) {
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        for (p, sum) in sums.iter().enumerate() {
            let first = p * V::LANES;
            let Some(count) = job.out.len().checked_sub(first).filter(|count| *count > 0) else { break };
            let mut sum = sum.add(V::load(job.bias.as_ptr().add(first)));
            if let Some(residual) = job.residual {
                sum = sum.add(<f32 as Stored<V>>::load(residual.as_ptr().add(first), count));
            }
            let out = job.out.as_mut_ptr().add(first);
            <f32 as Stored<V>>::store(activate(sum, job.activation), out, count);
        }
    }
}
