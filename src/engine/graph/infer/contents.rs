//! Operators whose output has a shape that only its contents tell: where those are known, it is computed here.

use super::{Fact, InferError};
use crate::engine::graph::tensor_of_integers;
use crate::tensor::Tensor;

/// Places of elements that are not zero, in the order of elements.
pub(super) fn non_zero(x: &Fact) -> Result<Fact, InferError> {
    let value = x.value.as_ref().ok_or(InferError::Unknown { what: "which elements are zero" })?;
    let size = x.dtype.size().ok_or(InferError::Type { expected: "numbers", got: x.dtype })?;
    let found: Vec<usize> = found(value, size);
    let mut places = Vec::with_capacity(x.shape.len() * found.len());
    let mut inner = x.elements();
    for &extent in x.shape.iter() {
        inner = inner.checked_div(extent).unwrap_or(0);
        places.extend(found.iter().map(|at| i64::try_from(at / inner % extent).unwrap_or(i64::MAX)));
    }
    Ok(Fact::of(tensor_of_integers(&[x.shape.len(), found.len()], &places)))
}

/// A zero of floats has either sign.
fn found(value: &Tensor, size: usize) -> Vec<usize> {
    let is_float = super::is_float(value.dtype());
    let is_zero = |element: &[u8]| match element.split_last() {
        Some((last, rest)) => rest.iter().all(|byte| *byte == 0) && (*last == 0 || is_float && *last == 0x80),
        None => true,
    };
    let elements = value.bytes().chunks_exact(size.max(1)).enumerate();
    elements.filter(|(_, element)| !is_zero(element)).map(|(at, _)| at).collect()
}
