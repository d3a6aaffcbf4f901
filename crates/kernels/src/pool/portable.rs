//! Pooling in plain code.

use super::generic::{self, Job, Kernel};
use crate::vector::Plain;

/// # Safety
/// The job's pointers are valid.
unsafe fn pixel(job: &Job<f32>) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::pixel::<Plain, f32>(job) }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn unsigned(job: &Job<u8>) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::greatest(job, u8::MIN) }
}

/// # Safety
/// The job's pointers are valid.
unsafe fn signed(job: &Job<i8>) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::greatest(job, i8::MIN) }
}

pub(super) static PIXEL: Kernel<f32> = pixel;
pub(super) static UNSIGNED: Kernel<u8> = unsigned;
pub(super) static SIGNED: Kernel<i8> = signed;
