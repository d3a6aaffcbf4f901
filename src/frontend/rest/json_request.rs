//! The JSON object of an inference request, read as a stream: tensors go straight from text to bytes.
//!
//! Unknown keys are skipped at any level, but never deeper than the limit. What the parts mean is `decode`'s matter.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::value::RawValue;

use super::json_values::Values;
use crate::frontend::config::LimitsConfig;
use crate::frontend::parameters::Value;
use crate::tensor::{DType, Shape};

/// The parts of a request's JSON.
#[derive(Debug, Default)]
pub struct JsonRequest {
    pub id: Option<String>,
    pub parameters: Vec<(String, Value)>,
    pub inputs: Option<Vec<JsonInput>>,
    pub outputs: Vec<JsonOutput>,
}

#[derive(Debug)]
pub struct JsonInput {
    pub name: String,
    pub dtype: DType,
    pub shape: Shape,
    pub parameters: Vec<(String, Value)>,
    /// The elements, or nothing where they follow in binary form.
    pub values: Option<Vec<u8>>,
}

#[derive(Debug)]
pub struct JsonOutput {
    pub name: String,
    pub parameters: Vec<(String, Value)>,
}

/// # Errors
/// When the text is no JSON object of this form, or passes a limit; the message says where.
pub fn parse(text: &[u8], limits: &LimitsConfig) -> Result<JsonRequest, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    // Depth is counted by the seeds below, against the configured limit.
    let context = Context { limits, text_length: text.len() };
    let request = RequestSeed(&context).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(request)
}

struct Context<'a> {
    limits: &'a LimitsConfig,
    text_length: usize,
}

struct RequestSeed<'a>(&'a Context<'a>);
struct InputSeed<'a>(&'a Context<'a>);
struct OutputSeed<'a>(&'a Context<'a>);
struct ParametersSeed<'a>(&'a Context<'a>);

/// A list of at most `max` items.
struct ListSeed<'a, S> {
    context: &'a Context<'a>,
    item: fn(&'a Context<'a>) -> S,
    what: &'static str,
}

/// Skips any value of at most `depth` levels.
pub(super) struct Skip {
    pub(super) depth: usize,
}

macro_rules! object_seed {
    ($seed:ident, $value:ty, $expecting:literal) => {
        impl<'de> DeserializeSeed<'de> for $seed<'_> {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<$value, D::Error> {
                deserializer.deserialize_map(self)
            }
        }

        impl<'de> Visitor<'de> for $seed<'_> {
            type Value = $value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($expecting)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$value, A::Error> {
                self.read(map)
            }
        }
    };
}

object_seed!(RequestSeed, JsonRequest, "an object with inputs");
object_seed!(InputSeed, JsonInput, "an input object with name, shape, datatype and data");
object_seed!(OutputSeed, JsonOutput, "an output object with a name");
object_seed!(ParametersSeed, Vec<(String, Value)>, "a parameters object");

impl RequestSeed<'_> {
    fn read<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<JsonRequest, A::Error> {
        let mut request = JsonRequest::default();
        while let Some(key) = map.next_key::<Key<'_>>()? {
            match key.as_str() {
                "id" => request.id = map.next_value()?,
                "parameters" => request.parameters = map.next_value_seed(Nullable(ParametersSeed(self.0)))?,
                "inputs" => {
                    let list = ListSeed { context: self.0, item: InputSeed, what: "inputs" };
                    request.inputs = Some(map.next_value_seed(list)?);
                }
                "outputs" => {
                    let list = ListSeed { context: self.0, item: OutputSeed, what: "outputs" };
                    request.outputs = map.next_value_seed(Nullable(list))?;
                }
                _ => map.next_value_seed(Skip { depth: self.0.limits.json_depth_max.saturating_sub(1) })?,
            }
        }
        Ok(request)
    }
}

impl InputSeed<'_> {
    fn read<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<JsonInput, A::Error> {
        let (mut name, mut dtype, mut shape, mut values, mut early) = (None, None, None, None, None);
        let mut parameters = Vec::new();
        while let Some(key) = map.next_key::<Key<'_>>()? {
            match key.as_str() {
                "name" => name = Some(map.next_value::<String>()?),
                "datatype" => {
                    let text = map.next_value::<String>()?;
                    dtype = Some(text.parse::<DType>().map_err(A::Error::custom)?);
                }
                "shape" => shape = Some(map.next_value_seed(ShapeSeed(self.0.limits.rank_max))?),
                "parameters" => parameters = map.next_value_seed(Nullable(ParametersSeed(self.0)))?,
                "data" => match (dtype, &shape) {
                    (Some(dtype), Some(shape)) => {
                        values = Some(map.next_value_seed(self.values(dtype, shape).map_err(A::Error::custom)?)?);
                    }
                    // Data before datatype and shape: kept as text and read again once they are known.
                    _ => early = Some(map.next_value::<&'de RawValue>()?),
                },
                _ => map.next_value_seed(Skip { depth: self.0.limits.json_depth_max.saturating_sub(3) })?,
            }
        }
        let name = name.ok_or_else(|| A::Error::missing_field("name"))?;
        let dtype = dtype.ok_or_else(|| A::Error::missing_field("datatype"))?;
        let shape = shape.ok_or_else(|| A::Error::missing_field("shape"))?;
        if let Some(text) = early {
            let seed = self.values(dtype, &shape).map_err(A::Error::custom)?;
            let read = seed.deserialize(&mut serde_json::Deserializer::from_str(text.get()));
            values = Some(read.map_err(A::Error::custom)?);
        }
        Ok(JsonInput { name, dtype, shape, parameters, values })
    }

    fn values<'s>(&self, dtype: DType, shape: &'s Shape) -> Result<Values<'s>, String> {
        let overflow = || format!("shape {shape} has more elements than can be addressed");
        let expected = shape.element_count().ok_or_else(overflow)?;
        expected.checked_mul(dtype.size().unwrap_or(1)).ok_or_else(overflow)?;
        // The request, the list of inputs and the input itself are three levels.
        let depth = self.0.limits.json_depth_max.saturating_sub(3);
        Ok(Values { dtype, shape, expected, text_length: self.0.text_length, depth })
    }
}

