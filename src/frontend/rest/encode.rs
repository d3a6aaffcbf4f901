//! An answer to a response body: JSON, and behind it the outputs that were wanted in binary form.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use half::{bf16, f16};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::events::{self, Mode};
use super::v1;
use crate::frontend::inflate::Coding;
use crate::frontend::parameters::Value;
use crate::frontend::{OutputWish, Refusal, Report, Slot, classification};
use crate::pipeline::Answer;
use crate::tensor::{DType, NamedTensor, Tensor};

/// A response body in pieces; binary outputs are never copied.
#[derive(Debug)]
pub(super) struct Encoded {
    /// Length of the JSON where binary outputs follow.
    pub json_length: Option<usize>,
    pub pieces: VecDeque<Bytes>,
}

/// What the encoder needs of a call once its request is gone.
#[derive(Debug)]
pub(super) struct Wishes {
    pub outputs: Vec<OutputWish>,
    pub binary_default: bool,
    pub report: Report,
    /// Whether headers tell what the request took.
    pub energy_headers: bool,
    /// Where the answer is one of v1.
    pub v1: Option<v1::Form>,
    /// Where it is an event.
    pub event: Option<Mode>,
}

impl Wishes {
    fn of(&self, output: &str) -> Option<&OutputWish> {
        self.outputs.iter().find(|wish| wish.name == output)
    }

    fn form(&self, output: &str) -> Form<'_> {
        match self.of(output) {
            Some(OutputWish { slot: Some(slot), .. }) => Form::Memory(slot),
            wish if wish.and_then(|wish| wish.binary).unwrap_or(self.binary_default) => Form::Binary,
            _ => Form::Json,
        }
    }
}

/// # Errors
/// When an output cannot be written the way it was asked for.
pub(super) fn answer(answer: &Answer, wishes: &Wishes) -> Result<Encoded, Refusal> {
    if let Some(form) = wishes.v1 {
        let json = v1::write(answer, form)?;
        let json = match wishes.event {
            Some(Mode::Structured) => events::structured(&answer.response.model, &json),
            _ => json,
        };
        return Ok(Encoded { json_length: None, pieces: VecDeque::from([json.into()]) });
    }
    let outputs: Vec<Output<'_>> =
        answer.response.outputs.iter().map(|named| Output::prepare(named, answer, wishes)).collect::<Result<_, _>>()?;
    outputs.iter().try_for_each(Output::place)?;
    let estimate = outputs.iter().map(Output::json_estimate).sum::<usize>() + JSON_FRAME;
    let mut json = Vec::with_capacity(estimate);
    let body = Body { answer, outputs: &outputs, report: wishes.report };
    serde_json::to_writer(&mut json, &body).expect("writing JSON into memory succeeds");
    let json_length = outputs.iter().any(Output::is_binary).then_some(json.len());
    let binary = outputs.into_iter().filter(Output::is_binary).map(|output| output.tensor.into_bytes());
    Ok(Encoded { json_length, pieces: joined(json, binary) })
}

/// Bytes of text to print, or of anything to compress: what makes encoding slow.
pub(super) fn bytes_to_code(answer: &Answer, wishes: &Wishes, coding: Option<Coding>) -> usize {
    let bytes = |named: &NamedTensor| {
        if let Some(classes) = wishes.of(&named.name).and_then(|wish| wish.classes) {
            return classification::bytes_to_code(&named.tensor, classes, answer.variant.signature.is_batched());
        }
        match (wishes.form(&named.name), coding) {
            (Form::Memory(_), _) | (Form::Binary, None) => 0,
            (Form::Binary, Some(_)) => named.tensor.bytes().len(),
            (Form::Json, _) => text_length(&named.tensor),
        }
    };
    answer.response.outputs.iter().map(bytes).sum()
}

/// About how long a tensor's elements are in JSON.
pub(super) fn text_length(tensor: &Tensor) -> usize {
    match tensor.dtype() {
        // Each has four bytes for its length, about as many as its quotes and comma.
        DType::Bytes => tensor.bytes().len(),
        _ => tensor.element_count() * NUMBER_LENGTH,
    }
}

/// Small bodies go out in one write; large tensors stay where they are.
fn joined(json: Vec<u8>, binary: impl Iterator<Item = Bytes>) -> VecDeque<Bytes> {
    let pieces: Vec<Bytes> = binary.collect();
    let total: usize = pieces.iter().map(Bytes::len).sum();
    if pieces.is_empty() || total > COPY_MAX {
        return std::iter::once(Bytes::from(json)).chain(pieces).collect();
    }
    let mut one = BytesMut::with_capacity(json.len() + total);
    one.extend_from_slice(&json);
    for piece in pieces {
        one.extend_from_slice(&piece);
    }
    VecDeque::from([one.freeze()])
}

/// One output in the form it will have on the wire.
struct Output<'a> {
    name: String,
    tensor: Tensor,
    form: Form<'a>,
}

#[derive(Clone, Copy)]
enum Form<'a> {
    Json,
    Binary,
    /// The wire has a description alone.
    Memory(&'a Slot),
}

