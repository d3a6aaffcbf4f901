//! Numbers found one by one.

use std::array;

use super::generic::{self, LookUp};
use crate::f32_gemm::generic::{Job, Kernels};
use crate::panels::{Table, tiles};
use crate::vector::Plain;

impl LookUp for Plain {
    type Table = [f32; 16];
    type Words = [u32; 8];

    #[inline(always)]
    unsafe fn table(from: *const f32) -> [f32; 16] {
        // SAFETY: sixteen elements are readable, the caller promised.
        unsafe { from.cast::<[f32; 16]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn words(from: *const f32) -> [u32; 8] {
        // SAFETY: eight words are readable, the caller promised.
        unsafe { from.cast::<[u32; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn look_up(table: [f32; 16], words: [u32; 8]) -> Self {
        Self(array::from_fn(|lane| table[words[lane] as usize % 16]))
    }

    #[inline(always)]
    unsafe fn without(words: [u32; 8], bits: u32) -> [u32; 8] {
        words.map(|word| word >> bits)
    }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn tile<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::tile::<Plain, M, N>(job) }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn row<const P: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::row::<Plain, P, N>(job) }
}

pub(super) static KERNELS: Kernels = Kernels {
    operation: "f32_codebook_gemm",
    tiles: Table { name: "portable", lanes: 8, tiles: &[tiles!(1: 1 2 3 4)] },
    rows: &[row::<2, 1>],
    together: 2,
    step: 1,
};
