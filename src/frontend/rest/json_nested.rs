//! A tensor in JSON whose shape its nesting gives: values, arrays of them, and `{"b64": ...}` for bytes.
//!
//! The first way down to a value gives the rank, the first array along each axis its extent; all others must agree.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::json_elements::Elements;
use super::json_request::{Key, TOO_DEEP};
use crate::tensor::{DType, Shape};

/// A tensor as far as it has been read.
pub(super) struct Nested<'n> {
    name: &'n str,
    elements: Elements,
    /// By axis; one that is still open has none.
    extents: Vec<Option<usize>>,
    /// Axes of every value, once there is one.
    rank: Option<usize>,
    rank_max: usize,
}

/// One value or array of it, whose outermost level lies along `axis`.
pub(super) struct Part<'a, 'n> {
    pub(super) nested: &'a mut Nested<'n>,
    pub(super) axis: usize,
    /// Levels of nesting that are left.
    pub(super) depth: usize,
}

impl<'n> Nested<'n> {
    /// The tensor of an input, read as one value.
    pub(super) fn whole(name: &'n str, dtype: DType, rank_max: usize) -> Self {
        let elements = Elements::new(dtype, usize::MAX, Vec::new());
        Self { name, elements, extents: Vec::new(), rank: None, rank_max }
    }

    /// The same, read row by row: parts begin at axis 1.
    pub(super) fn by_rows(name: &'n str, dtype: DType, rank_max: usize) -> Self {
        Self { extents: vec![None], ..Self::whole(name, dtype, rank_max) }
    }

    /// Shape and bytes; `rows` is the extent of axis 0 where that was read row by row.
    pub(super) fn finish(self, rows: usize) -> (Shape, Vec<u8>) {
        let shape = self.extents.iter().map(|extent| extent.unwrap_or(rows)).collect();
        (shape, self.elements.bytes)
    }

    /// The rest of an object that begins with "b64".
    pub(super) fn base64<'de, A: MapAccess<'de>>(&mut self, axis: usize, mut map: A) -> Result<(), A::Error> {
        if self.elements.dtype != DType::Bytes {
            return Err(self.elements.wrong("an object"));
        }
        let text = map.next_value::<Key<'_>>()?;
        let wrong = |error| A::Error::custom(format!("input {:?}: \"b64\" expects base64: {error}", self.name));
        let octets = STANDARD.decode(text.as_str()).map_err(wrong)?;
        if map.next_key::<IgnoredAny>()?.is_some() {
            return Err(A::Error::custom(format!("input {:?} expects \"b64\" alone in its object", self.name)));
        }
        self.leaf(axis)?.octets(&octets)
    }

    /// Where a value goes that stands in `axis` arrays.
    fn leaf<E: Error>(&mut self, axis: usize) -> Result<&mut Elements, E> {
        if *self.rank.get_or_insert(axis) != axis || self.extents.len() > axis {
            return Err(E::custom(format!("input {:?} has a value beside arrays along axis {axis}", self.name)));
        }
        Ok(&mut self.elements)
    }

    fn begin_array<E: Error>(&mut self, axis: usize) -> Result<(), E> {
        if axis >= self.rank_max {
            return Err(E::custom(format!("input {:?} has more than {} axes", self.name, self.rank_max)));
        }
        if self.rank.is_some_and(|rank| axis >= rank) {
            return Err(E::custom(format!("input {:?} has an array beside values along axis {axis}", self.name)));
        }
        if self.extents.len() == axis {
            self.extents.push(None);
        }
        Ok(())
    }

