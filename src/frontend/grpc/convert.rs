//! A ModelInferRequest to a call for the rooms. Raw tensors are slices of the message they came in.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::time::Instant;

use super::contents;
use crate::frontend::parameters::{RequestParameters, Value};
use crate::frontend::shared_memory::REGION;
use crate::frontend::{Call, LimitsConfig, OutputWish, Placed, Placement, Refusal, SharedMemory, Slot};
use crate::infer::InferRequest;
use crate::proto::inference::infer_parameter::ParameterChoice;
use crate::proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::proto::inference::{InferParameter, ModelInferRequest};
use crate::tensor::{DType, NamedTensor, Shape, Tensor};

/// When a request was whole, and until when its client waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) at: Instant,
    pub(super) deadline: Option<Instant>,
}

/// # Errors
/// When the message is not what the protocol describes; the text says what was expected and what came.
pub(super) fn call(
    message: ModelInferRequest,
    arrival: Arrival,
    limits: &LimitsConfig,
    memory: &SharedMemory,
) -> Result<Call, Refusal> {
    let ModelInferRequest { model_name, model_version, id, parameters, inputs, outputs, raw_input_contents } = message;
    let model = model_name.parse()?;
    let version = if model_version.is_empty() { None } else { Some(model_version.parse()?) };
    at_most("inputs", inputs.len(), limits.tensors_max)?;
    at_most("requested outputs", outputs.len(), limits.tensors_max)?;
    let RequestParameters { mut schedule, variant, budget, binary_default, report } =
        request_parameters(parameters, limits)?;
    schedule.deadline = arrival.deadline;
    let (inputs, placed) = tensors(inputs, raw_input_contents, limits, memory)?;
    let wishes = outputs.into_iter().map(|output| wish(output, limits, memory)).collect::<Result<Vec<_>, _>>()?;
    let request = InferRequest {
        model,
        version,
        variant,
        budget,
        id: (!id.is_empty()).then_some(id),
        inputs,
        outputs: wishes.iter().map(|wish| wish.name.clone()).collect(),
        schedule,
        received_at: arrival.at,
        decode: arrival.at.elapsed(),
    };
    Ok(Call { request, placed, wishes, binary_default, report })
}

fn request_parameters(
    parameters: HashMap<String, InferParameter>,
    limits: &LimitsConfig,
) -> Result<RequestParameters, Refusal> {
    at_most("parameters", parameters.len(), limits.parameters_max)?;
    let mut known = RequestParameters::default();
    for (key, parameter) in parameters {
        if let Some(value) = value(parameter) {
            known.set(&key, &value)?;
        }
    }
    Ok(known)
}

/// Those that lie in shared memory are left for later.
fn tensors(
    mut inputs: Vec<InferInputTensor>,
    raw: Vec<Bytes>,
    limits: &LimitsConfig,
    memory: &SharedMemory,
) -> Result<(Vec<NamedTensor>, Vec<Placed>), Refusal> {
    let mut slots = Vec::new();
    for (at, input) in inputs.iter_mut().enumerate() {
        at_most("parameters of an input", input.parameters.len(), limits.parameters_max)?;
        if let Some(slot) = slot(input, memory)? {
            slots.push((at, slot));
        }
    }
    // Raw tensors have no names: they belong to the inputs in order, all or none of them.
    let sent = inputs.len() - slots.len();
    if !raw.is_empty() && raw.len() != sent {
        let message = format!("expected raw_input_contents for all {sent} inputs or for none, got {}", raw.len());
        return Err(Refusal::invalid(message));
    }
    let (mut raw, mut slots) = (raw.into_iter(), slots.into_iter().peekable());
    let (mut named, mut placed) = (Vec::with_capacity(sent), Vec::new());
    for (at, input) in inputs.into_iter().enumerate() {
        match slots.next_if(|(place, _)| *place == at) {
            None => named.push(tensor(input, raw.next(), limits)?),
            Some((_, slot)) => placed.push(input_in(slot, at, input, limits)?),
        }
    }
    Ok((named, placed))
}

