//! Eight columns to a vector.

use super::generic::{self, Job, Kernels};
use crate::vector::F32x8;

/// # Safety
/// The processor has AVX2 and FMA, and the job is as `generic::blocks` asks.
#[target_feature(enable = "avx2,fma")]
unsafe fn blocks(job: Job<'_>, offsets: &[u32]) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::blocks::<F32x8, 4>(job, offsets) }
}

pub(super) static KERNELS: Kernels = Kernels { name: "avx2", lanes: 8, width: 32, blocks, places: None };
