//! Inputs with small made-up values, for whoever runs a model without a client.

use half::{bf16, f16};

use super::{Batch, Dim, EngineError, Plan, TensorSpec};
use crate::tensor::{DType, Shape, Tensor};

/// A batch of so many rows, free axes besides the rows having `extent`.
///
/// # Errors
/// When it would be larger than any model wants.
pub fn batch(plan: &dyn Plan, batch: usize, extent: usize) -> Result<Batch, EngineError> {
    let batched = plan.signature().is_batched();
    let tensor = |spec: &TensorSpec| {
        let extents = spec.dims.iter().enumerate().map(|(axis, dim)| match dim {
            Dim::Fixed(extent) => *extent,
            Dim::Free(_) if axis == 0 && batched => batch,
            Dim::Free(_) => extent,
        });
        filled(spec.dtype, extents.collect())
    };
    let inputs = plan.signature().inputs.iter().map(tensor).collect::<Result<Vec<_>, EngineError>>()?;
    Ok(Batch::merge(&[inputs], vec![batch]))
}

/// A tensor of values of which hardly one is zero, but for types that may be places in a table.
pub(super) fn filled(dtype: DType, shape: Shape) -> Result<Tensor, EngineError> {
    // An empty string has four bytes: its length.
    let bytes = shape.element_count().and_then(|count| count.checked_mul(dtype.size().unwrap_or(4)));
    if bytes.is_none_or(|bytes| bytes > INPUT_BYTES_MAX) {
        let problem = format!("an input of shape {shape} has more than {INPUT_BYTES_MAX} bytes");
        return Err(EngineError::InvalidShape(problem));
    }
    let count = shape.element_count().unwrap_or(0);
    // A small odd step through 0..1: neither constant, nor large, nor denormal.
    let step = |index: usize| u8::try_from(index * 37 % 101).unwrap_or(0);
    let value = |index: usize| f32::from(step(index)) / 101.0;
    let made = match dtype {
        DType::U8 | DType::I8 => (0..count).map(step).collect(),
        DType::F16 => (0..count).flat_map(|i| f16::from_f32(value(i)).to_le_bytes()).collect(),
        DType::Bf16 => (0..count).flat_map(|i| bf16::from_f32(value(i)).to_le_bytes()).collect(),
        DType::F32 => (0..count).flat_map(|i| value(i).to_le_bytes()).collect(),
        DType::F64 => (0..count).flat_map(|i| f64::from(value(i)).to_le_bytes()).collect::<Vec<u8>>(),
        DType::Bytes => vec![0; count * 4],
        _ => vec![0; count * dtype.size().unwrap_or(0)],
    };
    Ok(Tensor::new(dtype, shape, made.into()).expect("the bytes were made for the shape"))
}

/// A made-up input beyond this is a mistake of the flags, or of the model.
const INPUT_BYTES_MAX: usize = 16 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_multiplied_is_seldom_zero() {
        for dtype in [DType::F32, DType::F64, DType::F16, DType::Bf16, DType::U8, DType::I8] {
            let made = filled(dtype, [4, 101].into_iter().collect()).unwrap();
            let zeros =
                made.bytes().chunks(dtype.size().unwrap()).filter(|element| element.iter().all(|&byte| byte == 0));
            assert_eq!((zeros.count(), made.bytes().len()), (4, 404 * dtype.size().unwrap()), "{dtype}");
        }
        let places = filled(DType::I64, [3].into_iter().collect()).unwrap();
        assert!(places.bytes().iter().all(|&byte| byte == 0));
    }
}
