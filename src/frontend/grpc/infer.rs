//! ModelInfer: convert, walk the pipeline, encode.

use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tracing::Instrument;

use super::bounded::Decoded;
use super::convert::Arrival;
use super::{arrival, convert, encode};
use crate::frontend::{Call, Frontend, Refusal, trace};
use crate::proto::inference::{ModelInferRequest, ModelInferResponse};

/// Dropping the future takes the request out of its queue, so that a client that leaves costs no more.
pub(super) async fn unary(
    frontend: &Frontend,
    request: Request<Decoded>,
) -> Result<Response<ModelInferResponse>, Status> {
    let (metadata, _, decoded) = request.into_parts();
    match trace::span(metadata.as_ref()) {
        None => Ok(Response::new(answered(frontend, &metadata, decoded).await?)),
        Some((context, span)) => {
            let mut response = Response::new(answered(frontend, &metadata, decoded).instrument(span).await?);
            trace::tell(&context, response.metadata_mut().as_mut());
            Ok(response)
        }
    }
}

async fn answered(
    frontend: &Frontend,
    metadata: &MetadataMap,
    decoded: Decoded,
) -> Result<ModelInferResponse, Refusal> {
    respond(frontend, arrival::arrival(metadata, decoded.at)?, decoded.message).await
}

pub(super) async fn respond(
    frontend: &Frontend,
    arrival: Arrival,
    message: ModelInferRequest,
) -> Result<ModelInferResponse, Refusal> {
    // The guard of the limits must not be held while waiting.
    let call = convert::call(message, arrival, &frontend.limits.load())?;
    let Call { request, wishes, report, .. } = call;
    let mut answer =
        frontend.pipeline.infer(request).await.map_err(|error| Refusal::infer(&error, frontend.retry_after()))?;
    let response = encode::response(&mut answer, &wishes, report)?;
    answer.encoded();
    Ok(response)
}
