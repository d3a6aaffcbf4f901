//! Tiles of 16 registers: at most 12 sums, the weights of a step, and one element of a row. Wider tiles were measured at
//! half the speed: the compiler spills their sums.

use super::generic::{self, Job, Table};
use crate::vector::F32x8;

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<F32x8, M, N>(job) }
}

pub(super) static TABLE: Table = Table {
    name: "avx2",
    lanes: 8,
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
        ],
        &[tile::<1, 2>, tile::<2, 2>, tile::<3, 2>, tile::<4, 2>, tile::<5, 2>, tile::<6, 2>],
    ],
};
