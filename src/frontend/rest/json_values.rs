//! The `data` array of a tensor in JSON: flat or nested, straight into little-endian bytes.
//!
//! One pass over the text, no tree of values. Limits are checked while reading, before memory is taken.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use super::json_elements::Elements;
use crate::tensor::{DType, Shape};

/// Reads one `data` value into bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'s> {
    pub dtype: DType,
    pub shape: &'s Shape,
    /// Elements the shape asks for; one more is an error at once.
    pub expected: usize,
    /// Bytes of JSON text that are left at most: no array can have more elements than half of them.
    pub text_length: usize,
    /// Levels of nesting that are left.
    pub depth: usize,
}

/// The elements read so far, and the shape they are to fill.
struct Sink<'s> {
    elements: Elements,
    shape: &'s Shape,
}

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        let Self { dtype, shape, expected, text_length, depth } = self;
        if matches!(dtype, DType::F16 | DType::Bf16) {
            return Err(D::Error::custom(format!("{dtype} in JSON is not defined, send it as binary_data")));
        }
        let count = expected.min(text_length / 2 + 1);
        let bytes = Vec::with_capacity(count.saturating_mul(dtype.size().unwrap_or(0)));
        let mut sink = Sink { elements: Elements::new(dtype, expected, bytes), shape };
        deserializer.deserialize_seq(Whole { sink: &mut sink, depth })?;
        let Elements { count, bytes, .. } = sink.elements;
        if count != expected {
            return Err(D::Error::custom(format!("data has {count} elements, the shape needs {expected}")));
        }
        Ok(bytes)
    }
}

/// The array that is all of the data: flat, or nested as the shape is. Its first element decides.
struct Whole<'a, 's> {
    sink: &'a mut Sink<'s>,
    depth: usize,
}

/// The first element: a value, or an array.
struct First<'a, 's>(Row<'a, 's>);

enum Form {
    Flat,
    Nested,
}

/// An array behind the outermost one: the values or arrays along one axis.
struct Row<'a, 's> {
    sink: &'a mut Sink<'s>,
    axis: usize,
    depth: usize,
}

/// One value.
struct Element<'a, 's> {
    sink: &'a mut Sink<'s>,
}

macro_rules! seed {
    ($seed:ident, $value:ty) => {
        impl<'de> DeserializeSeed<'de> for $seed<'_, '_> {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<$value, D::Error> {
                deserializer.deserialize_any(self)
            }
        }
    };
}

seed!(First, Form);
seed!(Row, ());
seed!(Element, ());

impl<'de> Visitor<'de> for Whole<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sink.elements.expecting(f)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Self { sink, depth } = self;
        let depth = depth.checked_sub(1).ok_or_else(|| A::Error::custom(TOO_DEEP))?;
        match elements.next_element_seed(First(Row { sink, axis: 1, depth }))? {
            None => Ok(()),
            Some(Form::Flat) => {
                while elements.next_element_seed(Element { sink })?.is_some() {}
                Ok(())
            }
            Some(Form::Nested) => {
                let mut count = 1;
                while elements.next_element_seed(Row { sink, axis: 1, depth })?.is_some() {
                    count += 1;
                }
                sink.check(0, count)
            }
        }
    }
}