impl<'a> Output<'a> {
    fn prepare(named: &NamedTensor, answer: &Answer, wishes: &'a Wishes) -> Result<Self, Refusal> {
        let tensor = match wishes.of(&named.name).and_then(|wish| wish.classes) {
            None => named.tensor.clone(),
            Some(classes) => classification::of_output(&named.name, &named.tensor, classes, &answer.variant)?,
        };
        let form = wishes.form(&named.name);
        match form {
            Form::Json => refuse_what_json_cannot_hold(&named.name, &tensor)?,
            Form::Memory(slot) => slot.check(&named.name, &tensor)?,
            Form::Binary => {}
        }
        Ok(Self { name: named.name.clone(), tensor, form })
    }

    /// Writes it where it lies outside of the answer, which is due once every output is known to be told.
    fn place(&self) -> Result<(), Refusal> {
        let Form::Memory(slot) = self.form else { return Ok(()) };
        slot.write(&self.name, &self.tensor)
    }

    fn is_binary(&self) -> bool {
        matches!(self.form, Form::Binary)
    }

    fn json_estimate(&self) -> usize {
        if matches!(self.form, Form::Json) { text_length(&self.tensor) } else { 0 }
    }
}

fn refuse_what_json_cannot_hold(name: &str, tensor: &Tensor) -> Result<(), Refusal> {
    let bytes = tensor.bytes();
    let finite = match tensor.dtype() {
        DType::F32 => bytes.as_chunks().0.iter().all(|b| f32::from_le_bytes(*b).is_finite()),
        DType::F64 => bytes.as_chunks().0.iter().all(|b| f64::from_le_bytes(*b).is_finite()),
        DType::F16 | DType::Bf16 => {
            let message =
                format!("output {name:?} is {}, which JSON does not define; ask for binary_data", tensor.dtype());
            return Err(Refusal::invalid(message));
        }
        DType::Bytes => tensor.elements().all(|element| std::str::from_utf8(element).is_ok()),
        _ => true,
    };
    if finite {
        return Ok(());
    }
    let what = if tensor.dtype() == DType::Bytes { "bytes that are no UTF-8" } else { "values that are not finite" };
    Err(Refusal::invalid(format!("output {name:?} has {what}, which JSON cannot hold; ask for binary_data")))
}

struct Body<'a> {
    answer: &'a Answer,
    outputs: &'a [Output<'a>],
    report: Report,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Answer { response, energy, .. } = self.answer;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model_name", response.model.as_str())?;
        map.serialize_entry("model_version", &response.version.to_string())?;
        if let Some(id) = &response.id {
            map.serialize_entry("id", id)?;
        }
        if self.report.is_wanted() {
            map.serialize_entry("parameters", &Parameters(&self.report.entries(response, *energy)))?;
        }
        map.serialize_entry("outputs", self.outputs)?;
        map.end()
    }
}

struct Parameters<'a>(&'a [(&'static str, Value)]);

impl Serialize for Parameters<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, Scalar(value))))
    }
}

struct Scalar<'a>(&'a Value);

impl Serialize for Scalar<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(value) => serializer.serialize_i64(*value),
            Value::Uint(value) => serializer.serialize_u64(*value),
            Value::Double(value) => serializer.serialize_f64(*value),
            Value::Text(value) => serializer.serialize_str(value),
        }
    }
}

impl Serialize for Output<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("datatype", self.tensor.dtype().name())?;
        map.serialize_entry("shape", &self.tensor.shape()[..])?;
        match self.form {
            Form::Json => map.serialize_entry("data", &Elements(&self.tensor))?,
            Form::Binary => map.serialize_entry("parameters", &BinarySize(self.tensor.bytes().len()))?,
            // Clients take any parameters for those of a binary tensor.
            Form::Memory(_) => {}
        }
        map.end()
    }
}

struct BinarySize(usize);

impl Serialize for BinarySize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([("binary_data_size", self.0)])
    }
}

/// The elements of a tensor as a flat array.
struct Elements<'a>(&'a Tensor);

impl Serialize for Elements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.bytes();
        macro_rules! flat {
            ($kind:ty) => {
                serializer.collect_seq(bytes.as_chunks().0.iter().map(|b| <$kind>::from_le_bytes(*b)))
            };
        }
        match self.0.dtype() {
            DType::Bool => serializer.collect_seq(bytes.iter().map(|byte| *byte != 0)),
            DType::U8 => flat!(u8),
            DType::U16 => flat!(u16),
            DType::U32 => flat!(u32),
            DType::U64 => flat!(u64),
            DType::I8 => flat!(i8),
            DType::I16 => flat!(i16),
            DType::I32 => flat!(i32),
            DType::I64 => flat!(i64),
            DType::F32 => flat!(f32),
            DType::F64 => flat!(f64),
            DType::F16 => serializer.collect_seq(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32())),
            DType::Bf16 => serializer.collect_seq(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32())),
            DType::Bytes => strings(self.0, serializer),
        }
    }
}

fn strings<S: Serializer>(tensor: &Tensor, serializer: S) -> Result<S::Ok, S::Error> {
    let mut seq = serializer.serialize_seq(Some(tensor.element_count()))?;
    for element in tensor.elements() {
        seq.serialize_element(std::str::from_utf8(element).expect("checked before encoding began"))?;
    }
    seq.end()
}

/// Most numbers print in about this many characters, comma included.
const NUMBER_LENGTH: usize = 13;
/// Room for names and braces.
const JSON_FRAME: usize = 256;
/// Binary outputs up to this are copied behind their JSON: one write is cheaper than two.
const COPY_MAX: usize = 64 << 10;
