//! Shapes and types of values, for concrete extents of the inputs.

mod arrangement;
mod attention;
mod boxes;
mod contents;
mod contraction;
mod dtype;
mod fourier;
mod image;
mod movement;
mod quantized;
mod recurrent;
mod sampling;
mod selection;
mod trees;

use kinglet_kernels::Activation;
use kinglet_kernels::f32_functions::Function;
use smallvec::{SmallVec, smallvec};

use super::op::{Axes, Binary, Linear, Op, Reduce, ReduceKind, Unary, listed};
use super::{integers, tensor_of_integers};
use crate::tensor::{DType, PerAxis, Shape, Tensor};
pub(in crate::engine) use attention::heads;
pub(in crate::engine) use contraction::{Contracted, contracted};
pub(in crate::engine) use dtype::dtype;
pub(in crate::engine) use fourier::{Transformed, transformed};
pub(in crate::engine) use image::image;
pub(in crate::engine) use movement::{Cut, padded, slice};
pub(in crate::engine) use recurrent::{Sequence, sequence};
pub(in crate::engine) use sampling::{FoldedAxis, Scaled, folded, resampled};

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

/// A list with an element for each operand. Six take no allocation.
pub(in crate::engine) type PerOperand<T> = SmallVec<[T; 6]>;

/// Operands' facts, in order; one that is left out has none.
pub(in crate::engine) type Facts<'a> = PerOperand<&'a Fact>;

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
    pub(in crate::engine) fn integers(&self, what: &'static str) -> Result<PerAxis<i64>, InferError> {
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
        Op::Conv(conv) => as_first(image::conv(conv, inputs)),
        Op::Pool(pool) => as_first(image::pool(pool, first.clone()?)),
        Op::Windows(windows) => image::windows_over(windows, first.clone()?),
        Op::Linear(linear) => as_first(self::linear(linear, inputs)),
        Op::MatMul => as_first(matmul(two(inputs)?)),
        Op::Attention(attention) => as_first(attention::attention(attention, inputs)),
        Op::Normalize { .. } => as_first(normalize(inputs)),
        Op::Affine { axis } => as_first(affine(*axis, inputs)),
        Op::Activation(activation) => as_first(self::activation(*activation, first.clone()?)),
        Op::Unary(unary) => as_first(self::unary(*unary, first.clone()?)),
        Op::Binary(op) => as_first(binary(*op, two(inputs)?)),
        Op::Compare(_) => binary_shape(two(inputs)?).map(|shape| Fact::new(DType::Bool, shape)),
        Op::Not => as_first(Ok(first.clone()?.shape.clone())),
        Op::Where => chosen(inputs),
        Op::Pad(_) => as_first(movement::pad(inputs)),
        Op::ConvTranspose(conv) => as_first(image::conv_transpose(conv, inputs)),
        Op::Resize(resize) => as_first(image::resized(resize.by_sizes, inputs)),
        Op::Reduce(reduce) => as_first(self::reduce(reduce, inputs)),
        Op::Recurrent(op) => as_first(recurrent::recurrent(op, inputs)),
        Op::Softmax { axis, .. } => {
            self::axis(*axis, &first.clone()?.shape)?;
            as_first(Ok(first.clone()?.shape.clone()))
        }
        Op::Reshape { allow_zero } => as_first(movement::reshape(*allow_zero, two(inputs)?)),
        Op::Flatten { axis } => as_first(movement::flatten(*axis, first.clone()?)),
        Op::Squeeze => as_first(movement::squeeze(inputs)),
        Op::Unsqueeze => as_first(movement::unsqueeze(two(inputs)?)),
        Op::Transpose { axes } => as_first(movement::transpose(axes, first.clone()?)),
        Op::Concat { axis } => as_first(movement::concat(*axis, inputs)),
        Op::Gather { axis } => as_first(movement::gather(*axis, two(inputs)?)),
        Op::Slice => as_first(slice(inputs).map(|cuts| cuts.iter().map(|cut| cut.count).collect())),
        Op::Arg(_) | Op::Top(_) | Op::CumulativeSum { .. } | Op::GatherElements { .. } | Op::ScatterElements { .. } => {
            selection::selected(op, inputs)
        }
        Op::Arrange(arrangement) => arrangement::arranged(arrangement, inputs),
        Op::Sample(sampling) => sampling::sampled(sampling, inputs),
        Op::Contract(contraction) => as_first(contracted(contraction, inputs).map(|contracted| contracted.shape())),
        Op::Fourier { onesided, .. } => as_first(transformed(*onesided, inputs).map(|transformed| transformed.shape)),
        Op::Size => Ok(Fact::of(tensor_of_integers(&[], &[i64::try_from(first?.elements()).unwrap_or(i64::MAX)]))),
        Op::Shape { from, to } => Ok(movement::shape_of(*from, *to, first.clone()?)),
        Op::Cast { to } => cast(*to, first.clone()?),
        Op::Fill { value } => Ok(Fact::new(value.dtype, extents(&first.clone()?.integers("a shape")?)?)),
        Op::Expand => {
            let [x, shape] = two(inputs)?;
            as_first(broadcast(&x.shape, &extents(&shape.integers("a shape")?)?))
        }
        Op::Quantize { .. }
        | Op::Dequantize { .. }
        | Op::QuantizedConv(_)
        | Op::QuantizedLinear(_)
        | Op::QuantizedMatMul(_)
        | Op::IntegerMatMul
        | Op::DynamicLinear { .. }
        | Op::LookUp
        | Op::QuantizedAdd(_) => quantized::of_integers(op, inputs),
        Op::Trees(trees) => trees::scores(trees, first?),
        Op::NonZero | Op::NonMaxSuppression { .. } | Op::Unique(_) | Op::Several(_) | Op::Part(_) => {
            contents::decided(op, inputs, first?)
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
            | Op::Linear(_)
            | Op::MatMul
            | Op::Attention(_)
            | Op::Normalize { .. }
            | Op::Affine { .. }
            | Op::ConvTranspose(_)
            | Op::Resize(_)
            | Op::Recurrent(_)
            | Op::Softmax { .. }
    )
}

