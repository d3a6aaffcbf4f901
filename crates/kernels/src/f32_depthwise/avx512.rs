//! Six pixels of two vectors: twelve sums of 32 registers.

use half::bf16;

use super::generic::{self, Job, Lanes, Table, beside_kernels};
use crate::vector::F32x16;

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn tile<E: Lanes<F32x16>, const P: usize>(job: &Job<'_, E>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::pixels::<F32x16, E, P>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn beside<E: Lanes<F32x16>, const K: usize, const S: usize, const P: usize, const EDGE: bool>(job: &Job<'_, E>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::beside::<F32x16, E, K, S, P, EDGE>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn halves<const P: usize>(job: &Job<'_, bf16>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::pixels::<F32x16, bf16, P>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn halves_beside<E: Lanes<F32x16>, const K: usize, const S: usize, const P: usize, const EDGE: bool>(
    job: &Job<'_, E>,
) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::beside::<F32x16, E, K, S, P, EDGE>(job) }
}

pub(super) static TABLE: Table<f32> = Table {
    name: "avx512",
    tiles: &[tile::<f32, 1>, tile::<f32, 2>, tile::<f32, 3>, tile::<f32, 4>, tile::<f32, 5>, tile::<f32, 6>],
    beside: beside_kernels!(beside, f32: 3 / 2: 7 6 5 4 3 2 1, 3 / 1: 12 8 7 6 5 4 3 2 1, 5 / 2: 6 5 4 3 2 1, 5 / 1: 12 8 7 6 5 4 3 2 1),
};
pub(super) static BYTES: Table<u8> = Table {
    name: "avx512",
    tiles: &[tile::<u8, 1>, tile::<u8, 2>, tile::<u8, 3>, tile::<u8, 4>, tile::<u8, 5>, tile::<u8, 6>],
    beside: beside_kernels!(beside, u8: 3 / 2: 7 6 5 4 3 2 1, 3 / 1: 12 8 7 6 5 4 3 2 1, 5 / 2: 6 5 4 3 2 1, 5 / 1: 12 8 7 6 5 4 3 2 1),
};
pub(super) static HALVES: Table<bf16> = Table {
    name: "avx512",
    tiles: &[halves::<1>, halves::<2>, halves::<3>, halves::<4>, halves::<5>, halves::<6>],
    beside: beside_kernels!(halves_beside, bf16: 3 / 2: 7 6 5 4 3 2 1, 3 / 1: 12 8 7 6 5 4 3 2 1, 5 / 2: 6 5 4 3 2 1, 5 / 1: 12 8 7 6 5 4 3 2 1),
};
