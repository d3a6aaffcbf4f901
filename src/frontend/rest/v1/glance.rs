//! Which dialect a body is of, where its path does not tell: read no further than the answer needs.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::frontend::rest::json_request::Key;

/// Whether a body is of v1; what is of neither is v2's to refuse.
pub(in crate::frontend::rest) fn is_v1(text: &[u8]) -> bool {
    let mut found = None;
    // The rest of the body is not read, which its reader takes for an error.
    let _ = serde_json::Deserializer::from_slice(text).deserialize_map(Glance(&mut found));
    found == Some(true)
}

/// At the body's keys, and at the beginning of `inputs`: an object of v2's tensors has a name, or what else is known of it.
struct Glance<'a>(&'a mut Option<bool>);

/// At the value of `inputs`.
struct Inputs<'a>(&'a mut Option<bool>);

/// At the first element of it.
struct First<'a>(&'a mut Option<bool>);

impl<'de> Visitor<'de> for Glance<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Key<'_>>()? {
            match key.as_str() {
                "instances" | "signature_name" => {
                    *self.0 = Some(true);
                    return Err(A::Error::custom(SEEN));
                }
                "inputs" => return map.next_value_seed(Inputs(self.0)),
                _ => map.next_value::<IgnoredAny>()?,
            };
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Inputs<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // Whatever is no array of objects.
        *self.0 = Some(true);
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Inputs<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        seq.next_element_seed(First(self.0)).map(|_| ())
    }
}

impl<'de> DeserializeSeed<'de> for First<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for First<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let key = map.next_key::<Key<'_>>()?;
        let is_tensor = key.is_some_and(|key| TENSOR_KEYS.contains(&key.as_str()));
        *self.0 = Some(!is_tensor);
        Err(A::Error::custom(SEEN))
    }
}

const TENSOR_KEYS: [&str; 5] = ["name", "shape", "datatype", "data", "parameters"];
const SEEN: &str = "seen enough";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_tell_their_dialect() {
        for (text, wanted) in [
            (r#"{"instances": [1]}"#, true),
            (r#"{"a": [1], "signature_name": "x", "inputs": 1}"#, true),
            (r#"{"inputs": {"x": [1]}}"#, true),
            (r#"{"inputs": [[1]]}"#, true),
            (r#"{"inputs": 1}"#, true),
            (r#"{"inputs": [{"x": 1}]}"#, true),
            (r#"{"inputs": [{"b64": ""}]}"#, true),
            (r#"{"id": "1", "inputs": [{"name": "x", "#, false),
            (r#"{"inputs": [{"shape": [1], "name": "x"}]}"#, false),
            (r#"{"outputs": []}"#, false),
            ("[1]", false),
            ("", false),
        ] {
            assert_eq!(is_v1(text.as_bytes()), wanted, "{text}");
        }
    }
}
