//! A request's inputs against a signature: names, datatypes, shapes, rows.

use super::RouteError;
use crate::engine::Signature;
use crate::engine::signature::Bindings;
use crate::repository::Variant;
use crate::tensor::{NamedTensor, Tensor};

/// The inputs in the plan's order and shapes, and the rows of the request.
pub(super) fn inputs(given: Vec<NamedTensor>, variant: &Variant) -> Result<(Vec<Tensor>, usize), RouteError> {
    let ordered = in_order(given, &variant.signature)?;
    let rows = rows(&ordered, variant)?;
    let inputs = ordered
        .into_iter()
        .zip(&variant.signature.inputs)
        .map(|(tensor, spec)| variant.settings.to_model_shape(&spec.name, tensor, variant.merges()))
        .collect();
    Ok((inputs, rows))
}

pub(super) fn check_outputs(wanted: &[String], signature: &Signature) -> Result<(), RouteError> {
    match wanted.iter().find(|name| signature.output(name).is_none()) {
        None => Ok(()),
        Some(got) => {
            let expected = names(signature.outputs.iter().map(|spec| spec.name.as_str()));
            Err(RouteError::UnknownOutput { got: got.clone(), expected })
        }
    }
}

fn in_order(given: Vec<NamedTensor>, signature: &Signature) -> Result<Vec<Tensor>, RouteError> {
    let mut slots: Vec<Option<Tensor>> = vec![None; signature.inputs.len()];
    let mut bindings = Bindings::new();
    for NamedTensor { name, tensor } in given {
        let Some(position) = signature.inputs.iter().position(|spec| spec.name == name) else {
            let expected = names(signature.inputs.iter().map(|spec| spec.name.as_str()));
            return Err(RouteError::UnknownInput { got: name, expected });
        };
        let spec = &signature.inputs[position];
        if slots[position].is_some() {
            return Err(RouteError::DuplicateInput(name));
        }
        if tensor.dtype() != spec.dtype {
            return Err(RouteError::WrongDType { input: name, expected: spec.dtype, got: tensor.dtype() });
        }
        spec.check(tensor.shape(), &mut bindings)?;
        slots[position] = Some(tensor);
    }
    let missing = |spec: &crate::engine::TensorSpec| RouteError::MissingInput {
        name: spec.name.clone(),
        expected: format!("{} {}", spec.dtype, spec.shown_dims()),
    };
    slots.into_iter().zip(&signature.inputs).map(|(slot, spec)| slot.ok_or_else(|| missing(spec))).collect()
}

/// Rows are the extent of axis 0, the same on every input, within the model's limit.
fn rows(inputs: &[Tensor], variant: &Variant) -> Result<usize, RouteError> {
    if !variant.signature.is_batched() {
        return Ok(1);
    }
    let expected = inputs.first().map_or(1, |tensor| tensor.shape().rows());
    if !variant.merges() {
        // Counted as rows, but never merged, so that inputs may differ and only a limit that is written down applies.
        let got = inputs.iter().map(|tensor| tensor.shape().rows()).max().unwrap_or(1);
        return match variant.settings.rows_alone_max {
            Some(limit) if got > limit => Err(RouteError::TooManyRows { got, limit }),
            _ => Ok(expected.max(1)),
        };
    }
    for (tensor, spec) in inputs.iter().zip(&variant.signature.inputs) {
        let got = tensor.shape().rows();
        if got != expected {
            return Err(RouteError::RowsDiffer { input: spec.name.clone(), expected, got });
        }
    }
    let limit = variant.settings.batching.batch_size_max;
    if expected > limit {
        return Err(RouteError::TooManyRows { got: expected, limit });
    }
    Ok(expected)
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.map(|name| format!("{name:?}")).collect();
    quoted.join(", ")
}
