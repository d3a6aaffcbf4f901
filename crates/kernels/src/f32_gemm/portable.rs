//! Tiles in plain code, small enough for sixteen registers of four lanes.

use super::generic::{self, Job, Kernels};
use crate::panels::{Table, tiles};
use crate::vector::Plain;

/// # Safety
/// The job's pointers are valid.
unsafe fn tile<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::tile::<Plain, M, N>(job) }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn row<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::row::<Plain, M, N>(job) }
}

pub(super) static KERNELS: Kernels = Kernels {
    tiles: Table { name: "portable", lanes: 8, tiles: &[tiles!(1: 1 2 3 4), tiles!(2: 1 2)] },
    rows: &[row::<2, 1>, row::<2, 2>],
    together: 2,
};
