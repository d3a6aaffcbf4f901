//! The shape of scores that trees give.

use super::{Fact, InferError};
use crate::engine::graph::trees::Trees;
use crate::tensor::{DType, Shape};

pub(super) fn scores(trees: &Trees, x: &Fact) -> Result<Fact, InferError> {
    let [features, targets] = trees.extents();
    if x.dtype != trees.dtype() {
        let expected = if trees.dtype() == DType::F64 { "FP64" } else { "FP32" };
        return Err(InferError::Type { expected, got: x.dtype });
    }
    match x.shape[..] {
        [rows, width] if width >= features => Ok(Fact::new(x.dtype, Shape::new(&[rows, targets]))),
        [_, extent] => {
            Err(InferError::Index { index: i64::try_from(features).map_or(i64::MAX, |all| all - 1), extent })
        }
        _ => Err(InferError::Rank { expected: "two axes", got: x.shape.to_string() }),
    }
}
