//! The classification extension: the highest values of an output as `"<value>:<index>[:<label>]"`.

use std::cmp::Ordering;

use half::{bf16, f16};

use super::Refusal;
use crate::repository::Variant;
use crate::tensor::{DType, Shape, Tensor, by_number, highest};

/// The classes of a variant's output, with its labels.
///
/// # Errors
/// As `classify`.
pub(super) fn of_output(name: &str, output: &Tensor, classes: usize, variant: &Variant) -> Result<Tensor, Refusal> {
    let labels = variant.settings.labels.get(name).map_or(&[][..], |labels| &labels.names);
    classify(output, classes, variant.signature.is_batched(), labels)
}

/// What makes it slow: the bytes that are looked at, and those that are printed.
pub(super) fn bytes_to_code(output: &Tensor, classes: usize, batched: bool) -> usize {
    let rows = if batched { output.shape().rows() } else { 1 };
    let row_length = output.element_count().checked_div(rows).unwrap_or(0);
    output.bytes().len() + rows * classes.min(row_length) * CLASS_LENGTH
}

/// The `classes` highest values of each row, in the output's own datatype, as a `BYTES` tensor: `[classes]`, or
/// `[rows, classes]` where axis 0 is the batch.
///
/// # Errors
/// When the output has no order (`BYTES`, `BOOL`).
pub fn classify(output: &Tensor, classes: usize, batched: bool, labels: &[String]) -> Result<Tensor, Refusal> {
    let rows = if batched { output.shape().rows() } else { 1 };
    let row_length = output.element_count().checked_div(rows).unwrap_or(0);
    let classes = classes.min(row_length);
    let mut lines: Vec<String> = Vec::with_capacity(rows * classes);
    for row in 0..rows {
        let values = values(output, row * row_length, row_length)?;
        lines.extend(top(&values, classes, labels));
    }
    let shape = if batched { Shape::new(&[rows, classes]) } else { Shape::new(&[classes]) };
    Ok(Tensor::from_elements(shape, lines.iter().map(String::as_bytes))?)
}

/// A value with its order in its own datatype.
#[derive(Clone, Copy)]
enum Number {
    Float(f64),
    Int(i64),
    Uint(u64),
}

fn top(values: &[Number], classes: usize, labels: &[String]) -> Vec<String> {
    let shown = |index: usize| {
        let label = labels.get(index).map(|label| format!(":{label}")).unwrap_or_default();
        format!("{}:{index}{label}", values[index].shown())
    };
    highest(values, classes, Number::order).into_iter().map(shown).collect()
}

fn values(output: &Tensor, start: usize, count: usize) -> Result<Vec<Number>, Refusal> {
    let size = output.dtype().size().unwrap_or(1);
    let bytes = &output.bytes()[start * size..(start + count) * size];
    let read: fn(&[u8]) -> Number = match output.dtype() {
        DType::F32 => |b| Number::Float(f64::from(f32::from_le_bytes(fixed(b)))),
        DType::F64 => |b| Number::Float(f64::from_le_bytes(fixed(b))),
        DType::F16 => |b| Number::Float(f64::from(f16::from_le_bytes(fixed(b)))),
        DType::Bf16 => |b| Number::Float(f64::from(bf16::from_le_bytes(fixed(b)))),
        DType::I8 => |b| Number::Int(i64::from(i8::from_le_bytes(fixed(b)))),
        DType::I16 => |b| Number::Int(i64::from(i16::from_le_bytes(fixed(b)))),
        DType::I32 => |b| Number::Int(i64::from(i32::from_le_bytes(fixed(b)))),
        DType::I64 => |b| Number::Int(i64::from_le_bytes(fixed(b))),
        DType::U8 => |b| Number::Uint(u64::from(u8::from_le_bytes(fixed(b)))),
        DType::U16 => |b| Number::Uint(u64::from(u16::from_le_bytes(fixed(b)))),
        DType::U32 => |b| Number::Uint(u64::from(u32::from_le_bytes(fixed(b)))),
        DType::U64 => |b| Number::Uint(u64::from_le_bytes(fixed(b))),
        DType::Bool | DType::Bytes => {
            return Err(Refusal::invalid(format!("classification expects numbers, the output has {}", output.dtype())));
        }
    };
    Ok(bytes.chunks_exact(size).map(read).collect())
}

fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("chunks have the datatype's size")
}

impl Number {
    fn order(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => by_number(a, b),
            (Self::Int(a), Self::Int(b)) => a.cmp(&b),
            (Self::Uint(a), Self::Uint(b)) => a.cmp(&b),
            _ => unreachable!("one tensor has one datatype"),
        }
    }

    /// As C's `%f` and `%d`, which clients parse.
    fn shown(self) -> String {
        match self {
            Self::Float(value) => format!("{value:.6}"),
            Self::Int(value) => value.to_string(),
            Self::Uint(value) => value.to_string(),
        }
    }
}

/// A value, an index and a short label.
const CLASS_LENGTH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(shape: &[usize], values: &[f32]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Tensor::new(DType::F32, Shape::new(shape), bytes.into()).unwrap()
    }

    fn check(output: &Tensor, classes: usize, batched: bool, labels: &[&str], shape: &[usize], lines: &[&str]) {
        let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
        let tensor = classify(output, classes, batched, &labels).unwrap();
        assert_eq!(&tensor.shape()[..], shape);
        let got: Vec<_> = tensor.elements().map(|e| String::from_utf8(e.to_vec()).unwrap()).collect();
        assert_eq!(got, lines);
    }

    #[test]
    fn highest_first_with_labels() {
        let output = floats(&[2, 3], &[0.5, 2.0, 1.0, -1.0, -2.0, -1.0]);
        check(&output, 2, true, &["a", "b"], &[2, 2], &["2.000000:1:b", "1.000000:2", "-1.000000:0:a", "-1.000000:2"]);
        check(&output, 1, false, &[], &[1], &["2.000000:1"]);
        check(
            &output,
            99,
            true,
            &[],
            &[2, 3],
            &["2.000000:1", "1.000000:2", "0.500000:0", "-1.000000:0", "-1.000000:2", "-2.000000:1"],
        );
        check(&floats(&[0, 3], &[]), 2, true, &[], &[0, 0], &[]);
        check(&floats(&[2], &[f32::NAN, -1.0]), 2, false, &[], &[2], &["-1.000000:1", "NaN:0"]);
    }

    #[test]
    fn what_is_looked_at_and_printed_counts() {
        let output = floats(&[2, 100], &[0.5; 200]);
        assert_eq!(bytes_to_code(&output, 5, true), 800 + 10 * CLASS_LENGTH);
        assert_eq!(bytes_to_code(&output, 1000, false), 800 + 200 * CLASS_LENGTH);
        assert_eq!(bytes_to_code(&floats(&[0, 3], &[]), 2, true), 0);
    }

    #[test]
    fn whole_numbers_keep_their_precision() {
        let bytes: Vec<u8> = [u64::MAX, u64::MAX - 1].iter().flat_map(|v| v.to_le_bytes()).collect();
        let output = Tensor::new(DType::U64, Shape::new(&[2]), bytes.into()).unwrap();
        check(&output, 1, false, &[], &[1], &["18446744073709551615:0"]);
        let text = Tensor::from_elements(Shape::new(&[1]), [&b"x"[..]]).unwrap();
        assert!(classify(&text, 1, false, &[]).is_err());
    }
}
