//! The loop over channels for a block of `P` pixels, for any vector.

use std::fmt::Debug;

use bytemuck::Pod;
use half::bf16;

use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::activation::Activation;
use crate::isa::{Level, choose, halves};
use crate::u8s8_depthwise::ToResults;
use crate::vector::{Stored, Vector, activate};

/// What a kernel works on. All pointers are valid for the extents beside them.
pub(crate) struct Job<'a, E: Element> {
    pub(super) taps: usize,
    /// The first channel, and the first behind the last.
    pub(super) channels: [usize; 2],
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
pub(crate) enum Pixels<E> {
    /// Anywhere: `[taps][P]`, where a pixel's channels of a tap begin.
    Apart(*const *const E),
    /// All taps of the job in the image, and all pixels in one line of the output: where the first pixel's first tap
    /// would begin, which may lie before the image, elements from a pixel to the next, and `[taps]` offsets of taps.
    Together { first: *const E, step: usize, taps: *const usize },
    /// All taps of some lines in the image, for pixels of one line.
    Beside(Beside<E>),
}

/// What pixels beside each other see.
#[derive(Clone, Copy)]
pub(crate) struct Beside<E> {
    /// Where the first pixel's first tap would be, which may lie before the image.
    pub(super) first: *const E,
    /// Elements from a tap to the next.
    pub(super) step: usize,
    /// Elements from a line of taps to the next, and how many there are.
    pub(super) line: usize,
    pub(super) lines: usize,
    /// The first of what the pixels see in a line that lies in the image, and the first behind it: at most half a filter
    /// less than what they see.
    pub(super) inside: [usize; 2],
    /// What they see elsewhere.
    pub(super) outside: f32,
}

/// What an image consists of, and what becomes of its sums.
pub(crate) trait Element: Pod + Debug + Send {
    type Finish: Debug + Send + Sync;

    /// # Panics
    /// When the level has no kernels of such elements.
    fn table(level: Level) -> &'static Table<Self>;
}

/// An element in the lanes of a vector.
///
/// # Safety
/// As the methods of [`Vector`]; pointers are valid for `count` elements.
pub(crate) trait Lanes<V: Vector>: Element {
    unsafe fn load(from: *const Self, count: usize) -> V;
    /// What results are kept within, the same for all vectors.
    unsafe fn bounds(finish: &Self::Finish) -> [V; 2];
    /// Stores the results of sums, whose first is of this channel. Short: a loop around it is unrolled only then, and an
    /// array that a loop indexes does not stay in registers.
    unsafe fn store(sums: V, finish: &Self::Finish, bounds: [V; 2], channel: usize, to: *mut Self, count: usize);
    /// What follows once results are stored, of one vector.
    unsafe fn follow(finish: &Self::Finish, at: *mut Self, count: usize);
    /// Whether anything does.
    fn is_followed(finish: &Self::Finish) -> bool;
}

impl Element for f32 {
    type Finish = Activation;

    fn table(level: Level) -> &'static Table<Self> {
        choose!(level, &TABLE)
    }
}

impl Element for bf16 {
    type Finish = Activation;

    fn table(level: Level) -> &'static Table<Self> {
        halves!(level, HALVES)
    }
}

impl<V: Vector, E: Stored<V> + Element<Finish = Activation>> Lanes<V> for E {
    #[inline(always)]
    unsafe fn load(from: *const Self, count: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { <Self as Stored<V>>::load(from, count) }
    }

    #[inline(always)]
    unsafe fn bounds(finish: &Activation) -> [V; 2] {
        let [low, high] = match *finish {
            Activation::Clip { low, high } => [low, high],
            _ => [f32::NEG_INFINITY, f32::INFINITY],
        };
        // SAFETY: the caller's promise.
        unsafe { [V::splat(low), V::splat(high)] }
    }

    #[inline(always)]
    unsafe fn store(sums: V, _finish: &Activation, [low, high]: [V; 2], _channel: usize, to: *mut Self, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { <Self as Stored<V>>::store(high.min(low.max(sums)), to, count) }
    }

