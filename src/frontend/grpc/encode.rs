//! An answer to a ModelInferResponse, with every output in raw form, as this protocol's clients expect.

use std::collections::HashMap;

use crate::frontend::parameters::Value;
use crate::frontend::{OutputWish, Refusal, Report, classification};
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
    report: Report,
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
        parameters: costs(answer, report),
        outputs,
        raw_output_contents,
    })
}

/// Bytes to look at and to print: what makes encoding slow. Raw outputs go out as they are.
pub(super) fn bytes_to_code(answer: &Answer, wishes: &[OutputWish]) -> usize {
    let batched = answer.variant.signature.is_batched();
    let bytes = |named: &NamedTensor| {
        classes(&named.name, wishes).map_or(0, |classes| classification::bytes_to_code(&named.tensor, classes, batched))
    };
    answer.response.outputs.iter().map(bytes).sum()
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

fn classes(output: &str, wishes: &[OutputWish]) -> Option<usize> {
    wishes.iter().find(|wish| wish.name == output)?.classes
}

fn as_wished(name: &str, tensor: Tensor, answer: &Answer, wishes: &[OutputWish]) -> Result<Tensor, Refusal> {
    let Some(classes) = classes(name, wishes) else { return Ok(tensor) };
    classification::of_output(name, &tensor, classes, &answer.variant)
}

fn costs(answer: &Answer, report: Report) -> HashMap<String, InferParameter> {
    report
        .entries(&answer.response, answer.energy)
        .into_iter()
        .map(|(key, value)| (key.to_owned(), parameter(value)))
        .collect()
}
