//! Operators that put elements elsewhere, or make them from their places.

use super::{Axes, Binary};
use crate::tensor::DType;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Arrangement {
    /// `x` and which diagonal (the main one where it is missing): zeros below it, or above.
    Triangle { upper: bool },
    /// `x` and how often it is repeated along each axis.
    Tile,
    /// The first number, a bound, and the step from one to the next.
    Range,
    /// Ones on a diagonal of a matrix with the operand's extents, of this type or the operand's.
    Diagonal { offset: i64, dtype: Option<DType> },
    /// Classes, how many there are, and what stands for another class and for the class: an axis of classes more.
    OneHot { axis: isize },
    /// `x` and indices: of places along all axes behind those of the batch, as the last axis of the indices has them.
    GatherTuples { batch: usize },
    /// `x`, indices as before, and what replaces what is there, or is combined with it.
    ScatterTuples { with: Option<Binary> },
    /// `x` and of how many elements of each line, from the first on, the order is turned round.
    Reverse { batch: usize, time: usize },
    /// `x` and extents: the middle of it, or zeros around it.
    Centre { axes: Axes },
    /// The last axis first.
    Turn,
}

impl Arrangement {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Triangle { .. } => "Triangle",
            Self::Tile => "Tile",
            Self::Range => "Range",
            Self::Diagonal { .. } => "Diagonal",
            Self::OneHot { .. } => "OneHot",
            Self::GatherTuples { .. } => "GatherTuples",
            Self::ScatterTuples { .. } => "ScatterTuples",
            Self::Reverse { .. } => "Reverse",
            Self::Centre { .. } => "Centre",
            Self::Turn => "Turn",
        }
    }
}
