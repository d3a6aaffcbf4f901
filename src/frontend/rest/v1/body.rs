//! The JSON of a v1 call: rows (`instances`), columns (`inputs`) or examples, read as a stream.
//!
//! The model's signature says which inputs there are and which datatype each has; nesting says the shapes. Whether those fit is
//! `routing`'s matter.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Form, Verb};
use crate::engine::{Dim, Signature, TensorSpec};
use crate::frontend::config::LimitsConfig;
use crate::frontend::rest::json_nested::{BASE64, Nested, Part};
use crate::frontend::rest::json_request::{Key, Skip, TOO_DEEP};
use crate::tensor::{DType, NamedTensor, Shape, Tensor};

/// What of a call must be known to read its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading<'a> {
    pub(super) verb: Verb,
    pub(super) signature: &'a Signature,
    pub(super) limits: &'a LimitsConfig,
    /// Whether an array of `inputs` is what `instances` is.
    pub(super) inputs_are_rows: bool,
}

/// # Errors
/// When the text is no JSON object of this form, or passes a limit; the message says where.
pub(super) fn read(text: &[u8], reading: Reading<'_>) -> Result<(Form, Vec<NamedTensor>), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let body = deserializer.deserialize_map(Body(reading))?;
    deserializer.end()?;
    Ok(body)
}

/// The object that is the body.
struct Body<'a>(Reading<'a>);

impl<'de> Visitor<'de> for Body<'_> {
    type Value = (Form, Vec<NamedTensor>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with {}", self.0.verb.expected())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let reading = self.0;
        let depth = reading.limits.json_depth_max.saturating_sub(1);
        let (mut read, mut context): (Option<(Form, Growing<'_>)>, _) = (None, None);
        while let Some(key) = map.next_key::<Key<'_>>()? {
            let form = match (reading.verb, key.as_str()) {
                (_, "signature_name") => {
                    check_signature(map.next_value::<Option<Key<'_>>>()?)?;
                    continue;
                }
                (Verb::Classify | Verb::Regress, "context") => {
                    let mut growing = Growing::by_rows(reading);
                    map.next_value_seed(Inputs { growing: &mut growing, axis: 1, row: 0, depth })?;
                    context = Some(growing);
                    continue;
                }
                (Verb::Predict, "instances") => Form::Rows,
                (Verb::Predict, "inputs") => Form::Columns,
                (Verb::Classify, "examples") => Form::Classes,
                (Verb::Regress, "examples") => Form::Numbers,
                _ => {
                    map.next_value_seed(Skip { depth })?;
                    continue;
                }
            };
            if read.is_some() {
                return Err(A::Error::custom(format!("expected {}, got both", reading.verb.expected())));
            }
            read = Some(map.next_value_seed(Value { reading, form, depth })?);
        }
        let missing = || A::Error::custom(format!("expected {}, got neither", reading.verb.expected()));
        let (form, growing) = read.ok_or_else(missing)?;
        let tensors = growing.finish(context, reading).map_err(A::Error::custom)?;
        Ok((form, tensors))
    }
}

/// There is one signature, under the name that TensorFlow gives to the first.
fn check_signature<E: Error>(name: Option<Key<'_>>) -> Result<(), E> {
    match name.as_ref().map(Key::as_str) {
        None | Some("" | SIGNATURE) => Ok(()),
        Some(got) => {
            let got: String = got.chars().take(SHOWN_MAX).collect();
            Err(E::custom(format!("signature {got:?} is not found, the model has {SIGNATURE:?}")))
        }
    }
}

/// What stands under `instances`, `inputs` or `examples`.
struct Value<'a> {
    reading: Reading<'a>,
    form: Form,
    depth: usize,
}

impl<'a> Value<'a> {
    /// All inputs as one object, or the only one.
    fn columns<E>(self, read: impl FnOnce(Inputs<'_, 'a>) -> Result<(), E>) -> Result<(Form, Growing<'a>), E> {
        let mut growing = Growing::whole(self.reading);
        read(Inputs { growing: &mut growing, axis: 0, row: 0, depth: self.depth })?;
        growing.rows = 1;
        Ok((Form::Columns, growing))
    }

