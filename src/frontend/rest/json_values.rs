//! The `data` array of a tensor in JSON: flat or nested, straight into little-endian bytes.
//!
//! One pass over the text, no tree of values. Limits are checked while reading, before memory is taken.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use crate::tensor::DType;

/// Reads one `data` value into bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values {
    pub dtype: DType,
    /// Elements the shape asks for; one more is an error at once.
    pub expected: usize,
    /// Bytes of JSON text that are left at most: no array can have more elements than half of them.
    pub text_length: usize,
    /// Levels of nesting that are left.
    pub depth: usize,
}

/// The elements read so far.
struct Sink {
    dtype: DType,
    expected: usize,
    count: usize,
    bytes: Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Values {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        if matches!(self.dtype, DType::F16 | DType::Bf16) {
            let why = format!("{} in JSON is not defined, send it as binary_data", self.dtype);
            return Err(D::Error::custom(why));
        }
        let elements = self.expected.min(self.text_length / 2 + 1);
        let bytes = Vec::with_capacity(elements.saturating_mul(self.dtype.size().unwrap_or(0)));
        let mut sink = Sink { dtype: self.dtype, expected: self.expected, count: 0, bytes };
        deserializer.deserialize_seq(Level { sink: &mut sink, depth: self.depth })?;
        if sink.count != self.expected {
            let why = format!("data has {} elements, the shape needs {}", sink.count, self.expected);
            return Err(D::Error::custom(why));
        }
        Ok(sink.bytes)
    }
}

