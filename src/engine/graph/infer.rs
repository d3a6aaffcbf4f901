//! Shapes and types of values, for concrete extents of the inputs.

use smallvec::SmallVec;

use super::integers;
use super::op::{Axes, Conv, Linear, Op, Pool, Reduce, Spatial};
use crate::tensor::{DType, Shape, Tensor};

/// What is known of a value before it is computed. Small values that follow from shapes alone are known whole.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct Fact {
    pub(in crate::engine) dtype: DType,
    pub(in crate::engine) shape: Shape,
    pub(in crate::engine) value: Option<Tensor>,
}

/// Why an operator cannot take its operands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::engine) enum InferError {
    #[error("expected {expected} operands, got {got}")]
    Operands { expected: usize, got: usize },
    #[error("expected {expected}, got {got}")]
    Type { expected: &'static str, got: DType },
    #[error("expected an operand of {expected}, got shape {got}")]
    Rank { expected: &'static str, got: String },
    #[error("axis {axis} is none of shape {shape}'s")]
    Axis { axis: isize, shape: String },
    #[error("shapes {0} and {1} do not go together")]
    Mismatch(String, String),
    #[error("shape {shape} is smaller than the window")]
    Window { shape: String },
    #[error("shape {from} has not the elements of {to:?}")]
    Elements { from: String, to: Vec<i64> },
    #[error("{what} must be known before the run, and depends on the inputs' contents")]
    Unknown { what: &'static str },
    #[error("index {index} is outside an axis of {extent}")]
    Index { index: i64, extent: usize },
    #[error("axis {axis} of shape {got} must be {expected}")]
    Assumed { axis: usize, expected: usize, got: String },
    #[error("a shape overflows")]
    Overflow,
}

/// Operands' facts, in order; one that is left out has none.
pub(in crate::engine) type Facts<'a> = SmallVec<[&'a Fact; 4]>;

impl Fact {
    pub(in crate::engine) fn new(dtype: DType, shape: Shape) -> Self {
        Self { dtype, shape, value: None }
    }

    pub(in crate::engine) fn of(tensor: Tensor) -> Self {
        Self { dtype: tensor.dtype(), shape: tensor.shape().clone(), value: Some(tensor) }
    }

    /// Elements of the shape, if they can be addressed with their size.
    pub(in crate::engine) fn bytes(&self) -> Option<usize> {
        self.shape.element_count()?.checked_mul(self.dtype.size()?)
    }

    pub(in crate::engine) fn elements(&self) -> usize {
        self.shape.element_count().unwrap_or(usize::MAX)
    }

    /// The contents as integers, if they are known.
    pub(in crate::engine) fn integers(&self, what: &'static str) -> Result<Vec<i64>, InferError> {
        let value = self.value.as_ref().ok_or(InferError::Unknown { what })?;
        integers(value).ok_or(InferError::Type { expected: "integers", got: self.dtype })
    }
}

/// The fact of an operator's output.
pub(in crate::engine) fn infer(op: &Op, inputs: &Facts<'_>) -> Result<Fact, InferError> {
    let first = inputs.first().ok_or(InferError::Operands { expected: 1, got: 0 });
    if computes_floats(op) {
        expect_floats(inputs)?;
    }
    let as_first = |shape: Result<Shape, InferError>| Ok(Fact::new(first.clone()?.dtype, shape?));
    let fact = match op {
        Op::Conv(conv) => as_first(self::conv(conv, inputs)),
        Op::Pool(pool) => as_first(self::pool(pool, first.clone()?)),
        Op::Linear(linear) => as_first(self::linear(linear, inputs)),
        Op::MatMul => as_first(matmul(two(inputs)?)),
        Op::Affine { axis } => as_first(affine(*axis, inputs)),
        Op::Activation(_) | Op::Unary(_) => as_first(Ok(first.clone()?.shape.clone())),
        Op::Binary(_) => as_first(binary(two(inputs)?)),
        Op::Reduce(reduce) => as_first(self::reduce(reduce, first.clone()?)),
        Op::Softmax { axis, .. } => {
            self::axis(*axis, &first.clone()?.shape)?;
            as_first(Ok(first.clone()?.shape.clone()))
        }
        Op::Reshape { allow_zero } => as_first(reshape(*allow_zero, two(inputs)?)),
        Op::Flatten { axis } => as_first(flatten(*axis, first.clone()?)),
        Op::Squeeze => as_first(squeeze(inputs)),
        Op::Unsqueeze => as_first(unsqueeze(two(inputs)?)),
        Op::Transpose { axes } => as_first(transpose(axes, first.clone()?)),
        Op::Concat { axis } => as_first(concat(*axis, inputs)),
        Op::Gather { axis } => as_first(gather(*axis, two(inputs)?)),
        Op::Slice => as_first(slice(inputs).map(|cuts| cuts.iter().map(|cut| cut.count).collect())),
        Op::Shape { from, to } => Ok(shape_of(*from, *to, first.clone()?)),
        Op::Cast { to } => Ok(Fact::new(*to, first.clone()?.shape.clone())),
        Op::Fill { value } => Ok(Fact::new(value.dtype, extents(&first.clone()?.integers("a shape")?)?)),
        Op::Expand => {
            let [x, shape] = two(inputs)?;
            as_first(broadcast(&x.shape, &extents(&shape.integers("a shape")?)?))
        }
    }?;
    fact.bytes().ok_or(InferError::Overflow)?;
    Ok(fact)
}

fn two<'a>(inputs: &Facts<'a>) -> Result<[&'a Fact; 2], InferError> {
    match inputs.as_slice() {
        [a, b, ..] => Ok([a, b]),
        few => Err(InferError::Operands { expected: 2, got: few.len() }),
    }
}

