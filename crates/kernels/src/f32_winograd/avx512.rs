//! Transformations, lanes as wide as the registers.

use half::bf16;

use super::generic::{self, Inward, Outward, Table};
use crate::vector::F32x16;

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn inward(job: &Inward<'_, f32>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile_in::<F32x16, f32>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn outward(job: &Outward<f32>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile_out::<F32x16, f32>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn halves_inward(job: &Inward<'_, bf16>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile_in::<F32x16, bf16>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn halves_outward(job: &Outward<bf16>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile_out::<F32x16, bf16>(job) }
}

pub(super) static TABLE: Table<f32> = Table { name: "avx512", inward, outward };
pub(super) static HALVES: Table<bf16> = Table { name: "avx512", inward: halves_inward, outward: halves_outward };
