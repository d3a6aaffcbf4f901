//! Classify and Regress: examples in, scores of classes or one number each out.
//!
//! The outputs that TensorFlow Serving's signatures name are taken by those names; a model that has one output of floats
//! alone needs no names.

use std::sync::Arc;

use half::{bf16, f16};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::examples;
use super::walk::{Asked, Tensors, answered_by, walk};
use crate::access::Verb;
use crate::frontend::grpc::bounded::Decoded;
use crate::frontend::grpc::infer::settle;
use crate::frontend::report::Told;
use crate::frontend::{Frontend, Refusal};
use crate::pipeline::{Answer, Outcome};
use crate::proto::tensorflow::serving::{
    Class, ClassificationRequest, ClassificationResponse, ClassificationResult, Classifications, Input, ModelSpec,
    Regression, RegressionRequest, RegressionResponse, RegressionResult,
};
use crate::tensor::{DType, NamedTensor, Tensor};

pub(super) async fn classify(
    frontend: Arc<Frontend>,
    request: Request<Decoded<ClassificationRequest>>,
    mut outcome: Outcome,
) -> Result<Response<ClassificationResponse>, Status> {
    let (metadata, _, Decoded { message, at }) = request.into_parts();
    let ClassificationRequest { model_spec, input } = message;
    let answer = scored(&frontend, (&metadata, at), model_spec, input, &mut outcome).await.and_then(|answer| {
        let labels = |output: &str| answer.variant.settings.labels.get(output).map_or(&[][..], |labels| &labels.names);
        let result = classifications(&answer.response.outputs, labels)?;
        let spec = answered_by(&answer.variant);
        Ok((ClassificationResponse { result: Some(result), model_spec: Some(spec) }, told(&frontend, &answer)))
    });
    settle(&frontend, answer.map_err(Status::from), outcome)
}

pub(super) async fn regress(
    frontend: Arc<Frontend>,
    request: Request<Decoded<RegressionRequest>>,
    mut outcome: Outcome,
) -> Result<Response<RegressionResponse>, Status> {
    let (metadata, _, Decoded { message, at }) = request.into_parts();
    let RegressionRequest { model_spec, input } = message;
    let answer = scored(&frontend, (&metadata, at), model_spec, input, &mut outcome).await.and_then(|answer| {
        let result = regressions(&answer.response.outputs)?;
        let spec = answered_by(&answer.variant);
        Ok((RegressionResponse { result: Some(result), model_spec: Some(spec) }, told(&frontend, &answer)))
    });
    settle(&frontend, answer.map_err(Status::from), outcome)
}

/// The answer to examples. With the call's metadata goes when its message was whole.
async fn scored(
    frontend: &Frontend,
    (metadata, at): (&MetadataMap, Instant),
    spec: Option<ModelSpec>,
    input: Option<Input>,
    outcome: &mut Outcome,
) -> Result<Answer, Refusal> {
    outcome.received(at);
    let asked = Asked::read(frontend, (outcome.caller(), Verb::Infer), spec).await?;
    if !asked.names_our_signature() {
        return Err(asked.no_signature());
    }
    let variant = asked.find(frontend, outcome).await?;
    // The guard of the limits must not be held while waiting.
    let inputs = examples::tensors(input, &variant.signature, &frontend.limits.load())?;
    walk(frontend, metadata, (asked, Tensors { inputs, outputs: Vec::new() }), at, outcome).await
}

fn told(frontend: &Frontend, answer: &Answer) -> Told {
    answer.encoded();
    Told::of(answer, frontend.pipeline.meter().replies().headers)
}

/// # Errors
/// When the outputs are no scores of rows.
fn classifications<'a>(
    outputs: &[NamedTensor],
    labels: impl Fn(&str) -> &'a [String],
) -> Result<ClassificationResult, Refusal> {
    let scores = output(outputs, SCORES)?;
    let classes = outputs.iter().find(|output| output.name == CLASSES && output.tensor.dtype() == DType::Bytes);
    let (rows, values) = (scores.tensor.shape().rows(), floats(&scores.tensor)?);
    let width = values.len().checked_div(rows).unwrap_or(0);
    let classes = classes.filter(|classes| classes.tensor.shape() == scores.tensor.shape());
    let own: Vec<&[u8]> = classes.iter().flat_map(|classes| classes.tensor.elements()).collect();
    let labels = labels(&scores.name);
    let class = |row: usize, column: usize| {
        let label = match own.get(row * width + column) {
            Some(own) => String::from_utf8_lossy(own).into_owned(),
            // What has no name has an empty one.
            None => labels.get(column).cloned().unwrap_or_default(),
        };
        Class { label, score: values[row * width + column] }
    };
    let row = |row: usize| Classifications { classes: (0..width).map(|column| class(row, column)).collect() };
    Ok(ClassificationResult { classifications: (0..rows).map(row).collect() })
}

/// # Errors
/// When the outputs are not one number for each row.
fn regressions(outputs: &[NamedTensor]) -> Result<RegressionResult, Refusal> {
    let found = output(outputs, OUTPUTS)?;
    let (rows, values) = (found.tensor.shape().rows(), floats(&found.tensor)?);
    if values.len() != rows {
        let (name, shape) = (&found.name, found.tensor.shape());
        return Err(Refusal::invalid(format!("output {name:?}: expected one number for each row, got shape {shape}")));
    }
    Ok(RegressionResult { regressions: values.into_iter().map(|value| Regression { value }).collect() })
}

