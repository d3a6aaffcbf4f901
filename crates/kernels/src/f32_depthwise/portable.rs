//! Two pixels at a time, in plain code.

use super::generic::{self, Job, Lanes, Table, beside_kernels};
use crate::vector::Plain;

/// # Safety
/// The job's pointers are valid.
unsafe fn tile<E: Lanes<Plain>, const P: usize>(job: &Job<'_, E>) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::pixels::<Plain, E, P>(job) }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn beside<E: Lanes<Plain>, const K: usize, const S: usize, const P: usize, const EDGE: bool>(job: &Job<'_, E>) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::beside::<Plain, E, K, S, P, EDGE>(job) }
}

pub(super) static TABLE: Table<f32> = Table {
    name: "portable",
    tiles: &[tile::<f32, 1>, tile::<f32, 2>],
    beside: beside_kernels!(beside, f32: 3 / 2: 2 1, 3 / 1: 2 1),
};
pub(super) static BYTES: Table<u8> = Table {
    name: "portable",
    tiles: &[tile::<u8, 1>, tile::<u8, 2>],
    beside: beside_kernels!(beside, u8: 3 / 2: 2 1, 3 / 1: 2 1),
};
