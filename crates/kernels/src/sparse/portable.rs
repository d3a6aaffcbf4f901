//! Four vectors of eight lanes in plain code.

use super::generic::{self, Floats, Job, Turn, Words};
use super::{Kernels, products};
use crate::vector::Plain;

/// Four bytes in each word.
struct Bytes;

const LANES: usize = 8;

// SAFETY (all methods): memory is readable and writable as the trait asks; the caller promised.
impl Words for Bytes {
    const LANES: usize = LANES;
    type Lanes = [[u8; 4]; LANES];
    type Sums = [i32; LANES];

    #[inline(always)]
    unsafe fn prefetch(_from: *const u32) {}

    #[inline(always)]
    unsafe fn zero() -> [i32; LANES] {
        [0; LANES]
    }

    #[inline(always)]
    unsafe fn load_sums(from: *const u32) -> [i32; LANES] {
        // SAFETY: as said above.
        unsafe { from.cast::<[i32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_sums(sums: [i32; LANES], to: *mut u32) {
        // SAFETY: as said above.
        unsafe { to.cast::<[i32; LANES]>().write_unaligned(sums) }
    }

    #[inline(always)]
    unsafe fn splat(weight: *const u32) -> [[u8; 4]; LANES] {
        // SAFETY: as said above.
        [unsafe { *weight }.to_ne_bytes(); LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const u32) -> [[u8; 4]; LANES] {
        // SAFETY: as said above.
        unsafe { from.cast::<[[u8; 4]; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn add(weight: [[u8; 4]; LANES], pixels: [[u8; 4]; LANES], sums: [i32; LANES]) -> [i32; LANES] {
        let product = |byte: u8, weight: u8| i32::from(byte) * i32::from(weight.cast_signed());
        std::array::from_fn(|lane| {
            let products = pixels[lane].iter().zip(weight[lane]).map(|(&byte, weight)| product(byte, weight));
            products.fold(sums[lane], i32::wrapping_add)
        })
    }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn floats<const R: usize, const T: usize, const U: usize>(job: &Job) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::products::<Floats<Plain>, R, T, U>(job) }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn turn(job: &Turn) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::turn::<Plain>(job) }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn bytes<const R: usize, const T: usize, const U: usize>(job: &Job) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::products::<Bytes, R, T, U>(job) }
}

pub(super) static FLOATS: Kernels =
    Kernels { name: "portable", lanes: 8, products: products!(floats, [2, 1, 1]), turn };

pub(super) static BYTES: Kernels = Kernels { name: "portable", lanes: 8, products: products!(bytes, [1, 1, 1]), turn };
