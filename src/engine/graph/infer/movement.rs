//! Shapes of operators that move elements.

use smallvec::smallvec;

use super::{Fact, Facts, InferError, axis, two};
use crate::engine::graph::op::listed;
use crate::engine::graph::tensor_of_integers;
use crate::tensor::{PerAxis, Shape};

pub(super) fn pad(inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let pads = padded(inputs)?;
    let extents = inputs[0].shape.iter().zip(pads);
    let grown = |(extent, [before, after]): (&usize, [isize; 2])| {
        extent.saturating_add_signed(before).saturating_add_signed(after)
    };
    Ok(extents.map(grown).collect())
}

/// Elements added before and after each axis; negative ones are taken off.
pub(in crate::engine) fn padded(inputs: &Facts<'_>) -> Result<PerAxis<[isize; 2]>, InferError> {
    let [x, pads] = two(inputs)?;
    if let Some(value) = inputs.get(2).filter(|value| value.dtype != x.dtype || value.elements() != 1) {
        return Err(InferError::Type { expected: "one element of the operand's type to pad with", got: value.dtype });
    }
    let given = pads.integers("a padding")?;
    let axes = match inputs.get(3) {
        Some(axes) => axes.integers("padded axes")?,
        None => (0..x.shape.len()).filter_map(|axis| i64::try_from(axis).ok()).collect(),
    };
    if given.len() != 2 * axes.len() {
        return Err(InferError::Operands { expected: 2 * axes.len(), got: given.len() });
    }
    let number = |at: usize| isize::try_from(given[at]).map_err(|_| InferError::Overflow);
    let mut pads = smallvec![[0, 0]; x.shape.len()];
    for (at, &named) in axes.iter().enumerate() {
        let axis = axis(listed(named), &x.shape)?;
        pads[axis] = [number(at)?, number(at + axes.len())?];
    }
    let is_left = |(extent, [before, after]): (&usize, &[isize; 2])| {
        extent.checked_add_signed(*before).and_then(|sum| sum.checked_add_signed(*after)).is_some()
    };
    match x.shape.iter().zip(&pads).all(is_left) {
        true => Ok(pads),
        false => Err(InferError::Elements { from: x.shape.to_string(), to: Vec::new() }),
    }
}

pub(super) fn reshape(allow_zero: bool, [x, shape]: [&Fact; 2]) -> Result<Shape, InferError> {
    let given = shape.integers("a shape")?;
    let wrong = || InferError::Elements { from: x.shape.to_string(), to: given.to_vec() };
    let mut to: PerAxis<usize> = PerAxis::new();
    let mut open = None;
    for (at, &extent) in given.iter().enumerate() {
        to.push(match extent {
            0 if !allow_zero => *x.shape.get(at).ok_or_else(wrong)?,
            -1 if open.is_none() => {
                open = Some(at);
                1
            }
            extent => usize::try_from(extent).map_err(|_| wrong())?,
        });
    }
    let elements = x.elements();
    let mut shape: Shape = to.iter().copied().collect();
    if let Some(open) = open {
        let others = shape.element_count().filter(|others| *others > 0).ok_or_else(wrong)?;
        to[open] = elements / others;
        shape = to.into_iter().collect();
    }
    if shape.element_count() == Some(elements) { Ok(shape) } else { Err(wrong()) }
}

pub(super) fn flatten(given: isize, x: &Fact) -> Result<Shape, InferError> {
    let at = if given == isize::try_from(x.shape.len()).unwrap_or(isize::MAX) {
        x.shape.len()
    } else {
        axis(given, &x.shape)?
    };
    let product = |dims: &[usize]| Shape::new(dims).element_count().ok_or(InferError::Overflow);
    Ok(Shape::new(&[product(&x.shape[..at])?, product(&x.shape[at..])?]))
}

pub(super) fn squeeze(inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let x = inputs.first().ok_or(InferError::Operands { expected: 1, got: 0 })?;
    let mut dropped: Vec<bool> = x.shape.iter().map(|&extent| extent == 1).collect();
    if let Some(axes) = inputs.get(1) {
        dropped.fill(false);
        for given in axes.integers("axes")? {
            let at = axis(listed(given), &x.shape)?;
            if x.shape[at] != 1 {
                return Err(InferError::Rank { expected: "one element along squeezed axes", got: x.shape.to_string() });
            }
            dropped[at] = true;
        }
    }
    Ok(x.shape.iter().zip(dropped).filter(|(_, dropped)| !dropped).map(|(&extent, _)| extent).collect())
}

pub(super) fn unsqueeze([x, axes]: [&Fact; 2]) -> Result<Shape, InferError> {
    let axes = axes.integers("axes")?;
    let rank = Shape::from_iter(std::iter::repeat_n(1, x.shape.len() + axes.len()));
    let mut added = vec![false; rank.len()];
    for given in axes {
        added[axis(listed(given), &rank)?] = true;
    }
    let mut extents = x.shape.iter().copied();
    let shape: Shape = added.iter().map(|added| if *added { 1 } else { extents.next().unwrap_or(1) }).collect();
    if extents.next().is_some() { Err(InferError::Overflow) } else { Ok(shape) }
}