impl<'de> Visitor<'de> for First<'_, '_> {
    type Value = Form;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.sink.elements.expecting(f)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<Form, A::Error> {
        self.0.visit_seq(elements).map(|()| Form::Nested)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Form, E> {
        Element { sink: self.0.sink }.visit_f64(value).map(|()| Form::Flat)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Form, E> {
        Element { sink: self.0.sink }.visit_u64(value).map(|()| Form::Flat)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Form, E> {
        Element { sink: self.0.sink }.visit_i64(value).map(|()| Form::Flat)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Form, E> {
        Element { sink: self.0.sink }.visit_bool(value).map(|()| Form::Flat)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Form, E> {
        Element { sink: self.0.sink }.visit_str(value).map(|()| Form::Flat)
    }
}

impl<'de> Visitor<'de> for Row<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array for axis {} of the shape {}", self.axis, self.sink.shape)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Self { sink, axis, depth } = self;
        let depth = depth.checked_sub(1).ok_or_else(|| A::Error::custom(TOO_DEEP))?;
        if axis >= sink.shape.len() {
            return Err(A::Error::custom(format!("data is nested deeper than the shape {}", sink.shape)));
        }
        let mut count = 0;
        if axis + 1 == sink.shape.len() {
            while elements.next_element_seed(Element { sink })?.is_some() {
                count += 1;
            }
        } else {
            while elements.next_element_seed(Row { sink, axis: axis + 1, depth })?.is_some() {
                count += 1;
            }
        }
        sink.check(axis, count)
    }
}

impl<'de> Visitor<'de> for Element<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sink.elements.expecting(f)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        let shape = self.sink.shape;
        Err(A::Error::custom(format!("data has an array beside values, expected it flat or nested as {shape}")))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.sink.elements.float(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.sink.elements.unsigned(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.sink.elements.signed(value)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.sink.elements.flag(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.sink.elements.text(value)
    }
}

impl Sink<'_> {
    /// Nested data has along every axis what the shape says.
    fn check<E: Error>(&self, axis: usize, count: usize) -> Result<(), E> {
        let shape = self.shape;
        match shape.get(axis) {
            Some(&extent) if extent == count => Ok(()),
            _ => Err(E::custom(format!("data has {count} elements along axis {axis}, expected it nested as {shape}"))),
        }
    }
}

const TOO_DEEP: &str = "data is nested deeper than the limit";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dtype: DType, shape: &[usize], json: &str) -> Result<Vec<u8>, String> {
        let shape = Shape::new(shape);
        let expected = shape.element_count().unwrap();
        let values = Values { dtype, shape: &shape, expected, text_length: json.len(), depth: 8 };
        values.deserialize(&mut serde_json::Deserializer::from_str(json)).map_err(|e| e.to_string())
    }

    fn check(dtype: DType, shape: &[usize], json: &str, bytes: &[u8]) {
        assert_eq!(read(dtype, shape, json).as_deref(), Ok(bytes), "{json}");
    }

    fn refuse(dtype: DType, shape: &[usize], json: &str, word: &str) {
        let error = read(dtype, shape, json).unwrap_err();
        assert!(error.contains(word), "{json}: {error}");
    }

    #[test]
    fn flat_and_nested_are_the_same() {
        let bytes: Vec<u8> = [1.0f32, 2.5, -3.0, 4e10].iter().flat_map(|v| v.to_le_bytes()).collect();
        for (shape, json) in [
            (&[4][..], "[1,2.5,-3,4e10]"),
            (&[2, 2], "[1,2.5,-3,4e10]"),
            (&[2, 2], "[[1.0,2.5],[-3,4e10]]"),
            (&[2, 2, 1], "[[[1],[2.5]],[[-3.0],[4e10]]]"),
            (&[1, 4], "[[1,2.5,-3,4e10]]"),
        ] {
            check(DType::F32, shape, json, &bytes);
        }
        check(DType::Bytes, &[1, 2], r#"[["a","bc"]]"#, b"\x01\0\0\0a\x02\0\0\0bc");
        check(DType::Bool, &[3], "[true,0,1]", &[1, 0, 1]);
        check(DType::I64, &[1], "[-9223372036854775808]", &i64::MIN.to_le_bytes());
        check(DType::U64, &[1], "[18446744073709551615]", &u64::MAX.to_le_bytes());
        check(DType::U8, &[2], "[255, 3.0]", &[255, 3]);
        check(DType::U8, &[], "[7]", &[7]);
    }

    #[test]
    fn nothing_has_a_nested_form_too() {
        for (shape, json) in [(&[0][..], "[]"), (&[0, 3], "[]"), (&[2, 0], "[]"), (&[2, 0], "[[],[]]")] {
            check(DType::F32, shape, json, &[]);
        }
        refuse(DType::F32, &[0, 3], "[[]]", "0 elements along axis 1");
        refuse(DType::F32, &[2, 0], "[[]]", "1 elements along axis 0");
    }

    #[test]
    fn nested_data_has_the_form_of_its_shape() {
        let short = "data has 1 elements along axis 1, expected it nested as [2,2]";
        for (shape, json, says) in [
            (&[2, 2][..], "[[1],[2,3,4]]", short),
            (&[2, 2], "[[1,2,3],[4]]", "3 elements along axis 1"),
            (&[2, 2], "[[1,2]]", "1 elements along axis 0"),
            (&[2, 2], "[[1,2],[3,4],[]]", "0 elements along axis 1"),
            (&[2, 2], "[[1,2],3,4]", "expected an array for axis 1 of the shape [2,2]"),
            (&[2, 2], "[1,2,[3,4]]", "data has an array beside values, expected it flat or nested as [2,2]"),
            (&[2, 2], "[[1,[2]],[3,4]]", "an array beside values"),
            (&[2, 2], "[[[1,2],[3,4]]]", "an array beside values"),
            (&[2, 2], "[[1,2],[3,4],[5,6]]", "more than the 4 elements"),
            (&[1, 2, 2], "[[1,2,3,4]]", "expected an array for axis 2"),
            (&[4], "[[1,2,3,4]]", "nested deeper than the shape [4]"),
            (&[], "[[1]]", "nested deeper than the shape []"),
        ] {
            refuse(DType::F32, shape, json, says);
        }
    }

    #[test]
    fn floats_keep_their_range() {
        let largest = f64::from(f32::MAX);
        check(
            DType::F32,
            &[2],
            &format!("[{largest:e},-{largest:e}]"),
            &[f32::MAX, f32::MIN].map(f32::to_le_bytes).concat(),
        );
        check(DType::F32, &[1], "[1e-60]", &0f32.to_le_bytes());
        check(DType::F32, &[1], "[\"-Infinity\"]", &f32::NEG_INFINITY.to_le_bytes());
        check(DType::F64, &[1], "[1e39]", &1e39f64.to_le_bytes());
        refuse(DType::F32, &[1], "[1e39]", "FP32 cannot hold 1e39, it is out of range");
        refuse(DType::F32, &[1], "[-3.5e38]", "FP32 cannot hold -3.5e38");
        refuse(DType::F64, &[1], "[1e999]", "out of range");
    }

    #[test]
    fn wrong_values_are_named() {
        refuse(DType::U8, &[1], "[256]", "UINT8 cannot hold 256");
        refuse(DType::I8, &[1], "[-129]", "INT8 cannot hold -129");
        refuse(DType::I32, &[1], "[1.5]", "INT32 cannot hold 1.5");
        refuse(DType::Bool, &[1], "[2]", "BOOL cannot hold 2");
        refuse(DType::F32, &[1], "[\"x\"]", "FP32 cannot hold a string");
        refuse(DType::Bytes, &[1], "[1]", "BYTES cannot hold 1");
        refuse(DType::F16, &[1], "[1]", "send it as binary_data");
        refuse(DType::F32, &[1], "[null]", "null");
        refuse(DType::F32, &[1], "[{}]", "an array of numbers for FP32");
        refuse(DType::F32, &[1], "3", "an array of numbers");
        refuse(DType::F32, &[2], "[1]", "data has 1 elements, the shape needs 2");
        refuse(DType::F32, &[1], "[1,2]", "more than the 1 elements");
        refuse(DType::F32, &[1; 9], "[[[[[[[[[1]]]]]]]]]", "nested deeper than the limit");
        check(DType::F32, &[1; 8], "[[[[[[[[1]]]]]]]]", &1f32.to_le_bytes());
    }

    #[test]
    fn a_huge_shape_takes_no_memory() {
        refuse(DType::F64, &[usize::MAX / 8], "[1]", "the shape needs");
    }
}
