//! Pooling, lanes as wide as the registers.

use super::generic::{self, Job, Kernel};
use crate::vector::F32x8;

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn pixel(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::pixel::<F32x8>(job) }
}

pub(super) static PIXEL: Kernel = pixel;
