//! One output pixel: floats and bf16 for any vector, bytes in plain code that a function with an instruction set compiles to it.

use half::bf16;

use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::isa::{Level, choose, halves};
use crate::vector::{Stored, Vector};

/// What a kernel works on: pixels of a line that are alike. Pointers are valid for the extents beside them.
#[derive(Clone, Copy)]
pub(super) struct Job<E> {
    pub(super) pixels: usize,
    /// Elements from one pixel's taps to those of the next, and from its output.
    pub(super) step: [usize; 2],
    /// The first tap of the first pixel in the image.
    pub(super) image: *const E,
    /// Lines and columns of taps in the image.
    pub(super) taps: [usize; 2],
    /// Elements from a line of taps to the next, from a tap to the next.
    pub(super) pitch: [usize; 2],
    /// The first channel and how many.
    pub(super) first: usize,
    pub(super) channels: usize,
    pub(super) out: *mut E,
    /// The sum times this, or the greatest. Bytes have no sums.
    pub(super) scale: Option<f32>,
}

pub(super) type Kernel<E> = unsafe fn(&Job<E>);

/// What images consist of.
pub trait Element: Copy {
    /// Whether there are averages of them.
    const HAS_AVERAGES: bool;

    /// # Panics
    /// When the level has none for such elements.
    #[doc(hidden)]
    fn kernel(level: Level) -> PerLevel<Self>;
}

/// The kernel of a level.
#[derive(Clone, Copy, Debug)]
pub struct PerLevel<E>(pub(super) Kernel<E>);

macro_rules! elements {
    ($($element:ty, $kernel:ident, $averages:literal;)*) => { $(
        impl Element for $element {
            const HAS_AVERAGES: bool = $averages;

            fn kernel(level: Level) -> PerLevel<Self> {
                PerLevel(*choose!(level, &$kernel))
            }
        }
    )* };
}

elements! {
    f32, PIXEL, true;
    u8, UNSIGNED, false;
    i8, SIGNED, false;
}

impl Element for bf16 {
    const HAS_AVERAGES: bool = true;

    fn kernel(level: Level) -> PerLevel<Self> {
        PerLevel(*halves!(level, HALVES))
    }
}

impl<E: Copy> Job<E> {
    /// The same for each pixel alone.
    #[inline(always)]
    fn each(&self) -> impl Iterator<Item = Self> + use<E> {
        let all = *self;
        (0..all.pixels).map(move |pixel| Self {
            image: all.image.wrapping_add(pixel * all.step[0]),
            out: all.out.wrapping_add(pixel * all.step[1]),
            pixels: 1,
            ..all
        })
    }
}

/// Runs a kernel that belongs to a level.
pub(super) fn call<E>(kernel: PerLevel<E>, job: &Job<E>) {
    // SAFETY: the kernel was found by its level, which proves its instructions; `Pool::run` has checked the extents
    // that the job's pointers cover.
    unsafe { kernel.0(job) }
}

/// # Safety
/// The processor has the instructions of `V`, and the job's pointers are valid.
#[inline(always)]
pub(super) unsafe fn pixel<V: Vector, E: Stored<V>>(job: &Job<E>) {
    for job in job.each() {
        let mut channel = 0;
        // SAFETY: the caller's promise is that of these reads and writes.
        unsafe {
            while channel + TOGETHER * V::LANES <= job.channels {
                vectors::<V, E, TOGETHER>(&job, channel, V::LANES);
                channel += TOGETHER * V::LANES;
            }
            while channel < job.channels {
                let count = V::LANES.min(job.channels - channel);
                vectors::<V, E, 1>(&job, channel, count);
                channel += count;
            }
        }
    }
}

/// `N` vectors of channels, of which the last has `count`.
///
/// # Safety
/// As `pixel`.
#[inline(always)]
unsafe fn vectors<V: Vector, E: Stored<V>, const N: usize>(job: &Job<E>, channel: usize, count: usize) {
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        let mut folded = match job.scale {
            Some(_) => fold::<V, E, N>(job, channel, count, 0.0, |a, b| a.add(b)),
            None => fold::<V, E, N>(job, channel, count, f32::NEG_INFINITY, |a, b| b.max(a)),
        };
        if let Some(scale) = job.scale {
            for folded in &mut folded {
                *folded = folded.mul(V::splat(scale));
            }
        }
        for (n, folded) in folded.iter().enumerate() {
            E::store(*folded, job.out.add(channel + n * V::LANES), count);
        }
    }
}

/// # Safety
/// As `vectors`.
#[inline(always)]
unsafe fn fold<V: Vector, E: Stored<V>, const N: usize>(
    job: &Job<E>,
    channel: usize,
    count: usize,
    start: f32,
    f: impl Fn(V, V) -> V,
) -> [V; N] {
    // SAFETY: the caller's promise is that of these reads.
    unsafe {
        let mut folded = [V::splat(start); N];
        for line in 0..job.taps[0] {
            let mut from = job.image.wrapping_add(line * job.pitch[0] + job.first + channel);
            for _ in 0..job.taps[1] {
                for (n, folded) in folded.iter_mut().enumerate() {
                    *folded = f(*folded, E::load(from.wrapping_add(n * V::LANES), count));
                }
                from = from.wrapping_add(job.pitch[1]);
            }
        }
        folded
    }
}

/// The greatest elements, which are `least` or greater.
///
/// # Safety
/// The job's pointers are valid.
#[inline(always)]
pub(super) unsafe fn greatest<E: Copy + Ord>(job: &Job<E>, least: E) {
    for job in job.each() {
        let mut channel = 0;
        // From a register of AVX-512 down.
        macro_rules! steps {
            ($($wide:literal)*) => { $(while job.channels - channel >= $wide {
                // SAFETY: the caller's promise is that of these calls.
                unsafe { greatest_of::<E, $wide>(&job, channel, least) };
                channel += $wide;
            })* };
        }
        steps!(64 16 4 1);
    }
}

/// Of `N` channels.
///
/// # Safety
/// As `greatest`.
#[inline(always)]
unsafe fn greatest_of<E: Copy + Ord, const N: usize>(job: &Job<E>, channel: usize, least: E) {
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        let mut folded = [least; N];
        for line in 0..job.taps[0] {
            let mut from = job.image.wrapping_add(line * job.pitch[0] + job.first + channel);
            for _ in 0..job.taps[1] {
                let elements = from.cast::<[E; N]>().read_unaligned();
                folded.iter_mut().zip(elements).for_each(|(folded, element)| *folded = (*folded).max(element));
                from = from.wrapping_add(job.pitch[1]);
            }
        }
        job.out.add(channel).cast::<[E; N]>().write_unaligned(folded);
    }
}

/// Vectors folded beside each other: one alone waits for itself.
const TOGETHER: usize = 4;
