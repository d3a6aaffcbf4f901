//! Cells, lanes as wide as the registers.

use super::Cell;
use super::generic::{self, Job, Table};
use crate::vector::F32x8;

/// # Safety
/// The processor has AVX2 and FMA, and pointers are valid as `generic::step` asks.
#[target_feature(enable = "avx2,fma")]
unsafe fn step(cell: Cell, job: &Job, hidden: *mut f32, state: *mut f32) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::step::<F32x8>(cell, job, hidden, state) }
}

/// # Safety
/// The processor has AVX2 and FMA, and pointers are valid as `generic::reset` asks.
#[target_feature(enable = "avx2,fma")]
unsafe fn reset(cell: Cell, job: &Job, hidden: *const f32, reset: *mut f32) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::reset::<F32x8>(cell, job, hidden, reset) }
}

pub(super) static TABLE: Table = Table { step, reset };