/// All operands but those that are lists of sizes.
fn expect_floats(inputs: &Facts<'_>) -> Result<(), InferError> {
    let lists = [DType::I64, DType::I32];
    match inputs
        .iter()
        .enumerate()
        .find(|(at, fact)| fact.dtype != DType::F32 && (*at == 0 || !lists.contains(&fact.dtype)))
    {
        Some((_, other)) => Err(InferError::Type { expected: "FP32", got: other.dtype }),
        None => Ok(()),
    }
}

fn binary(op: Binary, [a, b]: [&Fact; 2]) -> Result<Shape, InferError> {
    let of_bits =
        matches!(op, Binary::BitAnd | Binary::BitOr | Binary::BitXor | Binary::ShiftLeft | Binary::ShiftRight);
    if !is_number(a.dtype) || is_float(a.dtype) && of_bits {
        return Err(InferError::Type { expected: if of_bits { "integers" } else { "numbers" }, got: a.dtype });
    }
    if a.dtype != b.dtype {
        return Err(InferError::Type { expected: "two operands of one type", got: b.dtype });
    }
    broadcast(&a.shape, &b.shape)
}

fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64)
}

fn is_number(dtype: DType) -> bool {
    use DType::{I8, I16, I32, I64, U8, U16, U32, U64};
    is_float(dtype) || matches!(dtype, I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64)
}

/// What a truth value may be made of, or compared to one.
fn is_number_or_truth(dtype: DType) -> bool {
    is_number(dtype) || dtype == DType::Bool
}

fn cast(to: DType, x: &Fact) -> Result<Fact, InferError> {
    let known = |dtype: &DType| is_number_or_truth(*dtype) || *dtype == DType::F16;
    match [x.dtype, to].into_iter().find(|dtype| !known(dtype)) {
        None => Ok(Fact::new(to, x.shape.clone())),
        Some(other) => Err(InferError::Type { expected: "floats, integers or BOOL", got: other }),
    }
}

/// Two operands of one type, broadcast.
fn binary_shape([a, b]: [&Fact; 2]) -> Result<Shape, InferError> {
    match is_number_or_truth(a.dtype) && a.dtype == b.dtype {
        true => broadcast(&a.shape, &b.shape),
        false => Err(InferError::Type { expected: "two operands of one type of numbers", got: b.dtype }),
    }
}

fn chosen(inputs: &Facts<'_>) -> Result<Fact, InferError> {
    let &[condition, a, b] = inputs.as_slice() else {
        return Err(InferError::Operands { expected: 3, got: inputs.len() });
    };
    if condition.dtype != DType::Bool || a.dtype != b.dtype {
        return Err(InferError::Type { expected: "a truth value and two operands of one type", got: b.dtype });
    }
    Ok(Fact::new(a.dtype, broadcast(&condition.shape, &broadcast(&a.shape, &b.shape)?)?))
}

