//! The operators. Images are channels-last here whatever the file had: importers put transpositions around them, and
//! passes push those out.

mod arrangement;
mod contraction;
mod image;
mod recurrent;
mod sampling;

use std::sync::Arc;

use kinglet_kernels::Activation;
use kinglet_kernels::u8_functions::Sum;
use kinglet_kernels::u8s8_gemm::{Finish, Zeros};

pub(in crate::engine) use arrangement::Arrangement;
pub(in crate::engine) use contraction::{Contraction, Label};
pub(in crate::engine) use image::{
    AxisPadding, Conv, ConvTranspose, Filter, Padding, PixelPlace, Pool, PoolKind, Resize, Rounding, Spatial,
    SpatialAxis, WindowAxis, WindowKind, Windows,
};
pub(in crate::engine) use recurrent::{Direction, Recurrent, Role};
pub(in crate::engine) use sampling::{Aspect, Fold, Grid, Outside, Regions, Resample, Sampling};

use super::control::Several;
use super::trees::Trees;
use crate::tensor::DType;

#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) enum Op {
    /// `x`, `weights` (`[out, in / groups, lines, columns]` as in ONNX), `bias` or nothing, and a `residual`.
    Conv(Conv),
    /// Windows of a channels-last image.
    Pool(Pool),
    /// Windows of a channels-first image.
    Windows(Windows),
    /// `x` (`[.., k]`), constant `weights` (`[k, n]`), `bias` or nothing, and a `residual`.
    Linear(Linear),
    /// Two operands, broadcast over leading axes.
    MatMul,
    /// Queries, keys, values, and a mask or nothing, which is added to the scaled scores.
    Attention(Attention),
    /// `x`, `scale` and `shift`: rows of the last axis with a mean of zero and a variance of one, scaled and shifted.
    Normalize {
        epsilon: f32,
    },
    /// `x`, `scale` and `shift`: `x * scale[i] + shift[i]`, `i` being the place along an axis.
    Affine {
        axis: usize,
    },
    Activation(Activation),
    Unary(Unary),
    /// Two operands, broadcast.
    Binary(Binary),
    /// Two operands, broadcast, to truth values.
    Compare(Compare),
    /// A truth value: the second operand where it holds, the third elsewhere; all broadcast.
    Where,
    /// Truth values turned round.
    Not,
    /// `x`, elements to add before and after each axis, what they are (zero where it is missing), and which axes (all
    /// where they are missing).
    Pad(PadKind),
    /// `x` and `weights` (`[in, out / groups, lines, columns]`), `bias` or nothing: each pixel is spread over a window.
    ConvTranspose(ConvTranspose),
    /// A channels-last image of other extents: `scales` or `sizes` of all axes.
    Resize(Resize),
    /// `x` and, where they are no constants, the axes.
    Reduce(Reduce),
    /// A layer with a state that goes from step to step.
    Recurrent(Recurrent),
    Softmax {
        axis: isize,
        log: bool,
    },
    /// `x` and the shape as integers; `0` copies an extent unless `allow_zero`.
    Reshape {
        allow_zero: bool,
    },
    /// Two axes: the product of those before `axis`, and of the others.
    Flatten {
        axis: isize,
    },
    /// Without axes of one element: the given ones (second input), or all.
    Squeeze,
    /// With axes of one element at the given places (second input).
    Unsqueeze,
    Transpose {
        axes: Vec<usize>,
    },
    Concat {
        axis: isize,
    },
    /// `x` and indices along an axis.
    Gather {
        axis: isize,
    },
    /// `x`, starts, ends, axes, steps; the last two may be missing.
    Slice,
    /// Where along an axis the extreme element is.
    Arg(Arg),
    /// Where along an axis the greatest or least elements are: `x` and how many, which must be known.
    Top(Top),
    /// Sums of all elements before each along an axis, which is the second operand.
    CumulativeSum {
        exclusive: bool,
        reverse: bool,
    },
    /// `x` and indices along an axis, an element for each.
    GatherElements {
        axis: isize,
    },
    /// `x`, indices along an axis and an element for each, which replaces one of `x` or is combined with it.
    ScatterElements {
        axis: isize,
        with: Option<Binary>,
    },
    Arrange(Arrangement),
    Sample(Sampling),
    /// Any number of operands.
    Contract(Contraction),
    /// `x`, how many elements of a line are transformed, and along which axis; numbers are pairs, or real.
    Fourier {
        inverse: bool,
        onesided: bool,
    },
    /// How many elements the input has.
    Size,
    /// The extents of the input as integers.
    Shape {
        from: isize,
        to: Option<isize>,
    },
    Cast {
        to: DType,
    },
    /// A shape, filled with one element.
    Fill {
        value: FillValue,
    },
    /// `x` and a shape to broadcast with.
    Expand,
    /// `x`, scales and zero points: one for all, or one for each place along an axis. The zero point's type is the
    /// output's.
    Quantize {
        axis: isize,
    },
    /// Back to floats: `x`, scales and, where they are not zero, zero points.
    Dequantize {
        axis: isize,
    },
    /// Bytes, constant weights of INT8 (as `Conv`'s), a scale and a bias (INT32) for each output channel, and a `residual`.
    QuantizedConv(QuantizedConv),
    /// Bytes, constant weights of INT8 (as `Linear`'s), a scale and a bias (INT32) for each column.
    QuantizedLinear(Quantized),
    /// Two operands of bytes, as `MatMul`'s.
    QuantizedMatMul(QuantizedMatMul),
    /// Two operands of bytes, signed or not, and the zero points of each: one, or those of rows and of columns. Sums are
    /// INT32.
    IntegerMatMul,
    /// Bytes, constant weights of INT8 (as `Linear`'s) with this zero point, the bytes' zero point, what sums are multiplied
    /// with (one number, or one for each column) and, maybe, a bias for each column.
    DynamicLinear {
        zero: i8,
    },
    /// Two operands of bytes, not broadcast.
    QuantizedAdd(Sum),
    /// Bytes, and the byte that each of 256 becomes.
    LookUp,
    /// Rows of features, and the scores that an ensemble of decision trees gives them.
    Trees(Arc<Trees>),
    /// Where elements are not zero: `[axis][element]`.
    NonZero,
    /// Boxes, scores, how many boxes of a class at most, and thresholds of overlap and score, to `[chosen][3]`: image,
    /// class and box.
    NonMaxSuppression {
        by_centre: bool,
    },
    Unique(Unique),
    Several(Several),
    /// One of several values.
    Part(usize),
}

