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
    /// Columns of a group.
    pub(super) width: usize,
    /// With so many steps beside those of all weights it takes as long as all products do.
    pub(super) share_max: f32,
    pub(super) group: unsafe fn(Job<'_>),
}

/// What a group works on.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) row: &'a [f32],
    /// Of each chunk of the row.
    pub(super) steps: &'a [u8],
    /// `[step][column]`.
    pub(super) values: &'a [f32],
    pub(super) places: &'a [u8],
    pub(super) bias: &'a [f32],
    pub(super) residual: Option<&'a [f32]>,
    pub(super) activation: Activation,
    /// Of at most as many columns as a group has.
    pub(super) out: &'a mut [f32],
}

/// Runs the kernel of a level.
pub(super) fn call(kernels: &Kernels, job: Job<'_>) {
    let steps: usize = job.steps.iter().map(|&steps| usize::from(steps)).sum();
    let elements = steps * kernels.width;
    assert!(job.values.len() >= elements && job.places.len() >= elements, "there are weights for all steps");
    assert!(job.bias.len() >= kernels.width && job.out.len() <= kernels.width, "there is a bias for all columns");
    assert_eq!(job.steps.len(), job.row.len().div_ceil(CHUNK), "every chunk has its steps");
    // SAFETY: it is found in the table of a level, which proves its instructions; extents were asserted, and places are
    // within chunks, as they were packed.
    unsafe { (kernels.group)(job) }
}

/// # Safety
/// The processor has the instructions of `V`, the job has `P` vectors of columns, and what `call` asserts holds.
#[inline(always)]
pub(super) unsafe fn group<V: Pick, const P: usize>(job: Job<'_>) {
    // SAFETY: the caller's promise is that of these reads, writes and calls.
    unsafe {
        let mut sums = [V::splat(0.0); P];
        let (mut values, mut places) = (job.values.as_ptr(), job.places.as_ptr());
        for (row, &steps) in job.row.chunks(CHUNK).zip(job.steps) {
            let chunk = V::chunk(row.as_ptr(), row.len());
            for _ in 0..steps {
                for (p, sum) in sums.iter_mut().enumerate() {
                    let x = V::pick(chunk, places.add(p * V::LANES));
                    *sum = x.mul_add(V::load(values.add(p * V::LANES)), *sum);
                }
                (values, places) = (values.add(P * V::LANES), places.add(P * V::LANES));
            }
        }
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
