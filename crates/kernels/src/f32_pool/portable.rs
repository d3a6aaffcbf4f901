//! Pooling in plain code.

use super::generic::{self, Job, Kernel};
use crate::vector::Plain;

/// # Safety
/// The job's pointers are valid.
unsafe fn pixel(job: &Job) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::pixel::<Plain>(job) }
}

pub(super) static PIXEL: Kernel = pixel;
