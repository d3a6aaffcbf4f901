//! Four pixels of two vectors: eight sums of 16 registers.

use super::generic::{self, Job, Table};
use crate::vector::F32x8;

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const P: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::pixels::<F32x8, P>(job) }
}

pub(super) static TABLE: Table = Table { name: "avx2", tiles: &[tile::<1>, tile::<2>, tile::<3>, tile::<4>] };
