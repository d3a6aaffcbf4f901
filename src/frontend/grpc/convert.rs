//! A ModelInferRequest to a call for the rooms. Raw tensors are slices of the message they came in.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::time::Instant;

use super::contents;
use crate::frontend::parameters::{RequestParameters, Value};
use crate::frontend::{Call, LimitsConfig, OutputWish, Refusal};
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
pub(super) fn call(message: ModelInferRequest, arrival: Arrival, limits: &LimitsConfig) -> Result<Call, Refusal> {
    let ModelInferRequest { model_name, model_version, id, parameters, inputs, outputs, raw_input_contents } = message;
    let model = model_name.parse()?;
    let version = if model_version.is_empty() { None } else { Some(model_version.parse()?) };
    at_most("inputs", inputs.len(), limits.tensors_max)?;
    at_most("requested outputs", outputs.len(), limits.tensors_max)?;
    let RequestParameters { mut schedule, variant, budget, binary_default, report } =
        request_parameters(parameters, limits)?;
    schedule.deadline = arrival.deadline;
    let inputs = tensors(inputs, raw_input_contents, limits)?;
    let wishes = outputs.into_iter().map(|output| wish(output, limits)).collect::<Result<Vec<_>, _>>()?;
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
    Ok(Call { request, wishes, binary_default, report })
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

fn tensors(inputs: Vec<InferInputTensor>, raw: Vec<Bytes>, limits: &LimitsConfig) -> Result<Vec<NamedTensor>, Refusal> {
    for input in &inputs {
        at_most("parameters of an input", input.parameters.len(), limits.parameters_max)?;
        refuse_shared_memory("input", &input.name, &input.parameters)?;
    }
    // Raw tensors have no names: they belong to the inputs in order, all or none of them.
    if !raw.is_empty() && raw.len() != inputs.len() {
        let (expected, got) = (inputs.len(), raw.len());
        let message = format!("expected raw_input_contents for all {expected} inputs or for none, got {got}");
        return Err(Refusal::invalid(message));
    }
    let mut raw = raw.into_iter();
    inputs.into_iter().map(|input| tensor(input, raw.next(), limits)).collect()
}

fn tensor(input: InferInputTensor, raw: Option<Bytes>, limits: &LimitsConfig) -> Result<NamedTensor, Refusal> {
    let InferInputTensor { name, datatype, shape, contents, .. } = input;
    let about = |refusal: Refusal| Refusal { message: format!("input {name:?}: {}", refusal.message), ..refusal };
    let dtype: DType = datatype.parse().map_err(|error| about(Refusal::from(error)))?;
    let shape = extents(&shape, limits.rank_max).map_err(about)?;
    let tensor = match (raw, contents) {
        (Some(_), Some(_)) => {
            let message =
                format!("contents field must not be specified when using raw_input_contents for input {name:?}");
            return Err(Refusal::invalid(message));
        }
        (Some(raw), None) => Tensor::new(dtype, shape, raw).map_err(|error| about(Refusal::from(error)))?,
        (None, contents) => contents::tensor(dtype, shape, &contents.unwrap_or_default()).map_err(about)?,
    };
    Ok(NamedTensor { name, tensor })
}

pub(super) fn extents(dims: &[i64], rank_max: usize) -> Result<Shape, Refusal> {
    at_most("axes", dims.len(), rank_max)?;
    let extent = |dim: &i64| {
        usize::try_from(*dim).map_err(|_| Refusal::invalid(format!("expected extents of at least 0, got {dim}")))
    };
    dims.iter().map(extent).collect()
}

fn wish(output: InferRequestedOutputTensor, limits: &LimitsConfig) -> Result<OutputWish, Refusal> {
    let InferRequestedOutputTensor { name, parameters } = output;
    at_most("parameters of an output", parameters.len(), limits.parameters_max)?;
    refuse_shared_memory("output", &name, &parameters)?;
    let mut wish = OutputWish { name, ..OutputWish::default() };
    for (key, parameter) in parameters {
        if key == "classification"
            && let Some(value) = value(parameter)
        {
            wish.classes = Some(value.as_len(&key)?).filter(|classes| *classes > 0);
        }
    }
    Ok(wish)
}

fn refuse_shared_memory(kind: &str, name: &str, parameters: &HashMap<String, InferParameter>) -> Result<(), Refusal> {
    if parameters.contains_key("shared_memory_region") {
        return Err(Refusal::shared_memory(kind, name));
    }
    Ok(())
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
