//! Tiles of 32 registers: at most 24 sums, the weights of a step, and one element of a row.

use super::generic::{self, Job, Table};
use crate::vector::F32x16;

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn tile<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<F32x16, M, N>(job) }
}

pub(super) static TABLE: Table = Table {
    name: "avx512",
    lanes: 16,
    tiles: &[
        &[
            tile::<1, 1>,
            tile::<2, 1>,
            tile::<3, 1>,
            tile::<4, 1>,
            tile::<5, 1>,
            tile::<6, 1>,
            tile::<7, 1>,
            tile::<8, 1>,
            tile::<9, 1>,
            tile::<10, 1>,
            tile::<11, 1>,
            tile::<12, 1>,
        ],
        &[
            tile::<1, 2>,
            tile::<2, 2>,
            tile::<3, 2>,
            tile::<4, 2>,
            tile::<5, 2>,
            tile::<6, 2>,
            tile::<7, 2>,
            tile::<8, 2>,
            tile::<9, 2>,
            tile::<10, 2>,
            tile::<11, 2>,
            tile::<12, 2>,
        ],
        &[
            tile::<1, 3>,
            tile::<2, 3>,
            tile::<3, 3>,
            tile::<4, 3>,
            tile::<5, 3>,
            tile::<6, 3>,
            tile::<7, 3>,
            tile::<8, 3>,
        ],
        &[tile::<1, 4>, tile::<2, 4>, tile::<3, 4>, tile::<4, 4>, tile::<5, 4>, tile::<6, 4>],
    ],
};
