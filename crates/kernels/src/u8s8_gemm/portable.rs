//! Eight sums in plain code.

use super::generic::{self, Job, Planes, Sums, Tables};
use crate::panels::{Table, tiles};
use crate::vector::Plain;

#[derive(Clone, Copy)]
pub(super) struct Lanes([i32; LANES]);

pub(super) const LANES: usize = 8;

// SAFETY (all methods): memory is readable and writable as the trait asks; the caller promised.
impl Sums for Lanes {
    const LANES: usize = LANES;
    type Floats = Plain;
    type Bytes = [i32; 4];
    type Weights = [[i8; 4]; LANES];

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0; LANES])
    }

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: as said above.
        Self(unsafe { from.cast::<[i32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    unsafe fn bytes(four: u32) -> [i32; 4] {
        four.to_le_bytes().map(i32::from)
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> [[i8; 4]; LANES] {
        // SAFETY: as said above.
        unsafe { from.cast::<[[i8; 4]; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn dot(self, bytes: [i32; 4], weights: [[i8; 4]; LANES]) -> Self {
        let mut sums = self.0;
        for (sum, weights) in sums.iter_mut().zip(weights) {
            for (byte, weight) in bytes.into_iter().zip(weights) {
                *sum = sum.wrapping_add(byte * i32::from(weight));
            }
        }
        Self(sums)
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        let mut sums = self.0;
        sums.iter_mut().zip(other.0).for_each(|(sum, other)| *sum = sum.wrapping_add(other));
        Self(sums)
    }

    #[inline(always)]
    unsafe fn floats(self) -> Plain {
        Plain(self.0.map(|sum| sum as f32))
    }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn tile<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::tile::<Lanes, M, N, false>(job) }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn by_row<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::tile::<Lanes, M, N, true>(job) }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn planes(job: &Planes) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::planes::<Lanes, 1>(job) }
}

macro_rules! table {
    ($function:ident) => {
        Table { name: "portable", lanes: LANES, tiles: &[tiles!($function 1: 1 2 3 4), tiles!($function 2: 1 2)] }
    };
}

pub(super) static TABLES: Tables =
    Tables { plain: table!(tile), by_row: table!(by_row), computed: table!(by_row), is_ordered: false, planes };
