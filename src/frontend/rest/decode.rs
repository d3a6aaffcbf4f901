//! A request body to a call: JSON alone, JSON with binary tensors behind it, or one raw binary tensor.

use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use super::json_request::{self, JsonInput, JsonOutput};
use super::nonfinite;
use crate::engine::{Dim, TensorSpec};
use crate::frontend::config::LimitsConfig;
use crate::frontend::parameters::{RequestParameters, Value};
use crate::frontend::shared_memory::REGION;
use crate::frontend::{Call, OutputWish, Placed, Placement, Refusal, SharedMemory};
use crate::infer::{Budget, InferRequest, ModelName, VersionId};
use crate::repository::Variant;
use crate::tensor::{DType, NamedTensor, Shape, Tensor};

/// What the path and the headers of a request say.
#[derive(Debug)]
pub(super) struct Head {
    pub model: ModelName,
    pub version: Option<VersionId>,
    /// Bytes of JSON before the binary tensors; `None` where all of the body is JSON.
    pub json_length: Option<usize>,
    pub deadline: Option<Instant>,
    /// As headers have it; parameters go before them.
    pub budget: Budget,
    pub received_at: Instant,
}

/// # Errors
/// When the body is not what the protocol describes; the message says what was expected and what came.
pub(super) fn call(head: Head, mut body: Bytes, limits: &LimitsConfig, memory: &SharedMemory) -> Result<Call, Refusal> {
    let json_length = head.json_length.unwrap_or(body.len());
    if json_length > body.len() {
        return Err(Refusal::invalid(format!(
            "inference header size should be in range (0, {}), got: {json_length}",
            body.len()
        )));
    }
    if body.is_empty() {
        return Err(Refusal::invalid("the body is empty, expected an inference request in JSON"));
    }
    let json = leniently(&body[..json_length], |text| json_request::parse(text, limits))?;
    let mut parameters = RequestParameters { budget: head.budget, ..RequestParameters::default() };
    for (key, value) in &json.parameters {
        parameters.set(key, value)?;
    }
    let inputs = json.inputs.ok_or_else(|| Refusal::invalid("the request has no \"inputs\""))?;
    body.advance(json_length);
    let (inputs, placed) = tensors(inputs, body, memory)?;
    let wishes = json.outputs.into_iter().map(|output| wish(output, memory)).collect::<Result<Vec<_>, _>>()?;
    Ok(Call { placed, ..assemble(head, json.id, inputs, wishes, parameters) })
}

/// A body that is the one input of a model, without any JSON.
///
/// # Errors
/// When the model has several inputs, or the shape cannot be told from the length.
pub(super) fn raw_call(head: Head, body: Bytes, variant: &Variant) -> Result<Call, Refusal> {
    let [spec] = variant.signature.inputs.as_slice() else {
        let count = variant.signature.inputs.len();
        return Err(Refusal::invalid(format!(
            "a raw binary request needs a model with one input, this one has {count}"
        )));
    };
    let (tensor, name) = (raw_tensor(spec, body, variant.merges())?, spec.name.clone());
    // All outputs come back in binary form.
    let parameters = RequestParameters { binary_default: true, budget: head.budget, ..RequestParameters::default() };
    Ok(assemble(head, None, vec![NamedTensor { name, tensor }], Vec::new(), parameters))
}

pub(super) fn assemble(
    head: Head,
    id: Option<String>,
    inputs: Vec<NamedTensor>,
    wishes: Vec<OutputWish>,
    parameters: RequestParameters,
) -> Call {
    let mut schedule = parameters.schedule;
    schedule.deadline = head.deadline;
    let request = InferRequest {
        model: head.model,
        version: head.version,
        variant: parameters.variant,
        budget: parameters.budget,
        id,
        inputs,
        outputs: wishes.iter().map(|wish| wish.name.clone()).collect(),
        schedule,
        received_at: head.received_at,
        decode: head.received_at.elapsed(),
    };
    let RequestParameters { binary_default, report, .. } = parameters;
    Call { request, placed: Vec::new(), wishes, binary_default, report }
}

/// Reads JSON that may hold `NaN` and its like, which only text that is no JSON does.
///
/// # Errors
/// When it cannot be read.
pub(super) fn leniently<T>(text: &[u8], read: impl Fn(&[u8]) -> Result<T, serde_json::Error>) -> Result<T, Refusal> {
    read(text).or_else(|error| {
        let refuse = |error: serde_json::Error| Refusal::invalid(format!("invalid request: {error}"));
        let Some(quoted) = error.is_syntax().then(|| nonfinite::quoted(text)).flatten() else {
            return Err(refuse(error));
        };
        read(&quoted).map_err(refuse)
    })
}

