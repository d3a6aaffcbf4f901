//! Integers found and multiplied one by one.

use std::array;

use super::generic::{self, Blocks, Integers, Scales, Shifted, Whole};
use super::{IntegerKernels, kernels};
use crate::f32_gemm::generic::Job;
use crate::vector::Plain;

struct Words;

// SAFETY (all methods): memory is readable as the trait asks; the caller promised.
impl Integers for Words {
    type Floats = Plain;
    type Table = [i16; 32];
    /// Halves of eight words, or eight sums in both of theirs.
    type Words = [[i16; 2]; 8];

    #[inline(always)]
    unsafe fn zero() -> Self::Words {
        [[0; 2]; 8]
    }

    #[inline(always)]
    unsafe fn table(from: *const f32) -> [i16; 32] {
        // SAFETY: as said above.
        unsafe { from.cast::<[i16; 32]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn words(from: *const f32) -> Self::Words {
        // SAFETY: as said above.
        unsafe { from.cast::<[[i16; 2]; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn pair(from: *const f32) -> Self::Words {
        // SAFETY: as said above.
        [unsafe { from.cast::<[i16; 2]>().read_unaligned() }; 8]
    }

    #[inline(always)]
    unsafe fn look_up(table: [i16; 32], words: Self::Words) -> Self::Words {
        words.map(|halves| halves.map(|half| table[usize::from(half.cast_unsigned() % 16)]))
    }

    #[inline(always)]
    unsafe fn without(words: Self::Words, bits: u32) -> Self::Words {
        words.map(|halves| halves.map(|half| (half.cast_unsigned() >> bits).cast_signed()))
    }

    #[inline(always)]
    unsafe fn add(pair: Self::Words, numbers: Self::Words, sums: Self::Words) -> Self::Words {
        array::from_fn(|lane| {
            let product = |half: usize| i32::from(pair[lane][half]) * i32::from(numbers[lane][half]);
            bytemuck::cast(bytemuck::cast::<_, i32>(sums[lane]) + product(0) + product(1))
        })
    }

    #[inline(always)]
    unsafe fn floats(sums: Self::Words) -> Plain {
        Plain(sums.map(|sum| bytemuck::cast::<_, i32>(sum) as f32))
    }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn tile<S: Scales, const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::tile::<Words, S, M, N>(job) }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn row<S: Scales, const P: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::row::<Words, S, P, N>(job) }
}

/// # Safety
/// None is needed; those of other instruction sets are called likewise.
unsafe fn round(from: &[f32], to: &mut [f32], block: usize, step: usize) {
    generic::round(from, to, block, step);
}

pub(super) static KERNELS: IntegerKernels = kernels!("portable", 8, 2, tile, row; 1: 1 2 3 4);
