//! Pooling, lanes as wide as the registers.

use super::generic::{self, Job, Kernel};
use crate::vector::F32x8;

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn pixel(job: &Job<f32>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::pixel::<F32x8, f32>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn unsigned(job: &Job<u8>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::greatest(job, u8::MIN) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn signed(job: &Job<i8>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::greatest(job, i8::MIN) }
}

pub(super) static PIXEL: Kernel<f32> = pixel;
pub(super) static UNSIGNED: Kernel<u8> = unsigned;
pub(super) static SIGNED: Kernel<i8> = signed;
