//! Functions, lanes as wide as the registers.

use half::bf16;

use super::generic::{self, Map, Norm, Scores, Table};
use super::{Arithmetic, Function, Operands};
use crate::vector::F32x16;

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and `from` and `to` are valid for `count` elements.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn map(function: Function, from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::map::<F32x16, f32>(function, from, to, count) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16, and `from` and `to` are valid for `count` elements.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn map_halves(function: Function, from: *const bf16, to: *mut bf16, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::map::<F32x16, bf16>(function, from, to, count) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and operands of many elements have as many as `to`.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn combine(arithmetic: Arithmetic, operands: Operands<'_>, to: &mut [f32]) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::combine::<F32x16>(arithmetic, operands, to) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and `scores` and `to` are valid for `count` elements.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn softmax(scores: &Scores, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::softmax::<F32x16>(scores, to, count) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and `norm`, `from` and `to` are valid for `count` elements.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn normalize(norm: &Norm, from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::normalize::<F32x16>(norm, from, to, count) }
}

pub(super) static TABLE: Table = Table { map, combine, softmax, normalize };
pub(super) static HALVES: Map<bf16> = map_halves;
