//! Between the pieces of a batch and tract's tensors: one copy in, none out.

use std::sync::Arc;

use bytes::Bytes;
use tract_onnx::tract_hir::internal::{DatumType, IntoArcTensor, TValue, Tensor as TractTensor};

use super::typed::datum_type;
use crate::engine::{BatchInput, EngineError};
use crate::tensor::{DType, Shape, Tensor};

/// Copies rows of an input, from row `from` on, into one tract tensor of `shape`, which has each of them so many
/// `times`. A scalar, or an input of a model whose requests run alone, is its only row.
pub(super) fn gather(input: &BatchInput, shape: &Shape, from: usize, times: usize) -> Result<TValue, EngineError> {
    let failed = |what: String| EngineError::Failed(what);
    let datum = datum_type(input.dtype).ok_or_else(|| failed(format!("no tensors of {}", input.dtype)))?;
    let mut tensor = TractTensor::zero_dt(datum, shape).map_err(|error| failed(error.to_string()))?;
    let into = tensor.as_bytes_mut();
    let row_bytes = into.len().checked_div(shape.rows()).unwrap_or(0);
    let once = into.len() / times;
    for into in into.chunks_exact_mut(once.max(1)) {
        input.gather_from(from * row_bytes, into);
    }
    if input.dtype == DType::Bool {
        // Any byte but 0 and 1 is no bool to the compiler.
        into.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
    }
    Ok(TValue::from(tensor))
}

/// An output of tract as a tensor of the declared type, sharing its memory.
pub(super) fn output(value: TValue, dtype: DType, name: &str) -> Result<Tensor, EngineError> {
    let tensor = value.into_arc_tensor();
    let shape = Shape::new(tensor.shape());
    let failed = |error: &dyn std::fmt::Display| EngineError::Failed(format!("output {name:?}: {error}"));
    let tensor = as_declared(tensor, dtype).map_err(|error| failed(&error))?;
    Tensor::new(dtype, shape, Bytes::from_owner(Owner(tensor))).map_err(|error| failed(&error))
}

/// Shapes that tract computed are symbols' values to it, and quantised integers carry their scale.
fn as_declared(tensor: Arc<TractTensor>, dtype: DType) -> Result<Arc<TractTensor>, String> {
    let declared = datum_type(dtype).ok_or_else(|| format!("no tensors of {dtype}"))?;
    let got = tensor.datum_type();
    // The stride of an axis with one element means nothing, and tract does not keep it right.
    let natural = TractTensor::natural_strides(tensor.shape());
    let mut strides = tensor.strides().iter().zip(&natural).zip(tensor.shape());
    if strides.any(|((stride, natural), extent)| *extent > 1 && stride != natural) {
        return Err(format!("its strides are {:?}", tensor.strides()));
    }
    match got {
        _ if got.unquantized() == declared => Ok(tensor),
        DatumType::TDim => match tensor.cast_to_dt(declared) {
            Ok(cast) => Ok(Arc::new(cast.into_owned())),
            Err(error) => Err(error.to_string()),
        },
        _ => Err(format!("the model made {got:?}, declared is {dtype}")),
    }
}

/// Whether tract's type of an output can be served as the declared one.
pub(super) fn agrees(got: DatumType, declared: DType) -> bool {
    match declared {
        DType::I64 => matches!(got, DatumType::I64 | DatumType::TDim),
        _ => datum_type(declared) == Some(got.unquantized()),
    }
}

struct Owner(Arc<TractTensor>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_can_be_taken_twice() {
        let pieces = vec![Bytes::from_static(&[1, 2]), Bytes::from_static(&[3, 4])];
        let input = BatchInput { dtype: DType::U8, shape: Shape::new(&[2, 2]), pieces };
        let value = gather(&input, &Shape::new(&[2, 2]), 1, 2).unwrap();
        assert_eq!(output(value, DType::U8, "y").unwrap().bytes()[..], [3, 4, 3, 4]);
    }

    #[test]
    fn bools_are_made_whole() {
        let pieces = vec![Bytes::from_static(&[0, 1, 2, 255])];
        let input = BatchInput { dtype: DType::Bool, shape: Shape::new(&[4]), pieces };
        let value = gather(&input, &Shape::new(&[4]), 0, 1).unwrap();
        let made = output(value, DType::Bool, "y").unwrap();
        assert_eq!(made.bytes()[..], [0, 1, 1, 1]);
    }
}
