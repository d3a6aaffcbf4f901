//! Tiles of 16 registers. A table takes two of them, and finding eight numbers four instructions: a permutation sees eight
//! numbers, and the fourth bit of a code chooses between two.

use std::arch::x86_64::{
    __m256i, _mm_cvtsi32_si128, _mm256_blendv_ps, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_loadu_ps,
    _mm256_permutevar8x32_ps, _mm256_slli_epi32, _mm256_srl_epi32,
};

use super::generic::{self, LookUp};
use crate::f32_gemm::generic::{Job, Kernels};
use crate::panels::{Table, tiles};
use crate::vector::F32x8;

// SAFETY (all methods): AVX2 is there, and memory is readable as the trait asks; the caller promised.
impl LookUp for F32x8 {
    type Table = [Self; 2];
    type Words = __m256i;

    #[inline(always)]
    unsafe fn table(from: *const f32) -> [Self; 2] {
        // SAFETY: as said above.
        unsafe { [Self(_mm256_loadu_ps(from)), Self(_mm256_loadu_ps(from.add(8)))] }
    }

    #[inline(always)]
    unsafe fn words(from: *const f32) -> __m256i {
        // SAFETY: as said above.
        unsafe { _mm256_castps_si256(_mm256_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn look_up(table: [Self; 2], words: __m256i) -> Self {
        // SAFETY: as said above. The sign of a lane decides, which is where the fourth bit goes.
        unsafe {
            let [low, high] = [table[0].0, table[1].0];
            let is_high = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(words));
            let (low, high) = (_mm256_permutevar8x32_ps(low, words), _mm256_permutevar8x32_ps(high, words));
            Self(_mm256_blendv_ps(low, high, is_high))
        }
    }

    #[inline(always)]
    unsafe fn without(words: __m256i, bits: u32) -> __m256i {
        // SAFETY: as said above.
        unsafe { _mm256_srl_epi32(words, _mm_cvtsi32_si128(bits.cast_signed())) }
    }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<F32x8, M, N>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn row<const P: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::row::<F32x8, P, N>(job) }
}

pub(super) static KERNELS: Kernels = Kernels {
    operation: "f32_codebook_gemm",
    tiles: Table { name: "avx2", lanes: 8, tiles: &[tiles!(1: 1 2 3 4 5 6), tiles!(2: 1 2 3)] },
    rows: &[row::<2, 1>, row::<2, 2>],
    together: 2,
    step: 1,
};