impl OutputSeed<'_> {
    fn read<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<JsonOutput, A::Error> {
        let (mut name, mut parameters) = (None, Vec::new());
        while let Some(key) = map.next_key::<Key<'_>>()? {
            match key.as_str() {
                "name" => name = Some(map.next_value()?),
                "parameters" => parameters = map.next_value_seed(Nullable(ParametersSeed(self.0)))?,
                _ => map.next_value_seed(Skip { depth: self.0.limits.json_depth_max.saturating_sub(3) })?,
            }
        }
        Ok(JsonOutput { name: name.ok_or_else(|| A::Error::missing_field("name"))?, parameters })
    }
}

impl ParametersSeed<'_> {
    fn read<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<(String, Value)>, A::Error> {
        let mut parameters = Vec::new();
        while let Some(key) = map.next_key::<Key<'_>>()? {
            if parameters.len() == self.0.limits.parameters_max {
                return Err(A::Error::custom(format!("more than {} parameters", self.0.limits.parameters_max)));
            }
            // A null is as good as no parameter.
            if let Some(value) = map.next_value_seed(ScalarSeed)? {
                parameters.push((key.0.into_owned(), value));
            }
        }
        Ok(parameters)
    }
}

impl<'de, 'a, S: DeserializeSeed<'de>> DeserializeSeed<'de> for ListSeed<'a, S> {
    type Value = Vec<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, 'a, S: DeserializeSeed<'de>> Visitor<'de> for ListSeed<'a, S> {
    type Value = Vec<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {}", self.what)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let max = self.context.limits.tensors_max;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed((self.item)(self.context))? {
            if items.len() == max {
                return Err(A::Error::custom(format!("more than {max} {}", self.what)));
            }
            items.push(item);
        }
        Ok(items)
    }
}

/// What may also be null, which is as good as leaving it away.
struct Nullable<S>(S);

impl<'de, S> DeserializeSeed<'de> for Nullable<S>
where
    S: DeserializeSeed<'de>,
    S::Value: Default,
{
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, S> Visitor<'de> for Nullable<S>
where
    S: DeserializeSeed<'de>,
    S::Value: Default,
{
    type Value = S::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or null")
    }

    fn visit_none<E: Error>(self) -> Result<S::Value, E> {
        Ok(S::Value::default())
    }

    fn visit_unit<E: Error>(self) -> Result<S::Value, E> {
        Ok(S::Value::default())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(deserializer)
    }
}

/// A shape of at most this many axes.
struct ShapeSeed(usize);

impl<'de> DeserializeSeed<'de> for ShapeSeed {
    type Value = Shape;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Shape, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ShapeSeed {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a shape: an array of whole numbers of at least 0")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        let mut dims: Vec<usize> = Vec::new();
        while let Some(dim) = seq.next_element_seed(ExtentSeed)? {
            if dims.len() == self.0 {
                return Err(A::Error::custom(format!("shape has more than {} axes", self.0)));
            }
            dims.push(dim);
        }
        Ok(Shape::new(&dims))
    }
}

/// An extent of a shape.
struct ExtentSeed;

impl<'de> DeserializeSeed<'de> for ExtentSeed {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for ExtentSeed {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an extent of the shape: a whole number of at least 0")
    }

    fn visit_u64<E: Error>(self, extent: u64) -> Result<usize, E> {
        usize::try_from(extent).map_err(|_| E::invalid_value(Unexpected::Unsigned(extent), &self))
    }
}

/// A parameter's value.
struct ScalarSeed;

impl<'de> DeserializeSeed<'de> for ScalarSeed {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for ScalarSeed {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a parameter: a string, a number or a boolean")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(Value::Bool(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(Value::Int(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(Value::Uint(value)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Some(Value::Double(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Some(Value::Text(value.to_owned())))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

impl<'de> DeserializeSeed<'de> for Skip {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skip {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| A::Error::custom(TOO_DEEP))?;
        while seq.next_element_seed(Self { depth })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| A::Error::custom(TOO_DEEP))?;
        while map.next_key::<IgnoredAny>()?.is_some() {
            map.next_value_seed(Self { depth })?;
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// An object key, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
pub(super) struct Key<'a>(#[serde(borrow)] pub(super) std::borrow::Cow<'a, str>);

impl Key<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

pub(super) const TOO_DEEP: &str = "the body is nested deeper than the limit";

#[cfg(test)]
mod tests;
