//! Eight sums. Bytes are widened to sixteen bits, even and odd ones apart, because the one instruction that multiplies
//! bytes saturates.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_si256, _mm256_slli_epi16, _mm256_srai_epi16,
    _mm256_srli_epi16,
};

use super::generic::{self, Job, Sums, Tables};
use crate::panels::{Table, tiles};
use crate::vector::F32x8;

#[derive(Clone, Copy)]
struct I32x8(__m256i);

// SAFETY (all methods): AVX2 is there, and memory is readable and writable as the trait asks; the caller promised.
impl Sums for I32x8 {
    const LANES: usize = 8;
    type Floats = F32x8;
    /// The even ones and the odd ones.
    type Bytes = [__m256i; 2];
    type Weights = [__m256i; 2];

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm256_setzero_si256() })
    }

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm256_set1_epi32(value) })
    }

    #[inline(always)]
    unsafe fn bytes(four: u32) -> [__m256i; 2] {
        // SAFETY: as said above.
        unsafe {
            let all = _mm256_set1_epi32(four.cast_signed());
            [_mm256_and_si256(all, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(all)]
        }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> [__m256i; 2] {
        // SAFETY: as said above.
        unsafe {
            let all = _mm256_loadu_si256(from.cast());
            [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(all)), _mm256_srai_epi16::<8>(all)]
        }
    }

    #[inline(always)]
    unsafe fn dot(self, bytes: [__m256i; 2], weights: [__m256i; 2]) -> Self {
        // SAFETY: as said above.
        unsafe {
            let even = _mm256_madd_epi16(bytes[0], weights[0]);
            let odd = _mm256_madd_epi16(bytes[1], weights[1]);
            Self(_mm256_add_epi32(self.0, _mm256_add_epi32(even, odd)))
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm256_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn floats(self) -> F32x8 {
        // SAFETY: as said above.
        F32x8(unsafe { _mm256_cvtepi32_ps(self.0) })
    }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<I32x8, M, N, false>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn by_row<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<I32x8, M, N, true>(job) }
}

macro_rules! table {
    ($function:ident) => {
        Table { name: "avx2", lanes: 8, tiles: &[tiles!($function 1: 1 2 3 4 5 6 7 8), tiles!($function 2: 1 2 3 4)] }
    };
}

pub(super) static TABLES: Tables = Tables { plain: table!(tile), by_row: table!(by_row) };
