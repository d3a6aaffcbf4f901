//! Transformations, lanes as wide as the registers.

use super::generic::{self, Inward, Outward, Table};
use crate::vector::F32x16;

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn inward(job: &Inward<'_>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile_in::<F32x16>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn outward(job: &Outward) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile_out::<F32x16>(job) }
}

pub(super) static TABLE: Table = Table { name: "avx512", inward, outward };
