//! Cells in plain code, eight lanes at a time.

use super::Cell;
use super::generic::{self, Job, Table};
use crate::vector::Plain;

/// # Safety
/// The pointers are valid as `generic::step` asks.
unsafe fn step(cell: Cell, job: &Job, hidden: *mut f32, state: *mut f32) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::step::<Plain>(cell, job, hidden, state) }
}

/// # Safety
/// The pointers are valid as `generic::reset` asks.
unsafe fn reset(cell: Cell, job: &Job, hidden: *const f32, reset: *mut f32) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::reset::<Plain>(cell, job, hidden, reset) }
}

pub(super) static TABLE: Table = Table { step, reset };
