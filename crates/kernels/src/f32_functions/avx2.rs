//! Functions, lanes as wide as the registers.

use super::generic::{self, Gelu, Norm, Rows, Scores, Table};
use super::{Arithmetic, Function, Operands};
use crate::vector::F32x8;

/// # Safety
/// The processor has AVX2 and FMA, and `rows` are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn map(function: Function, rows: &Rows<f32>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::map::<F32x8, f32>(function, rows) }
}

/// # Safety
/// The processor has AVX2 and FMA, and operands of many elements have as many as `to`.
#[target_feature(enable = "avx2,fma")]
unsafe fn combine(arithmetic: Arithmetic, operands: Operands<'_>, to: &mut [f32]) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::combine::<F32x8>(arithmetic, operands, to) }
}

/// # Safety
/// The processor has AVX2 and FMA, and `scores`, `to` and `results` are valid for `count` elements.
#[target_feature(enable = "avx2,fma")]
unsafe fn softmax(scores: &Scores, to: *mut f32, results: *mut f32, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::softmax::<F32x8, f32>(scores, to, results, count) }
}

/// # Safety
/// The processor has AVX2 and FMA, and `norm`, `from` and `to` are valid for `count` elements.
#[target_feature(enable = "avx2,fma")]
unsafe fn normalize(norm: &Norm, from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::normalize::<F32x8, f32, f32>(norm, from, to, count) }
}

impl Gelu for F32x8 {}

pub(super) static TABLE: Table = Table { map, combine, softmax, normalize };