/// Joins descriptors with their elements; binary ones take theirs from `binary`, in order.
/// Those that lie in shared memory are left for later.
fn tensors(
    inputs: Vec<JsonInput>,
    mut binary: Bytes,
    memory: &SharedMemory,
) -> Result<(Vec<NamedTensor>, Vec<Placed>), Refusal> {
    let (mut named, mut placed) = (Vec::with_capacity(inputs.len()), Vec::new());
    for (at, input) in inputs.into_iter().enumerate() {
        let JsonInput { name, dtype, shape, parameters, values } = input;
        let (size, placement) = binary_size(&parameters)?;
        if let Some(slot) = placement.find(memory, "input", &name)? {
            if size.is_some() || values.is_some() {
                let other = if size.is_some() { "binary_data_size" } else { "data" };
                return Err(Refusal::invalid(format!("input {name:?} has both {other:?} and {REGION:?}")));
            }
            placed.push(Placed { at, name, dtype, shape, slot });
            continue;
        }
        let bytes = match (size, values) {
            (Some(_), Some(_)) => {
                return Err(Refusal::invalid(format!("input {name:?} has both \"data\" and \"binary_data_size\"")));
            }
            (None, None) => {
                let why = format!("input {name:?} has neither \"data\" nor the parameter \"binary_data_size\"");
                return Err(Refusal::invalid(why));
            }
            (Some(size), None) if size > binary.len() => {
                let left = binary.len();
                return Err(Refusal::invalid(format!(
                    "input {name:?} has binary_data_size {size}, {left} bytes are left"
                )));
            }
            // A copy lets the connection read on into the same buffer.
            (Some(size), None) if size <= COPY_MAX => Bytes::copy_from_slice(&binary.split_to(size)),
            (Some(size), None) => binary.split_to(size),
            (None, Some(values)) => values.into(),
        };
        let tensor = Tensor::new(dtype, shape, bytes)
            .map_err(|error| Refusal::invalid(format!("unexpected size for input {name:?}: {error}")))?;
        named.push(NamedTensor { name, tensor });
    }
    if !binary.is_empty() {
        let left = binary.len();
        return Err(Refusal::invalid(format!(
            "unexpected additional input data: {left} bytes are left after the last input"
        )));
    }
    Ok((named, placed))
}

fn binary_size(parameters: &[(String, Value)]) -> Result<(Option<usize>, Placement), Refusal> {
    let (mut size, mut placement) = (None, Placement::default());
    for (key, value) in parameters {
        match key.as_str() {
            "binary_data_size" => size = Some(value.as_len(key)?),
            _ => placement.set(key, value)?,
        }
    }
    Ok((size, placement))
}

fn wish(output: JsonOutput, memory: &SharedMemory) -> Result<OutputWish, Refusal> {
    let mut placement = Placement::default();
    let mut wish = OutputWish { name: output.name, ..OutputWish::default() };
    for (key, value) in &output.parameters {
        match key.as_str() {
            "binary_data" => wish.binary = Some(value.as_bool(key)?),
            "classification" => wish.classes = Some(value.as_len(key)?).filter(|classes| *classes > 0),
            _ => placement.set(key, value)?,
        }
    }
    wish.place(placement, memory)?;
    Ok(wish)
}

/// The shape of a raw body: at most one free extent besides the batch's, which is 1, told from the length.
fn raw_tensor(spec: &TensorSpec, body: Bytes, batched: bool) -> Result<Tensor, Refusal> {
    let Some(size) = spec.dtype.size() else { return raw_element(spec, body, batched) };
    let mut dims: Vec<Option<usize>> = spec
        .dims
        .iter()
        .map(|dim| match dim {
            Dim::Fixed(extent) => Some(*extent),
            Dim::Free(_) => None,
        })
        .collect();
    if batched && let Some(first) = dims.first_mut() {
        *first = Some(1);
    }
    let unknown = dims.iter().filter(|dim| dim.is_none()).count();
    if unknown > 1 {
        let why = "a raw binary request needs a model with at most one variable-size dimension";
        return Err(Refusal::invalid(format!("{why}, input {:?} has shape {}", spec.name, spec.shown_dims())));
    }
    let product = dims.iter().flatten().try_fold(size, |product, &extent| product.checked_mul(extent.max(1)));
    let known = product.unwrap_or(usize::MAX);
    let shape: Shape = dims.into_iter().map(|dim| dim.unwrap_or(body.len() / known)).collect();
    Ok(Tensor::new(spec.dtype, shape, body)?)
}

/// A raw body for a `BYTES` input is its one element.
fn raw_element(spec: &TensorSpec, body: Bytes, batched: bool) -> Result<Tensor, Refusal> {
    let rank = spec.dims.len();
    if rank != 1 && !(batched && rank == 2) {
        let why = "a raw binary request for BYTES needs shape [1]";
        return Err(Refusal::invalid(format!("{why}, input {:?} has shape {}", spec.name, spec.shown_dims())));
    }
    debug_assert_eq!(spec.dtype, DType::Bytes);
    Ok(Tensor::from_elements(Shape::new(&vec![1; rank]), [&body[..]])?)
}

/// A duration in milliseconds as a header gives it.
///
/// # Errors
/// When it is no whole number.
pub(super) fn timeout_header(text: &str) -> Result<Duration, Refusal> {
    text.trim()
        .parse()
        .map(Duration::from_millis)
        .map_err(|_| Refusal::invalid(format!("header kinglet-timeout-ms expects whole milliseconds, got {text:?}")))
}

/// Tensors up to this are copied out of the buffer they arrived in.
const COPY_MAX: usize = 4 << 10;
