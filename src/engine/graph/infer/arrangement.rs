//! Shapes of operators that put elements elsewhere, or make them from their places.

use super::{Fact, Facts, InferError, axis, extents, is_number, reduced, two};
use crate::engine::graph::op::{Arrangement, Axes};
use crate::engine::graph::{integers, numbers};
use crate::tensor::{DType, Shape, Tensor};

pub(super) fn arranged(op: &Arrangement, inputs: &Facts<'_>) -> Result<Fact, InferError> {
    let x = *inputs.first().ok_or(InferError::Operands { expected: 1, got: 0 })?;
    let of_x = |shape: Shape| Ok(Fact::new(x.dtype, shape));
    match op {
        Arrangement::Triangle { .. } => {
            let expected = "at least two axes, and one diagonal";
            match x.shape.len() >= 2 && inputs.get(1).is_none_or(|of| of.dtype == DType::I64 && of.elements() == 1) {
                true => of_x(x.shape.clone()),
                false => Err(InferError::Rank { expected, got: x.shape.to_string() }),
            }
        }
        Arrangement::Turn => of_x(x.shape.iter().rev().copied().collect()),
        Arrangement::Tile => of_x(tile(two(inputs)?)?),
        Arrangement::Range => {
            let count = count(inputs)?;
            of_x(Shape::new(&[count]))
        }
        Arrangement::Diagonal { dtype, .. } => match x.shape.len() {
            2 => Ok(Fact::new(dtype.unwrap_or(x.dtype), x.shape.clone())),
            _ => Err(InferError::Rank { expected: "two axes", got: x.shape.to_string() }),
        },
        Arrangement::OneHot { axis } => one_hot(*axis, inputs),
        Arrangement::GatherTuples { batch } => {
            let [_, indices] = two(inputs)?;
            let behind = tuples(*batch, x, indices)?;
            let before = &indices.shape[..indices.shape.len() - 1];
            of_x(before.iter().chain(&x.shape[behind..]).copied().collect())
        }
        Arrangement::ScatterTuples { with } => {
            let &[_, indices, updates] = inputs.as_slice() else {
                return Err(InferError::Operands { expected: 3, got: inputs.len() });
            };
            let behind = tuples(0, x, indices)?;
            let before = &indices.shape[..indices.shape.len() - 1];
            let expected: Shape = before.iter().chain(&x.shape[behind..]).copied().collect();
            if with.is_some() && !is_number(x.dtype) {
                return Err(InferError::Type { expected: "numbers", got: x.dtype });
            }
            match updates.dtype == x.dtype && updates.shape == expected {
                true => of_x(x.shape.clone()),
                false => Err(InferError::Mismatch(expected.to_string(), updates.shape.to_string())),
            }
        }
        Arrangement::Reverse { batch, time } => {
            let [_, lengths] = two(inputs)?;
            let rows = x.shape.get(*batch).filter(|_| batch != time && *time < x.shape.len());
            match lengths.dtype == DType::I64 && rows.is_some_and(|rows| lengths.shape[..] == [*rows]) {
                true => of_x(x.shape.clone()),
                false => Err(InferError::Mismatch(x.shape.to_string(), lengths.shape.to_string())),
            }
        }
        Arrangement::Centre { axes } => {
            let given = extents(&two(inputs)?[1].integers("a shape")?)?;
            let chosen = reduced(axes, &x.shape)?;
            if chosen.iter().filter(|chosen| **chosen).count() != given.len() {
                return Err(InferError::Mismatch(x.shape.to_string(), given.to_string()));
            }
            // Axes may be named in any order.
            of_x(centred(axes, x, &given)?)
        }
    }
}

fn centred(axes: &Axes, x: &Fact, given: &Shape) -> Result<Shape, InferError> {
    let mut shape = x.shape.to_vec();
    let places = match axes {
        Axes::Given(axes) => axes.iter().map(|&at| axis(at, &x.shape)).collect::<Result<Vec<_>, _>>()?,
        _ => (0..x.shape.len()).collect(),
    };
    places.iter().zip(given.iter()).for_each(|(&at, &extent)| shape[at] = extent);
    Ok(Shape::new(&shape))
}

