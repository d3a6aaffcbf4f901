//! Tiles of 32 registers: at most 24 sums, the weights of a step, and one element of a row.

use std::arch::x86_64::{
    __m256i, __m512bh, _mm256_mask_storeu_epi16, _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_loadu_ps,
    _mm512_maskz_loadu_ps, _mm512_set1_ps,
};
use std::mem::transmute;

use half::bf16;

use super::generic::{self, Floats, Job, Kernels, PairKernels, Pairs, Product};
use super::sparse::generic::{Planes, planes as planes_of};
use crate::panels::{Table, tiles};
use crate::vector::{F32x16, first_lanes};

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn tile<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<Floats<F32x16>, f32, M, N>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn row<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::row::<Floats<F32x16>, f32, M, N>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn pairs<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<Pairs<F32x16>, f32, M, N>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn row_of_pairs<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::row::<Pairs<F32x16>, f32, M, N>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn round(from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::round(from, to, count) }
}

/// `Round` to halves. Numbers too small for a normal float become zero, as the products take them.
///
/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16, and the pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn round_to_halves(from: *const f32, to: *mut f32, count: usize) {
    let (mut at, to) = (0, to.cast::<i16>());
    // SAFETY: the caller's promise; the features are enabled here, and elements behind `count` are not touched. Both types
    // are 256 bits that may be any.
    unsafe {
        while at < count {
            let mask = first_lanes(16.min(count - at));
            let halves: __m256i = transmute(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, from.add(at))));
            _mm256_mask_storeu_epi16(to.add(at), mask, halves);
            at += 16;
        }
    }
}

/// Two bf16 in the place of a float, multiplied and added by one instruction.
struct Fused;

// SAFETY (all methods): AVX-512 with BF16 is there, and memory is readable as the trait asks; the caller promised.
impl Product for Fused {
    const STEP: usize = 1;
    type Sums = F32x16;
    type Left = __m512bh;
    type Right = __m512bh;

    #[inline(always)]
    unsafe fn left(from: *const f32) -> __m512bh {
        // SAFETY: as said above; both types are 512 bits that may be any.
        unsafe { transmute(_mm512_set1_ps(*from)) }
    }

    #[inline(always)]
    unsafe fn right(from: *const f32) -> __m512bh {
        // SAFETY: as said above; both types are 512 bits that may be any.
        unsafe { transmute(_mm512_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn add(left: __m512bh, right: __m512bh, sums: F32x16) -> F32x16 {
        // SAFETY: as said above.
        F32x16(unsafe { _mm512_dpbf16_ps(sums.0, left, right) })
    }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn fused<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<Fused, f32, M, N>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn to_halves<const M: usize, const N: usize>(job: &Job<bf16>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<Fused, bf16, M, N>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn row_to_halves<const M: usize, const N: usize>(job: &Job<bf16>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::row::<Fused, bf16, M, N>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn row_fused<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::row::<Fused, f32, M, N>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn planes(job: &Planes<f32>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { planes_of::<F32x16, f32>(job) }
}

pub(super) static PLANES: unsafe fn(&Planes<f32>) = planes;

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn planes_to_halves(job: &Planes<bf16>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { planes_of::<F32x16, bf16>(job) }
}

pub(super) static PLANES_TO_HALVES: unsafe fn(&Planes<bf16>) = planes_to_halves;

pub(super) static KERNELS: Kernels = Kernels {
    operation: "f32_gemm",
    tiles: Table {
        name: "avx512",
        lanes: 16,
        tiles: &[
            tiles!(1: 1 2 3 4 5 6 7 8 9 10 11 12),
            tiles!(2: 1 2 3 4 5 6 7 8 9 10 11 12),
            tiles!(3: 1 2 3 4 5 6 7 8),
            tiles!(4: 1 2 3 4 5 6),
        ],
    },
    rows: &[row::<4, 1>, row::<4, 2>, row::<4, 3>, row::<4, 4>],
    together: 4,
    step: Floats::<F32x16>::STEP,
};

pub(super) static PAIRS: PairKernels = PairKernels {
    products: Kernels {
        operation: "bf16_gemm",
        tiles: Table {
            name: "avx512",
            lanes: 16,
            tiles: &[tiles!(pairs 1: 1 2 3 4 5 6 7 8 9 10 11 12), tiles!(pairs 2: 1 2 3 4 5 6 7 8 9 10 11 12)],
        },
        rows: &[row_of_pairs::<4, 1>, row_of_pairs::<4, 2>],
        together: 4,
        step: Pairs::<F32x16>::STEP,
    },
    to_halves: None,
    round,
};

/// Kernels of pairs, whatever their results are stored as.
macro_rules! fused_kernels {
    ($tile:ident, $row:ident) => {
        Kernels {
            operation: "bf16_gemm",
            tiles: Table {
                name: "avx512bf16",
                lanes: 16,
                tiles: &[
                    tiles!($tile 1: 1 2 3 4 5 6 7 8 9 10 11 12),
                    tiles!($tile 2: 1 2 3 4 5 6 7 8 9 10 11 12),
                    tiles!($tile 3: 1 2 3 4 5 6 7 8),
                    tiles!($tile 4: 1 2 3 4 5 6),
                ],
            },
            rows: &[$row::<4, 1>, $row::<4, 2>, $row::<4, 3>, $row::<4, 4>],
            together: 4,
            step: Fused::STEP,
        }
    };
}

pub(super) static FUSED_PAIRS: PairKernels = PairKernels {
    products: fused_kernels!(fused, row_fused),
    to_halves: Some(fused_kernels!(to_halves, row_to_halves)),
    round: round_to_halves,
};
