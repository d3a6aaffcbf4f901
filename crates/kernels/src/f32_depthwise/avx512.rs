//! Six pixels of two vectors: twelve sums of 32 registers.

use super::generic::{self, Job, Table};
use crate::vector::F32x16;

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn tile<const P: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::pixels::<F32x16, P>(job) }
}

pub(super) static TABLE: Table =
    Table { name: "avx512", tiles: &[tile::<1>, tile::<2>, tile::<3>, tile::<4>, tile::<5>, tile::<6>] };
