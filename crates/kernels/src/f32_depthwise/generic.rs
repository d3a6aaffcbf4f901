//! The loop over channels for a block of `P` pixels, for any vector.

use std::fmt::Debug;

use bytemuck::Pod;

use super::Requantize;
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::activation::Activation;
use crate::isa::{Level, choose};
use crate::vector::{Vector, activate};

/// What a kernel works on. All pointers are valid for the extents beside them.
pub(super) struct Job<'a, E: Element> {
    pub(super) taps: usize,
    pub(super) channels: usize,
    pub(super) pixels: Pixels<E>,
    /// `[taps][weights_pitch]`; whole vectors are readable.
    pub(super) weights: *const f32,
    pub(super) weights_pitch: usize,
    /// `[weights_pitch]`.
    pub(super) bias: *const f32,
    pub(super) out: *mut E,
    pub(super) out_pitch: usize,
    pub(super) finish: &'a E::Finish,
}

/// Where the pixels of a block have their taps.
pub(super) enum Pixels<E> {
    /// Anywhere: `[taps][P]`, where a pixel's channels of a tap begin.
    Apart(*const *const E),
    /// All in the image and in one line of the output: where the first pixel's first tap begins, elements from a pixel
    /// to the next, and `[taps]` offsets of taps.
    Together { first: *const E, step: usize, taps: *const usize },
}

/// What an image consists of, and what becomes of its sums.
///
/// # Safety
/// As the methods of [`Vector`]; pointers are valid for `count` elements.
pub(super) trait Element: Pod + Debug + Send {
    type Finish: Debug + Send + Sync;

    fn table(level: Level) -> &'static Table<Self>;
    unsafe fn load<V: Vector>(from: *const Self, count: usize) -> V;
    /// The results of sums, whose first is of this channel.
    unsafe fn finish<V: Vector>(sums: V, finish: &Self::Finish, channel: usize) -> V;
    unsafe fn store<V: Vector>(results: V, finish: &Self::Finish, to: *mut Self, count: usize);
}

impl Element for f32 {
    type Finish = Activation;

    fn table(level: Level) -> &'static Table<Self> {
        choose!(level, &TABLE)
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self, count: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { if count < V::LANES { V::load_first(from, count) } else { V::load(from) } }
    }

    #[inline(always)]
    unsafe fn finish<V: Vector>(sums: V, finish: &Activation, _channel: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { activate(sums, *finish) }
    }

    #[inline(always)]
    unsafe fn store<V: Vector>(results: V, _finish: &Activation, to: *mut Self, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { if count < V::LANES { results.store_first(to, count) } else { results.store(to) } }
    }
}

impl Element for u8 {
    type Finish = Requantize;

    fn table(level: Level) -> &'static Table<Self> {
        choose!(level, &BYTES)
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self, count: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_bytes(from, count) }
    }

    #[inline(always)]
    unsafe fn finish<V: Vector>(sums: V, finish: &Requantize, channel: usize) -> V {
        // SAFETY: the caller's promise; there are scales for whole vectors.
        unsafe {
            let scale = V::load(finish.scale.elements::<f32>().as_ptr().add(channel));
            sums.mul(scale)
        }
    }

    #[inline(always)]
    unsafe fn store<V: Vector>(results: V, finish: &Requantize, to: *mut Self, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { finish.bytes.store(results, to, count) }
    }
}

pub(super) type Kernel<E> = unsafe fn(&Job<'_, E>);

/// The kernels of an instruction set, by pixels less one.
#[derive(Debug)]
pub(super) struct Table<E: Element> {
    pub(super) name: &'static str,
    pub(super) tiles: &'static [Kernel<E>],
}

/// The most pixels of any block.
pub(super) const PIXELS_MAX: usize = 6;

/// Runs a kernel of a table.
pub(super) fn call<E: Element>(kernel: Kernel<E>, job: &Job<'_, E>) {
    // SAFETY: kernels are only found in the table of a level, which proves their instructions; `Packed::run` has
    // checked the extents that the job's pointers cover, and the job has as many pixels as the kernel.
    unsafe { kernel(job) }
}

/// # Safety
/// The processor has the instructions of `V`, and the job's pointers are valid.
#[inline(always)]
pub(super) unsafe fn pixels<V: Vector, E: Element, const P: usize>(job: &Job<'_, E>) {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        match job.pixels {
            Pixels::Apart(pixels) => channels::<V, E, P>(job, |tap, p| *pixels.add(tap * P + p)),
            Pixels::Together { first, step, taps } => {
                channels::<V, E, P>(job, |tap, p| first.add(*taps.add(tap) + p * step))
            }
        }
    }
}

/// # Safety
/// As `pixels`; `at` is where a pixel's channels of a tap begin.
#[inline(always)]
unsafe fn channels<V: Vector, E: Element, const P: usize>(job: &Job<'_, E>, at: impl Fn(usize, usize) -> *const E) {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let mut channel = 0;
        while channel + 2 * V::LANES <= job.channels {
            block::<V, E, P, 2>(job, &at, channel, V::LANES);
            channel += 2 * V::LANES;
        }
        while channel < job.channels {
            let count = V::LANES.min(job.channels - channel);
            block::<V, E, P, 1>(job, &at, channel, count);
            channel += count;
        }
    }
}

/// `N` vectors of channels, of which the last has `count`.
///
/// # Safety
/// As `pixels`.
#[inline(always)]
unsafe fn block<V: Vector, E: Element, const P: usize, const N: usize>(
    job: &Job<'_, E>,
    at: &impl Fn(usize, usize) -> *const E,
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
                    *sum = E::load::<V>(from, count).mul_add(w[n], *sum);
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
                let results = E::finish(*sum, job.finish, channel + n * V::LANES);
                E::store(results, job.finish, to.add(n * V::LANES), count);
            }
        }
    }
}
