//! Functions, lanes as wide as the registers.

use super::Function;
use super::generic::{self, Table};
use crate::vector::F32x8;

/// # Safety
/// The processor has AVX2 and FMA, and `from` and `to` are valid for `count` elements.
#[target_feature(enable = "avx2,fma")]
unsafe fn map(function: Function, from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::map::<F32x8>(function, from, to, count) }
}

/// # Safety
/// The processor has AVX2 and FMA, and `from` and `to` are valid for `count` elements.
#[target_feature(enable = "avx2,fma")]
unsafe fn softmax(from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::softmax::<F32x8>(from, to, count) }
}

pub(super) static TABLE: Table = Table { map, softmax };
