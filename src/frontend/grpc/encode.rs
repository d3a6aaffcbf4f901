//! An answer to a ModelInferResponse, with every output in raw form, as this protocol's clients expect.

use std::collections::HashMap;

use crate::frontend::parameters::Value;
use crate::frontend::{OutputWish, Refusal, classification, report};
use crate::pipeline::Answer;
use crate::proto::inference::infer_parameter::ParameterChoice;
use crate::proto::inference::model_infer_response::InferOutputTensor;
use crate::proto::inference::{InferParameter, ModelInferResponse};
use crate::tensor::{NamedTensor, Tensor};

/// # Errors
/// When an output cannot be given the way it was asked for.
pub(super) fn response(
    answer: &mut Answer,
    wishes: &[OutputWish],
    report: bool,
) -> Result<ModelInferResponse, Refusal> {
    let given = std::mem::take(&mut answer.response.outputs);
    let mut outputs = Vec::with_capacity(given.len());
    let mut raw_output_contents = Vec::with_capacity(given.len());
    for NamedTensor { name, tensor } in given {
        let tensor = as_wished(&name, tensor, answer, wishes)?;
        outputs.push(InferOutputTensor {
            name,
            datatype: tensor.dtype().name().to_owned(),
            shape: tensor.shape().iter().map(|&extent| i64::try_from(extent).unwrap_or(i64::MAX)).collect(),
            ..InferOutputTensor::default()
        });
        raw_output_contents.push(tensor.into_bytes());
    }
    Ok(ModelInferResponse {
        model_name: answer.response.model.to_string(),
        model_version: answer.response.version.to_string(),
        id: answer.response.id.take().unwrap_or_default(),
        parameters: if report { costs(answer) } else { HashMap::new() },
        outputs,
        raw_output_contents,
    })
}

pub(super) fn parameter(value: Value) -> InferParameter {
    let choice = match value {
        Value::Bool(value) => ParameterChoice::BoolParam(value),
        Value::Int(value) => ParameterChoice::Int64Param(value),
        Value::Uint(value) => ParameterChoice::Uint64Param(value),
        Value::Double(value) => ParameterChoice::DoubleParam(value),
        Value::Text(value) => ParameterChoice::StringParam(value),
    };
    InferParameter { parameter_choice: Some(choice) }
}

fn as_wished(name: &str, tensor: Tensor, answer: &Answer, wishes: &[OutputWish]) -> Result<Tensor, Refusal> {
    let Some(classes) = wishes.iter().find(|wish| wish.name == name).and_then(|wish| wish.classes) else {
        return Ok(tensor);
    };
    let labels = answer.variant.settings.labels.get(name).map_or(&[][..], |labels| &labels.names);
    classification::classify(&tensor, classes, answer.variant.signature.is_batched(), labels)
}

fn costs(answer: &Answer) -> HashMap<String, InferParameter> {
    report::entries(&answer.response.usage).into_iter().map(|(key, value)| (key.to_owned(), parameter(value))).collect()
}
