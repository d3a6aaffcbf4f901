//! Predict: tensors by name in, tensors by name out.

use std::sync::Arc;

use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

use super::tensor_proto::{self, Room};
use super::walk::{Asked, Tensors, answered_by, walk};
use crate::access::Verb;
use crate::frontend::grpc::bounded::Decoded;
use crate::frontend::grpc::convert::at_most;
use crate::frontend::grpc::infer::settle;
use crate::frontend::report::Told;
use crate::frontend::{Frontend, LimitsConfig, Refusal, large};
use crate::pipeline::{Answer, Outcome};
use crate::proto::tensorflow::TensorProto;
use crate::proto::tensorflow::serving::{PredictRequest, PredictResponse};
use crate::tensor::NamedTensor;

pub(super) async fn predict(
    frontend: Arc<Frontend>,
    request: Request<Decoded<PredictRequest>>,
    mut outcome: Outcome,
) -> Result<Response<PredictResponse>, Status> {
    let (metadata, _, decoded) = request.into_parts();
    let answer = predicted(&frontend, &metadata, decoded, &mut outcome).await;
    settle(&frontend, answer, outcome)
}

async fn predicted(
    frontend: &Frontend,
    metadata: &MetadataMap,
    Decoded { message, at }: Decoded<PredictRequest>,
    outcome: &mut Outcome,
) -> Result<(PredictResponse, Told), Status> {
    outcome.received(at);
    let PredictRequest { model_spec, inputs, output_filter } = message;
    let asked = Asked::read(frontend, (outcome.caller(), Verb::Infer), model_spec).await?;
    if !asked.names_our_signature() {
        return Err(failed_precondition(asked.no_signature()));
    }
    let tensors = {
        // The guard of the limits must not be held while waiting.
        let limits = frontend.limits.load();
        Tensors { inputs: tensors(inputs, &limits)?, outputs: filter(output_filter, &limits)? }
    };
    let answer = walk(frontend, metadata, (asked, tensors), at, outcome).await?;
    let bytes: usize = answer.response.outputs.iter().map(|output| output.tensor.bytes().len()).sum();
    let with_energy = frontend.pipeline.meter().replies().headers;
    if large::is_large(bytes / FASTER_THAN_JSON) {
        return Ok(Box::pin(frontend.on_pool(move || response(answer, with_energy))).await?);
    }
    Ok(response(answer, with_energy))
}

fn tensors(
    inputs: impl IntoIterator<Item = (String, TensorProto)>,
    limits: &LimitsConfig,
) -> Result<Vec<NamedTensor>, Refusal> {
    let mut room = Room::new(limits);
    let tensor = |(name, proto)| {
        let tensor = tensor_proto::tensor(proto, &mut room)
            .map_err(|refusal| Refusal { message: format!("input {name:?}: {}", refusal.message), ..refusal })?;
        Ok(NamedTensor { name, tensor })
    };
    inputs.into_iter().map(tensor).collect()
}

fn filter(names: Vec<String>, limits: &LimitsConfig) -> Result<Vec<String>, Refusal> {
    at_most("names in output_filter", names.len(), limits.tensors_max)?;
    let twice = names.iter().enumerate().find(|(place, name)| names[..*place].contains(name));
    match twice {
        Some((_, name)) => Err(Refusal::invalid(format!("output_filter expects each name once, got {name:?} twice"))),
        None => Ok(names),
    }
}

fn response(mut answer: Answer, with_energy: bool) -> (PredictResponse, Told) {
    let outputs = std::mem::take(&mut answer.response.outputs);
    let outputs = outputs.into_iter().map(|NamedTensor { name, tensor }| (name, tensor_proto::proto(&tensor)));
    let response = PredictResponse { outputs: outputs.collect(), model_spec: Some(answered_by(&answer.variant)) };
    answer.encoded();
    let told = Told::of(&answer, with_energy);
    (response, told)
}

/// TensorFlow Serving has a code for a signature that is not there which no other refusal of ours has. It is counted as
/// what it is by our table.
fn failed_precondition(refusal: Refusal) -> Status {
    let mut status = Status::new(Code::FailedPrecondition, &refusal.message);
    status.set_source(Arc::new(refusal));
    status
}

/// Numbers are copied, where JSON is printed digit by digit.
const FASTER_THAN_JSON: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use crate::frontend::grpc::convert::tests::limits;
    use crate::frontend::grpc::status;

    #[test]
    fn a_filter_names_outputs_once() {
        let names = |list: &[&str]| filter(list.iter().map(ToString::to_string).collect(), &limits());
        assert_eq!(names(&["a", "b"]).unwrap(), ["a", "b"]);
        let message = |names: Result<_, Refusal>| names.unwrap_err().message;
        assert_eq!(message(names(&["a", "a"])), "output_filter expects each name once, got \"a\" twice");
        assert_eq!(message(names(&["a", "b", "c"])), "expected at most 2 names in output_filter, got 3");
    }

    #[test]
    fn inputs_share_the_room_of_one_message() {
        let ones = || TensorProto { dtype: 1, float_val: vec![1.0], ..shaped(&[1 << 20]) };
        let both = [("a".to_owned(), ones()), ("b".to_owned(), ones())];
        let within = |bytes| {
            let limits = LimitsConfig { body_bytes_max: crate::units::ByteSize(bytes), ..limits() };
            tensors(both.clone(), &limits).map(|tensors| tensors.len()).map_err(|refusal| refusal.message)
        };
        assert_eq!(within(8 << 20), Ok(2));
        assert!(within((8 << 20) - 1).unwrap_err().starts_with("input \"b\": shape [1048576]"));
    }

    fn shaped(dims: &[i64]) -> TensorProto {
        TensorProto { tensor_shape: Some(tensor_proto::shape_proto(dims.iter().copied())), ..TensorProto::default() }
    }

    #[test]
    fn a_signature_that_is_not_there_has_a_code_of_its_own() {
        let status = failed_precondition(Refusal::invalid("why"));
        assert_eq!((status.code(), status::code(&status)), (Code::FailedPrecondition, ErrorCode::InvalidArgument));
    }
}