/// A product of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Quantized {
    /// The zero point of the bytes.
    pub(in crate::engine) zero: u8,
    pub(in crate::engine) finish: Finish,
}

#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct QuantizedConv {
    /// Bias and activation are in `product`, and what becomes of a residual in `plus`.
    pub(in crate::engine) conv: Conv,
    pub(in crate::engine) product: Quantized,
    pub(in crate::engine) plus: Option<Sum>,
}

/// A product of two operands of bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::engine) struct QuantizedMatMul {
    pub(in crate::engine) zeros: Zeros,
    /// What sums are multiplied with.
    pub(in crate::engine) scale: f32,
    pub(in crate::engine) finish: Finish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum PadKind {
    Constant,
    Edge,
    Reflect,
    Wrap,
}

#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct Linear {
    pub(in crate::engine) bias: bool,
    pub(in crate::engine) residual: bool,
    pub(in crate::engine) activation: Activation,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::engine) struct Attention {
    /// Of scores.
    pub(in crate::engine) scale: f32,
    /// Whether queries, keys, values and results are `[batch, token, head, element]` rather than
    /// `[batch, head, token, element]`.
    pub(in crate::engine) heads_inside: [bool; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Unary {
    Neg,
    Abs,
    Log,
    Sqrt,
    Reciprocal,
    Floor,
    Ceil,
    Softplus,
    Sign,
    Round,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Asinh,
    Acosh,
    Atanh,
    BitNot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Min,
    Max,
    /// With the sign of the divisor.
    Modulo,
    /// With the sign of what is divided.
    Remainder,
    BitAnd,
    BitOr,
    BitXor,
    ShiftLeft,
    ShiftRight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Compare {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Reduce {
    pub(in crate::engine) kind: ReduceKind,
    pub(in crate::engine) axes: Axes,
    pub(in crate::engine) keep: bool,
}

/// Axes of an operand whose rank is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Axes {
    Given(Vec<isize>),
    /// This one and all behind it.
    From(usize),
    /// Those that the second operand lists; where it lists none, all or, if that is what it `keeps`, none.
    Operand {
        keeps: bool,
    },
}

impl Axes {
    /// As a file lists them.
    pub(in crate::engine) fn given(axes: &[i64]) -> Self {
        Self::Given(axes.iter().copied().map(listed).collect())
    }
}

/// An axis as a file lists it; a number that cannot be one is none of any shape's.
pub(in crate::engine) fn listed(axis: i64) -> isize {
    isize::try_from(axis).unwrap_or(isize::MAX)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Arg {
    pub(in crate::engine) greatest: bool,
    pub(in crate::engine) axis: isize,
    pub(in crate::engine) keep: bool,
    /// Of equal elements the last rather than the first.
    pub(in crate::engine) last: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Top {
    pub(in crate::engine) axis: isize,
    pub(in crate::engine) greatest: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum ReduceKind {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
}

/// What differs from all before it: elements, or what lies along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Unique {
    pub(in crate::engine) axis: Option<isize>,
    pub(in crate::engine) sorted: bool,
    pub(in crate::engine) part: UniquePart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum UniquePart {
    Values,
    /// Where each is first.
    First,
    /// Which of them each of the operand is.
    Which,
    Counts,
}

/// One element of any type, by its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct FillValue {
    pub(in crate::engine) dtype: DType,
    pub(in crate::engine) bytes: Vec<u8>,
}

impl Op {
    /// The name in `inspect`.
    pub(in crate::engine) fn name(&self) -> &'static str {
        match self {
            Self::Conv(_) => "Conv",
            Self::Pool(_) => "Pool",
            Self::Windows(_) => "Windows",
            Self::Linear(_) => "Linear",
            Self::MatMul => "MatMul",
            Self::Attention(_) => "Attention",
            Self::Normalize { .. } => "Normalize",
            Self::Affine { .. } => "Affine",
            Self::Activation(_) => "Activation",
            Self::Unary(_) => "Unary",
            Self::Binary(_) => "Binary",
            Self::Compare(_) => "Compare",
            Self::Where => "Where",
            Self::Not => "Not",
            Self::Pad(_) => "Pad",
            Self::ConvTranspose(_) => "ConvTranspose",
            Self::Resize(_) => "Resize",
            Self::Reduce(_) => "Reduce",
            Self::Recurrent(_) => "Recurrent",
            Self::Softmax { .. } => "Softmax",
            Self::Reshape { .. } => "Reshape",
            Self::Flatten { .. } => "Flatten",
            Self::Squeeze => "Squeeze",
            Self::Unsqueeze => "Unsqueeze",
            Self::Transpose { .. } => "Transpose",
            Self::Concat { .. } => "Concat",
            Self::Gather { .. } => "Gather",
            Self::Slice => "Slice",
            Self::Arg(_) => "Arg",
            Self::Top(_) => "Top",
            Self::CumulativeSum { .. } => "CumulativeSum",
            Self::GatherElements { .. } => "GatherElements",
            Self::ScatterElements { .. } => "ScatterElements",
            Self::Arrange(arrangement) => arrangement.name(),
            Self::Sample(sampling) => sampling.name(),
            Self::Contract(_) => "Contract",
            Self::Fourier { .. } => "Fourier",
            Self::Size => "Size",
            Self::Shape { .. } => "Shape",
            Self::Cast { .. } => "Cast",
            Self::Fill { .. } => "Fill",
            Self::Expand => "Expand",
            Self::Quantize { .. } => "Quantize",
            Self::Dequantize { .. } => "Dequantize",
            Self::QuantizedConv(_) => "QuantizedConv",
            Self::QuantizedLinear(_) => "QuantizedLinear",
            Self::QuantizedMatMul(_) => "QuantizedMatMul",
            Self::IntegerMatMul => "IntegerMatMul",
            Self::DynamicLinear { .. } => "DynamicLinear",
            Self::QuantizedAdd(_) => "QuantizedAdd",
            Self::LookUp => "LookUp",
            Self::Trees(_) => "Trees",
            Self::NonZero => "NonZero",
            Self::NonMaxSuppression { .. } => "NonMaxSuppression",
            Self::Unique(_) => "Unique",
            Self::Several(Several::Branch(_)) => "Branch",
            Self::Several(Several::Repeat(_)) => "Repeat",
            Self::Several(Several::Foreign(_)) => "Foreign",
            Self::Part(_) => "Part",
        }
    }

    /// Whether the output's shape follows from the contents of operands of any size.
    pub(in crate::engine) fn reads_contents(&self) -> bool {
        matches!(self, Self::NonZero | Self::NonMaxSuppression { .. } | Self::Unique(_))
    }

    /// Whether the output is the input's elements in their order under another shape.
    pub(in crate::engine) fn only_reshapes(&self) -> bool {
        matches!(self, Self::Reshape { .. } | Self::Flatten { .. } | Self::Squeeze | Self::Unsqueeze)
    }
}
