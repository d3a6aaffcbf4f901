//! Shapes of operators that choose elements by their values, or by indices along an axis.

use super::{Fact, Facts, InferError, axis, is_number, two};
use crate::engine::graph::op::Op;
use crate::tensor::{DType, Shape};

pub(super) fn selected(op: &Op, inputs: &Facts<'_>) -> Result<Fact, InferError> {
    let x = *inputs.first().ok_or(InferError::Operands { expected: 1, got: 0 })?;
    match op {
        Op::Arg(arg) => {
            expect_numbers(x)?;
            let at = axis(arg.axis, &x.shape)?;
            if x.shape[at] == 0 {
                return Err(InferError::Index { index: 0, extent: 0 });
            }
            Ok(Fact::new(DType::I64, with_extent(&x.shape, at, arg.keep.then_some(1))))
        }
        Op::Top(top) => {
            expect_numbers(x)?;
            let [_, count] = two(inputs)?;
            let (at, count) = (axis(top.axis, &x.shape)?, count.integers("how many elements")?);
            let [count] = count[..] else {
                return Err(InferError::Operands { expected: 1, got: count.len() });
            };
            let extent = x.shape[at];
            let kept = usize::try_from(count).ok().filter(|kept| *kept <= extent);
            let kept = kept.ok_or(InferError::Index { index: count, extent })?;
            Ok(Fact::new(DType::I64, with_extent(&x.shape, at, Some(kept))))
        }
        Op::CumulativeSum { .. } => {
            expect_numbers(x)?;
            let [_, at] = two(inputs)?;
            expect_indices(at)?;
            match at.elements() {
                1 => Ok(Fact::new(x.dtype, x.shape.clone())),
                _ => Err(InferError::Rank { expected: "one axis", got: at.shape.to_string() }),
            }
        }
        Op::GatherElements { axis } => {
            let [_, indices] = two(inputs)?;
            indexed(*axis, x, indices)?;
            Ok(Fact::new(x.dtype, indices.shape.clone()))
        }
        Op::ScatterElements { axis, with } => {
            let &[_, indices, updates] = inputs.as_slice() else {
                return Err(InferError::Operands { expected: 3, got: inputs.len() });
            };
            indexed(*axis, x, indices)?;
            if with.is_some() {
                expect_numbers(x)?;
            }
            if updates.dtype != x.dtype || updates.shape != indices.shape {
                return Err(InferError::Mismatch(indices.shape.to_string(), updates.shape.to_string()));
            }
            Ok(Fact::new(x.dtype, x.shape.clone()))
        }
        _ => Err(InferError::Overflow),
    }
}

/// Indices along an axis; along the others there are at most as many as elements.
fn indexed(given: isize, x: &Fact, indices: &Fact) -> Result<(), InferError> {
    expect_indices(indices)?;
    let at = axis(given, &x.shape)?;
    let within = |(other, (indices, extent)): (usize, (&usize, &usize))| other == at || indices <= extent;
    let fits = indices.shape.len() == x.shape.len() && indices.shape.iter().zip(x.shape.iter()).enumerate().all(within);
    if fits { Ok(()) } else { Err(InferError::Mismatch(x.shape.to_string(), indices.shape.to_string())) }
}

fn expect_indices(indices: &Fact) -> Result<(), InferError> {
    match indices.dtype {
        DType::I32 | DType::I64 => Ok(()),
        got => Err(InferError::Type { expected: "INT32 or INT64", got }),
    }
}

fn expect_numbers(x: &Fact) -> Result<(), InferError> {
    match is_number(x.dtype) {
        true => Ok(()),
        false => Err(InferError::Type { expected: "numbers", got: x.dtype }),
    }
}

/// With another extent along an axis, or without the axis.
fn with_extent(shape: &Shape, at: usize, extent: Option<usize>) -> Shape {
    let own = |(axis, &own): (usize, &usize)| if axis == at { extent } else { Some(own) };
    shape.iter().enumerate().filter_map(own).collect()
}
