//! Functions in plain code.

use super::generic::{self, Norm, Scores, Table};
use super::{Arithmetic, Function, Operands};
use crate::vector::Plain;

/// # Safety
/// `from` and `to` are valid for `count` elements.
unsafe fn map(function: Function, from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::map::<Plain, f32>(function, from, to, count) }
}

/// # Safety
/// Operands of many elements have as many as `to`.
unsafe fn combine(arithmetic: Arithmetic, operands: Operands<'_>, to: &mut [f32]) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::combine::<Plain>(arithmetic, operands, to) }
}

/// # Safety
/// `scores` and `to` are valid for `count` elements.
unsafe fn softmax(scores: &Scores, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::softmax::<Plain>(scores, to, count) }
}

/// # Safety
/// `norm`, `from` and `to` are valid for `count` elements.
unsafe fn normalize(norm: &Norm, from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::normalize::<Plain>(norm, from, to, count) }
}

pub(super) static TABLE: Table = Table { map, combine, softmax, normalize };
