//! Transformations in plain code.

use super::generic::{self, Inward, Outward, Table};
use crate::vector::Plain;

/// # Safety
/// The job's pointers are valid.
unsafe fn inward(job: &Inward<'_>) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::tile_in::<Plain>(job) }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn outward(job: &Outward) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::tile_out::<Plain>(job) }
}

pub(super) static TABLE: Table = Table { name: "portable", inward, outward };
