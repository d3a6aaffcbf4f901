//! Which output of a model answers `:classify` and `:regress`: the one that can.

use super::Verb;
use crate::engine::{Dim, Signature, TensorSpec};
use crate::frontend::{OutputWish, Refusal};
use crate::tensor::DType;

/// The outputs that a call wants; none stands for all of them.
///
/// # Errors
/// When no output, or more than one, has the form that the call's answer needs.
pub(super) fn wanted(verb: Verb, signature: &Signature) -> Result<Vec<OutputWish>, Refusal> {
    let (fits, expected): (fn(&TensorSpec) -> bool, _) = match verb {
        Verb::Predict => return Ok(Vec::new()),
        Verb::Classify => (has_scores, ":classify expects one output of floats with a row of scores for each example"),
        Verb::Regress => (has_number, ":regress expects one output with one number for each example"),
    };
    let mut fitting = signature.outputs.iter().filter(|spec| fits(spec));
    match (fitting.next(), fitting.next()) {
        (Some(spec), None) => Ok(vec![OutputWish { name: spec.name.clone(), ..OutputWish::default() }]),
        (_, second) => {
            let shown = |spec: &TensorSpec| format!("{:?} {} {}", spec.name, spec.dtype, spec.shown_dims());
            let outputs: Vec<String> = signature.outputs.iter().map(shown).collect();
            let count = if second.is_some() { "several of them" } else { "none" };
            Err(Refusal::invalid(format!("{expected}, the model has {count}: {}", outputs.join(", "))))
        }
    }
}

fn has_scores(spec: &TensorSpec) -> bool {
    is_float(spec.dtype) && spec.dims.len() == 2
}

fn has_number(spec: &TensorSpec) -> bool {
    let is_number = !matches!(spec.dtype, DType::Bool | DType::Bytes);
    is_number && matches!(spec.dims.as_slice(), [_] | [_, Dim::Fixed(1)])
}

fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::Bf16 | DType::F32 | DType::F64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, dtype: DType, dims: &[usize]) -> TensorSpec {
        let dims = dims.iter().map(|&extent| if extent == 0 { Dim::Free(None) } else { Dim::Fixed(extent) });
        TensorSpec { name: name.into(), dtype, dims: dims.collect() }
    }

    fn check(verb: Verb, outputs: &[TensorSpec], wanted_: Result<&str, &str>) {
        let signature = Signature { inputs: Vec::new(), outputs: outputs.to_vec() };
        match (wanted(verb, &signature), wanted_) {
            (Ok(got), Ok(name)) => assert_eq!(got[0].name, name),
            (Err(refusal), Err(says)) => assert!(refusal.message.contains(says), "{refusal}"),
            (got, wanted) => panic!("{got:?}, expected {wanted:?}"),
        }
    }

    #[test]
    fn the_output_that_can_is_chosen() {
        let label = spec("label", DType::I64, &[0]);
        let scores = spec("scores", DType::F32, &[0, 3]);
        let both = [label.clone(), scores.clone()];
        check(Verb::Classify, &both, Ok("scores"));
        check(Verb::Regress, &both, Ok("label"));
        check(Verb::Regress, &[spec("y", DType::F32, &[0, 1])], Ok("y"));
        check(Verb::Classify, &[label], Err("the model has none: \"label\" INT64 [-1]"));
        check(Verb::Regress, std::slice::from_ref(&scores), Err("one number for each example, the model has none"));
        check(Verb::Classify, &[scores, spec("more", DType::F64, &[0, 2])], Err("several of them"));
        assert!(wanted(Verb::Predict, &Signature::default()).unwrap().is_empty());
    }
}
