//! Tensors as they travel through the rooms: a datatype, a shape and shared, contiguous little-endian bytes.
//!
//! Bytes may start at any alignment (they are slices of request bodies); engines copy them into memory of their own
//! layout when they gather a batch. Nothing here knows a wire format but one: `BYTES` elements are kept in the
//! protocol's form, a 32-bit little-endian length before each element, because both wires use it.

mod dtype;
mod highest;
mod shape;

use std::fmt;

use bytes::Bytes;

pub use dtype::{DType, UnknownDType};
pub use highest::{by_number, highest};
pub use shape::{PerAxis, Shape};

/// An owned or borrowed-by-reference-count tensor, row-major without padding.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Shape,
    bytes: Bytes,
}

/// A tensor with the name it has in a signature.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    pub name: String,
    pub tensor: Tensor,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    #[error("shape {0} has more elements than can be addressed")]
    ShapeOverflow(Shape),
    #[error("shape {shape} of {dtype} needs {expected} bytes, got {got}")]
    LengthMismatch { dtype: DType, shape: Shape, expected: usize, got: usize },
    #[error("shape {shape} needs {expected} elements, got {got}")]
    CountMismatch { shape: Shape, expected: usize, got: usize },
    #[error("BYTES element {index} is cut short: its length prefix says {expected} bytes, {left} are left")]
    ElementCutShort { index: usize, expected: usize, left: usize },
    #[error("BYTES element of {0} bytes is longer than its 32-bit length prefix can say")]
    ElementTooLong(usize),
}

impl Tensor {
    /// # Errors
    /// When the bytes are not exactly what datatype and shape ask for.
    pub fn new(dtype: DType, shape: Shape, bytes: Bytes) -> Result<Self, TensorError> {
        let count = shape.element_count().ok_or_else(|| TensorError::ShapeOverflow(shape.clone()))?;
        if let Some(size) = dtype.size() {
            let expected = count.checked_mul(size).ok_or_else(|| TensorError::ShapeOverflow(shape.clone()))?;
            if bytes.len() != expected {
                return Err(TensorError::LengthMismatch { dtype, shape, expected, got: bytes.len() });
            }
        } else {
            let got = count_elements(&bytes, count)?;
            if got != count {
                return Err(TensorError::CountMismatch { shape, expected: count, got });
            }
        }
        Ok(Self { dtype, shape, bytes })
    }

    /// A `BYTES` tensor from its elements.
    ///
    /// # Errors
    /// When the number of elements is not the shape's, or one is longer than 4 GiB.
    pub fn from_elements<'a>(shape: Shape, elements: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, TensorError> {
        let mut bytes = Vec::new();
        for element in elements {
            let length = u32::try_from(element.len()).map_err(|_| TensorError::ElementTooLong(element.len()))?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(element);
        }
        Self::new(DType::Bytes, shape, bytes.into())
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The elements, little-endian; `BYTES` elements behind their length prefixes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The number of elements; it was checked when the tensor was made.
    pub fn element_count(&self) -> usize {
        self.shape.element_count().expect("a tensor's element count was checked when it was made")
    }

    /// The same bytes under another shape of the same element count.
    ///
    /// # Errors
    /// When the counts differ.
    pub fn reshaped(self, shape: Shape) -> Result<Self, TensorError> {
        let expected = shape.element_count().ok_or_else(|| TensorError::ShapeOverflow(shape.clone()))?;
        let got = self.element_count();
        if got != expected {
            return Err(TensorError::CountMismatch { shape, expected, got });
        }
        Ok(Self { shape, ..self })
    }

    /// The elements of a `BYTES` tensor; nothing for other datatypes.
    pub fn elements(&self) -> Elements<'_> {
        let rest: &[u8] = if self.dtype == DType::Bytes { &self.bytes } else { &[] };
        Elements { rest }
    }

    /// Cuts the tensor along axis 0 into pieces of the given row counts, sharing the bytes.
    ///
    /// # Panics
    /// When the rows do not add up to the tensor's: an engine's outputs were checked before.
    pub fn split_rows(&self, rows: &[usize]) -> Vec<Self> {
        assert_eq!(rows.iter().sum::<usize>(), self.shape.rows(), "rows of a split add up to the tensor's rows");
        let row_elements: usize = self.shape.row_dims().iter().product();
        let mut at = 0;
        rows.iter()
            .map(|&count| {
                let length = self.piece_length(at, count * row_elements);
                let bytes = self.bytes.slice(at..at + length);
                at += length;
                Self { dtype: self.dtype, shape: self.shape.with_rows(count), bytes }
            })
            .collect()
    }

    /// The bytes that `elements` elements from byte `at` on take.
    fn piece_length(&self, at: usize, elements: usize) -> usize {
        if let Some(size) = self.dtype.size() {
            return elements * size;
        }
        let rest = Elements { rest: &self.bytes[at..] };
        rest.take(elements).map(|element| element.len() + PREFIX).sum()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} ({} bytes)", self.dtype, self.shape, self.bytes.len())
    }
}