/// The slot that an input's parameters name.
fn slot(input: &mut InferInputTensor, memory: &SharedMemory) -> Result<Option<Slot>, Refusal> {
    let mut placement = Placement::default();
    for (key, parameter) in input.parameters.drain() {
        if let Some(value) = value(parameter) {
            placement.set(&key, &value)?;
        }
    }
    placement.find(memory, "input", &input.name)
}

fn input_in(slot: Slot, at: usize, input: InferInputTensor, limits: &LimitsConfig) -> Result<Placed, Refusal> {
    let InferInputTensor { name, datatype, shape, contents, .. } = input;
    if contents.is_some() {
        return Err(Refusal::invalid(format!("input {name:?} has both contents and {REGION:?}")));
    }
    let (dtype, shape) = described(&name, &datatype, &shape, limits)?;
    Ok(Placed { at, name, dtype, shape, slot })
}

fn described(name: &str, datatype: &str, shape: &[i64], limits: &LimitsConfig) -> Result<(DType, Shape), Refusal> {
    let dtype = datatype.parse().map_err(|error| about(name, Refusal::from(error)))?;
    let shape = extents(shape, limits.rank_max).map_err(|refusal| about(name, refusal))?;
    Ok((dtype, shape))
}

fn about(name: &str, refusal: Refusal) -> Refusal {
    Refusal { message: format!("input {name:?}: {}", refusal.message), ..refusal }
}

fn tensor(input: InferInputTensor, raw: Option<Bytes>, limits: &LimitsConfig) -> Result<NamedTensor, Refusal> {
    let InferInputTensor { name, datatype, shape, contents, .. } = input;
    let (dtype, shape) = described(&name, &datatype, &shape, limits)?;
    let tensor = match (raw, contents) {
        (Some(_), Some(_)) => {
            let message =
                format!("contents field must not be specified when using raw_input_contents for input {name:?}");
            return Err(Refusal::invalid(message));
        }
        (Some(raw), None) => Tensor::new(dtype, shape, raw).map_err(Refusal::from),
        (None, contents) => contents::tensor(dtype, shape, &contents.unwrap_or_default()),
    };
    let tensor = tensor.map_err(|refusal| about(&name, refusal))?;
    Ok(NamedTensor { name, tensor })
}

pub(super) fn extents(dims: &[i64], rank_max: usize) -> Result<Shape, Refusal> {
    at_most("axes", dims.len(), rank_max)?;
    let extent = |dim: &i64| {
        usize::try_from(*dim).map_err(|_| Refusal::invalid(format!("expected extents of at least 0, got {dim}")))
    };
    dims.iter().map(extent).collect()
}

fn wish(
    output: InferRequestedOutputTensor,
    limits: &LimitsConfig,
    memory: &SharedMemory,
) -> Result<OutputWish, Refusal> {
    let InferRequestedOutputTensor { name, parameters } = output;
    at_most("parameters of an output", parameters.len(), limits.parameters_max)?;
    let mut wish = OutputWish { name, ..OutputWish::default() };
    let mut placement = Placement::default();
    for (key, parameter) in parameters {
        let Some(value) = value(parameter) else { continue };
        match key.as_str() {
            "classification" => wish.classes = Some(value.as_len(&key)?).filter(|classes| *classes > 0),
            _ => placement.set(&key, &value)?,
        }
    }
    wish.place(placement, memory)?;
    Ok(wish)
}

fn value(parameter: InferParameter) -> Option<Value> {
    Some(match parameter.parameter_choice? {
        ParameterChoice::BoolParam(value) => Value::Bool(value),
        ParameterChoice::Int64Param(value) => Value::Int(value),
        ParameterChoice::StringParam(value) => Value::Text(value),
        ParameterChoice::DoubleParam(value) => Value::Double(value),
        ParameterChoice::Uint64Param(value) => Value::Uint(value),
    })
}

pub(super) fn at_most(what: &str, got: usize, limit: usize) -> Result<(), Refusal> {
    if got > limit {
        return Err(Refusal::invalid(format!("expected at most {limit} {what}, got {got}")));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