    fn end_array<E: Error>(&mut self, axis: usize, count: usize) -> Result<(), E> {
        match *self.extents[axis].get_or_insert(count) {
            extent if extent == count => Ok(()),
            extent => {
                let name = self.name;
                Err(E::custom(format!("input {name:?} has {count} elements along axis {axis}, before it had {extent}")))
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.nested.elements.expecting(f)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Self { nested, axis, depth } = self;
        let depth = depth.checked_sub(1).ok_or_else(|| A::Error::custom(TOO_DEEP))?;
        nested.begin_array(axis)?;
        let mut count = 0;
        while elements.next_element_seed(Part { nested, axis: axis + 1, depth })?.is_some() {
            count += 1;
        }
        nested.end_array(axis, count)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { nested, axis, .. } = self;
        match map.next_key::<Key<'_>>()? {
            Some(key) if key.as_str() == BASE64 => nested.base64(axis, map),
            _ => Err(nested.elements.wrong("an object")),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.nested.leaf(self.axis)?.float(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.nested.leaf(self.axis)?.unsigned(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.nested.leaf(self.axis)?.signed(value)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.nested.leaf(self.axis)?.flag(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.nested.leaf(self.axis)?.text(value)
    }
}

/// The key of an object that stands for bytes.
pub(super) const BASE64: &str = "b64";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dtype: DType, json: &str) -> Result<(Vec<usize>, Vec<u8>), String> {
        let mut nested = Nested::whole("x", dtype, 4);
        let part = Part { nested: &mut nested, axis: 0, depth: 5 };
        part.deserialize(&mut serde_json::Deserializer::from_str(json)).map_err(|error| error.to_string())?;
        let (shape, bytes) = nested.finish(0);
        Ok((shape.to_vec(), bytes))
    }

    #[test]
    fn nesting_gives_the_shape() {
        for (json, shape, bytes) in [
            ("7", &[][..], &[7][..]),
            ("[1,2,3]", &[3], &[1, 2, 3]),
            ("[[1,2],[3,4],[5,6]]", &[3, 2], &[1, 2, 3, 4, 5, 6]),
            ("[[[1]],[[2]]]", &[2, 1, 1], &[1, 2]),
            ("[]", &[0], &[]),
            ("[[],[]]", &[2, 0], &[]),
        ] {
            assert_eq!(read(DType::U8, json), Ok((shape.to_vec(), bytes.to_vec())), "{json}");
        }
    }

    #[test]
    fn nesting_that_is_uneven_is_refused() {
        for (json, says) in [
            ("[[1,2],[3]]", "input \"x\" has 1 elements along axis 1, before it had 2"),
            ("[1,[2]]", "an array beside values along axis 1"),
            ("[[1],2]", "a value beside arrays along axis 1"),
            ("[[],1]", "a value beside arrays along axis 1"),
            ("[[[[[1]]]]]", "more than 4 axes"),
            ("[\"a\"]", "UINT8 cannot hold a string"),
            ("[{\"b64\":\"AA==\"}]", "UINT8 cannot hold an object"),
            ("[null]", "invalid type: null, expected an array of numbers for UINT8"),
        ] {
            let error = read(DType::U8, json).unwrap_err();
            assert!(error.contains(says), "{json}: {error}");
        }
    }

    #[test]
    fn bytes_are_text_or_base64() {
        let bytes = b"\x02\0\0\0ab\x01\0\0\0\xff".to_vec();
        assert_eq!(read(DType::Bytes, "[\"ab\",{\"b64\":\"/w==\"}]"), Ok((vec![2], bytes)));
        for (json, says) in [
            ("[{\"b64\":\"?\"}]", "\"b64\" expects base64"),
            ("[{\"b64\":\"/w==\",\"x\":1}]", "\"b64\" alone"),
            ("[{\"x\":1}]", "BYTES cannot hold an object"),
            ("[1]", "BYTES cannot hold 1"),
        ] {
            let error = read(DType::Bytes, json).unwrap_err();
            assert!(error.contains(says), "{json}: {error}");
        }
    }

    #[test]
    fn halves_have_a_range() {
        assert_eq!(read(DType::F16, "[1]"), Ok((vec![1], vec![0, 0x3c])));
        assert!(read(DType::F16, "[1e6]").unwrap_err().contains("out of range"));
        assert_eq!(read(DType::Bf16, "[1.0]"), Ok((vec![1], vec![0x80, 0x3f])));
    }
}
