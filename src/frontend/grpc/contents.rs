//! Typed tensor contents to little-endian bytes. Each datatype has one field, as the protocol's table says.

use std::fmt::Display;

use bytes::Bytes;

use crate::frontend::Refusal;
use crate::proto::inference::InferTensorContents;
use crate::tensor::{DType, Shape, Tensor, TensorError};

/// # Errors
/// When the values stand in another field than the datatype's, are not as many as the shape has elements, or do not
/// fit the datatype.
pub(super) fn tensor(dtype: DType, shape: Shape, contents: &InferTensorContents) -> Result<Tensor, Refusal> {
    let Some((field, got)) = field(dtype, contents) else {
        // Without elements there is nothing that would need a field.
        if filled(contents) == 0 && shape.element_count() == Some(0) {
            return Ok(Tensor::new(dtype, shape, Bytes::new())?);
        }
        return Err(Refusal::invalid(format!("datatype {dtype} has no field in contents, use raw_input_contents")));
    };
    let expected = shape.element_count().ok_or_else(|| TensorError::ShapeOverflow(shape.clone()))?;
    if got != expected || filled(contents) != got {
        let elsewhere = filled(contents) - got;
        return Err(Refusal::invalid(format!(
            "shape {shape} of {dtype} needs {expected} elements in {field}, got {got}, and {elsewhere} in other fields"
        )));
    }
    let bytes: Vec<u8> = match dtype {
        DType::Bool => contents.bool_contents.iter().map(|value| u8::from(*value)).collect(),
        DType::I8 => narrowed(dtype, &contents.int_contents, i8::to_le_bytes)?,
        DType::I16 => narrowed(dtype, &contents.int_contents, i16::to_le_bytes)?,
        DType::I32 => narrowed(dtype, &contents.int_contents, i32::to_le_bytes)?,
        DType::I64 => narrowed(dtype, &contents.int64_contents, i64::to_le_bytes)?,
        DType::U8 => narrowed(dtype, &contents.uint_contents, u8::to_le_bytes)?,
        DType::U16 => narrowed(dtype, &contents.uint_contents, u16::to_le_bytes)?,
        DType::U32 => narrowed(dtype, &contents.uint_contents, u32::to_le_bytes)?,
        DType::U64 => narrowed(dtype, &contents.uint64_contents, u64::to_le_bytes)?,
        DType::F32 => narrowed(dtype, &contents.fp32_contents, f32::to_le_bytes)?,
        DType::F64 => narrowed(dtype, &contents.fp64_contents, f64::to_le_bytes)?,
        DType::Bytes => return Ok(Tensor::from_elements(shape, contents.bytes_contents.iter().map(|b| &b[..]))?),
        DType::F16 | DType::Bf16 => unreachable!("they have no field"),
    };
    Ok(Tensor::new(dtype, shape, bytes.into())?)
}

/// The field of a datatype and how many values stand in it.
fn field(dtype: DType, contents: &InferTensorContents) -> Option<(&'static str, usize)> {
    Some(match dtype {
        DType::Bool => ("bool_contents", contents.bool_contents.len()),
        DType::I8 | DType::I16 | DType::I32 => ("int_contents", contents.int_contents.len()),
        DType::I64 => ("int64_contents", contents.int64_contents.len()),
        DType::U8 | DType::U16 | DType::U32 => ("uint_contents", contents.uint_contents.len()),
        DType::U64 => ("uint64_contents", contents.uint64_contents.len()),
        DType::F32 => ("fp32_contents", contents.fp32_contents.len()),
        DType::F64 => ("fp64_contents", contents.fp64_contents.len()),
        DType::Bytes => ("bytes_contents", contents.bytes_contents.len()),
        DType::F16 | DType::Bf16 => return None,
    })
}

/// Values in all fields together.
fn filled(contents: &InferTensorContents) -> usize {
    contents.bool_contents.len()
        + contents.int_contents.len()
        + contents.int64_contents.len()
        + contents.uint_contents.len()
        + contents.uint64_contents.len()
        + contents.fp32_contents.len()
        + contents.fp64_contents.len()
        + contents.bytes_contents.len()
}

