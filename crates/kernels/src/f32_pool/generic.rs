//! One output pixel, for any vector.

use crate::vector::Vector;

/// What a kernel works on. Pointers are valid for the extents beside them.
pub(super) struct Job {
    /// The first tap in the image.
    pub(super) image: *const f32,
    /// Lines and columns of taps in the image.
    pub(super) taps: [usize; 2],
    /// Elements from a line of taps to the next, from a tap to the next.
    pub(super) pitch: [usize; 2],
    /// The first channel and how many.
    pub(super) first: usize,
    pub(super) channels: usize,
    pub(super) out: *mut f32,
    /// The sum times this, or the greatest.
    pub(super) scale: Option<f32>,
}

pub(super) type Kernel = unsafe fn(&Job);

/// Runs a kernel that belongs to a level.
pub(super) fn call(kernel: Kernel, job: &Job) {
    // SAFETY: the kernel was found by its level, which proves its instructions; `Pool::run` has checked the extents
    // that the job's pointers cover.
    unsafe { kernel(job) }
}

/// # Safety
/// The processor has the instructions of `V`, and the job's pointers are valid.
#[inline(always)]
pub(super) unsafe fn pixel<V: Vector>(job: &Job) {
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        let mut channel = 0;
        while channel < job.channels {
            let count = V::LANES.min(job.channels - channel);
            let value = match job.scale {
                Some(scale) => fold::<V>(job, channel, count, 0.0, |a, b| a.add(b)).mul(V::splat(scale)),
                None => fold::<V>(job, channel, count, f32::NEG_INFINITY, |a, b| b.max(a)),
            };
            if count < V::LANES {
                value.store_first(job.out.add(channel), count);
            } else {
                value.store(job.out.add(channel));
            }
            channel += count;
        }
    }
}

/// # Safety
/// As `pixel`.
#[inline(always)]
unsafe fn fold<V: Vector>(job: &Job, channel: usize, count: usize, start: f32, f: impl Fn(V, V) -> V) -> V {
    // SAFETY: the caller's promise is that of these reads.
    unsafe {
        let mut folded = V::splat(start);
        for line in 0..job.taps[0] {
            let mut from = job.image.wrapping_add(line * job.pitch[0] + job.first + channel);
            for _ in 0..job.taps[1] {
                let x = if count < V::LANES { V::load_first(from, count) } else { V::load(from) };
                folded = f(folded, x);
                from = from.wrapping_add(job.pitch[1]);
            }
        }
        folded
    }
}