fn tile([x, repeats]: [&Fact; 2]) -> Result<Shape, InferError> {
    let repeats = extents(&repeats.integers("how often it is repeated")?)?;
    if repeats.len() != x.shape.len() {
        return Err(InferError::Mismatch(x.shape.to_string(), repeats.to_string()));
    }
    let extents = x.shape.iter().zip(repeats.iter()).map(|(extent, repeat)| extent.checked_mul(*repeat));
    extents.map(|extent| extent.ok_or(InferError::Overflow)).collect()
}

/// How many numbers a range has.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is neither negative nor too large")]
fn count(inputs: &Facts<'_>) -> Result<usize, InferError> {
    let &[start, limit, delta] = inputs.as_slice() else {
        return Err(InferError::Operands { expected: 3, got: inputs.len() });
    };
    if !is_number(start.dtype) || [limit.dtype, delta.dtype] != [start.dtype; 2] {
        return Err(InferError::Type { expected: "numbers of one type", got: limit.dtype });
    }
    let known = |fact: &Fact| fact.value.clone().ok_or(InferError::Unknown { what: "a range" });
    let given = [known(start)?, known(limit)?, known(delta)?];
    let single = |elements: Option<f64>| elements.ok_or(InferError::Operands { expected: 1, got: 0 });
    if let [Some(start), Some(limit), Some(delta)] = given.each_ref().map(|one| integers(one)?.first().copied()) {
        let step = i128::from(delta).max(1).max(-i128::from(delta));
        let way = if delta < 0 { i128::from(start) - i128::from(limit) } else { i128::from(limit) - i128::from(start) };
        let steps = if delta == 0 { 0 } else { (way.max(0) + step - 1) / step };
        return usize::try_from(steps).map_err(|_| InferError::Overflow);
    }
    let first = |tensor: &Tensor| single(numbers(tensor).and_then(|all| all.first().copied()));
    let [start, limit, delta] = [first(&given[0])?, first(&given[1])?, first(&given[2])?];
    let steps = ((limit - start) / delta).ceil().max(0.0);
    if steps < (1u64 << 53) as f64 { Ok(steps as usize) } else { Err(InferError::Overflow) }
}

fn one_hot(given: isize, inputs: &Facts<'_>) -> Result<Fact, InferError> {
    let &[classes, depth, values] = inputs.as_slice() else {
        return Err(InferError::Operands { expected: 3, got: inputs.len() });
    };
    if classes.dtype != DType::I64 || values.shape[..] != [2] {
        return Err(InferError::Rank { expected: "two values", got: values.shape.to_string() });
    }
    let [depth] = depth.integers("the number of classes")?[..] else {
        return Err(InferError::Operands { expected: 1, got: 0 });
    };
    let depth = usize::try_from(depth).map_err(|_| InferError::Overflow)?;
    let mut extents: Vec<usize> = classes.shape.to_vec();
    extents.push(0);
    let at = axis(given, &Shape::new(&extents))?;
    extents.pop();
    extents.insert(at, depth);
    Ok(Fact::new(values.dtype, Shape::new(&extents)))
}

/// Indices of several axes at once: the first axis of `x` that they do not name.
fn tuples(batch: usize, x: &Fact, indices: &Fact) -> Result<usize, InferError> {
    if indices.dtype != DType::I64 {
        return Err(InferError::Type { expected: "INT64", got: indices.dtype });
    }
    let mismatch = || InferError::Mismatch(x.shape.to_string(), indices.shape.to_string());
    let (named, before) = indices.shape.split_last().ok_or_else(mismatch)?;
    let behind = batch.checked_add(*named).filter(|behind| *behind <= x.shape.len()).ok_or_else(mismatch)?;
    match before.get(..batch) == x.shape.get(..batch) {
        true => Ok(behind),
        false => Err(mismatch()),
    }
}
