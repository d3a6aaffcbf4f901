//! Functions in plain code.

use super::generic::{self, Gelu, Norm, Rows, Scores, Table};
use super::{Arithmetic, Function, Operands};
use crate::vector::Plain;

/// # Safety
/// `rows` are valid.
unsafe fn map(function: Function, rows: &Rows<f32>) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::map::<Plain, f32>(function, rows) }
}

/// # Safety
/// Operands of many elements have as many as `to`.
unsafe fn combine(arithmetic: Arithmetic, operands: Operands<'_>, to: &mut [f32]) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::combine::<Plain>(arithmetic, operands, to) }
}

/// # Safety
/// `scores`, `to` and `results` are valid for `count` elements.
unsafe fn softmax(scores: &Scores, to: *mut f32, results: *mut f32, count: usize) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::softmax::<Plain, f32>(scores, to, results, count) }
}

/// # Safety
/// `norm`, `from` and `to` are valid for `count` elements.
unsafe fn normalize(norm: &Norm, from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::normalize::<Plain, f32, f32>(norm, from, to, count) }
}

impl Gelu for Plain {}

pub(super) static TABLE: Table = Table { map, combine, softmax, normalize };