/// One level of nesting: an element or an array of them.
struct Level<'a> {
    sink: &'a mut Sink,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.sink.dtype {
            DType::Bool => "booleans",
            DType::Bytes => "strings",
            _ => "numbers",
        };
        write!(f, "an array of {kind} for {}", self.sink.dtype)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Some(depth) = self.depth.checked_sub(1) else {
            return Err(A::Error::custom("data is nested deeper than the limit"));
        };
        while elements.next_element_seed(Level { sink: self.sink, depth })?.is_some() {}
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.sink.float(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        #[expect(clippy::cast_precision_loss, reason = "a float tensor takes the nearest float")]
        match self.sink.dtype {
            DType::F32 => self.sink.push((value as f32).to_le_bytes()),
            DType::F64 => self.sink.push((value as f64).to_le_bytes()),
            DType::Bool if value > 1 => Err(self.sink.wrong(value)),
            _ => self.sink.whole(value, value),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        #[expect(clippy::cast_precision_loss, reason = "a float tensor takes the nearest float")]
        match self.sink.dtype {
            DType::F32 => self.sink.push((value as f32).to_le_bytes()),
            DType::F64 => self.sink.push((value as f64).to_le_bytes()),
            DType::Bool => Err(self.sink.wrong(value)),
            _ => self.sink.whole(value, value),
        }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.sink.dtype {
            DType::Bool => self.sink.push([u8::from(value)]),
            _ => Err(self.sink.wrong(value)),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.sink.text(value)
    }
}

impl Sink {
    fn float<E: Error>(&mut self, value: f64) -> Result<(), E> {
        match self.dtype {
            // The nearest float; values beyond its range become infinite, as in any conversion.
            #[expect(clippy::cast_possible_truncation, reason = "the conversion asked for")]
            DType::F32 => self.push((value as f32).to_le_bytes()),
            DType::F64 => self.push(value.to_le_bytes()),
            DType::Bool | DType::Bytes => Err(self.wrong(value)),
            // 3.0 is how some clients write the whole number 3.
            #[expect(clippy::cast_possible_truncation, reason = "the value has no fraction and is in range")]
            _ if value.fract() == 0.0 && value.abs() < EXACT_MAX => self.whole(value as i64, value),
            _ => Err(self.wrong(value)),
        }
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

    fn text<E: Error>(&mut self, value: &str) -> Result<(), E> {
        match (self.dtype, value) {
            (DType::Bytes, text) => {
                let length = u32::try_from(text.len()).map_err(|_| E::custom("a string is longer than 4 GiB"))?;
                self.bytes.extend_from_slice(&length.to_le_bytes());
                self.push_bytes(text.as_bytes())
            }
            // JSON has no such numbers; `nonfinite` turns the tokens that Python writes into these strings.
            (DType::F32 | DType::F64, "NaN") => self.float(f64::NAN),
            (DType::F32 | DType::F64, "Infinity") => self.float(f64::INFINITY),
            (DType::F32 | DType::F64, "-Infinity") => self.float(f64::NEG_INFINITY),
            _ => Err(self.wrong("a string")),
        }
    }

    fn push<E: Error, const N: usize>(&mut self, bytes: [u8; N]) -> Result<(), E> {
        self.push_bytes(&bytes)
    }

    fn push_bytes<E: Error>(&mut self, bytes: &[u8]) -> Result<(), E> {
        if self.count == self.expected {
            return Err(E::custom(format!("data has more than the {} elements of the shape", self.expected)));
        }
        self.count += 1;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn wrong<E: Error>(&self, got: impl fmt::Display) -> E {
        E::custom(format!("{} cannot hold {got}", self.dtype))
    }
}

/// Whole numbers below this are exact in a 64-bit float.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dtype: DType, expected: usize, json: &str) -> Result<Vec<u8>, String> {
        let values = Values { dtype, expected, text_length: json.len(), depth: 8 };
        values.deserialize(&mut serde_json::Deserializer::from_str(json)).map_err(|e| e.to_string())
    }

    fn check(dtype: DType, expected: usize, json: &str, bytes: &[u8]) {
        assert_eq!(read(dtype, expected, json).as_deref(), Ok(bytes), "{json}");
    }

    fn refuse(dtype: DType, expected: usize, json: &str, word: &str) {
        let error = read(dtype, expected, json).unwrap_err();
        assert!(error.contains(word), "{json}: {error}");
    }

    #[test]
    fn flat_and_nested_are_the_same() {
        let bytes: Vec<u8> = [1.0f32, 2.5, -3.0, 4e10].iter().flat_map(|v| v.to_le_bytes()).collect();
        for json in ["[1,2.5,-3,4e10]", "[[1.0,2.5],[-3,4e10]]", "[[[1],[2.5]],[[-3.0],[4e10]]]"] {
            check(DType::F32, 4, json, &bytes);
        }
        check(DType::Bytes, 2, r#"[["a"],["bc"]]"#, b"\x01\0\0\0a\x02\0\0\0bc");
        check(DType::Bool, 3, "[true,0,[1]]", &[1, 0, 1]);
        check(DType::I64, 1, "[-9223372036854775808]", &i64::MIN.to_le_bytes());
        check(DType::U64, 1, "[18446744073709551615]", &u64::MAX.to_le_bytes());
        check(DType::U8, 2, "[255, 3.0]", &[255, 3]);
        check(DType::F32, 0, "[]", &[]);
    }

    #[test]
    fn wrong_values_are_named() {
        refuse(DType::U8, 1, "[256]", "UINT8 cannot hold 256");
        refuse(DType::I8, 1, "[-129]", "INT8 cannot hold -129");
        refuse(DType::I32, 1, "[1.5]", "INT32 cannot hold 1.5");
        refuse(DType::Bool, 1, "[2]", "BOOL cannot hold 2");
        refuse(DType::F32, 1, "[\"x\"]", "FP32 cannot hold a string");
        refuse(DType::Bytes, 1, "[1]", "BYTES cannot hold 1");
        refuse(DType::F16, 1, "[1]", "send it as binary_data");
        refuse(DType::F32, 1, "[null]", "null");
        refuse(DType::F32, 1, "[{}]", "an array of numbers for FP32");
        refuse(DType::F32, 1, "3", "an array of numbers");
        refuse(DType::F32, 2, "[1]", "data has 1 elements, the shape needs 2");
        refuse(DType::F32, 1, "[1,2]", "more than the 1 elements");
        refuse(DType::F32, 1, "[[[[[[[[[1]]]]]]]]]", "nested deeper");
    }

    #[test]
    fn a_huge_shape_takes_no_memory() {
        refuse(DType::F64, usize::MAX / 8, "[1]", "the shape needs");
    }
}
