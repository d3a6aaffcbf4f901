//! Transformations, lanes as wide as the registers.

use super::generic::{self, Inward, Outward, Table};
use crate::vector::F32x8;

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn inward(job: &Inward<'_, f32>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile_in::<F32x8, f32>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn outward(job: &Outward<f32>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile_out::<F32x8, f32>(job) }
}

pub(super) static TABLE: Table<f32> = Table { name: "avx2", inward, outward };
