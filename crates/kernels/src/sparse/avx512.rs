//! Four vectors of sixteen lanes.

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_castps_si512, _mm512_dpbf16_ps, _mm512_dpbusd_epi32, _mm512_loadu_si512,
    _mm512_set1_epi32, _mm512_setzero_si512, _mm512_shuffle_epi32, _mm512_storeu_si512,
};
use std::mem::transmute;

use super::generic::{self, Floats, Job, Turn, Words};
use super::{Kernels, products};
use crate::vector::{F32x16, Vector, four_everywhere};

/// Four bytes in each word, multiplied by one instruction of VNNI.
struct Bytes;

// SAFETY (all methods): AVX-512 with VNNI is there, and memory is readable and writable as the trait asks; the caller
// promised.
impl Words for Bytes {
    const LANES: usize = 16;
    type Lanes = __m512i;
    type Sums = __m512i;

    #[inline(always)]
    unsafe fn prefetch(from: *const u32) {
        // SAFETY: as said above.
        unsafe { F32x16::prefetch(from.cast()) }
    }

    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: as said above.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn load_sums(from: *const u32) -> __m512i {
        // SAFETY: as said above.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store_sums(sums: __m512i, to: *mut u32) {
        // SAFETY: as said above.
        unsafe { _mm512_storeu_si512(to.cast(), sums) }
    }

    #[inline(always)]
    unsafe fn splat(weight: *const u32) -> __m512i {
        // SAFETY: as said above.
        unsafe { _mm512_set1_epi32((*weight).cast_signed()) }
    }

    #[inline(always)]
    unsafe fn splat_each(weights: *const u32) -> [__m512i; 4] {
        // SAFETY: as said above.
        unsafe {
            let four = _mm512_castps_si512(four_everywhere(weights.cast()));
            [
                _mm512_shuffle_epi32::<0b00_00_00_00>(four),
                _mm512_shuffle_epi32::<0b01_01_01_01>(four),
                _mm512_shuffle_epi32::<0b10_10_10_10>(four),
                _mm512_shuffle_epi32::<0b11_11_11_11>(four),
            ]
        }
    }

    #[inline(always)]
    unsafe fn load(from: *const u32) -> __m512i {
        // SAFETY: as said above.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn add(weight: __m512i, pixels: __m512i, sums: __m512i) -> __m512i {
        // SAFETY: as said above.
        unsafe { _mm512_dpbusd_epi32(sums, pixels, weight) }
    }
}

/// Two bf16 in each word, multiplied and added by one instruction.
struct Pairs;

// SAFETY (all methods): AVX-512 with BF16 is there, and memory is readable and writable as the trait asks; the caller
// promised. All types are 512 bits that may be any.
impl Words for Pairs {
    const LANES: usize = 16;
    type Lanes = __m512bh;
    type Sums = F32x16;

    #[inline(always)]
    unsafe fn prefetch(from: *const u32) {
        // SAFETY: as said above.
        unsafe { F32x16::prefetch(from.cast()) }
    }

    #[inline(always)]
    unsafe fn zero() -> F32x16 {
        // SAFETY: as said above.
        unsafe { F32x16::splat(0.0) }
    }

    #[inline(always)]
    unsafe fn load_sums(from: *const u32) -> F32x16 {
        // SAFETY: as said above.
        unsafe { F32x16::load(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store_sums(sums: F32x16, to: *mut u32) {
        // SAFETY: as said above.
        unsafe { sums.store(to.cast()) }
    }

    #[inline(always)]
    unsafe fn splat(weight: *const u32) -> __m512bh {
        // SAFETY: as said above.
        unsafe { transmute(Bytes::splat(weight)) }
    }

    #[inline(always)]
    unsafe fn splat_each(weights: *const u32) -> [__m512bh; 4] {
        // SAFETY: as said above.
        unsafe { transmute(Bytes::splat_each(weights)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u32) -> __m512bh {
        // SAFETY: as said above.
        unsafe { transmute(_mm512_loadu_si512(from.cast())) }
    }

    #[inline(always)]
    unsafe fn add(weight: __m512bh, pixels: __m512bh, sums: F32x16) -> F32x16 {
        // SAFETY: as said above.
        F32x16(unsafe { _mm512_dpbf16_ps(sums.0, pixels, weight) })
    }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn floats<const R: usize, const T: usize, const U: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::products::<Floats<F32x16>, R, T, U>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn turn(job: &Turn) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::turn::<F32x16>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn pairs<const R: usize, const T: usize, const U: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::products::<Pairs, R, T, U>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and VNNI, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn bytes<const R: usize, const T: usize, const U: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::products::<Bytes, R, T, U>(job) }
}

pub(super) static FLOATS: Kernels = Kernels { name: "avx512", lanes: 16, products: products!(floats, [4, 2, 1]), turn };

pub(super) static PAIRS: Kernels =
    Kernels { name: "avx512bf16", lanes: 16, products: products!(pairs, [4, 2, 1]), turn };

pub(super) static BYTES: Kernels =
    Kernels { name: "avx512vnni", lanes: 16, products: products!(bytes, [4, 2, 1]), turn };
