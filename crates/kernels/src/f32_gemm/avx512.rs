//! Tiles of 32 registers: at most 24 sums, the weights of a step, and one element of a row.

use super::generic::{self, Job, Kernels};
use crate::panels::{Table, tiles};
use crate::vector::F32x16;

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn tile<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<F32x16, M, N>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn row<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::row::<F32x16, M, N>(job) }
}

pub(super) static KERNELS: Kernels = Kernels {
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
};