fn affine(axis: usize, inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let [x, scale] = two(inputs)?;
    match (x.shape.get(axis), &scale.shape[..], inputs.get(2).map(|shift| &shift.shape)) {
        (Some(extent), [count], Some(shift)) if extent == count && *shift == scale.shape => Ok(x.shape.clone()),
        _ => Err(InferError::Mismatch(x.shape.to_string(), scale.shape.to_string())),
    }
}

fn normalize(inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let &[x, scale, shift] = inputs.as_slice() else {
        return Err(InferError::Operands { expected: 3, got: inputs.len() });
    };
    match (x.shape.last(), &scale.shape[..]) {
        (Some(extent), [count]) if extent == count && shift.shape == scale.shape => Ok(x.shape.clone()),
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

fn linear(linear: &Linear, inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let [x, weights] = two(inputs)?;
    let mismatch = || InferError::Mismatch(x.shape.to_string(), weights.shape.to_string());
    let (Some((depth, before)), &[k, n]) = (x.shape.split_last(), &weights.shape[..]) else { return Err(mismatch()) };
    if *depth != k {
        return Err(mismatch());
    }
    let out = before.iter().copied().chain([n]).collect();
    if linear.residual {
        image::residual(inputs, &out)?
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
pub(in crate::engine) fn reduced(axes: &Axes, shape: &Shape) -> Result<PerAxis<bool>, InferError> {
    match axes {
        Axes::From(first) => Ok((0..shape.len()).map(|at| at >= *first).collect()),
        Axes::Operand { .. } => Err(InferError::Unknown { what: "axes" }),
        Axes::Given(given) => named(given.iter().copied(), shape),
    }
}

fn named(axes: impl Iterator<Item = isize>, shape: &Shape) -> Result<PerAxis<bool>, InferError> {
    let mut named = smallvec![false; shape.len()];
    for given in axes {
        named[axis(given, shape)?] = true;
    }
    Ok(named)
}

/// Which axes of the first operand a reduction takes away, its axes being an operand or not.
pub(in crate::engine) fn reduced_axes(axes: &Axes, inputs: &Facts<'_>) -> Result<PerAxis<bool>, InferError> {
    let x = inputs.first().ok_or(InferError::Operands { expected: 1, got: 0 })?;
    let Axes::Operand { keeps } = axes else { return reduced(axes, &x.shape) };
    let given = two(inputs)?[1].integers("axes")?;
    match given.is_empty() {
        true => Ok(smallvec![!keeps; x.shape.len()]),
        false => named(given.into_iter().map(listed), &x.shape),
    }
}

fn reduce(reduce: &Reduce, inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let reduced = reduced_axes(&reduce.axes, inputs)?;
    let x = inputs[0];
    let is_extreme = matches!(reduce.kind, ReduceKind::Max | ReduceKind::Min);
    let is_truth = is_extreme && x.dtype == DType::Bool;
    if !is_number(x.dtype) && !is_truth {
        return Err(InferError::Type { expected: "numbers", got: x.dtype });
    }
    let extent = |(&extent, &reduced): (&usize, &bool)| match (reduced, reduce.keep) {
        (false, _) => Some(extent),
        (true, true) => Some(1),
        (true, false) => None,
    };
    Ok(x.shape.iter().zip(&reduced).filter_map(extent).collect())
}

/// Functions of floats, some of integers too.
fn unary(unary: Unary, x: &Fact) -> Result<Shape, InferError> {
    let is_integer = is_number(x.dtype) && !is_float(x.dtype);
    let is_unsigned = matches!(x.dtype, DType::U8 | DType::U16 | DType::U32 | DType::U64);
    let (expected, fits) = match unary {
        Unary::BitNot => ("integers", is_integer),
        Unary::Neg => ("numbers with a sign", is_number(x.dtype) && !is_unsigned),
        Unary::Abs | Unary::Sign => ("numbers", is_number(x.dtype)),
        _ => ("floats", is_float(x.dtype)),
    };
    if fits { Ok(x.shape.clone()) } else { Err(InferError::Type { expected, got: x.dtype }) }
}

fn activation(activation: Activation, x: &Fact) -> Result<Shape, InferError> {
    let of_error_function = matches!(activation, Activation::Function(Function::Erf | Function::Gelu));
    match x.dtype {
        DType::F32 => Ok(x.shape.clone()),
        DType::F64 if !of_error_function => Ok(x.shape.clone()),
        got => Err(InferError::Type { expected: "floats", got }),
    }
}