pub(super) fn transpose(axes: &[usize], x: &Fact) -> Result<Shape, InferError> {
    let rank = || InferError::Rank { expected: "as many axes as are transposed", got: x.shape.to_string() };
    if axes.len() != x.shape.len() {
        return Err(rank());
    }
    axes.iter().map(|&axis| x.shape.get(axis).copied().ok_or_else(rank)).collect()
}

pub(super) fn concat(given: isize, inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let first = inputs.first().ok_or(InferError::Operands { expected: 1, got: 0 })?;
    let at = axis(given, &first.shape)?;
    let mut sum = 0usize;
    for input in inputs {
        let others = |shape: &Shape| {
            shape.iter().enumerate().filter(|(axis, _)| *axis != at).map(|(_, &e)| e).collect::<Shape>()
        };
        if input.shape.len() != first.shape.len() || others(&input.shape) != others(&first.shape) {
            return Err(InferError::Mismatch(first.shape.to_string(), input.shape.to_string()));
        }
        sum = sum.checked_add(input.shape[at]).ok_or(InferError::Overflow)?;
    }
    Ok(first.shape.iter().enumerate().map(|(axis, &extent)| if axis == at { sum } else { extent }).collect())
}

pub(super) fn gather(given: isize, [x, indices]: [&Fact; 2]) -> Result<Shape, InferError> {
    let at = axis(given, &x.shape)?;
    Ok(x.shape[..at].iter().chain(indices.shape.iter()).chain(&x.shape[at + 1..]).copied().collect())
}

/// What a slice takes of one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Cut {
    pub(in crate::engine) first: usize,
    pub(in crate::engine) step: isize,
    pub(in crate::engine) count: usize,
}

/// What a slice takes of every axis.
pub(in crate::engine) fn slice(inputs: &Facts<'_>) -> Result<PerAxis<Cut>, InferError> {
    let [x, starts] = two(inputs)?;
    let list = |at: usize| inputs.get(at).map(|fact| fact.integers("a slice's bounds")).transpose();
    let starts = starts.integers("a slice's bounds")?;
    let ends = list(2)?.ok_or(InferError::Operands { expected: 3, got: 2 })?;
    let axes = match list(3)? {
        Some(axes) => axes,
        None => (0..starts.len()).filter_map(|axis| i64::try_from(axis).ok()).collect(),
    };
    let steps = list(4)?.unwrap_or_else(|| smallvec![1; axes.len()]);
    let mut cuts: PerAxis<Cut> = x.shape.iter().map(|&extent| Cut { first: 0, step: 1, count: extent }).collect();
    for (at, &given) in axes.iter().enumerate() {
        let axis = axis(listed(given), &x.shape)?;
        let (Some(&start), Some(&end), Some(&step)) = (starts.get(at), ends.get(at), steps.get(at)) else {
            return Err(InferError::Operands { expected: axes.len(), got: at });
        };
        cuts[axis] = cut(start, end, step, x.shape[axis])?;
    }
    Ok(cuts)
}

pub(super) fn cut(start: i64, end: i64, step: i64, extent: usize) -> Result<Cut, InferError> {
    let all = i64::try_from(extent).map_err(|_| InferError::Overflow)?;
    let bound = |at: i64, low: i64, high: i64| (if at < 0 { at.saturating_add(all) } else { at }).clamp(low, high);
    let (first, distance) = match step {
        0 => return Err(InferError::Index { index: 0, extent }),
        1.. => (bound(start, 0, all), bound(end, 0, all) - bound(start, 0, all)),
        _ => (bound(start, 0, all - 1), bound(start, 0, all - 1) - bound(end, -1, all - 1)),
    };
    let count = if distance <= 0 { 0 } else { (distance - 1) / step.saturating_abs() + 1 };
    let number = |n: i64| usize::try_from(n).map_err(|_| InferError::Overflow);
    Ok(Cut {
        first: number(first.max(0))?,
        step: isize::try_from(step).map_err(|_| InferError::Overflow)?,
        count: number(count)?,
    })
}

pub(super) fn shape_of(from: isize, to: Option<isize>, x: &Fact) -> Fact {
    let rank = isize::try_from(x.shape.len()).unwrap_or(isize::MAX);
    let bound = |at: isize| usize::try_from((if at < 0 { at + rank } else { at }).clamp(0, rank)).unwrap_or(0);
    let (from, to) = (bound(from), bound(to.unwrap_or(rank)));
    let extents: Vec<i64> =
        x.shape.get(from..to).unwrap_or_default().iter().map(|&e| i64::try_from(e).unwrap_or(i64::MAX)).collect();
    Fact::of(tensor_of_integers(&[extents.len()], &extents))
}
