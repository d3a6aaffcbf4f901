//! Eight lanes in plain code, which the compiler turns into whatever the target surely has.
//!
//! The methods are unsafe as the trait's are, for the memory they touch; they need no instruction set.

use std::slice;

use super::{UPPER, Vector};

#[derive(Clone, Copy)]
pub(crate) struct Plain(pub(crate) [f32; 8]);

impl Plain {
    #[inline(always)]
    fn each(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }
}

// Products are rounded before they are added: without the instruction, a fused form is a call of the C library.
impl Vector for Plain {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 8])
    }

    #[inline(always)]
    unsafe fn prefetch(_from: *const f32) {}

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: eight elements are readable, the caller promised.
        Self(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; 8];
        // SAFETY: `count` elements are readable, the caller promised.
        lanes[..count].copy_from_slice(unsafe { slice::from_raw_parts(from, count) });
        Self(lanes)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: eight elements are writable, the caller promised.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        // SAFETY: `count` elements are writable, the caller promised.
        unsafe { slice::from_raw_parts_mut(to, count) }.copy_from_slice(&self.0[..count]);
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8, count: usize) -> Self {
        // SAFETY: `count` bytes are readable, the caller promised.
        let bytes = unsafe { slice::from_raw_parts(from, count.min(8)) };
        let mut lanes = [0.0; 8];
        lanes.iter_mut().zip(bytes).for_each(|(lane, &byte)| *lane = f32::from(byte));
        Self(lanes)
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "integers from 0 to 255")]
    unsafe fn store_bytes(self, zero: i32, to: *mut u8, count: usize) {
        // SAFETY: `count` bytes are writable, the caller promised.
        let bytes = unsafe { slice::from_raw_parts_mut(to, count.min(8)) };
        bytes.iter_mut().zip(self.0).for_each(|(byte, lane)| *byte = (lane.round_ties_even() as i32 + zero) as u8);
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.each(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.each(other, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.each(other, |a, b| a / b)
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(self.0.map(f32::round_ties_even))
    }

    #[inline(always)]
    unsafe fn scale(self, power: Self) -> Self {
        // Two halves of the power, each of which is an exponent of its own.
        let exponent = |power: i32| f32::from_bits((power + 127).cast_unsigned() << 23);
        self.each(power, |x, power| {
            #[expect(clippy::cast_possible_truncation, reason = "a small integer")]
            let power = power as i32;
            x * exponent(power >> 1) * exponent(power - (power >> 1))
        })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.each(other, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn mul_add(self, by: Self, plus: Self) -> Self {
        self.each(by, |a, b| a * b).each(plus, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.each(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.each(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut lanes = self.0;
        for half in [4, 2, 1] {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
        }
        lanes[0]
    }

    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    unsafe fn nonzero(self) -> u32 {
        self.0.iter().rev().fold(0, |bits, lane| bits << 1 | u32::from(lane.to_bits() != 0))
    }

    #[inline(always)]
    unsafe fn apart(self) -> [Self; 2] {
        let half =
            |bits: fn(u32) -> u32| Self(std::array::from_fn(|lane| f32::from_bits(bits(self.0[lane].to_bits()))));
        [half(|both| both << 16), half(|both| both & UPPER.cast_unsigned())]
    }

    #[inline(always)]
    unsafe fn where_negative(self, negative: Self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| if self.0[lane] < 0.0 { negative.0[lane] } else { other.0[lane] }))
    }
}
