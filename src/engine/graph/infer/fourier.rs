//! Shapes of Fourier transforms.

use super::{Facts, InferError, axis, is_float};
use crate::engine::graph::op::listed;
use crate::tensor::{PerAxis, Shape};

/// What a transform gives, and along which axis of so many elements.
pub(in crate::engine) struct Transformed {
    pub(in crate::engine) shape: Shape,
    pub(in crate::engine) axis: usize,
    pub(in crate::engine) length: usize,
}

/// The last axis holds real and imaginary parts, or real ones alone.
pub(in crate::engine) fn transformed(onesided: bool, inputs: &Facts<'_>) -> Result<Transformed, InferError> {
    let &[x, length, along] = inputs.as_slice() else {
        return Err(InferError::Operands { expected: 3, got: inputs.len() });
    };
    if !is_float(x.dtype) {
        return Err(InferError::Type { expected: "floats", got: x.dtype });
    }
    let single = |list: PerAxis<i64>| {
        if let [one] = list[..] { Ok(one) } else { Err(InferError::Operands { expected: 1, got: list.len() }) }
    };
    let along = single(along.integers("an axis")?)?;
    let at = axis(listed(along), &x.shape)?;
    let length = single(length.integers("a length")?)?;
    let length = usize::try_from(length).ok().filter(|length| *length > 0).ok_or(InferError::Overflow)?;
    let rank = || InferError::Rank { expected: "real numbers or pairs along the last axis", got: x.shape.to_string() };
    if at + 1 >= x.shape.len() || !x.shape.last().is_some_and(|parts| [1, 2].contains(parts)) {
        return Err(rank());
    }
    let mut extents = x.shape.to_vec();
    extents[at] = if onesided { length / 2 + 1 } else { length };
    if let Some(last) = extents.last_mut() {
        *last = 2;
    }
    Ok(Transformed { shape: Shape::new(&extents), axis: at, length })
}
