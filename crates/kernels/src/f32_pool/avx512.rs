//! Pooling, lanes as wide as the registers.

use super::generic::{self, Job, Kernel};
use crate::vector::F32x16;

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn pixel(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::pixel::<F32x16>(job) }
}

pub(super) static PIXEL: Kernel = pixel;
