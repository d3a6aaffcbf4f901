//! The bodies of control calls: the flat fields of one object, read without a tree of values.
//!
//! A tree takes a hundred times its text, and control stands outside admission. Here memory follows the text: scalars are
//! kept, borrowed where they can be, lists of texts too, and everything else that is nested is passed over. What the fields mean is `control`'s matter.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::json_request::{Key, Skip, TOO_DEEP};
use crate::frontend::Refusal;
use crate::frontend::config::LimitsConfig;

/// The fields of an object in their order.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Fields<'a>(pub(super) Vec<(Cow<'a, str>, Field<'a>)>);

/// A field's value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Field<'a> {
    Null,
    Flag(bool),
    Number(i64),
    /// A number that is no whole one, or beyond 64 bits with a sign.
    Float(f64),
    Text(Cow<'a, str>),
    /// An array of nothing else.
    Texts(Vec<Cow<'a, str>>),
    /// Any other array or an object, which means nothing to any control call.
    Nested,
}

impl Fields<'_> {
    /// The last field of a name; the fields before it are overridden.
    pub(super) fn get(&self, name: &str) -> Option<&Field<'_>> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, field)| field)
    }
}

/// The fields of the body's object; an empty body has none.
///
/// # Errors
/// When the body is no JSON object, or passes a limit.
pub(super) fn fields<'a>(body: &'a [u8], limits: &LimitsConfig) -> Result<Fields<'a>, Refusal> {
    read(body, Flat { depth: limits.json_depth_max, fields_max: limits.parameters_max })
}

/// The fields of the object `"parameters"` in the body's object; there are none where it is missing.
///
/// # Errors
/// When the body is no JSON object, the parameters are none, or a limit is passed.
pub(super) fn parameters<'a>(body: &'a [u8], limits: &LimitsConfig) -> Result<Fields<'a>, Refusal> {
    let depth = limits.json_depth_max.saturating_sub(1);
    read(body, Envelope(Flat { depth, fields_max: limits.parameters_max }))
}

fn read<'a, S>(body: &'a [u8], seed: S) -> Result<Fields<'a>, Refusal>
where
    S: DeserializeSeed<'a, Value = Fields<'a>>,
{
    if body.is_empty() {
        return Ok(Fields::default());
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let refuse = |error: serde_json::Error| Refusal::invalid(format!("invalid request: {error}"));
    let fields = seed.deserialize(&mut deserializer).map_err(refuse)?;
    deserializer.end().map_err(refuse)?;
    Ok(fields)
}

/// An object of which only the parameters are kept.
struct Envelope(Flat);

/// An object of at most so many fields and levels, itself included.
#[derive(Clone, Copy)]
struct Flat {
    depth: usize,
    fields_max: usize,
}

/// One field, with the levels that are left for it.
struct FieldSeed {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Envelope {
    type Value = Fields<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Envelope {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with parameters")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = map.next_key::<Key<'_>>()? {
            match key.as_str() {
                "parameters" => fields = map.next_value_seed(self.0)?,
                _ => map.next_value_seed(Skip { depth: self.0.depth })?,
            }
        }
        Ok(fields)
    }
}

impl<'de> DeserializeSeed<'de> for Flat {
    type Value = Fields<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Flat {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key::<Key<'de>>()? {
            if fields.len() == self.fields_max {
                return Err(A::Error::custom(format!("expected at most {} fields, got more", self.fields_max)));
            }
            let value = map.next_value_seed(FieldSeed { depth: self.depth.saturating_sub(1) })?;
            fields.push((key.0, value));
        }
        Ok(Fields(fields))
    }

    /// A null is as good as no object.
    fn visit_unit<E: Error>(self) -> Result<Fields<'de>, E> {
        Ok(Fields::default())
    }
}