    /// Rows and examples are arrays.
    fn check_columns<E: Error>(&self) -> Result<(), E> {
        match self.form {
            Form::Columns => Ok(()),
            _ => Err(E::custom(format!("expected an array, as {}", self.reading.verb.expected()))),
        }
    }
}

impl<'de, 'a> DeserializeSeed<'de> for Value<'a> {
    type Value = (Form, Growing<'a>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, 'a> Visitor<'de> for Value<'a> {
    type Value = (Form, Growing<'a>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "values, as {}", self.reading.verb.expected())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let form = match self.form {
            Form::Columns if self.reading.inputs_are_rows => Form::Rows,
            Form::Columns => return self.columns(|inputs| inputs.visit_seq(seq)),
            form => form,
        };
        let mut growing = Growing::by_rows(self.reading);
        let depth = self.depth.checked_sub(1).ok_or_else(|| A::Error::custom(TOO_DEEP))?;
        while seq.next_element_seed(Inputs { row: growing.rows, growing: &mut growing, axis: 1, depth })?.is_some() {
            growing.rows += 1;
        }
        Ok((form, growing))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        self.check_columns()?;
        self.columns(|inputs| inputs.visit_map(map))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        self.check_columns()?;
        self.columns(|inputs| inputs.visit_f64(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        self.check_columns()?;
        self.columns(|inputs| inputs.visit_u64(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        self.check_columns()?;
        self.columns(|inputs| inputs.visit_i64(value))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        self.check_columns()?;
        self.columns(|inputs| inputs.visit_bool(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        self.check_columns()?;
        self.columns(|inputs| inputs.visit_str(value))
    }
}

/// The inputs of a request, as far as they have been read.
struct Growing<'a> {
    signature: &'a Signature,
    /// By input, with the rows that it has.
    tensors: Vec<(Nested<'a>, usize)>,
    rows: usize,
}

impl<'a> Growing<'a> {
    fn whole(Reading { signature, limits, .. }: Reading<'a>) -> Self {
        let nested = |spec: &'a TensorSpec| (Nested::whole(&spec.name, spec.dtype, limits.rank_max), 0);
        Self { signature, tensors: signature.inputs.iter().map(nested).collect(), rows: 0 }
    }

    fn by_rows(Reading { signature, limits, .. }: Reading<'a>) -> Self {
        let nested = |spec: &'a TensorSpec| (Nested::by_rows(&spec.name, spec.dtype, limits.rank_max), 0);
        Self { signature, tensors: signature.inputs.iter().map(nested).collect(), rows: 0 }
    }

    /// The input of this name, which is about to be read for a row.
    fn input<E: Error>(&mut self, name: &str, row: usize) -> Result<&mut Nested<'a>, E> {
        let Some(at) = self.signature.inputs.iter().position(|spec| spec.name == name) else {
            let got: String = name.chars().take(SHOWN_MAX).collect();
            return Err(E::custom(format!(
                "unexpected input {got:?}, the model has {}",
                names(&self.signature.inputs)
            )));
        };
        self.at(at, row)
    }

    /// The only input.
    fn sole<E: Error>(&mut self, row: usize) -> Result<&mut Nested<'a>, E> {
        if self.signature.inputs.len() != 1 {
            let inputs = names(&self.signature.inputs);
            return Err(E::custom(format!("expected an object with the inputs {inputs}, got a value")));
        }
        self.at(0, row)
    }

    fn at<E: Error>(&mut self, at: usize, row: usize) -> Result<&mut Nested<'a>, E> {
        let name = &self.signature.inputs[at].name;
        let (nested, rows) = &mut self.tensors[at];
        if *rows > row {
            return Err(E::custom(format!("input {name:?} is given twice")));
        }
        if *rows < row {
            return Err(E::custom(format!("input {name:?} is missing in element {rows}, but not in element {row}")));
        }
        *rows += 1;
        Ok(nested)
    }

    /// Whether an object that begins with this key is the value of the only input.
    fn is_base64(&self, key: &str) -> bool {
        matches!(self.signature.inputs.as_slice(), [spec] if spec.dtype == DType::Bytes && spec.name != BASE64)
            && key == BASE64
    }

    /// The tensors. What all examples lack comes from the context that they share.
    fn finish(self, context: Option<Growing<'_>>, reading: Reading<'_>) -> Result<Vec<NamedTensor>, String> {
        let Self { signature, tensors, rows } = self;
        if rows == 0 {
            return Err("expected at least one element, got an empty array".into());
        }
        let shared = context.map(|context| context.tensors).into_iter().flatten().map(Some);
        let shared = shared.chain(std::iter::repeat_with(|| None));
        let mut named = Vec::with_capacity(tensors.len());
        for ((spec, (nested, given)), shared) in signature.inputs.iter().zip(tensors).zip(shared) {
            let (shape, bytes) = match (given, shared) {
                (given, _) if given == rows => nested.finish(rows),
                (0, Some((nested, 1))) => {
                    let (shape, bytes) = nested.finish(rows);
                    // A few bytes an example would become as many as the context has.
                    let (got, max) = (bytes.len().saturating_mul(rows), reading.limits.body_bytes_max);
                    if got > max.as_len() {
                        let name = &spec.name;
                        return Err(format!(
                            "the context's {name:?} has {got} bytes in all examples, {max} are allowed"
                        ));
                    }
                    (shape, bytes.repeat(rows))
                }
                // `routing` tells what is expected.
                (0, _) => continue,
                (given, _) => return Err(format!("input {:?} is missing in element {given} of {rows}", spec.name)),
            };
            let tensor = Tensor::new(spec.dtype, shape, bytes.into()).map_err(|error| error.to_string())?;
            let tensor = if reading.verb == Verb::Predict { tensor } else { as_described(tensor, spec) };
            named.push(NamedTensor { name: spec.name.clone(), tensor });
        }
        Ok(named)
    }
}

/// Examples have flat features: they take the shape of the input where that leaves no choice.
fn as_described(tensor: Tensor, spec: &TensorSpec) -> Tensor {
    let fixed = spec.dims.iter().skip(1).map(|dim| match dim {
        Dim::Fixed(extent) => Some(*extent),
        Dim::Free(_) => None,
    });
    let Some(inner) = fixed.collect::<Option<Vec<usize>>>() else { return tensor };
    let shape: Shape = std::iter::once(tensor.shape().rows()).chain(inner).collect();
    tensor.clone().reshaped(shape).unwrap_or(tensor)
}

/// One element: an object of all inputs, or the value of the only one.
struct Inputs<'g, 'a> {
    growing: &'g mut Growing<'a>,
    /// Of the outermost level of a value.
    axis: usize,
    row: usize,
    depth: usize,
}

impl<'g, 'a> Inputs<'g, 'a> {
    fn sole<E: Error>(self) -> Result<Part<'g, 'a>, E> {
        Ok(Part { nested: self.growing.sole(self.row)?, axis: self.axis, depth: self.depth })
    }
}

impl<'de> DeserializeSeed<'de> for Inputs<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Inputs<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with the inputs {}, or the value of the only one", names(&self.growing.signature.inputs))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { growing, axis, row, depth } = self;
        let depth = depth.checked_sub(1).ok_or_else(|| A::Error::custom(TOO_DEEP))?;
        let mut key = map.next_key::<Key<'_>>()?;
        if key.as_ref().is_some_and(|key| growing.is_base64(key.as_str())) {
            return growing.sole(row)?.base64(axis, map);
        }
        while let Some(name) = key {
            map.next_value_seed(Part { nested: growing.input(name.as_str(), row)?, axis, depth })?;
            key = map.next_key()?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        self.sole()?.visit_seq(seq)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.sole()?.visit_f64(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.sole()?.visit_u64(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.sole()?.visit_i64(value)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.sole()?.visit_bool(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.sole()?.visit_str(value)
    }
}

fn names(specs: &[TensorSpec]) -> String {
    let quoted: Vec<String> = specs.iter().map(|spec| format!("{:?}", spec.name)).collect();
    quoted.join(", ")
}

/// The name of every model's one signature.
pub(super) const SIGNATURE: &str = "serving_default";
/// An error repeats this much of what a client sent.
const SHOWN_MAX: usize = 64;

#[cfg(test)]
mod tests;
