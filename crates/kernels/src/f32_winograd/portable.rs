//! Transformations in plain code.

use super::generic::{self, Inward, Outward, Table};
use crate::vector::Plain;

/// # Safety
/// The job's pointers are valid.
unsafe fn inward(job: &Inward<'_, f32>) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::tile_in::<Plain, f32>(job) }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn outward(job: &Outward<f32>) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::tile_out::<Plain, f32>(job) }
}

pub(super) static TABLE: Table<f32> = Table { name: "portable", inward, outward };
