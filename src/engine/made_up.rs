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
fn filled(dtype: DType, shape: Shape) -> Result<Tensor, EngineError> {
    // An empty string has four bytes: its length.
    let bytes = shape.element_count().and_then(|count| count.checked_mul(dtype.size().unwrap_or(4)));
    if bytes.is_none_or(|bytes| bytes > INPUT_BYTES_MAX) {
        let problem = format!("an input of shape {shape} has more than {INPUT_BYTES_MAX} bytes");
        return Err(EngineError::InvalidShape(problem));
    }
    let count = shape.element_count().unwrap_or(0);
    // A small odd step through 0..1: neither constant, nor large, nor denormal.
    let steps = (0..u16::from(PERIOD)).map(|index| u8::try_from(index * 37 % u16::from(PERIOD)).unwrap_or(0));
    let values = steps.clone().map(|step| f32::from(step) / f32::from(PERIOD));
    let period: Vec<u8> = match dtype {
        DType::U8 | DType::I8 => steps.collect(),
        DType::F16 => values.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
        DType::Bf16 => values.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect(),
        DType::F32 => values.flat_map(f32::to_le_bytes).collect(),
        DType::F64 => values.flat_map(|value| f64::from(value).to_le_bytes()).collect(),
        _ => vec![0; usize::from(PERIOD) * dtype.size().unwrap_or(4)],
    };
    let mut made = period.repeat(count.div_ceil(usize::from(PERIOD)));
    made.truncate(count * dtype.size().unwrap_or(4));
    Ok(Tensor::new(dtype, shape, made.into()).expect("the bytes were made for the shape"))
}

/// Values before they come again: a prime, so that few rows are alike.
const PERIOD: u8 = 101;

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