/// Operators that there are kernels of `f32` for alone.
fn computes_floats(op: &Op) -> bool {
    matches!(
        op,
        Op::Conv(_)
            | Op::Pool(_)
            | Op::Linear(_)
            | Op::MatMul
            | Op::Affine { .. }
            | Op::Activation(_)
            | Op::Unary(_)
            | Op::Reduce(_)
            | Op::Softmax { .. }
    )
}

fn expect_floats(inputs: &Facts<'_>) -> Result<(), InferError> {
    match inputs.iter().find(|fact| fact.dtype != DType::F32) {
        Some(other) => Err(InferError::Type { expected: "FP32", got: other.dtype }),
        None => Ok(()),
    }
}

fn binary([a, b]: [&Fact; 2]) -> Result<Shape, InferError> {
    let known = [DType::F32, DType::F64, DType::I32, DType::I64];
    if !known.contains(&a.dtype) {
        return Err(InferError::Type { expected: "FP32, FP64, INT32 or INT64", got: a.dtype });
    }
    if a.dtype != b.dtype {
        return Err(InferError::Type { expected: "two operands of one type", got: b.dtype });
    }
    broadcast(&a.shape, &b.shape)
}

fn affine(axis: usize, inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let [x, scale] = two(inputs)?;
    match (x.shape.get(axis), &scale.shape[..], inputs.get(2).map(|shift| &shift.shape)) {
        (Some(extent), [count], Some(shift)) if extent == count && *shift == scale.shape => Ok(x.shape.clone()),
        _ => Err(InferError::Mismatch(x.shape.to_string(), scale.shape.to_string())),
    }
}

/// An axis counted from the front.
pub(in crate::engine) fn axis(axis: isize, shape: &Shape) -> Result<usize, InferError> {
    let at = if axis < 0 { shape.len().checked_add_signed(axis) } else { usize::try_from(axis).ok() };
    at.filter(|at| *at < shape.len()).ok_or_else(|| InferError::Axis { axis, shape: shape.to_string() })
}

fn extents(integers: &[i64]) -> Result<Shape, InferError> {
    integers.iter().map(|&extent| usize::try_from(extent).map_err(|_| InferError::Overflow)).collect()
}

/// Image, lines, columns and channels of a channels-last image with one or two spatial axes.
pub(in crate::engine) fn image(spatial: &Spatial, shape: &Shape) -> Result<[usize; 4], InferError> {
    match (spatial.axes, &shape[..]) {
        (1, &[images, columns, channels]) => Ok([images, 1, columns, channels]),
        (2, &[images, lines, columns, channels]) => Ok([images, lines, columns, channels]),
        _ => Err(InferError::Rank { expected: "images of one or two axes", got: shape.to_string() }),
    }
}

fn windows(spatial: &Spatial, ceil: bool, channels: usize, shape: &Shape) -> Result<Shape, InferError> {
    let [images, lines, columns, _] = image(spatial, shape)?;
    let [y, x] =
        spatial.output([lines, columns], ceil).ok_or_else(|| InferError::Window { shape: shape.to_string() })?;
    let all = [images, y.out, x.out, channels];
    Ok(if spatial.axes == 1 { Shape::new(&[images, x.out, channels]) } else { Shape::new(&all) })
}