    #[inline(always)]
    unsafe fn follow(finish: &Activation, at: *mut Self, count: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let results = activate(<Self as Stored<V>>::load(at, count), *finish);
            <Self as Stored<V>>::store(results, at, count);
        }
    }

    #[inline(always)]
    fn is_followed(finish: &Activation) -> bool {
        !matches!(finish, Activation::None | Activation::Clip { .. } | Activation::Function(_))
    }
}

impl Element for u8 {
    type Finish = ToResults;

    fn table(level: Level) -> &'static Table<Self> {
        choose!(level, &BYTES)
    }
}

impl<V: Vector> Lanes<V> for u8 {
    #[inline(always)]
    unsafe fn load(from: *const Self, count: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_bytes(from, count) }
    }

    #[inline(always)]
    unsafe fn bounds(finish: &ToResults) -> [V; 2] {
        // SAFETY: the caller's promise.
        unsafe { finish.bytes.bounds() }
    }

    #[inline(always)]
    unsafe fn store(sums: V, finish: &ToResults, bounds: [V; 2], channel: usize, to: *mut Self, count: usize) {
        // SAFETY: the caller's promise; there are scales for whole vectors.
        unsafe {
            let scale = V::load(finish.scale.elements::<f32>().as_ptr().add(channel));
            finish.bytes.store_within(sums.mul(scale), bounds, to, count);
        }
    }

    #[inline(always)]
    unsafe fn follow(_finish: &ToResults, _at: *mut Self, _count: usize) {}

    #[inline(always)]
    fn is_followed(_finish: &ToResults) -> bool {
        false
    }
}

pub(crate) type Kernel<E> = unsafe fn(&Job<'_, E>);

/// The kernels of an instruction set.
#[derive(Debug)]
pub(crate) struct Table<E: Element> {
    pub(crate) name: &'static str,
    /// By pixels less one.
    pub(crate) tiles: &'static [Kernel<E>],
    /// For pixels beside each other.
    pub(super) beside: &'static [BesideKernel<E>],
}

/// Kernels for so many taps of each line, so many of them from a pixel to the next, and for so many pixels.
#[derive(Debug)]
pub(crate) struct BesideKernel<E: Element> {
    pub(super) across: usize,
    pub(super) stride: usize,
    pub(super) pixels: usize,
    /// Where all that the pixels see lies in the image, and where it may not.
    pub(super) inner: Kernel<E>,
    pub(super) edge: Kernel<E>,
}

/// The kernels of `beside`: of some taps and a stride those of the most pixels first.
macro_rules! beside_kernels {
    ($function:ident, $element:ty: $($across:literal / $stride:literal: $($pixels:literal)+),+) => {
        &[$($($crate::f32_depthwise::generic::BesideKernel {
            across: $across,
            stride: $stride,
            pixels: $pixels,
            inner: $function::<$element, $across, $stride, $pixels, false>,
            edge: $function::<$element, $across, $stride, $pixels, true>,
        }),+),+]
    };
}
pub(super) use beside_kernels;

/// The most pixels of any block.
pub(super) const PIXELS_MAX: usize = 6;

/// The most elements that pixels beside each other see in a line: twelve with five taps.
const SEEN_MAX: usize = 16;

/// Runs a kernel of a table.
pub(super) fn call<E: Element>(kernel: Kernel<E>, job: &Job<'_, E>) {
    // SAFETY: kernels are only found in the table of a level, which proves their instructions; `Packed::run` has
    // checked the extents that the job's pointers cover, and the job has as many pixels as the kernel.
    unsafe { kernel(job) }
}

/// # Safety
/// The processor has the instructions of `V`, and the job's pointers are valid.
#[inline(always)]
pub(super) unsafe fn pixels<V: Vector, E: Lanes<V>, const P: usize>(job: &Job<'_, E>) {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        match job.pixels {
            Pixels::Apart(pixels) => channels::<V, E, P>(job, |tap, p| *pixels.add(tap * P + p)),
            Pixels::Together { first, step, taps } => {
                channels::<V, E, P>(job, |tap, p| first.wrapping_add(*taps.add(tap) + p * step))
            }
            // No table has these for it.
            Pixels::Beside(_) => {}
        }
    }
}

