//! Eight columns to a vector, one by one.

use super::generic::{self, Job, Kernels};
use crate::vector::Plain;

/// # Safety
/// The job is as `generic::blocks` asks.
unsafe fn blocks(job: Job<'_>, offsets: &[u32]) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::blocks::<Plain, 2>(job, offsets) }
}

pub(super) static KERNELS: Kernels = Kernels { name: "portable", lanes: 8, width: 16, blocks, places: None };
