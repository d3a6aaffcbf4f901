//! The loop over channels for a block of `P` pixels, for any vector.

use crate::activation::Activation;
use crate::vector::{Vector, activate};

/// What a kernel works on. All pointers are valid for the extents beside them.
pub(super) struct Job {
    pub(super) taps: usize,
    pub(super) channels: usize,
    pub(super) pixels: Pixels,
    /// `[taps][weights_pitch]`; whole vectors are readable.
    pub(super) weights: *const f32,
    pub(super) weights_pitch: usize,
    /// `[weights_pitch]`.
    pub(super) bias: *const f32,
    pub(super) out: *mut f32,
    pub(super) out_pitch: usize,
    pub(super) activation: Activation,
}

/// Where the pixels of a block have their taps.
pub(super) enum Pixels {
    /// Anywhere: `[taps][P]`, where a pixel's channels of a tap begin.
    Apart(*const *const f32),
    /// All in the image and in one line of the output: where the first pixel's first tap begins, elements from a pixel
    /// to the next, and `[taps]` offsets of taps.
    Together { first: *const f32, step: usize, taps: *const usize },
}

pub(super) type Kernel = unsafe fn(&Job);

/// The kernels of an instruction set, by pixels less one.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) tiles: &'static [Kernel],
}

/// The most pixels of any block.
pub(super) const PIXELS_MAX: usize = 6;

/// Runs a kernel of a table.
pub(super) fn call(kernel: Kernel, job: &Job) {
    // SAFETY: kernels are only found in the table of a level, which proves their instructions; `Depthwise::run` has
    // checked the extents that the job's pointers cover, and the job has as many pixels as the kernel.
    unsafe { kernel(job) }
}

/// # Safety
/// The processor has the instructions of `V`, and the job's pointers are valid.
#[inline(always)]
pub(super) unsafe fn pixels<V: Vector, const P: usize>(job: &Job) {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        match job.pixels {
            Pixels::Apart(pixels) => channels::<V, P>(job, |tap, p| *pixels.add(tap * P + p)),
            Pixels::Together { first, step, taps } => {
                channels::<V, P>(job, |tap, p| first.add(*taps.add(tap) + p * step))
            }
        }
    }
}

/// # Safety
/// As `pixels`; `at` is where a pixel's channels of a tap begin.
#[inline(always)]
unsafe fn channels<V: Vector, const P: usize>(job: &Job, at: impl Fn(usize, usize) -> *const f32) {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let mut channel = 0;
        while channel + 2 * V::LANES <= job.channels {
            block::<V, P, 2>(job, &at, channel, V::LANES);
            channel += 2 * V::LANES;
        }
        while channel < job.channels {
            let count = V::LANES.min(job.channels - channel);
            block::<V, P, 1>(job, &at, channel, count);
            channel += count;
        }
    }
}

/// `N` vectors of channels, of which the last has `count`.
///
/// # Safety
/// As `pixels`.
#[inline(always)]
unsafe fn block<V: Vector, const P: usize, const N: usize>(
    job: &Job,
    at: &impl Fn(usize, usize) -> *const f32,
    channel: usize,
    count: usize,
) {
    // SAFETY: the caller's promise is that of these reads and writes; lanes behind `count` are not touched.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; P];
        for tap in 0..job.taps {
            let weights = job.weights.add(tap * job.weights_pitch + channel);
            let mut w = [V::splat(0.0); N];
            for (n, w) in w.iter_mut().enumerate() {
                *w = V::load(weights.add(n * V::LANES));
            }
            for (p, sums) in sums.iter_mut().enumerate() {
                let from = at(tap, p).add(channel);
                for (n, sum) in sums.iter_mut().enumerate() {
                    let from = from.add(n * V::LANES);
                    let x = if count < V::LANES { V::load_first(from, count) } else { V::load(from) };
                    *sum = x.mul_add(w[n], *sum);
                }
            }
        }
        for n in 0..N {
            let bias = V::load(job.bias.add(channel + n * V::LANES));
            for sums in sums.iter_mut() {
                sums[n] = sums[n].add(bias);
            }
        }
        for (p, sums) in sums.iter().enumerate() {
            let to = job.out.add(p * job.out_pitch + channel);
            for (n, sum) in sums.iter().enumerate() {
                let value = activate(*sum, job.activation);
                let to = to.add(n * V::LANES);
                if count < V::LANES { value.store_first(to, count) } else { value.store(to) }
            }
        }
    }
}
