//! Tiles of 16 registers: at most 12 sums, the weights of a step, and one element of a row. Wider tiles were measured at
//! half the speed: the compiler spills their sums.

use super::generic::{self, Job, Kernels};
use crate::panels::{Table, tiles};
use crate::vector::F32x8;

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<F32x8, M, N>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn row<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::row::<F32x8, M, N>(job) }
}

pub(super) static KERNELS: Kernels = Kernels {
    tiles: Table { name: "avx2", lanes: 8, tiles: &[tiles!(1: 1 2 3 4 5 6 7 8), tiles!(2: 1 2 3 4 5 6)] },
    rows: &[row::<4, 1>, row::<4, 2>],
    together: 4,
};
