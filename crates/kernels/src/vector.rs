//! What kernels need of a vector of `f32`, and its form in every instruction set. Kernels are written once over this
//! trait; a method is inlined into a function that enables the instructions it uses.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::F32x8;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{F32x16, columns_as_bytes, first_lanes, four_everywhere, store_rows_of_bytes};
pub(crate) use portable::Plain;

use bytemuck::Pod;

use crate::activation::{Activation, SIXTH};

/// `LANES` elements in a register.
///
/// # Safety
/// Every method may be called only where the processor has the instructions of the implementing type, which a
/// [`Level`](crate::Level) proves. Loads and stores touch exactly `LANES` elements, those of the first `count` exactly
/// `count`, and need no alignment.
pub(crate) trait Vector: Copy {
    const LANES: usize;

    unsafe fn splat(value: f32) -> Self;
    /// Vectors of one of four elements each. With wide vectors, one load and four moves between lanes.
    #[inline(always)]
    unsafe fn splat_each(from: *const f32) -> [Self; 4] {
        // SAFETY: the caller's promise.
        unsafe { [Self::splat(*from), Self::splat(*from.add(1)), Self::splat(*from.add(2)), Self::splat(*from.add(3))] }
    }
    /// Asks for the cache line of an address, which may be any, to be brought into the second-level cache.
    unsafe fn prefetch(from: *const f32);
    unsafe fn load(from: *const f32) -> Self;
    /// The first `count` of `LANES` elements; zeros behind.
    unsafe fn load_first(from: *const f32, count: usize) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn store_first(self, to: *mut f32, count: usize);
    /// The first `count` of `LANES` bytes as floats; zeros behind.
    unsafe fn load_bytes(from: *const u8, count: usize) -> Self;
    /// The first `count` lanes, each the nearest integer (the even one of two) plus `zero`, which is from 0 to 255.
    unsafe fn store_bytes(self, zero: i32, to: *mut u8, count: usize);
    /// The first `count` lanes of one to four vectors, as [`ToBytes::store_several`]. That all are `SMALL` promises that
    /// none is beyond the integers of 32 bits.
    #[inline(always)]
    unsafe fn store_as_bytes<const N: usize, const SMALL: bool>(
        several: [Self; N],
        bytes: ToBytes,
        to: *mut u8,
        count: usize,
    ) {
        for (n, results) in several.into_iter().enumerate() {
            let first = n * Self::LANES;
            // SAFETY: the caller's promise.
            unsafe { bytes.store(results, to.add(first), Self::LANES.min(count - first)) }
        }
    }
    /// The nearest integer to a number (the even one of two) within two integers of at most three digits, plus a third.
    #[inline(always)]
    unsafe fn nearest_within(self, [low, high]: [f32; 2], plus: f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { self.max(Self::splat(low)).min(Self::splat(high)).round().add(Self::splat(plus)) }
    }
    /// As many elements as lanes from `first` on of as many rows become as many rows, `pitch` elements apart: the first of
    /// all, then the second of all, and so on.
    #[inline(always)]
    unsafe fn transpose(rows: *const *const f32, first: usize, to: *mut f32, pitch: usize) {
        for row in 0..Self::LANES {
            for at in 0..Self::LANES {
                // SAFETY: the caller's promise.
                unsafe { *to.add(at * pitch + row) = *(*rows.add(row)).add(first + at) }
            }
        }
    }
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// The nearest integer, the even one of two.
    unsafe fn round(self) -> Self;
    /// `self * 2^power` for integers from -252 to 254.
    unsafe fn scale(self, power: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self * by + plus`, rounded once where the instruction set can.
    unsafe fn mul_add(self, by: Self, plus: Self) -> Self;
    /// The second where either is NaN.
    unsafe fn min(self, other: Self) -> Self;
    /// The second where either is NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// `negative` where `self` is less than zero, `other` elsewhere.
    unsafe fn where_negative(self, negative: Self, other: Self) -> Self;
    /// Of all lanes, halves added to each other until one is left.
    unsafe fn sum(self) -> f32;
    /// Of all lanes, which are numbers.
    unsafe fn greatest(self) -> f32;
    /// The lanes that have any bit set, the first in the lowest bit.
    unsafe fn nonzero(self) -> u32;
    /// Of lanes that hold two bf16: all the lower ones as floats, and all the upper ones.
    unsafe fn apart(self) -> [Self; 2];
}

/// What lies in memory for the lanes of a vector `V`.
///
/// # Safety
/// As the methods of [`Vector`]; pointers are valid for `count` elements, at most as many as there are lanes.
pub(crate) trait Stored<V>: Pod {
    /// The first lanes; zeros behind.
    unsafe fn load(from: *const Self, count: usize) -> V;
    unsafe fn store(lanes: V, to: *mut Self, count: usize);
}

// SAFETY (both methods): the caller promised.
impl<V: Vector> Stored<V> for f32 {
    #[inline(always)]
    unsafe fn load(from: *const Self, count: usize) -> V {
        // SAFETY: as said above.
        unsafe { if count < V::LANES { V::load_first(from, count) } else { V::load(from) } }
    }

    #[inline(always)]
    unsafe fn store(lanes: V, to: *mut Self, count: usize) {
        // SAFETY: as said above.
        unsafe { if count < V::LANES { lanes.store_first(to, count) } else { lanes.store(to) } }
    }
}

/// The upper bf16 of a lane.
const UPPER: i32 = 0xffff_0000_u32.cast_signed();

/// [`Activation::apply`] on every lane, but for functions, which follow once a tile is written.
///
/// # Safety
/// As the methods of [`Vector`].
#[inline(always)]
pub(crate) unsafe fn activate<V: Vector>(x: V, activation: Activation) -> V {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let clip = |x: V, low: f32, high: f32| V::splat(high).min(V::splat(low).max(x));
        match activation {
            Activation::None | Activation::Function(_) => x,
            Activation::Clip { low, high } => clip(x, low, high),
            Activation::LeakyRelu { slope } => x.where_negative(x.mul(V::splat(slope)), x),
            Activation::HardSigmoid { alpha, beta } => clip(x.mul(V::splat(alpha)).add(V::splat(beta)), 0.0, 1.0),
            Activation::HardSwish => x.mul(clip(x.mul(V::splat(SIXTH)).add(V::splat(0.5)), 0.0, 1.0)),
        }
    }
}

/// How results in units of bytes become bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ToBytes {
    /// What results are kept within before the zero point is added.
    low: f32,
    high: f32,
    zero: i32,
    bounds: [u8; 2],
}

impl ToBytes {
    /// With a zero point, and within two bytes.
    pub(crate) fn within(zero: u8, [low, high]: [u8; 2]) -> Self {
        let below = |byte: u8| f32::from(byte) - f32::from(zero);
        Self { low: below(low), high: below(high), zero: zero.into(), bounds: [low, high] }
    }

    /// The zero point.
    pub(crate) fn zero(self) -> i32 {
        self.zero
    }

    /// Whether bytes are nearest integers, with all of their range.
    pub(crate) fn is_plain(self) -> bool {
        self.zero == 0 && self.bounds == [0, u8::MAX]
    }

    /// What bytes are kept within.
    pub(crate) fn bounds_of_bytes(self) -> [u8; 2] {
        self.bounds
    }

    /// What results are kept within.
    ///
    /// # Safety
    /// As the methods of [`Vector`].
    #[inline(always)]
    pub(crate) unsafe fn bounds<V: Vector>(self) -> [V; 2] {
        // SAFETY: the caller's promise.
        unsafe { [V::splat(self.low), V::splat(self.high)] }
    }

    /// Stores the first `count` lanes, each rounded once. What is no number becomes the lower bound.
    ///
    /// # Safety
    /// As the methods of [`Vector`].
    #[inline(always)]
    pub(crate) unsafe fn store<V: Vector>(self, results: V, to: *mut u8, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.store_within(results, self.bounds(), to, count) }
    }

    /// As `store`, of one to four vectors.
    ///
    /// # Safety
    /// As the methods of [`Vector`].
    #[inline(always)]
    pub(crate) unsafe fn store_several<V: Vector, const N: usize>(self, results: [V; N], to: *mut u8, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { V::store_as_bytes::<N, false>(results, self, to, count) }
    }

    /// The bytes that `store` would write of numbers, as floats.
    ///
    /// # Safety
    /// As the methods of [`Vector`].
    #[inline(always)]
    pub(crate) unsafe fn as_floats<V: Vector>(self, results: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { results.nearest_within([self.low, self.high], self.zero as f32) }
    }

    /// As `store`, with bounds that are found once for many.
    ///
    /// # Safety
    /// As the methods of [`Vector`].
    #[inline(always)]
    pub(crate) unsafe fn store_within<V: Vector>(self, results: V, [low, high]: [V; 2], to: *mut u8, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { results.max(low).min(high).store_bytes(self.zero, to, count) }
    }
}
