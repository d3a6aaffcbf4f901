//! An answer to a ModelInferResponse, with every output in raw form, as this protocol's clients expect.

use std::collections::HashMap;

use bytes::Bytes;

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
    let mut placed = Vec::new();
    for NamedTensor { name, tensor } in given {
        let tensor = as_wished(&name, tensor, answer, wishes)?;
        let slot = wish(&name, wishes).and_then(|wish| wish.slot.as_ref());
        if let Some(slot) = slot {
            slot.check(&name, &tensor)?;
        }
        let parameters = slot.into_iter().flat_map(|slot| slot.parameters(&tensor));
        outputs.push(InferOutputTensor {
            datatype: tensor.dtype().name().to_owned(),
            shape: tensor.shape().iter().map(|&extent| i64::try_from(extent).unwrap_or(i64::MAX)).collect(),
            parameters: parameters.map(|(key, value)| (key.to_owned(), parameter(value))).collect(),
            name,
            contents: None,
        });
        // Clients count: there is one for every output, also where it has no bytes.
        raw_output_contents.push(match slot {
            None => tensor.into_bytes(),
            Some(slot) => {
                placed.push((outputs.len() - 1, slot, tensor));
                Bytes::new()
            }
        });
    }
    // Not before every output is known to be told.
    for (at, slot, tensor) in &placed {
        slot.write(&outputs[*at].name, tensor)?;
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
    wish(output, wishes)?.classes
}

fn wish<'a>(output: &str, wishes: &'a [OutputWish]) -> Option<&'a OutputWish> {
    wishes.iter().find(|wish| wish.name == output)
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