/// # Safety
/// As `pixels`; `at` is where a pixel's channels of a tap begin.
#[inline(always)]
unsafe fn channels<V: Vector, E: Lanes<V>, const P: usize>(job: &Job<'_, E>, at: impl Fn(usize, usize) -> *const E) {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let [mut channel, end] = job.channels;
        while channel + 2 * V::LANES <= end {
            block::<V, E, P, 2>(job, &at, channel, V::LANES);
            channel += 2 * V::LANES;
        }
        while channel < end {
            let count = V::LANES.min(end - channel);
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
unsafe fn block<V: Vector, E: Lanes<V>, const P: usize, const N: usize>(
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
                    *sum = E::load(from, count).mul_add(w[n], *sum);
                }
            }
        }
        finish::<V, E, P, N>(job, &sums, channel, count);
    }
}

/// Writes `N` vectors of channels of each pixel.
///
/// # Safety
/// As `block`.
#[inline(always)]
unsafe fn finish<V: Vector, E: Lanes<V>, const P: usize, const N: usize>(
    job: &Job<'_, E>,
    sums: &[[V; N]; P],
    channel: usize,
    count: usize,
) {
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        let bounds = E::bounds(job.finish);
        for n in 0..N {
            let channel = channel + n * V::LANES;
            let bias = V::load(job.bias.add(channel));
            for (p, sums) in sums.iter().enumerate() {
                E::store(
                    sums[n].add(bias),
                    job.finish,
                    bounds,
                    channel,
                    job.out.add(p * job.out_pitch + channel),
                    count,
                );
            }
        }
        if E::is_followed(job.finish) {
            for p in 0..P {
                for n in 0..N {
                    E::follow(job.finish, job.out.add(p * job.out_pitch + channel + n * V::LANES), count);
                }
            }
        }
    }
}

/// `K` taps of each line over `P` pixels, `S` taps from one to the next: each element is read once for all taps of a line
/// that see it.
///
/// # Safety
/// As `pixels`; where not all that is seen lies in the image, `EDGE`.
#[inline(always)]
pub(super) unsafe fn beside<
    V: Vector,
    E: Lanes<V>,
    const K: usize,
    const S: usize,
    const P: usize,
    const EDGE: bool,
>(
    job: &Job<'_, E>,
) {
    // No table has these for another.
    let Pixels::Beside(seen) = job.pixels else { return };
    let [mut channel, end] = job.channels;
    while channel + V::LANES <= end {
        // SAFETY: the caller's promise is that of this call.
        unsafe { beside_in_vector::<V, E, K, S, P, EDGE>(job, seen, channel, V::LANES) };
        channel += V::LANES;
    }
    if channel < end {
        // SAFETY: as above.
        unsafe { beside_in_vector::<V, E, K, S, P, EDGE>(job, seen, channel, end - channel) };
    }
}

/// A vector of channels, of which there are `count`.
///
/// # Safety
/// As `beside`.
#[inline(always)]
unsafe fn beside_in_vector<V: Vector, E: Lanes<V>, const K: usize, const S: usize, const P: usize, const EDGE: bool>(
    job: &Job<'_, E>,
    seen: Beside<E>,
    channel: usize,
    count: usize,
) {
    // SAFETY: the caller's promise is that of these reads and writes; lanes behind `count` are not touched.
    unsafe {
        let mut sums = [[V::splat(0.0)]; P];
        for at in 0..seen.lines {
            let weights = job.weights.add(at * K * job.weights_pitch + channel);
            let mut w = [V::splat(0.0); K];
            for (tap, w) in w.iter_mut().enumerate() {
                *w = V::load(weights.add(tap * job.weights_pitch));
            }
            let from = seen.first.wrapping_add(at * seen.line + channel);
            let mut x = [V::splat(seen.outside); SEEN_MAX];
            let columns = (P - 1) * S + K;
            for (column, x) in x.iter_mut().enumerate().take(columns) {
                let is_inner = !EDGE || (column >= K / 2 && column + K / 2 < columns);
                if is_inner || (seen.inside[0] <= column && column < seen.inside[1]) {
                    *x = E::load(from.wrapping_add(column * seen.step), count);
                }
            }
            for (tap, w) in w.iter().enumerate() {
                for (p, [sum]) in sums.iter_mut().enumerate() {
                    *sum = x[p * S + tap].mul_add(*w, *sum);
                }
            }
        }
        finish::<V, E, P, 1>(job, &sums, channel, count);
    }
}
