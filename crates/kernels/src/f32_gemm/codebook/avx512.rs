//! Tiles of 32 registers: at most 21 sums, words, and numbers made of them.

use std::arch::x86_64::{
    __m512i, _mm_cvtsi32_si128, _mm512_castps_si512, _mm512_loadu_ps, _mm512_permutexvar_ps, _mm512_srl_epi32,
};

use super::generic::{self, LookUp};
use crate::f32_gemm::generic::{Job, Kernels};
use crate::panels::{Table, tiles};
use crate::vector::F32x16;

// SAFETY (all methods): AVX-512 F is there, and memory is readable as the trait asks; the caller promised.
impl LookUp for F32x16 {
    type Table = Self;
    type Words = __m512i;

    #[inline(always)]
    unsafe fn table(from: *const f32) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn words(from: *const f32) -> __m512i {
        // SAFETY: as said above.
        unsafe { _mm512_castps_si512(_mm512_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn look_up(table: Self, words: __m512i) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm512_permutexvar_ps(words, table.0) })
    }

    #[inline(always)]
    unsafe fn without(words: __m512i, bits: u32) -> __m512i {
        // SAFETY: as said above.
        unsafe { _mm512_srl_epi32(words, _mm_cvtsi32_si128(bits.cast_signed())) }
    }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn tile<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<F32x16, M, N>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn row<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::row::<F32x16, M, N>(job) }
}

pub(super) static KERNELS: Kernels = Kernels {
    operation: "f32_codebook_gemm",
    tiles: Table {
        name: "avx512",
        lanes: 16,
        tiles: &[tiles!(1: 1 2 3 4 5 6 7 8 9 10 11 12), tiles!(2: 1 2 3 4 5 6 7 8), tiles!(3: 1 2 3 4 5 6 7)],
    },
    rows: &[row::<4, 1>, row::<4, 2>, row::<4, 3>],
    together: 4,
    step: 1,
};
