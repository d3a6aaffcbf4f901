//! Between tensors of this crate and tract's: one copy in, none out.

use std::sync::Arc;

use bytes::Bytes;
use tract_onnx::tract_hir::internal::{DatumType, IntoArcTensor, TValue, Tensor as TractTensor};

use crate::tensor::{DType, Shape, Tensor};

/// tract's type for a datatype, if it has one.
pub(super) fn datum_type(dtype: DType) -> Option<DatumType> {
    PAIRS.iter().find(|pair| pair.0 == dtype).map(|pair| pair.1)
}

/// The datatype of what tract makes. Extents are a type of their own to it.
pub(super) fn dtype(made: DatumType) -> Option<DType> {
    match made {
        DatumType::TDim => Some(DType::I64),
        _ => PAIRS.iter().find(|pair| pair.1 == made.unquantized()).map(|pair| pair.0),
    }
}

pub(super) fn given(tensor: &Tensor) -> Result<TValue, String> {
    let datum = datum_type(tensor.dtype()).ok_or_else(|| format!("tract has no tensors of {}", tensor.dtype()))?;
    let mut given = TractTensor::zero_dt(datum, tensor.shape()).map_err(|error| error.to_string())?;
    given.as_bytes_mut().copy_from_slice(tensor.bytes());
    Ok(TValue::from(given))
}

/// What tract made, sharing its memory.
pub(super) fn made(value: TValue, dtype: DType) -> Result<Tensor, String> {
    let tensor = value.into_arc_tensor();
    let shape = Shape::new(tensor.shape());
    let tensor = as_declared(tensor, dtype)?;
    Tensor::new(dtype, shape, Bytes::from_owner(Owner(tensor))).map_err(|error| error.to_string())
}

/// Shapes that tract computed are symbols' values to it, and quantised integers carry their scale.
fn as_declared(tensor: Arc<TractTensor>, dtype: DType) -> Result<Arc<TractTensor>, String> {
    let declared = datum_type(dtype).ok_or_else(|| format!("tract has no tensors of {dtype}"))?;
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
        _ => Err(format!("tract made {got:?}, expected {dtype}")),
    }
}

struct Owner(Arc<TractTensor>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// All types but strings and BF16.
const PAIRS: [(DType, DatumType); 12] = [
    (DType::Bool, DatumType::Bool),
    (DType::U8, DatumType::U8),
    (DType::U16, DatumType::U16),
    (DType::U32, DatumType::U32),
    (DType::U64, DatumType::U64),
    (DType::I8, DatumType::I8),
    (DType::I16, DatumType::I16),
    (DType::I32, DatumType::I32),
    (DType::I64, DatumType::I64),
    (DType::F16, DatumType::F16),
    (DType::F32, DatumType::F32),
    (DType::F64, DatumType::F64),
];
