//! Two pixels at a time, in plain code.

use super::generic::{self, Job, Table};
use crate::vector::Plain;

/// # Safety
/// The job's pointers are valid.
unsafe fn tile<const P: usize>(job: &Job) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::pixels::<Plain, P>(job) }
}

pub(super) static TABLE: Table = Table { name: "portable", tiles: &[tile::<1>, tile::<2>] };
