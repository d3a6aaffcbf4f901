//! Pooling, lanes as wide as the registers.

use half::bf16;

use super::generic::{self, Job, Kernel};
use crate::vector::F32x16;

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn pixel(job: &Job<f32>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::pixel::<F32x16, f32>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn halves(job: &Job<bf16>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::pixel::<F32x16, bf16>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn unsigned(job: &Job<u8>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::greatest(job, u8::MIN) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn signed(job: &Job<i8>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::greatest(job, i8::MIN) }
}

pub(super) static PIXEL: Kernel<f32> = pixel;
pub(super) static HALVES: Kernel<bf16> = halves;
pub(super) static UNSIGNED: Kernel<u8> = unsigned;
pub(super) static SIGNED: Kernel<i8> = signed;
