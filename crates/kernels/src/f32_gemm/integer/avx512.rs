//! Tiles of 32 registers: at most 10 sums of integers and as many of floats, words, and numbers made of them.

use std::arch::x86_64::{
    __m512i, _mm_cvtsi32_si128, _mm512_add_epi32, _mm512_cvtepi32_ps, _mm512_dpwssd_epi32, _mm512_loadu_si512,
    _mm512_madd_epi16, _mm512_permutexvar_epi16, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_srl_epi16,
};

use super::generic::{self, Blocks, Integers, Scales, Shifted, Whole};
use super::{IntegerKernels, kernels};
use crate::f32_gemm::generic::Job;
use crate::vector::F32x16;

/// Two products and their sum, then another.
struct Words;

/// All of that by one instruction.
struct Vnni;

// SAFETY (all methods): AVX-512 F and BW are there, VNNI where the type says so, and memory is readable as the trait asks;
// the caller promised.
macro_rules! integers {
    ($type:ident, |$pair:ident, $numbers:ident, $sums:ident| $add:expr) => {
        impl Integers for $type {
            type Floats = F32x16;
            type Table = __m512i;
            type Words = __m512i;

            #[inline(always)]
            unsafe fn zero() -> __m512i {
                // SAFETY: as said above.
                unsafe { _mm512_setzero_si512() }
            }

            #[inline(always)]
            unsafe fn table(from: *const f32) -> __m512i {
                // SAFETY: as said above.
                unsafe { _mm512_loadu_si512(from.cast()) }
            }

            #[inline(always)]
            unsafe fn words(from: *const f32) -> __m512i {
                // SAFETY: as said above.
                unsafe { _mm512_loadu_si512(from.cast()) }
            }

            #[inline(always)]
            unsafe fn pair(from: *const f32) -> __m512i {
                // SAFETY: as said above.
                unsafe { _mm512_set1_epi32(*from.cast()) }
            }

            #[inline(always)]
            unsafe fn look_up(table: __m512i, words: __m512i) -> __m512i {
                // SAFETY: as said above.
                unsafe { _mm512_permutexvar_epi16(words, table) }
            }

            #[inline(always)]
            unsafe fn without(words: __m512i, bits: u32) -> __m512i {
                // SAFETY: as said above.
                unsafe { _mm512_srl_epi16(words, _mm_cvtsi32_si128(bits.cast_signed())) }
            }

            #[inline(always)]
            unsafe fn add($pair: __m512i, $numbers: __m512i, $sums: __m512i) -> __m512i {
                // SAFETY: as said above.
                unsafe { $add }
            }

            #[inline(always)]
            unsafe fn floats(sums: __m512i) -> F32x16 {
                // SAFETY: as said above.
                F32x16(unsafe { _mm512_cvtepi32_ps(sums) })
            }
        }
    };
}

integers!(Words, |pair, numbers, sums| _mm512_add_epi32(sums, _mm512_madd_epi16(pair, numbers)));
integers!(Vnni, |pair, numbers, sums| _mm512_dpwssd_epi32(sums, pair, numbers));

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn tile<S: Scales, const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<Words, S, M, N>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn row<S: Scales, const P: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::row::<Words, S, P, N>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and VNNI, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tile_vnni<S: Scales, const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<Vnni, S, M, N>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and VNNI, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn row_vnni<S: Scales, const P: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::row::<Vnni, S, P, N>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn round(from: &[f32], to: &mut [f32], block: usize, step: usize) {
    // The features are enabled here.
    generic::round(from, to, block, step);
}

pub(super) static KERNELS: IntegerKernels = kernels!("avx512", 16, 4, tile, row; 1: 1 2 3 4 5 6 7 8; 2: 1 2 3 4 5);
pub(super) static VNNI_KERNELS: IntegerKernels =
    kernels!("avx512vnni", 16, 4, tile_vnni, row_vnni; 1: 1 2 3 4 5 6 7 8; 2: 1 2 3 4 5);
