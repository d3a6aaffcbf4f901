//! Four vectors of eight lanes.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_setzero_si256, _mm256_slli_epi16, _mm256_srai_epi16, _mm256_srli_epi16,
    _mm256_storeu_si256,
};

use super::generic::{self, Floats, Job, Turn, Words};
use super::{Kernels, products};
use crate::vector::{F32x8, Vector};

/// Four bytes in each word, the even and the odd ones widened to sixteen bits.
struct Bytes;

// SAFETY (all methods): AVX2 is there, and memory is readable and writable as the trait asks; the caller promised.
impl Words for Bytes {
    const LANES: usize = 8;
    type Lanes = [__m256i; 2];
    type Sums = __m256i;

    #[inline(always)]
    unsafe fn prefetch(from: *const u32) {
        // SAFETY: as said above.
        unsafe { F32x8::prefetch(from.cast()) }
    }

    #[inline(always)]
    unsafe fn zero() -> __m256i {
        // SAFETY: as said above.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn load_sums(from: *const u32) -> __m256i {
        // SAFETY: as said above.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store_sums(sums: __m256i, to: *mut u32) {
        // SAFETY: as said above.
        unsafe { _mm256_storeu_si256(to.cast(), sums) }
    }

    #[inline(always)]
    unsafe fn splat(weight: *const u32) -> [__m256i; 2] {
        // SAFETY: as said above.
        unsafe {
            let all = _mm256_set1_epi32((*weight).cast_signed());
            [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(all)), _mm256_srai_epi16::<8>(all)]
        }
    }

    #[inline(always)]
    unsafe fn load(from: *const u32) -> [__m256i; 2] {
        // SAFETY: as said above.
        unsafe {
            let all = _mm256_loadu_si256(from.cast());
            [_mm256_and_si256(all, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(all)]
        }
    }

    #[inline(always)]
    unsafe fn add(weight: [__m256i; 2], pixels: [__m256i; 2], sums: __m256i) -> __m256i {
        // SAFETY: as said above.
        unsafe {
            let even = _mm256_madd_epi16(pixels[0], weight[0]);
            let odd = _mm256_madd_epi16(pixels[1], weight[1]);
            _mm256_add_epi32(sums, _mm256_add_epi32(even, odd))
        }
    }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn floats<const R: usize, const T: usize, const U: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::products::<Floats<F32x8>, R, T, U>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn turn(job: &Turn) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::turn::<F32x8>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn bytes<const R: usize, const T: usize, const U: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::products::<Bytes, R, T, U>(job) }
}

pub(super) static FLOATS: Kernels = Kernels { name: "avx2", lanes: 8, products: products!(floats, [2, 1, 1]), turn };

pub(super) static BYTES: Kernels = Kernels { name: "avx2", lanes: 8, products: products!(bytes, [1, 1, 1]), turn };
