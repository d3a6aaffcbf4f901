//! Cells, lanes as wide as the registers.

use super::Cell;
use super::generic::{self, Job, Table};
use crate::vector::F32x16;

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and pointers are valid as `generic::step` asks.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn step(cell: Cell, job: &Job, hidden: *mut f32, state: *mut f32) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::step::<F32x16>(cell, job, hidden, state) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and pointers are valid as `generic::reset` asks.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn reset(cell: Cell, job: &Job, hidden: *const f32, reset: *mut f32) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::reset::<F32x16>(cell, job, hidden, reset) }
}

pub(super) static TABLE: Table = Table { step, reset };
