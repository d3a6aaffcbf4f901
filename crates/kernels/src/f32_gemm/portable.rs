//! Tiles in plain code, small enough for sixteen registers of four lanes.

use super::generic::{self, Floats, Job, Kernels, PairKernels, Pairs, Product};
use super::sparse::generic::{Planes, planes as planes_of};
use crate::panels::{Table, tiles};
use crate::vector::Plain;

/// # Safety
/// The job's pointers are valid.
unsafe fn tile<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::tile::<Floats<Plain>, f32, M, N>(job) }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn row<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::row::<Floats<Plain>, f32, M, N>(job) }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn pairs<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::tile::<Pairs<Plain>, f32, M, N>(job) }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn row_of_pairs<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::row::<Pairs<Plain>, f32, M, N>(job) }
}

/// # Safety
/// The pointers are valid.
unsafe fn round(from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::round(from, to, count) }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn planes(job: &Planes<f32>) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { planes_of::<Plain, f32>(job) }
}

pub(super) static PLANES: unsafe fn(&Planes<f32>) = planes;

pub(super) static KERNELS: Kernels = Kernels {
    operation: "f32_gemm",
    tiles: Table { name: "portable", lanes: 8, tiles: &[tiles!(1: 1 2 3 4), tiles!(2: 1 2)] },
    rows: &[row::<2, 1>, row::<2, 2>],
    together: 2,
    step: Floats::<Plain>::STEP,
};

pub(super) static PAIRS: PairKernels = PairKernels {
    products: Kernels {
        operation: "bf16_gemm",
        tiles: Table { name: "portable", lanes: 8, tiles: &[tiles!(pairs 1: 1 2 3 4)] },
        rows: &[row_of_pairs::<2, 1>],
        together: 2,
        step: Pairs::<Plain>::STEP,
    },
    to_halves: None,
    round,
};