/// Values in the bytes of their datatype.
///
/// # Errors
/// When one does not fit it.
pub(super) fn narrowed<W, T, const N: usize>(
    dtype: DType,
    values: &[W],
    to_bytes: fn(T) -> [u8; N],
) -> Result<Vec<u8>, Refusal>
where
    W: Copy + Display,
    T: TryFrom<W>,
{
    let mut bytes = Vec::with_capacity(values.len() * N);
    for (index, value) in values.iter().enumerate() {
        let narrow = T::try_from(*value)
            .map_err(|_| Refusal::invalid(format!("value {value} at position {index} does not fit {dtype}")))?;
        bytes.extend_from_slice(&to_bytes(narrow));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dtype: DType, shape: &[usize], contents: InferTensorContents, expected: Result<&[u8], &str>) {
        let got =
            tensor(dtype, Shape::new(shape), &contents).map(Tensor::into_bytes).map_err(|refusal| refusal.message);
        assert_eq!(got.as_deref().map_err(String::as_str), expected, "{dtype}");
    }

    fn ints(values: &[i32]) -> InferTensorContents {
        InferTensorContents { int_contents: values.to_vec(), ..InferTensorContents::default() }
    }

    fn uints(values: &[u32]) -> InferTensorContents {
        InferTensorContents { uint_contents: values.to_vec(), ..InferTensorContents::default() }
    }

    #[test]
    fn values_become_little_endian_bytes() {
        let none = InferTensorContents::default;
        check(DType::Bool, &[2], InferTensorContents { bool_contents: vec![true, false], ..none() }, Ok(&[1, 0]));
        check(DType::I8, &[2], ints(&[-1, 127]), Ok(&[255, 127]));
        check(DType::I16, &[1], ints(&[-2]), Ok(&[254, 255]));
        check(DType::I32, &[], ints(&[1]), Ok(&[1, 0, 0, 0]));
        check(DType::U8, &[1, 1], uints(&[255]), Ok(&[255]));
        check(DType::U16, &[1], uints(&[258]), Ok(&[2, 1]));
        check(DType::U32, &[1], uints(&[u32::MAX]), Ok(&[255; 4]));
        check(DType::I64, &[1], InferTensorContents { int64_contents: vec![-1], ..none() }, Ok(&[255; 8]));
        check(DType::U64, &[1], InferTensorContents { uint64_contents: vec![u64::MAX], ..none() }, Ok(&[255; 8]));
        check(DType::F32, &[1], InferTensorContents { fp32_contents: vec![1.0], ..none() }, Ok(&1f32.to_le_bytes()));
        check(
            DType::F64,
            &[1],
            InferTensorContents { fp64_contents: vec![-0.5], ..none() },
            Ok(&(-0.5f64).to_le_bytes()),
        );
        let elements = vec![Bytes::from_static(b"ab"), Bytes::new()];
        check(
            DType::Bytes,
            &[2],
            InferTensorContents { bytes_contents: elements, ..none() },
            Ok(b"\x02\0\0\0ab\0\0\0\0"),
        );
        check(DType::F16, &[0], none(), Ok(&[]));
        check(DType::F32, &[2, 0], none(), Ok(&[]));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        check(DType::I8, &[2], ints(&[0, 128]), Err("value 128 at position 1 does not fit INT8"));
        check(DType::U8, &[1], uints(&[256]), Err("value 256 at position 0 does not fit UINT8"));
        let short = "shape [3] of INT32 needs 3 elements in int_contents, got 2, and 0 in other fields";
        check(DType::I32, &[3], ints(&[1, 2]), Err(short));
        let elsewhere = "shape [1] of FP32 needs 1 elements in fp32_contents, got 0, and 1 in other fields";
        check(DType::F32, &[1], ints(&[1]), Err(elsewhere));
        let raw_only = "datatype FP16 has no field in contents, use raw_input_contents";
        check(DType::F16, &[1], InferTensorContents { fp32_contents: vec![1.0], ..Default::default() }, Err(raw_only));
        assert!(tensor(DType::Bool, Shape::new(&[usize::MAX, 2]), &InferTensorContents::default()).is_err());
    }
}
