//! TensorFlow's tensors to ours and back. They come as bytes or as a list of their datatype's, which may be shorter than
//! the shape and then goes on with its last value; they leave as lists, as TensorFlow Serving sends them.

use bytes::Bytes;
use prost::encoding::decode_varint;

use crate::error::ErrorCode;
use crate::frontend::grpc::contents::narrowed;
use crate::frontend::grpc::convert::{at_most, extents};
use crate::frontend::{LimitsConfig, Refusal};
use crate::proto::tensorflow::tensor_shape_proto::Dim;
use crate::proto::tensorflow::{DataType, TensorProto, TensorShapeProto};
use crate::tensor::{DType, Shape, Tensor, TensorError};
use crate::units::ByteSize;

/// What the tensors of one request may still take in memory: a single value may stand for any number of them.
#[derive(Debug)]
pub(super) struct Room {
    rank_max: usize,
    bytes_max: ByteSize,
    left: u64,
}

impl Room {
    pub(super) fn new(limits: &LimitsConfig) -> Self {
        let bytes_max = limits.body_bytes_max;
        Self { rank_max: limits.rank_max, bytes_max, left: bytes_max.0 }
    }

    /// # Errors
    /// When there is less left than `elements` of `size` bytes take.
    pub(super) fn take(&mut self, shape: &Shape, elements: usize, size: usize) -> Result<(), Refusal> {
        let bytes = (elements as u64).checked_mul(size as u64);
        self.left = bytes.and_then(|bytes| self.left.checked_sub(bytes)).ok_or_else(|| {
            let message = format!("shape {shape} takes more than what is left of the {} allowed", self.bytes_max);
            Refusal::new(ErrorCode::PayloadTooLarge, message)
        })?;
        Ok(())
    }
}

/// # Errors
/// When datatype or shape are none that are served, or the values are not as many as the shape has elements.
pub(super) fn tensor(proto: TensorProto, room: &mut Room) -> Result<Tensor, Refusal> {
    let dtype = dtype(proto.dtype)?;
    let shape = shape(proto.tensor_shape.as_ref(), room.rank_max)?;
    let elements = shape.element_count().ok_or_else(|| TensorError::ShapeOverflow(shape.clone()))?;
    match (dtype.size(), proto.tensor_content.is_empty()) {
        (Some(_), false) => Ok(Tensor::new(dtype, shape, proto.tensor_content)?),
        (None, false) => strings(&proto.tensor_content, shape, elements, room),
        (Some(size), true) => {
            room.take(&shape, elements, size)?;
            let (field, bytes) = listed(dtype, &proto)?;
            let bytes = filled(bytes, size, elements).map_err(|got| too_many(&shape, elements, field, got))?;
            Ok(Tensor::new(dtype, shape, bytes.into())?)
        }
        (None, true) => listed_strings(&proto.string_val, shape, elements, room),
    }
}

/// The numbers of a datatype's list, and the list's name.
fn listed(dtype: DType, proto: &TensorProto) -> Result<(&'static str, Vec<u8>), Refusal> {
    Ok(match dtype {
        DType::F32 => ("float_val", narrowed(dtype, &proto.float_val, f32::to_le_bytes)?),
        DType::F64 => ("double_val", narrowed(dtype, &proto.double_val, f64::to_le_bytes)?),
        DType::I8 => ("int_val", narrowed(dtype, &proto.int_val, i8::to_le_bytes)?),
        DType::I16 => ("int_val", narrowed(dtype, &proto.int_val, i16::to_le_bytes)?),
        DType::I32 => ("int_val", narrowed(dtype, &proto.int_val, i32::to_le_bytes)?),
        DType::U8 => ("int_val", narrowed(dtype, &proto.int_val, u8::to_le_bytes)?),
        DType::U16 => ("int_val", narrowed(dtype, &proto.int_val, u16::to_le_bytes)?),
        DType::I64 => ("int64_val", narrowed(dtype, &proto.int64_val, i64::to_le_bytes)?),
        DType::U32 => ("uint32_val", narrowed(dtype, &proto.uint32_val, u32::to_le_bytes)?),
        DType::U64 => ("uint64_val", narrowed(dtype, &proto.uint64_val, u64::to_le_bytes)?),
        DType::Bool => ("bool_val", proto.bool_val.iter().map(|value| u8::from(*value)).collect()),
        // Their bits, as a whole number.
        DType::F16 | DType::Bf16 => ("half_val", narrowed(dtype, &proto.half_val, u16::to_le_bytes)?),
        DType::Bytes => unreachable!("strings have a size each"),
    })
}

/// As many elements as the shape has, the last one again and again; without any, zeros. Or how many are too many.
fn filled(mut bytes: Vec<u8>, size: usize, elements: usize) -> Result<Vec<u8>, usize> {
    let got = bytes.len() / size;
    let missing = elements.checked_sub(got).ok_or(got)?;
    if missing > 0 {
        let last = if got == 0 { vec![0; size] } else { bytes[bytes.len() - size..].to_vec() };
        bytes.reserve_exact(missing * size);
        bytes.extend(last.iter().cycle().take(missing * size));
    }
    Ok(bytes)
}

fn listed_strings(list: &[Bytes], shape: Shape, elements: usize, room: &mut Room) -> Result<Tensor, Refusal> {
    let missing =
        elements.checked_sub(list.len()).ok_or_else(|| too_many(&shape, elements, "string_val", list.len()))?;
    let last = list.last().cloned().unwrap_or_default();
    let given: usize = list.iter().map(|element| element.len() + LENGTH_BYTES).sum();
    room.take(&shape, given, 1)?;
    room.take(&shape, missing, last.len() + LENGTH_BYTES)?;
    let all = list.iter().chain(std::iter::repeat_n(&last, missing));
    Ok(Tensor::from_elements(shape, all.map(|element| &element[..]))?)
}

