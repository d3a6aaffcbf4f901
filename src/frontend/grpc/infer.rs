//! ModelInfer: convert, walk the pipeline, encode.

use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::bounded::Decoded;
use super::convert::Arrival;
use super::{arrival, convert, encode, status};
use crate::frontend::report::Told;
use crate::frontend::{Call, Frontend, OutputWish, Refusal, Report, SharedMemory, large, shared_memory};
use crate::pipeline::{Answer, Outcome};
use crate::proto::inference::{ModelInferRequest, ModelInferResponse};

/// A message, and what is told behind it.
type Encoded = (ModelInferResponse, Told);

/// Dropping the future takes the request out of its queue, so that a client that leaves costs no more.
pub(super) async fn unary(
    frontend: &Frontend,
    request: Request<Decoded>,
    mut outcome: Outcome,
) -> Result<Response<ModelInferResponse>, Status> {
    let (metadata, _, decoded) = request.into_parts();
    let answer = answered(frontend, &metadata, decoded, &mut outcome).await;
    settle(frontend, answer.map_err(Status::from), outcome)
}

/// Lets an answer leave, counts its call by what its client is told, and leaves what stands behind its message for the
/// edge.
pub(super) fn settle<T: Message>(
    frontend: &Frontend,
    answer: Result<(T, Told), Status>,
    outcome: Outcome,
) -> Result<Response<T>, Status> {
    let response = answer.and_then(|(message, told)| {
        let bytes = message.encoded_len() as u64;
        let mut response = Response::new(message);
        frontend.let_leave(bytes, response.extensions_mut())?;
        if !told.is_empty() {
            response.extensions_mut().insert(told);
        }
        Ok(response)
    });
    outcome.settle(response.as_ref().err().map(status::code));
    response
}

async fn answered(
    frontend: &Frontend,
    metadata: &MetadataMap,
    decoded: Decoded,
    outcome: &mut Outcome,
) -> Result<Encoded, Refusal> {
    // The client's time runs from its call's head on, as over REST.
    let deadline = arrival::deadline(metadata, outcome.began())?;
    let memory = frontend.memory.for_call(metadata.as_ref(), outcome.caller());
    respond(frontend, Arrival { at: decoded.at, deadline }, decoded.message, &memory, outcome).await
}

pub(super) async fn respond(
    frontend: &Frontend,
    arrival: Arrival,
    message: ModelInferRequest,
    memory: &SharedMemory,
    outcome: &mut Outcome,
) -> Result<Encoded, Refusal> {
    outcome.received(arrival.at);
    // The guard of the limits must not be held while waiting.
    let mut call = convert::call(message, arrival, &frontend.limits.load(), memory)?;
    let mut reserved = None;
    if !call.placed.is_empty() {
        Box::pin(frontend.fetch(&mut call, &mut reserved, outcome)).await?;
    }
    let Call { request, wishes, mut report, .. } = call;
    let replies = frontend.pipeline.meter().replies();
    report.energy |= replies.parameters;
    let answer = frontend.pipeline.infer(request, reserved, outcome).await.map_err(|error| frontend.refusal(&error))?;
    let slots = shared_memory::bytes_to_copy(&answer, &wishes);
    if large::is_large(encode::bytes_to_code(&answer, &wishes)) || large::is_large_copy(slots) {
        Box::pin(frontend.on_pool(move || response(answer, &wishes, report, replies.headers))).await?
    } else {
        response(answer, &wishes, report, replies.headers)
    }
}

fn response(mut answer: Answer, wishes: &[OutputWish], report: Report, with_energy: bool) -> Result<Encoded, Refusal> {
    let response = encode::response(&mut answer, wishes, report)?;
    answer.encoded();
    let told = Told::of(&answer, with_energy);
    Ok((response, told))
}