fn conv(conv: &Conv, inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let [x, weights] = two(inputs)?;
    let [_, _, _, channels] = image(&conv.window, &x.shape)?;
    let mismatch = || InferError::Mismatch(x.shape.to_string(), weights.shape.to_string());
    let (Some(&out), Some(&depth)) = (weights.shape.first(), weights.shape.get(1)) else { return Err(mismatch()) };
    if depth.checked_mul(conv.groups) != Some(channels) || !out.is_multiple_of(conv.groups) {
        return Err(mismatch());
    }
    let out = windows(&conv.window, false, out, &x.shape)?;
    if conv.residual {
        residual(inputs, &out)?
    }
    Ok(out)
}

/// The last operand is added as it is.
fn residual(inputs: &Facts<'_>, out: &Shape) -> Result<(), InferError> {
    match inputs.last() {
        Some(last) if last.shape == *out => Ok(()),
        _ => Err(InferError::Mismatch(
            out.to_string(),
            inputs.last().map(|last| last.shape.to_string()).unwrap_or_default(),
        )),
    }
}

fn pool(pool: &Pool, x: &Fact) -> Result<Shape, InferError> {
    let [_, _, _, channels] = image(&pool.window, &x.shape)?;
    windows(&pool.window, pool.ceil, channels, &x.shape)
}

fn linear(linear: &Linear, inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let [x, weights] = two(inputs)?;
    let mismatch = || InferError::Mismatch(x.shape.to_string(), weights.shape.to_string());
    let (Some((depth, before)), &[k, n]) = (x.shape.split_last(), &weights.shape[..]) else { return Err(mismatch()) };
    if *depth != k {
        return Err(mismatch());
    }
    let out = before.iter().copied().chain([n]).collect();
    if linear.residual {
        residual(inputs, &out)?
    }
    Ok(out)
}

fn matmul([a, b]: [&Fact; 2]) -> Result<Shape, InferError> {
    let mismatch = || InferError::Mismatch(a.shape.to_string(), b.shape.to_string());
    let (a_dims, b_dims) = (&a.shape[..], &b.shape[..]);
    let (a_rows, a_depth) =
        a_dims.split_last_chunk::<2>().map_or((None, a_dims.last()), |(_, [m, k])| (Some(*m), Some(k)));
    let (b_depth, b_columns) =
        b_dims.split_last_chunk::<2>().map_or((b_dims.last(), None), |(_, [k, n])| (Some(k), Some(*n)));
    if a_depth.is_none() || a_depth != b_depth {
        return Err(mismatch());
    }
    let leading = |dims: &[usize]| Shape::new(&dims[..dims.len().saturating_sub(2)]);
    let leading = broadcast(&leading(a_dims), &leading(b_dims)).map_err(|_| mismatch())?;
    Ok(leading.iter().copied().chain(a_rows).chain(b_columns).collect())
}

/// The shape of two operands together, by the rules of numpy.
pub(in crate::engine) fn broadcast(a: &Shape, b: &Shape) -> Result<Shape, InferError> {
    let rank = a.len().max(b.len());
    let extent = |shape: &Shape, axis: usize| {
        let missing = rank - shape.len();
        if axis < missing { 1 } else { shape[axis - missing] }
    };
    let joined = |axis: usize| match (extent(a, axis), extent(b, axis)) {
        (x, y) if x == y || y == 1 => Ok(x),
        (1, y) => Ok(y),
        _ => Err(InferError::Mismatch(a.to_string(), b.to_string())),
    };
    (0..rank).map(joined).collect()
}

/// Which axes a reduction takes away.
pub(in crate::engine) fn reduced(axes: &Axes, shape: &Shape) -> Result<Vec<bool>, InferError> {
    match axes {
        Axes::From(first) => Ok((0..shape.len()).map(|at| at >= *first).collect()),
        Axes::Given(given) => {
            let mut reduced = vec![false; shape.len()];
            for &given in given {
                reduced[axis(given, shape)?] = true;
            }
            Ok(reduced)
        }
    }
}

fn reduce(reduce: &Reduce, x: &Fact) -> Result<Shape, InferError> {
    let reduced = reduced(&reduce.axes, &x.shape)?;
    let extent = |(&extent, &reduced): (&usize, &bool)| match (reduced, reduce.keep) {
        (false, _) => Some(extent),
        (true, true) => Some(1),
        (true, false) => None,
    };
    Ok(x.shape.iter().zip(&reduced).filter_map(extent).collect())
}

