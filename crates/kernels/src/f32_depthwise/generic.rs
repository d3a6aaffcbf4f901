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
    /// All taps of the job in the image, and all pixels in one line of the output: where the first pixel's first tap
    /// would begin, which may lie before the image, elements from a pixel to the next, and `[taps]` offsets of taps.
    Together { first: *const E, step: usize, taps: *const usize },
    /// As these, and a pixel's next tap is the next pixel's first: elements from a pixel to the next, and from a line
    /// of taps to the next.
    Beside { first: *const E, step: usize, line: usize },
}

/// What an image consists of, and what becomes of its sums.
///
/// # Safety
/// As the methods of [`Vector`]; pointers are valid for `count` elements.
pub(super) trait Element: Pod + Debug + Send {
    type Finish: Debug + Send + Sync;
    /// Whether taps outside the image add nothing to a sum.
    const ZERO_IS_NOTHING: bool;

    fn table(level: Level) -> &'static Table<Self>;
    unsafe fn load<V: Vector>(from: *const Self, count: usize) -> V;
    /// What results are kept within, the same for all vectors.
    unsafe fn bounds<V: Vector>(finish: &Self::Finish) -> [V; 2];
    /// Stores the results of sums, whose first is of this channel.
    unsafe fn store<V: Vector>(
        sums: V,
        finish: &Self::Finish,
        bounds: [V; 2],
        channel: usize,
        to: *mut Self,
        count: usize,
    );
}

impl Element for f32 {
    type Finish = Activation;
    const ZERO_IS_NOTHING: bool = true;

    fn table(level: Level) -> &'static Table<Self> {
        choose!(level, &TABLE)
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self, count: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { if count < V::LANES { V::load_first(from, count) } else { V::load(from) } }
    }

    #[inline(always)]
    unsafe fn bounds<V: Vector>(finish: &Activation) -> [V; 2] {
        let [low, high] = match *finish {
            Activation::Clip { low, high } => [low, high],
            _ => [Self::NEG_INFINITY, Self::INFINITY],
        };
        // SAFETY: the caller's promise.
        unsafe { [V::splat(low), V::splat(high)] }
    }

    #[inline(always)]
    unsafe fn store<V: Vector>(
        sums: V,
        finish: &Activation,
        [low, high]: [V; 2],
        _channel: usize,
        to: *mut Self,
        count: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let results = match finish {
                Activation::None | Activation::Clip { .. } => high.min(low.max(sums)),
                activation => activate(sums, *activation),
            };
            if count < V::LANES { results.store_first(to, count) } else { results.store(to) }
        }
    }
}

impl Element for u8 {
    type Finish = Requantize;
    const ZERO_IS_NOTHING: bool = false;

    fn table(level: Level) -> &'static Table<Self> {
        choose!(level, &BYTES)
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self, count: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_bytes(from, count) }
    }

    #[inline(always)]
    unsafe fn bounds<V: Vector>(finish: &Requantize) -> [V; 2] {
        // SAFETY: the caller's promise.
        unsafe { finish.bytes.bounds() }
    }

    #[inline(always)]
    unsafe fn store<V: Vector>(
        sums: V,
        finish: &Requantize,
        bounds: [V; 2],
        channel: usize,
        to: *mut Self,
        count: usize,
    ) {
        // SAFETY: the caller's promise; there are scales for whole vectors.
        unsafe {
            let scale = V::load(finish.scale.elements::<f32>().as_ptr().add(channel));
            finish.bytes.store_within(sums.mul(scale), bounds, to, count);
        }
    }
}

pub(super) type Kernel<E> = unsafe fn(&Job<'_, E>);

/// The kernels of an instruction set.
#[derive(Debug)]
pub(super) struct Table<E: Element> {
    pub(super) name: &'static str,
    /// By pixels less one.
    pub(super) tiles: &'static [Kernel<E>],
    /// For pixels beside each other.
    pub(super) beside: &'static [Beside<E>],
}

/// A kernel for filters of so many taps in a line, and for so many pixels.
#[derive(Debug)]
pub(super) struct Beside<E: Element> {
    pub(super) across: usize,
    pub(super) pixels: usize,
    pub(super) kernel: Kernel<E>,
}

/// The kernels of `beside`, the most pixels first.
macro_rules! beside_kernels {
    ($element:ty: $($across:literal $pixels:literal),*) => {
        &[$($crate::f32_depthwise::generic::Beside {
            across: $across,
            pixels: $pixels,
            kernel: beside::<$element, $across, $pixels>,
        }),*]
    };
}
pub(super) use beside_kernels;

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
                channels::<V, E, P>(job, |tap, p| first.wrapping_add(*taps.add(tap) + p * step))
            }
            // No table has these for it.
            Pixels::Beside { .. } => {}
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
        let bounds = E::bounds::<V>(job.finish);
        for n in 0..N {
            let bias = V::load(job.bias.add(channel + n * V::LANES));
            for (p, sums) in sums.iter().enumerate() {
                let to = job.out.add(p * job.out_pitch + channel + n * V::LANES);
                E::store(sums[n].add(bias), job.finish, bounds, channel + n * V::LANES, to, count);
            }
        }
    }
}

/// Filters of `K` taps in a line over `P` pixels beside each other: each element is read once for all taps of a line that
/// see it.
///
/// # Safety
/// As `pixels`.
#[inline(always)]
pub(super) unsafe fn beside<V: Vector, E: Element, const K: usize, const P: usize>(job: &Job<'_, E>) {
    let Pixels::Beside { first, step, line } = job.pixels else { return };
    let mut channel = 0;
    while channel < job.channels {
        let count = V::LANES.min(job.channels - channel);
        // SAFETY: the caller's promise is that of these calls.
        unsafe {
            // Of no lines of taps, anywhere.
            let from = first.wrapping_add(channel);
            if count == V::LANES {
                beside_in_vector::<V, E, K, P>(job, from, [step, line], channel, V::LANES);
            } else {
                beside_in_vector::<V, E, K, P>(job, from, [step, line], channel, count);
            }
        }
        channel += count;
    }
}

/// A vector of channels, of which there are `count`.
///
/// # Safety
/// As `pixels`.
#[inline(always)]
unsafe fn beside_in_vector<V: Vector, E: Element, const K: usize, const P: usize>(
    job: &Job<'_, E>,
    mut from: *const E,
    [step, line]: [usize; 2],
    channel: usize,
    count: usize,
) {
    // SAFETY: the caller's promise is that of these reads and writes; lanes behind `count` are not touched.
    unsafe {
        let mut sums = [V::splat(0.0); P];
        let mut weights = job.weights.wrapping_add(channel);
        for _ in 0..job.taps / K {
            let mut w = [V::splat(0.0); K];
            for w in &mut w {
                *w = V::load(weights);
                weights = weights.add(job.weights_pitch);
            }
            let mut element = from;
            for column in 0..P + K - 1 {
                let x = E::load::<V>(element, count);
                element = element.wrapping_add(step);
                for (tap, w) in w.iter().enumerate() {
                    if tap <= column && column - tap < P {
                        sums[column - tap] = x.mul_add(*w, sums[column - tap]);
                    }
                }
            }
            from = from.wrapping_add(line);
        }
        let bounds = E::bounds::<V>(job.finish);
        let bias = V::load(job.bias.add(channel));
        for (p, sum) in sums.iter().enumerate() {
            E::store(sum.add(bias), job.finish, bounds, channel, job.out.add(p * job.out_pitch + channel), count);
        }
    }
}