impl<'de> DeserializeSeed<'de> for FieldSeed {
    type Value = Field<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed {
    type Value = Field<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<Field<'de>, E> {
        Ok(Field::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Field<'de>, E> {
        Ok(Field::Flag(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Field<'de>, E> {
        Ok(Field::Number(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "no setting is that large; the number is only shown")]
    fn visit_u64<E: Error>(self, value: u64) -> Result<Field<'de>, E> {
        Ok(i64::try_from(value).map_or(Field::Float(value as f64), Field::Number))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Field<'de>, E> {
        Ok(Field::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Field<'de>, E> {
        Ok(Field::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Field<'de>, E> {
        Ok(Field::Text(Cow::Borrowed(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field<'de>, A::Error> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| A::Error::custom(TOO_DEEP))?;
        let mut texts = Vec::new();
        while let Some(element) = seq.next_element_seed(Self { depth })? {
            let Field::Text(text) = element else {
                // What is left need not be kept.
                while seq.next_element_seed(Skip { depth })?.is_some() {}
                return Ok(Field::Nested);
            };
            texts.push(text);
        }
        Ok(Field::Texts(texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Field<'de>, A::Error> {
        Skip { depth: self.depth }.visit_map(map)?;
        Ok(Field::Nested)
    }
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Texts(_) | Self::Nested => f.write_str("an array or an object"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits() -> LimitsConfig {
        LimitsConfig { parameters_max: 3, json_depth_max: 5, ..crate::config::Config::default().limits }
    }

    fn flat(body: &str) -> Result<String, String> {
        shown(fields(body.as_bytes(), &limits()))
    }

    fn inner(body: &str) -> Result<String, String> {
        shown(parameters(body.as_bytes(), &limits()))
    }

    fn shown(fields: Result<Fields<'_>, Refusal>) -> Result<String, String> {
        let fields = fields.map_err(|refusal| refusal.message)?;
        Ok(fields.0.iter().map(|(key, field)| format!("{key}={field};")).collect())
    }

    #[test]
    fn scalars_are_kept_and_the_rest_is_passed_over() {
        let body = r#"{"a": true, "b": [[1, {"c": 2}]], "a": -5}"#;
        assert_eq!(flat(body).unwrap(), "a=true;b=an array or an object;a=-5;");
        assert_eq!(fields(body.as_bytes(), &limits()).unwrap().get("a"), Some(&Field::Number(-5)));
        assert_eq!(flat("").unwrap(), "");
        assert_eq!(inner("").unwrap(), "");
        assert_eq!(inner(r#"{"parameters": null, "x": [{}]}"#).unwrap(), "");
        assert_eq!(inner(r#"{"x": {"parameters": {"no": 1}}, "parameters": {"a\n": "b"}}"#).unwrap(), "a\n=\"b\";");
        assert_eq!(flat(r#"{"a": 1.5, "b": 18446744073709551615}"#).unwrap(), "a=1.5;b=18446744073709552000;");
    }

    #[test]
    fn lists_of_texts_are_kept() {
        let list = |body: &'static str| fields(body.as_bytes(), &limits()).unwrap().0.remove(0).1;
        assert_eq!(list(r#"{"a": ["b", "c\n"]}"#), Field::Texts(vec!["b".into(), "c\n".into()]));
        assert_eq!(list(r#"{"a": []}"#), Field::Texts(Vec::new()));
        for other in [r#"{"a": ["b", 1, "c"]}"#, r#"{"a": [["b"], []]}"#, r#"{"a": {"b": ["c"]}}"#] {
            assert_eq!(list(other), Field::Nested, "{other}");
        }
    }

    #[test]
    fn texts_are_borrowed() {
        let body = br#"{"parameters": {"file:1/model.onnx": "QUJD"}}"#;
        let fields = parameters(body, &limits()).unwrap();
        assert!(matches!(fields.get("file:1/model.onnx"), Some(Field::Text(Cow::Borrowed("QUJD")))));
    }

    #[test]
    fn limits_hold() {
        for (read, body) in [
            (flat as fn(&str) -> Result<String, String>, r#"{"a":1,"b":1,"c":1}"#),
            (flat, r#"{"a":[[[[]]]]}"#),
            (inner, r#"{"x":[[[[]]]]}"#),
            (inner, r#"{"parameters":{"a":[[[]]]}}"#),
        ] {
            assert!(read(body).is_ok(), "{body}: {:?}", read(body));
        }
        for (read, body, says) in [
            (flat as fn(&str) -> Result<String, String>, r#"{"a":1,"b":1,"c":1,"d":1}"#, "at most 3 fields"),
            (flat, r#"{"a":[[[[[]]]]]}"#, "nested deeper"),
            (inner, r#"{"x":[[[[[]]]]]}"#, "nested deeper"),
            (inner, r#"{"parameters":{"a":[[[[]]]]}}"#, "nested deeper"),
            (inner, r#"{"parameters":[]}"#, "expected an object"),
            (inner, "[]", "expected an object"),
            (flat, "[{}]", "expected an object"),
            (flat, "{} {}", "trailing"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.contains(says), "{body}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(body in prop::collection::vec(any::<u8>(), 0..100), text in r#"[\[\]{}":,a0-9 ]{0,60}"#) {
            let _ = fields(&body, &limits());
            let _ = parameters(&body, &limits());
            if fields(text.as_bytes(), &limits()).is_ok() && !text.is_empty() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            }
        }
    }
}
