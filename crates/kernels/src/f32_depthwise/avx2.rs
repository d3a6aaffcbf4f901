//! Four pixels of two vectors: eight sums of 16 registers.

use super::generic::{self, Job, Lanes, Table, beside_kernels};
use crate::vector::F32x8;

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<E: Lanes<F32x8>, const P: usize>(job: &Job<'_, E>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::pixels::<F32x8, E, P>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn beside<E: Lanes<F32x8>, const K: usize, const S: usize, const P: usize, const EDGE: bool>(job: &Job<'_, E>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::beside::<F32x8, E, K, S, P, EDGE>(job) }
}

pub(super) static TABLE: Table<f32> = Table {
    name: "avx2",
    tiles: &[tile::<f32, 1>, tile::<f32, 2>, tile::<f32, 3>, tile::<f32, 4>],
    beside: beside_kernels!(beside, f32: 3 / 2: 4 3 2 1, 3 / 1: 6 5 4 3 2 1, 5 / 2: 4 3 2 1, 5 / 1: 8 6 5 4 3 2 1),
};
pub(super) static BYTES: Table<u8> = Table {
    name: "avx2",
    tiles: &[tile::<u8, 1>, tile::<u8, 2>, tile::<u8, 3>, tile::<u8, 4>],
    beside: beside_kernels!(beside, u8: 3 / 2: 4 3 2 1, 3 / 1: 6 5 4 3 2 1, 5 / 2: 4 3 2 1, 5 / 1: 8 6 5 4 3 2 1),
};