/// Strings as bytes: all lengths as varints, then all strings.
fn strings(content: &Bytes, shape: Shape, elements: usize, room: &mut Room) -> Result<Tensor, Refusal> {
    let cut = || Refusal::invalid(format!("tensor_content does not hold the {elements} strings of shape {shape}"));
    let (mut lengths, mut words) = (&content[..], &content[..]);
    let mut total = 0usize;
    for _ in 0..elements {
        let length = decode_varint(&mut words).ok().and_then(|length| usize::try_from(length).ok());
        total = length.and_then(|length| total.checked_add(length)).ok_or_else(cut)?;
    }
    if total != words.len() {
        return Err(cut());
    }
    room.take(&shape, elements, LENGTH_BYTES)?;
    room.take(&shape, total, 1)?;
    let word = |_| {
        let length = decode_varint(&mut lengths).ok().and_then(|length| usize::try_from(length).ok());
        words.split_off(..length.unwrap_or_default()).unwrap_or_default()
    };
    Ok(Tensor::from_elements(shape, (0..elements).map(word))?)
}

fn too_many(shape: &Shape, elements: usize, field: &str, got: usize) -> Refusal {
    Refusal::invalid(format!("shape {shape} has {elements} elements, expected at most as many in {field}, got {got}"))
}

fn dtype(number: i32) -> Result<DType, Refusal> {
    let named = DataType::try_from(number);
    let known = named.ok().and_then(|kind| DTYPES.iter().find(|(_, of)| *of == kind));
    known.map(|(dtype, _)| *dtype).ok_or_else(|| {
        let got = named.map_or_else(|_| number.to_string(), |kind| kind.as_str_name().to_owned());
        let expected: Vec<&str> = DTYPES.iter().map(|(_, kind)| kind.as_str_name()).collect();
        Refusal::invalid(format!("unknown dtype {got}, expected one of {}", expected.join(", ")))
    })
}

pub(super) fn data_type(dtype: DType) -> DataType {
    DTYPES.iter().find(|(of, _)| *of == dtype).map_or(DataType::DtInvalid, |(_, kind)| *kind)
}

fn shape(proto: Option<&TensorShapeProto>, rank_max: usize) -> Result<Shape, Refusal> {
    let Some(proto) = proto else { return Ok(Shape::default()) };
    if proto.unknown_rank {
        return Err(Refusal::invalid("expected a tensor_shape with its axes, got one of unknown rank"));
    }
    at_most("axes", proto.dim.len(), rank_max)?;
    let dims: Vec<i64> = proto.dim.iter().map(|dim| dim.size).collect();
    extents(&dims, rank_max)
}

pub(super) fn shape_proto(dims: impl Iterator<Item = i64>) -> TensorShapeProto {
    let dim = dims.map(|size| Dim { size, name: String::new() }).collect();
    TensorShapeProto { dim, unknown_rank: false }
}

pub(super) fn proto(tensor: &Tensor) -> TensorProto {
    let bytes = tensor.bytes();
    let dims = tensor.shape().iter().map(|extent| i64::try_from(*extent).unwrap_or(i64::MAX));
    let mut proto = TensorProto {
        dtype: data_type(tensor.dtype()).into(),
        tensor_shape: Some(shape_proto(dims)),
        ..TensorProto::default()
    };
    match tensor.dtype() {
        DType::F32 => proto.float_val = values(bytes, f32::from_le_bytes),
        DType::F64 => proto.double_val = values(bytes, f64::from_le_bytes),
        DType::I8 => proto.int_val = values(bytes, |b| i8::from_le_bytes(b).into()),
        DType::I16 => proto.int_val = values(bytes, |b| i16::from_le_bytes(b).into()),
        DType::I32 => proto.int_val = values(bytes, i32::from_le_bytes),
        DType::U8 => proto.int_val = values(bytes, |b| u8::from_le_bytes(b).into()),
        DType::U16 => proto.int_val = values(bytes, |b| u16::from_le_bytes(b).into()),
        DType::I64 => proto.int64_val = values(bytes, i64::from_le_bytes),
        DType::U32 => proto.uint32_val = values(bytes, u32::from_le_bytes),
        DType::U64 => proto.uint64_val = values(bytes, u64::from_le_bytes),
        DType::Bool => proto.bool_val = values(bytes, |[byte]| byte != 0),
        DType::F16 | DType::Bf16 => proto.half_val = values(bytes, |b| u16::from_le_bytes(b).into()),
        // Slices of the tensor.
        DType::Bytes => proto.string_val = tensor.elements().map(|element| bytes.slice_ref(element)).collect(),
    }
    proto
}

fn values<T, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|chunk| value(*chunk)).collect()
}

const DTYPES: [(DType, DataType); 14] = [
    (DType::Bool, DataType::DtBool),
    (DType::U8, DataType::DtUint8),
    (DType::U16, DataType::DtUint16),
    (DType::U32, DataType::DtUint32),
    (DType::U64, DataType::DtUint64),
    (DType::I8, DataType::DtInt8),
    (DType::I16, DataType::DtInt16),
    (DType::I32, DataType::DtInt32),
    (DType::I64, DataType::DtInt64),
    (DType::F16, DataType::DtHalf),
    (DType::Bf16, DataType::DtBfloat16),
    (DType::F32, DataType::DtFloat),
    (DType::F64, DataType::DtDouble),
    (DType::Bytes, DataType::DtString),
];
/// Of the length that stands before each string in memory.
pub(super) const LENGTH_BYTES: usize = 4;

#[cfg(test)]
mod tests;