fn reshape(allow_zero: bool, [x, shape]: [&Fact; 2]) -> Result<Shape, InferError> {
    let given = shape.integers("a shape")?;
    let wrong = || InferError::Elements { from: x.shape.to_string(), to: given.clone() };
    let mut to: SmallVec<[usize; 8]> = SmallVec::new();
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

fn flatten(axis: isize, x: &Fact) -> Result<Shape, InferError> {
    let at = if axis == isize::try_from(x.shape.len()).unwrap_or(isize::MAX) {
        x.shape.len()
    } else {
        self::axis(axis, &x.shape)?
    };
    let product = |dims: &[usize]| Shape::new(dims).element_count().ok_or(InferError::Overflow);
    Ok(Shape::new(&[product(&x.shape[..at])?, product(&x.shape[at..])?]))
}

fn squeeze(inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let x = inputs.first().ok_or(InferError::Operands { expected: 1, got: 0 })?;
    let mut dropped: Vec<bool> = x.shape.iter().map(|&extent| extent == 1).collect();
    if let Some(axes) = inputs.get(1) {
        dropped.fill(false);
        for given in axes.integers("axes")? {
            let at = axis(isize::try_from(given).unwrap_or(isize::MAX), &x.shape)?;
            if x.shape[at] != 1 {
                return Err(InferError::Rank { expected: "one element along squeezed axes", got: x.shape.to_string() });
            }
            dropped[at] = true;
        }
    }
    Ok(x.shape.iter().zip(dropped).filter(|(_, dropped)| !dropped).map(|(&extent, _)| extent).collect())
}

fn unsqueeze([x, axes]: [&Fact; 2]) -> Result<Shape, InferError> {
    let axes = axes.integers("axes")?;
    let rank = Shape::from_iter(std::iter::repeat_n(1, x.shape.len() + axes.len()));
    let mut added = vec![false; rank.len()];
    for given in axes {
        added[axis(isize::try_from(given).unwrap_or(isize::MAX), &rank)?] = true;
    }
    let mut extents = x.shape.iter().copied();
    let shape: Shape = added.iter().map(|added| if *added { 1 } else { extents.next().unwrap_or(1) }).collect();
    if extents.next().is_some() { Err(InferError::Overflow) } else { Ok(shape) }
}

fn transpose(axes: &[usize], x: &Fact) -> Result<Shape, InferError> {
    let rank = || InferError::Rank { expected: "as many axes as are transposed", got: x.shape.to_string() };
    if axes.len() != x.shape.len() {
        return Err(rank());
    }
    axes.iter().map(|&axis| x.shape.get(axis).copied().ok_or_else(rank)).collect()
}

fn concat(axis: isize, inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let first = inputs.first().ok_or(InferError::Operands { expected: 1, got: 0 })?;
    let at = self::axis(axis, &first.shape)?;
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

fn gather(axis: isize, [x, indices]: [&Fact; 2]) -> Result<Shape, InferError> {
    let at = self::axis(axis, &x.shape)?;
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
pub(in crate::engine) fn slice(inputs: &Facts<'_>) -> Result<Vec<Cut>, InferError> {
    let [x, starts] = two(inputs)?;
    let list = |at: usize| inputs.get(at).map(|fact| fact.integers("a slice's bounds")).transpose();
    let starts = starts.integers("a slice's bounds")?;
    let ends = list(2)?.ok_or(InferError::Operands { expected: 3, got: 2 })?;
    let axes = match list(3)? {
        Some(axes) => axes,
        None => (0..starts.len()).filter_map(|axis| i64::try_from(axis).ok()).collect(),
    };
    let steps = list(4)?.unwrap_or_else(|| vec![1; axes.len()]);
    let mut cuts: Vec<Cut> = x.shape.iter().map(|&extent| Cut { first: 0, step: 1, count: extent }).collect();
    for (at, &given) in axes.iter().enumerate() {
        let axis = axis(isize::try_from(given).unwrap_or(isize::MAX), &x.shape)?;
        let (Some(&start), Some(&end), Some(&step)) = (starts.get(at), ends.get(at), steps.get(at)) else {
            return Err(InferError::Operands { expected: axes.len(), got: at });
        };
        cuts[axis] = cut(start, end, step, x.shape[axis])?;
    }
    Ok(cuts)
}

fn cut(start: i64, end: i64, step: i64, extent: usize) -> Result<Cut, InferError> {
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

fn shape_of(from: isize, to: Option<isize>, x: &Fact) -> Fact {
    let rank = isize::try_from(x.shape.len()).unwrap_or(isize::MAX);
    let bound = |at: isize| usize::try_from((if at < 0 { at + rank } else { at }).clamp(0, rank)).unwrap_or(0);
    let (from, to) = (bound(from), bound(to.unwrap_or(rank)));
    let extents: Vec<i64> =
        x.shape.get(from..to).unwrap_or_default().iter().map(|&e| i64::try_from(e).unwrap_or(i64::MAX)).collect();
    Fact::of(super::tensor_of_integers(&[extents.len()], &extents))
}
