//! Tiles of 16 registers: at most 12 sums, the weights of a step, and one element of a row. Wider tiles were measured at
//! half the speed: the compiler spills their sums.

use super::generic::{self, Floats, Job, Kernels, PairKernels, Pairs, Product};
use super::sparse::generic::{Planes, planes as planes_of};
use crate::panels::{Table, tiles};
use crate::vector::F32x8;

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<Floats<F32x8>, f32, M, N>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn row<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::row::<Floats<F32x8>, f32, M, N>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn pairs<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<Pairs<F32x8>, f32, M, N>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn row_of_pairs<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::row::<Pairs<F32x8>, f32, M, N>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn round(from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::round(from, to, count) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn planes(job: &Planes<f32>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { planes_of::<F32x8, f32>(job) }
}

pub(super) static PLANES: unsafe fn(&Planes<f32>) = planes;

pub(super) static KERNELS: Kernels = Kernels {
    operation: "f32_gemm",
    tiles: Table { name: "avx2", lanes: 8, tiles: &[tiles!(1: 1 2 3 4 5 6 7 8), tiles!(2: 1 2 3 4 5 6)] },
    rows: &[row::<4, 1>, row::<4, 2>],
    together: 4,
    step: Floats::<F32x8>::STEP,
};

pub(super) static PAIRS: PairKernels = PairKernels {
    products: Kernels {
        operation: "bf16_gemm",
        tiles: Table { name: "avx2", lanes: 8, tiles: &[tiles!(pairs 1: 1 2 3 4 5 6 7 8), tiles!(pairs 2: 1 2 3 4 5)] },
        rows: &[row_of_pairs::<4, 1>, row_of_pairs::<4, 2>],
        together: 4,
        step: Pairs::<F32x8>::STEP,
    },
    to_halves: None,
    round,
};
