//! Operators whose output has a shape that only its contents tell: where those are known, it is computed here.

use std::cmp::Ordering;

use super::{Fact, Facts, InferError, axis, boxes};
use crate::engine::graph::control::Several;
use crate::engine::graph::op::{Op, Unique, UniquePart};
use crate::engine::graph::tensor_of_integers;
use crate::tensor::{DType, Shape, Tensor};

/// What such an operator makes.
pub(super) fn decided(op: &Op, inputs: &Facts<'_>, first: &Fact) -> Result<Fact, InferError> {
    match op {
        Op::NonZero => non_zero(first),
        Op::NonMaxSuppression { by_centre } => boxes::suppressed(*by_centre, inputs),
        Op::Unique(unique) => self::unique(unique, first),
        Op::Several(Several::Branch(_)) => Err(InferError::Unknown { what: "which branch runs" }),
        Op::Several(Several::Foreign(_)) => Err(InferError::Unknown { what: "what another engine makes" }),
        _ => Err(InferError::Unknown { what: "how often it repeats" }),
    }
}

/// Places of elements that are not zero, in the order of elements.
fn non_zero(x: &Fact) -> Result<Fact, InferError> {
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

/// Elements that differ, in ascending order or in that of their first, or what lies along an axis, and where.
fn unique(unique: &Unique, x: &Fact) -> Result<Fact, InferError> {
    let value = x.value.as_ref().ok_or(InferError::Unknown { what: "which elements differ" })?;
    let size = x.dtype.size().ok_or(InferError::Type { expected: "numbers", got: x.dtype })?;
    let (at, shape) = match unique.axis {
        Some(given) => (axis(given, &x.shape)?, x.shape.clone()),
        None => (0, Shape::new(&[x.elements()])),
    };
    let slices = Slices { value, size, outer: shape[..at].iter().product(), inner: shape[at + 1..].iter().product() };
    let count = shape[at];
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| slices.compare(count, a, b));
    // Those that are equal lie beside each other now, the first of them first.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for &place in &order {
        match groups.last_mut().filter(|group| slices.compare(count, group[0], place).is_eq()) {
            Some(group) => group.push(place),
            None => groups.push(vec![place]),
        }
    }
    if !unique.sorted {
        groups.sort_unstable_by_key(|group| group[0]);
    }
    let list = |numbers: &[usize]| {
        let numbers: Vec<i64> = numbers.iter().map(|&number| i64::try_from(number).unwrap_or(i64::MAX)).collect();
        Ok(Fact::of(tensor_of_integers(&[numbers.len()], &numbers)))
    };
    match unique.part {
        UniquePart::First => list(&groups.iter().map(|group| group[0]).collect::<Vec<_>>()),
        UniquePart::Counts => list(&groups.iter().map(Vec::len).collect::<Vec<_>>()),
        UniquePart::Which => {
            let mut which = vec![0; count];
            groups.iter().enumerate().for_each(|(at, group)| group.iter().for_each(|&place| which[place] = at));
            list(&which)
        }
        UniquePart::Values => {
            let mut bytes = Vec::new();
            for outer in 0..slices.outer {
                groups.iter().for_each(|group| bytes.extend_from_slice(slices.piece(count, outer, group[0])));
            }
            let extent = |(axis, &extent): (usize, &usize)| if axis == at { groups.len() } else { extent };
            let shape = shape.iter().enumerate().map(extent).collect();
            Tensor::new(x.dtype, shape, bytes.into()).map(Fact::of).map_err(|_| InferError::Overflow)
        }
    }
}

/// What lies along an axis of a tensor, place by place.
struct Slices<'a> {
    value: &'a Tensor,
    size: usize,
    outer: usize,
    inner: usize,
}

impl Slices<'_> {
    fn piece(&self, count: usize, outer: usize, place: usize) -> &[u8] {
        let length = self.inner * self.size;
        &self.value.bytes()[(outer * count + place) * length..][..length]
    }

    /// By the first elements that differ.
    fn compare(&self, count: usize, a: usize, b: usize) -> Ordering {
        let pieces = (0..self.outer).map(|outer| (self.piece(count, outer, a), self.piece(count, outer, b)));
        let elements = pieces.flat_map(|(a, b)| a.chunks_exact(self.size).zip(b.chunks_exact(self.size)));
        let dtype = self.value.dtype();
        elements.map(|(a, b)| ordered(dtype, a, b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }
}

/// Numbers in ascending order; floats that are none come last.
fn ordered(dtype: DType, a: &[u8], b: &[u8]) -> Ordering {
    let number = |bytes: &[u8]| {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(wide)
    };
    let (x, y, shift) = (number(a), number(b), 64 - 8 * a.len());
    match dtype {
        DType::F64 => floats(f64::from_bits(x), f64::from_bits(y)),
        DType::F32 => {
            let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap_or_default());
            floats(float(a).into(), float(b).into())
        }
        // Shifted to the top, so that the sign bit is where i64 has it.
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => (x << shift).cast_signed().cmp(&(y << shift).cast_signed()),
        _ => x.cmp(&y),
    }
}

fn floats(x: f64, y: f64) -> Ordering {
    x.partial_cmp(&y).unwrap_or_else(|| x.is_nan().cmp(&y.is_nan()))
}
