//! Tiles of 16 registers. Bytes are what a table is looked up in: they are found for the lower byte of every half, and
//! brought to all of it. Where numbers are at even distances, codes are multiplied instead, and sums are brought to numbers.

use std::arch::x86_64::{
    __m256i, _mm_cvtsi32_si128, _mm_loadu_si128, _mm_packs_epi16, _mm256_add_epi32, _mm256_and_si256,
    _mm256_broadcastsi128_si256, _mm256_cvtepi32_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_mullo_epi32,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi16,
    _mm256_srai_epi16, _mm256_srl_epi16,
};

use super::generic::{self, Blocks, Integers, Scales, Shifted, Whole};
use super::{IntegerKernels, kernels};
use crate::f32_gemm::generic::Job;
use crate::vector::F32x8;

struct Words;

// SAFETY (all methods): AVX2 is there, and memory is readable as the trait asks; the caller promised.
impl Integers for Words {
    type Floats = F32x8;
    type Table = __m256i;
    type Words = __m256i;

    #[inline(always)]
    unsafe fn zero() -> __m256i {
        // SAFETY: as said above.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn table(from: *const f32) -> __m256i {
        // SAFETY: as said above. Sixteen integers that all fit bytes.
        unsafe {
            let [first, second] = [_mm_loadu_si128(from.cast()), _mm_loadu_si128(from.add(4).cast())];
            _mm256_broadcastsi128_si256(_mm_packs_epi16(first, second))
        }
    }

    #[inline(always)]
    unsafe fn words(from: *const f32) -> __m256i {
        // SAFETY: as said above.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn pair(from: *const f32) -> __m256i {
        // SAFETY: as said above.
        unsafe { _mm256_set1_epi32(*from.cast()) }
    }

    #[inline(always)]
    unsafe fn look_up(table: __m256i, words: __m256i) -> __m256i {
        // SAFETY: as said above.
        unsafe {
            let bytes = _mm256_shuffle_epi8(table, _mm256_and_si256(words, _mm256_set1_epi16(15)));
            _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes))
        }
    }

    #[inline(always)]
    unsafe fn without(words: __m256i, bits: u32) -> __m256i {
        // SAFETY: as said above.
        unsafe { _mm256_srl_epi16(words, _mm_cvtsi32_si128(bits.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn add(pair: __m256i, numbers: __m256i, sums: __m256i) -> __m256i {
        // SAFETY: as said above.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(pair, numbers)) }
    }

    #[inline(always)]
    unsafe fn floats(sums: __m256i) -> F32x8 {
        // SAFETY: as said above.
        F32x8(unsafe { _mm256_cvtepi32_ps(sums) })
    }
}

/// Numbers that are a first one and steps to it, as many as a code says.
struct Even;

#[derive(Clone, Copy)]
struct Range {
    /// In every half.
    first: __m256i,
    /// In every word.
    step: __m256i,
    /// The bits of a code, in every half.
    bits: __m256i,
}

// SAFETY (all methods): as those of `Words`.
impl Integers for Even {
    type Floats = F32x8;
    type Table = Range;
    type Words = __m256i;

    #[inline(always)]
    unsafe fn zero() -> __m256i {
        // SAFETY: as said above.
        unsafe { Words::zero() }
    }

    #[inline(always)]
    unsafe fn table(from: *const f32) -> Range {
        // SAFETY: as said above.
        let [first, step, bits] = unsafe { from.cast::<[i16; 3]>().read() };
        // SAFETY: as said above.
        unsafe {
            Range {
                first: _mm256_set1_epi16(first),
                step: _mm256_set1_epi32(step.into()),
                bits: _mm256_set1_epi16(bits),
            }
        }
    }

    #[inline(always)]
    unsafe fn words(from: *const f32) -> __m256i {
        // SAFETY: as said above.
        unsafe { Words::words(from) }
    }

    #[inline(always)]
    unsafe fn pair(from: *const f32) -> __m256i {
        // SAFETY: as said above.
        unsafe { Words::pair(from) }
    }

    #[inline(always)]
    unsafe fn look_up(table: Range, words: __m256i) -> __m256i {
        // SAFETY: as said above.
        unsafe { _mm256_and_si256(words, table.bits) }
    }

    #[inline(always)]
    unsafe fn without(words: __m256i, bits: u32) -> __m256i {
        // SAFETY: as said above.
        unsafe { Words::without(words, bits) }
    }

    #[inline(always)]
    unsafe fn add(pair: __m256i, numbers: __m256i, sums: __m256i) -> __m256i {
        // SAFETY: as said above.
        unsafe { Words::add(pair, numbers, sums) }
    }

    #[inline(always)]
    unsafe fn floats(sums: __m256i) -> F32x8 {
        // SAFETY: as said above.
        unsafe { Words::floats(sums) }
    }

    #[inline(always)]
    unsafe fn aside(table: Range, pair: __m256i, sums: __m256i) -> __m256i {
        // SAFETY: as said above.
        unsafe { Words::add(pair, table.first, sums) }
    }

    #[inline(always)]
    unsafe fn settled(table: Range, sums: __m256i, aside: __m256i) -> __m256i {
        // SAFETY: as said above.
        unsafe { _mm256_add_epi32(_mm256_mullo_epi32(sums, table.step), aside) }
    }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn even_tile<S: Scales, const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<Even, S, M, N>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn even_row<S: Scales, const P: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::row::<Even, S, P, N>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<S: Scales, const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<Words, S, M, N>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn row<S: Scales, const P: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::row::<Words, S, P, N>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn round(from: &[f32], to: &mut [f32], block: usize, step: usize) {
    // The features are enabled here.
    generic::round(from, to, block, step);
}

pub(super) static KERNELS: IntegerKernels = kernels!("avx2", 8, 2, tile, row; 1: 1 2 3 4; 2: 1 2);
pub(super) static EVEN_KERNELS: IntegerKernels = kernels!("avx2", 8, 2, even_tile, even_row; 1: 1 2 3 4; 2: 1 2);
