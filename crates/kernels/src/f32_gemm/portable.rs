//! Tiles in plain code, small enough for sixteen registers of four lanes.

use super::generic::{self, Job, Table};
use crate::vector::Plain;

/// # Safety
/// The job's pointers are valid.
unsafe fn tile<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::tile::<Plain, M, N>(job) }
}

pub(super) static TABLE: Table = Table {
    name: "portable",
    lanes: 8,
    tiles: &[&[tile::<1, 1>, tile::<2, 1>, tile::<3, 1>, tile::<4, 1>], &[tile::<1, 2>, tile::<2, 2>]],
};
