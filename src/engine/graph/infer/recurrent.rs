//! Shapes of recurrent layers.

use super::{Fact, Facts, InferError};
use crate::engine::graph::op::{Recurrent, Role};
use crate::tensor::{DType, Shape};

/// Extents of a recurrent layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Sequence {
    pub(in crate::engine) steps: usize,
    pub(in crate::engine) batch: usize,
    /// Elements of the input.
    pub(in crate::engine) depth: usize,
    pub(in crate::engine) hidden: usize,
}

pub(super) fn recurrent(op: &Recurrent, inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let Sequence { steps, batch, hidden, .. } = sequence(op, inputs)?;
    let steps = steps.checked_add(op.states()).ok_or(InferError::Overflow)?;
    Ok(Shape::new(&[steps, op.directions.len(), batch, hidden]))
}

/// What the operands agree on.
pub(in crate::engine) fn sequence(op: &Recurrent, inputs: &Facts<'_>) -> Result<Sequence, InferError> {
    let (gates, directions) = (op.gates(), op.directions.len());
    let &[x, weights, ref more @ ..] = inputs.as_slice() else {
        return Err(InferError::Operands { expected: 3, got: inputs.len() });
    };
    if more.len() != op.more.len() + 1 {
        return Err(InferError::Operands { expected: op.more.len() + 3, got: inputs.len() });
    }
    let &[steps, batch, depth] = &x.shape[..] else {
        return Err(InferError::Rank { expected: "three axes", got: x.shape.to_string() });
    };
    let hidden = more[0].shape.last().copied().filter(|hidden| *hidden > 0 && depth > 0);
    let hidden = hidden.ok_or_else(|| InferError::Mismatch(x.shape.to_string(), more[0].shape.to_string()))?;
    let columns = gates.checked_mul(hidden).ok_or(InferError::Overflow)?;
    expect(weights, &[directions, columns, depth])?;
    expect(more[0], &[directions, columns, hidden])?;
    for (role, fact) in op.more.iter().zip(&more[1..]) {
        match role {
            Role::Bias => expect(fact, &[directions, 2 * columns])?,
            Role::Hidden | Role::Cell => expect(fact, &[directions, batch, hidden])?,
            Role::Peepholes => expect(fact, &[directions, 3 * hidden])?,
            Role::Lengths => expect_of(fact, DType::I32, "INT32", &[batch])?,
        }
    }
    Ok(Sequence { steps, batch, depth, hidden })
}

fn expect(fact: &Fact, shape: &[usize]) -> Result<(), InferError> {
    expect_of(fact, DType::F32, "FP32", shape)
}

fn expect_of(fact: &Fact, dtype: DType, expected: &'static str, shape: &[usize]) -> Result<(), InferError> {
    if fact.dtype != dtype {
        return Err(InferError::Type { expected, got: fact.dtype });
    }
    match fact.shape[..] == *shape {
        true => Ok(()),
        false => Err(InferError::Mismatch(fact.shape.to_string(), Shape::new(shape).to_string())),
    }
}
