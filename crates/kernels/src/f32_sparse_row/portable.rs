//! Elements picked one by one.

use std::array;

use super::generic::{self, Job, Kernels, Pick};
use crate::vector::Plain;

// SAFETY (both methods): memory is readable as the trait asks; the caller promised.
impl Pick for Plain {
    type Chunk = *const f32;

    #[inline(always)]
    unsafe fn chunk(from: *const f32, _count: usize) -> *const f32 {
        from
    }

    #[inline(always)]
    unsafe fn pick(chunk: *const f32, places: *const u8) -> Self {
        // SAFETY: as said above; places that are taken are within the chunk, and that of zeros is its first.
        Self(array::from_fn(|lane| unsafe { *chunk.add(usize::from(*places.add(lane))) }))
    }
}

/// # Safety
/// The job is as `generic::group` asks.
unsafe fn group(job: Job<'_>) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::group::<Plain, 2>(job) }
}

pub(super) static KERNELS: Kernels = Kernels { name: "portable", width: 16, share_max: 0.15, group };
