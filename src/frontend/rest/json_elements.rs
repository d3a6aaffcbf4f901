//! Values of JSON as elements of a tensor: each into the bytes of its datatype, or refused.
//!
//! What holds the values together, a shape that is given or one that nesting gives, is the matter of `json_values` and
//! `json_nested`.

use std::fmt;

use half::{bf16, f16};
use serde::de::Error;

use crate::tensor::DType;

/// The elements read so far.
#[derive(Debug)]
pub(super) struct Elements {
    pub dtype: DType,
    /// One more is an error at once.
    pub count_max: usize,
    pub count: usize,
    pub bytes: Vec<u8>,
}

impl Elements {
    pub(super) fn new(dtype: DType, count_max: usize, bytes: Vec<u8>) -> Self {
        Self { dtype, count_max, count: 0, bytes }
    }

    pub(super) fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.dtype {
            DType::Bool => "booleans",
            DType::Bytes => "strings",
            _ => "numbers",
        };
        write!(f, "an array of {kind} for {}", self.dtype)
    }

    pub(super) fn unsigned<E: Error>(&mut self, value: u64) -> Result<(), E> {
        #[expect(clippy::cast_precision_loss, reason = "a float tensor takes the nearest float")]
        match self.dtype {
            DType::F32 => self.push((value as f32).to_le_bytes()),
            DType::F64 => self.push((value as f64).to_le_bytes()),
            DType::F16 | DType::Bf16 => self.float(value as f64),
            DType::Bool if value > 1 => Err(self.wrong(value)),
            _ => self.whole(value, value),
        }
    }

    pub(super) fn signed<E: Error>(&mut self, value: i64) -> Result<(), E> {
        #[expect(clippy::cast_precision_loss, reason = "a float tensor takes the nearest float")]
        match self.dtype {
            DType::F32 => self.push((value as f32).to_le_bytes()),
            DType::F64 => self.push((value as f64).to_le_bytes()),
            DType::F16 | DType::Bf16 => self.float(value as f64),
            DType::Bool => Err(self.wrong(value)),
            _ => self.whole(value, value),
        }
    }

    pub(super) fn flag<E: Error>(&mut self, value: bool) -> Result<(), E> {
        match self.dtype {
            DType::Bool => self.push([u8::from(value)]),
            _ => Err(self.wrong(value)),
        }
    }

    pub(super) fn float<E: Error>(&mut self, value: f64) -> Result<(), E> {
        match self.dtype {
            #[expect(clippy::cast_possible_truncation, reason = "the nearest float; beyond the range is refused")]
            DType::F32 => self.nearest(value, (value as f32).is_infinite(), (value as f32).to_le_bytes()),
            DType::F64 => self.push(value.to_le_bytes()),
            DType::F16 => self.nearest(value, f16::from_f64(value).is_infinite(), f16::from_f64(value).to_le_bytes()),
            DType::Bf16 => {
                self.nearest(value, bf16::from_f64(value).is_infinite(), bf16::from_f64(value).to_le_bytes())
            }
            DType::Bool | DType::Bytes => Err(self.wrong(value)),
            // 3.0 is how some clients write the whole number 3.
            #[expect(clippy::cast_possible_truncation, reason = "the value has no fraction and is in range")]
            _ if value.fract() == 0.0 && value.abs() < EXACT_MAX => self.whole(value as i64, value),
            _ => Err(self.wrong(value)),
        }
    }

    /// The float nearest to a value, unless only infinity is.
    fn nearest<E: Error, const N: usize>(&mut self, value: f64, is_infinite: bool, bytes: [u8; N]) -> Result<(), E> {
        if is_infinite && value.is_finite() {
            return Err(self.wrong(format_args!("{value:e}, it is out of range")));
        }
        self.push(bytes)
    }

    /// A whole number for an integer or boolean tensor, when it fits.
    fn whole<T, E>(&mut self, value: T, shown: impl fmt::Display) -> Result<(), E>
    where
        T: Copy,
        E: Error,
        u8: TryFrom<T>,
        u16: TryFrom<T>,
        u32: TryFrom<T>,
        u64: TryFrom<T>,
        i8: TryFrom<T>,
        i16: TryFrom<T>,
        i32: TryFrom<T>,
        i64: TryFrom<T>,
    {
        macro_rules! push {
            ($kind:ty) => {
                match <$kind>::try_from(value) {
                    Ok(value) => self.push(value.to_le_bytes()),
                    Err(_) => Err(self.wrong(shown)),
                }
            };
        }
        match self.dtype {
            DType::U8 | DType::Bool => push!(u8),
            DType::U16 => push!(u16),
            DType::U32 => push!(u32),
            DType::U64 => push!(u64),
            DType::I8 => push!(i8),
            DType::I16 => push!(i16),
            DType::I32 => push!(i32),
            DType::I64 => push!(i64),
            DType::F16 | DType::Bf16 | DType::F32 | DType::F64 | DType::Bytes => Err(self.wrong(shown)),
        }
    }

    pub(super) fn text<E: Error>(&mut self, value: &str) -> Result<(), E> {
        match (self.dtype, value) {
            (DType::Bytes, text) => self.octets(text.as_bytes()),
            // JSON has no such numbers; `nonfinite` turns the tokens that Python writes into these strings.
            (DType::F16 | DType::Bf16 | DType::F32 | DType::F64, "NaN") => self.float(f64::NAN),
            (DType::F16 | DType::Bf16 | DType::F32 | DType::F64, "Infinity") => self.float(f64::INFINITY),
            (DType::F16 | DType::Bf16 | DType::F32 | DType::F64, "-Infinity") => self.float(f64::NEG_INFINITY),
            _ => Err(self.wrong("a string")),
        }
    }

    /// One element of `BYTES`.
    pub(super) fn octets<E: Error>(&mut self, octets: &[u8]) -> Result<(), E> {
        let length = u32::try_from(octets.len()).map_err(|_| E::custom("a string is longer than 4 GiB"))?;
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.push_bytes(octets)
    }

    fn push<E: Error, const N: usize>(&mut self, bytes: [u8; N]) -> Result<(), E> {
        self.push_bytes(&bytes)
    }

    fn push_bytes<E: Error>(&mut self, bytes: &[u8]) -> Result<(), E> {
        if self.count == self.count_max {
            return Err(E::custom(format!("data has more than the {} elements of the shape", self.count_max)));
        }
        self.count += 1;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn wrong<E: Error>(&self, got: impl fmt::Display) -> E {
        E::custom(format!("{} cannot hold {got}", self.dtype))
    }
}

/// Whole numbers below this are exact in a 64-bit float.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