/// The output of this name, or the only one of floats.
fn output<'a>(outputs: &'a [NamedTensor], name: &str) -> Result<&'a NamedTensor, Refusal> {
    let is_float = |output: &&NamedTensor| FLOATS.contains(&output.tensor.dtype());
    if let Some(named) = outputs.iter().find(|output| output.name == name) {
        return Ok(named);
    }
    let mut floats = outputs.iter().filter(is_float);
    match (floats.next(), floats.next()) {
        (Some(only), None) => Ok(only),
        _ => {
            let shown = |output: &NamedTensor| format!("{} {}", output.name, output.tensor.dtype());
            let got: Vec<String> = outputs.iter().map(shown).collect();
            let got = got.join(", ");
            Err(Refusal::invalid(format!("expected an output {name:?}, or one of floats, the model has {got}")))
        }
    }
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>, Refusal> {
    let bytes = tensor.bytes();
    Ok(match tensor.dtype() {
        DType::F32 => bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect(),
        #[expect(clippy::cast_possible_truncation, reason = "a score has as many digits as the message has room for")]
        DType::F64 => bytes.as_chunks().0.iter().map(|value| f64::from_le_bytes(*value) as f32).collect(),
        DType::F16 => bytes.as_chunks().0.iter().map(|value| f16::from_le_bytes(*value).to_f32()).collect(),
        DType::Bf16 => bytes.as_chunks().0.iter().map(|value| bf16::from_le_bytes(*value).to_f32()).collect(),
        other => return Err(Refusal::invalid(format!("expected scores of floats, the output has {other}"))),
    })
}

const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::Bf16];
/// The names of TensorFlow Serving's signatures.
const SCORES: &str = "scores";
const CLASSES: &str = "classes";
const OUTPUTS: &str = "outputs";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;

    fn scores(name: &str, shape: &[usize], values: &[f32]) -> NamedTensor {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        NamedTensor { name: name.into(), tensor: Tensor::new(DType::F32, Shape::new(shape), bytes.into()).unwrap() }
    }

    fn words(name: &str, shape: &[usize], list: &[&str]) -> NamedTensor {
        let elements = list.iter().map(|word| word.as_bytes());
        NamedTensor { name: name.into(), tensor: Tensor::from_elements(Shape::new(shape), elements).unwrap() }
    }

    fn check(outputs: &[NamedTensor], labels: &[&str], expected: &[&[(&str, f32)]]) {
        let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
        let result = classifications(outputs, |_| &labels).unwrap();
        let class = |class: &Class| (class.label.clone(), class.score);
        let got: Vec<Vec<_>> =
            result.classifications.iter().map(|row| row.classes.iter().map(class).collect()).collect();
        let expected: Vec<Vec<_>> =
            expected.iter().map(|row| row.iter().map(|(label, score)| (label.to_string(), *score)).collect()).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn scores_have_the_names_that_are_known() {
        let two = || scores("y", &[2, 2], &[0.5, 1.5, 2.5, 3.5]);
        check(&[two()], &[], &[&[("", 0.5), ("", 1.5)], &[("", 2.5), ("", 3.5)]]);
        check(&[two()], &["a"], &[&[("a", 0.5), ("", 1.5)], &[("a", 2.5), ("", 3.5)]]);
        let classes = words("classes", &[2, 2], &["p", "q", "r", "s"]);
        let named = NamedTensor { name: "scores".into(), ..two() };
        check(
            &[classes, named, scores("z", &[1], &[9.0])],
            &["a"],
            &[&[("p", 0.5), ("q", 1.5)], &[("r", 2.5), ("s", 3.5)]],
        );
        check(&[scores("y", &[2], &[0.5, 1.5])], &[], &[&[("", 0.5)], &[("", 1.5)]]);
        check(&[scores("y", &[0, 3], &[])], &["a"], &[]);
    }

    #[test]
    fn a_regression_is_one_number() {
        let values = |outputs: &[NamedTensor]| {
            let numbers = |result: RegressionResult| result.regressions.iter().map(|one| one.value).collect::<Vec<_>>();
            regressions(outputs).map(numbers).map_err(|refusal| refusal.message)
        };
        assert_eq!(values(&[scores("y", &[2, 1], &[0.5, 1.5])]), Ok(vec![0.5, 1.5]));
        assert_eq!(values(&[scores("a", &[1], &[1.0]), scores("outputs", &[1], &[2.0])]), Ok(vec![2.0]));
        let wide = "output \"y\": expected one number for each row, got shape [1,2]";
        assert_eq!(values(&[scores("y", &[1, 2], &[0.5, 1.5])]), Err(wide.to_owned()));
        let which = "expected an output \"outputs\", or one of floats, the model has a FP32, b FP32";
        assert_eq!(values(&[scores("a", &[1], &[1.0]), scores("b", &[1], &[2.0])]), Err(which.to_owned()));
        assert!(values(&[words("outputs", &[1], &["w"])]).is_err());
    }
}
