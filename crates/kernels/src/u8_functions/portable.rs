//! Plain code.

use super::Scale;
use super::generic::{self, Added, Table, interleave};
use crate::vector::Plain;

/// # Safety
/// The pointers are valid for `count` elements.
unsafe fn quantize(from: *const f32, to: Scale, out: *mut u8, count: usize) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::quantize::<Plain>(from, to, out, count) }
}

/// # Safety
/// The pointers are valid for `count` elements.
unsafe fn dequantize(from: *const u8, of: Scale, out: *mut f32, count: usize) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::dequantize::<Plain>(from, of, out, count) }
}

/// # Safety
/// The pointers are valid for `count` elements.
unsafe fn add(from: [*const u8; 2], sum: &Added, out: *mut u8, count: usize) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::add::<Plain>(from, sum, out, count) }
}

pub(super) static TABLE: Table = Table { quantize, dequantize, add, interleave };
