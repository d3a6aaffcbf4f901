//! Sixteen lanes.

use super::Scale;
use super::avx2::interleave;
use super::generic::{self, Added, Table};
use crate::vector::F32x16;

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the pointers are valid for `count` elements.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn quantize(from: *const f32, to: Scale, out: *mut u8, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::quantize::<F32x16>(from, to, out, count) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the pointers are valid for `count` elements.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn dequantize(from: *const u8, of: Scale, out: *mut f32, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::dequantize::<F32x16>(from, of, out, count) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the pointers are valid for `count` elements.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn add(from: [*const u8; 2], sum: &Added, out: *mut u8, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::add::<F32x16>(from, sum, out, count) }
}

pub(super) static TABLE: Table = Table { quantize, dequantize, add, interleave };