/// Walks length-prefixed elements whose lengths were checked.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    /// Of a part of a tensor's bytes that begins and ends with elements.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (prefix, rest) = self.rest.split_first_chunk::<PREFIX>()?;
        let length = u32::from_le_bytes(*prefix) as usize;
        let (element, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(element)
    }
}

/// Counts length-prefixed elements, giving up one past `expected`: a hostile body is walked no further than needed.
fn count_elements(bytes: &[u8], expected: usize) -> Result<usize, TensorError> {
    let mut rest = bytes;
    let mut index = 0;
    while !rest.is_empty() && index <= expected {
        let cut = |expected| TensorError::ElementCutShort { index, expected, left: rest.len().saturating_sub(PREFIX) };
        let (prefix, after) = rest.split_first_chunk::<PREFIX>().ok_or_else(|| cut(PREFIX))?;
        let length = u32::from_le_bytes(*prefix) as usize;
        rest = after.get(length..).ok_or_else(|| cut(length))?;
        index += 1;
    }
    Ok(index)
}

/// Bytes of the length before each `BYTES` element.
const PREFIX: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn elements(list: &[&[u8]]) -> Tensor {
        Tensor::from_elements(Shape::new(&[list.len()]), list.iter().copied()).unwrap()
    }

    #[test]
    fn lengths_are_checked() {
        let bytes = Bytes::from_static(&[0; 12]);
        assert!(Tensor::new(DType::F32, Shape::new(&[3]), bytes.clone()).is_ok());
        assert!(Tensor::new(DType::F32, Shape::new(&[]), bytes.slice(..4)).is_ok());
        assert!(Tensor::new(DType::F32, Shape::new(&[0, 7]), Bytes::new()).is_ok());
        let mismatch = Tensor::new(DType::F32, Shape::new(&[2]), bytes.clone()).unwrap_err();
        assert_eq!(mismatch.to_string(), "shape [2] of FP32 needs 8 bytes, got 12");
        let overflow = Tensor::new(DType::F64, Shape::new(&[usize::MAX / 4]), bytes).unwrap_err();
        assert!(matches!(overflow, TensorError::ShapeOverflow(_)), "{overflow}");
    }

    #[test]
    fn byte_elements_are_checked() {
        let tensor = elements(&[b"ab", b"", b"xyz"]);
        assert_eq!(tensor.elements().collect::<Vec<_>>(), [&b"ab"[..], b"", b"xyz"]);
        let new = |shape: &[usize], bytes: &'static [u8]| {
            Tensor::new(DType::Bytes, Shape::new(shape), Bytes::from_static(bytes)).unwrap_err().to_string()
        };
        assert_eq!(
            new(&[1], b"\x05\0\0\0ab"),
            "BYTES element 0 is cut short: its length prefix says 5 bytes, 2 are left"
        );
        assert_eq!(new(&[1], b"\x05\0"), "BYTES element 0 is cut short: its length prefix says 4 bytes, 0 are left");
        assert_eq!(new(&[3], b"\0\0\0\0\0\0\0\0"), "shape [3] needs 3 elements, got 2");
        assert_eq!(new(&[1], b"\0\0\0\0\0\0\0\0"), "shape [1] needs 1 elements, got 2");
    }

    #[test]
    fn byte_rows_split_at_elements() {
        let tensor = elements(&[b"a", b"bcd", b"", b"ef"]).reshaped(Shape::new(&[2, 2])).unwrap();
        let rows = tensor.split_rows(&[1, 1]);
        assert_eq!(rows[1].elements().collect::<Vec<_>>(), [&b""[..], b"ef"]);
    }

    proptest! {
        #[test]
        fn splitting_loses_and_invents_nothing(rows in prop::collection::vec(0usize..5, 1..6), width in 0usize..4) {
            let total: usize = rows.iter().sum();
            let bytes: Bytes = (0..total * width).map(|i| u8::try_from(i).unwrap()).collect();
            let tensor = Tensor::new(DType::U8, Shape::new(&[total, width]), bytes.clone()).unwrap();
            let pieces = tensor.split_rows(&rows);
            prop_assert!(pieces.iter().zip(&rows).all(|(p, &r)| p.shape().rows() == r));
            let joined: Vec<u8> = pieces.iter().flat_map(|p| p.bytes().to_vec()).collect();
            prop_assert_eq!(joined, bytes.to_vec());
        }
    }
}
