//! What surrounds every call of our services and the gRPC library does not do by itself: compression as the
//! client does it, a body that counts and is waited for only so long, our code for messages that are too large, and codecs
//! that count before they decode, for the calls that carry tensors or files. All other messages are small.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use prost::Message;
use tonic::body::Body;
use tonic::codec::{Codec, CompressionEncoding};
use tonic::server::{Grpc, NamedService};
use tonic::{Status, Streaming};
use tower::{Service, service_fn};

use super::bounded::{Bounded, Counted, Decoded};
use super::incoming::{Arriving, Incoming};
use super::inflating::{self, Inflating};
use super::loading::Loading;
use super::service::Calls;
use super::stream::Answers;
use super::{status, strangers};
use crate::admission::Held;
use crate::error::ErrorCode;
use crate::frontend::inflate::Bound;
use crate::frontend::listener::{Direct, Shortcut};
use crate::frontend::load_report::Format;
use crate::frontend::pace::Pace;
use crate::frontend::report::Told;
use crate::frontend::trace::{self, Trace};
use crate::frontend::{Frontend, LimitsConfig, is_grpc};
use crate::pipeline::Outcome;
use crate::proto::inference::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use crate::proto::inference::{ModelInferResponse, RepositoryModelLoadRequest, RepositoryModelLoadResponse};
use crate::telemetry::spans::Recording;

/// The inference service with its edge.
#[derive(Clone, Debug)]
pub(super) struct Edge {
    calls: Arc<Calls>,
    /// Knows every call; here it answers those that carry neither tensors nor files.
    generated: GrpcInferenceServiceServer<Calls>,
}

impl Edge {
    pub(super) fn new(calls: Calls) -> Self {
        let calls = Arc::new(calls);
        let generated = GrpcInferenceServiceServer::from_arc(Arc::clone(&calls))
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate)
            .send_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Deflate);
        Self { calls, generated }
    }
}

/// What a call's messages may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    /// Tensors or files.
    Much,
    Control,
}

/// A call with its message on the way, and what counts that.
pub(super) type Arrived = (Arc<Incoming>, Request<Body>);

/// One message in and one out. The call is counted once, by `answer` or here where its message could not be decoded.
pub(super) async fn unary<M, T, A>(
    frontend: &Frontend,
    (incoming, request): Arrived,
    recording: Option<Recording>,
    answer: impl Fn(tonic::Request<Decoded<M>>, Outcome) -> A,
) -> Response<Body>
where
    M: Counted,
    T: Message + 'static,
    A: Future<Output = Result<tonic::Response<T>, Status>>,
{
    let limits = &frontend.limits;
    let mut grpc = with_limits(Bounded::<T, M>::new(limits, Arc::clone(&incoming)), limits);
    let caller = frontend.caller(request.extensions());
    let tells_load = Format::asked(request.headers()).is_some();
    let mut outcome = Some(frontend.pipeline.begin(caller.clone()).recorded(recording));
    let service = service_fn(|request| {
        // The codec lives until the answer is written; the request needs it no more.
        incoming.handed_over();
        answer(request, outcome.take().unwrap_or_else(|| frontend.pipeline.begin(caller.clone())))
    });
    let response = with_trailers(grpc.unary(service, request).await, tells_load.then_some(frontend));
    // What could not be decoded was never handed over.
    if let Some(outcome) = outcome {
        let refused = response.extensions().get().map_or(ErrorCode::Internal, status::code);
        outcome.settle(Some(refused));
    }
    recoded(response)
}

async fn stream_infer(
    calls: Arc<Calls>,
    incoming: Arc<Incoming>,
    request: Request<Body>,
    mut recording: Option<Recording>,
) -> Response<Body> {
    let limits = &calls.frontend.limits;
    let mut grpc = with_limits(Bounded::new(limits, incoming), limits);
    let service = service_fn(|request| open_stream(Arc::clone(&calls), request, recording.take()));
    let response = grpc.streaming(service, request).await;
    // What could not be opened was never handed over.
    if let Some(recording) = recording {
        let refused = response.extensions().get().map_or(ErrorCode::Internal, status::code);
        recording.finish(Some(refused));
    }
    response
}

async fn load(calls: Arc<Calls>, request: Request<Body>) -> Response<Body> {
    let mut grpc = with_limits(Loading::new(&calls.frontend.limits), &calls.frontend.limits);
    grpc.unary(service_fn(move |request| load_once(Arc::clone(&calls), request)), request).await
}

/// As the generated service is set up, with the limits of this moment.
fn with_limits<C: Codec>(codec: C, limits: &ArcSwap<LimitsConfig>) -> Grpc<C> {
    Grpc::new(codec)
        .max_decoding_message_size(limits.load().body_bytes_max.as_len())
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate)
        .send_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Deflate)
}

async fn infer_once(
    calls: Arc<Calls>,
    request: tonic::Request<Decoded>,
    outcome: Outcome,
) -> Result<tonic::Response<ModelInferResponse>, Status> {
    calls.answer_once(request, outcome).await
}

async fn open_stream(
    calls: Arc<Calls>,
    request: tonic::Request<Streaming<Decoded>>,
    recording: Option<Recording>,
) -> Result<tonic::Response<Answers>, Status> {
    calls.open_stream(request.map(StreamExt::boxed), recording)
}

async fn load_once(
    calls: Arc<Calls>,
    request: tonic::Request<RepositoryModelLoadRequest>,
) -> Result<tonic::Response<RepositoryModelLoadResponse>, Status> {
    calls.repository_model_load(request).await
}

impl NamedService for Edge {
    const NAME: &'static str = GrpcInferenceServiceServer::<Calls>::NAME;
}

impl Service<Request<Body>> for Edge {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !is_grpc(request.headers()) {
            let refused = strangers::refusal(request.headers()).map(Body::new);
            return Box::pin(async { Ok(refused) });
        }
        let path = request.uri().path();
        if !OPEN.contains(&path)
            && let Err(refusal) = self.calls.frontend.browsers.check(&request)
        {
            return Box::pin(ready(Ok(Status::from(refusal).into_http())));
        }
        match path {
            INFER => {
                let answer = self.infer(request);
                Box::pin(async move { Ok(answer.await) })
            }
            STREAM => {
                let calls = Arc::clone(&self.calls);
                let (traced, recording) = traced(&calls.frontend, &request, STREAM);
                let (incoming, request) = arriving(&calls.frontend, request, Incoming::stream, Carries::Much);
                let answers = async move { recoded(stream_infer(calls, incoming, request, recording).await) };
                Box::pin(async move { Ok(trace::around(traced, answers).await) })
            }
            LOAD => {
                let calls = Arc::clone(&self.calls);
                let (_, request) = arriving(&calls.frontend, request, Incoming::small, Carries::Much);
                Box::pin(async move { Ok(recoded(load(calls, request).await)) })
            }
            _ => {
                let frontend = &self.calls.frontend;
                let mut generated = self.generated.clone().max_decoding_message_size(control_bytes_max(frontend));
                let (_, request) = arriving(frontend, request, Incoming::small, Carries::Control);
                let answer = generated.call(request);
                Box::pin(async move { answer.await.map(recoded) })
            }
        }
    }
}

impl Shortcut for Edge {
    fn knows(&self, request: &Request<axum::body::Body>) -> bool {
        request.uri().path() == INFER && is_grpc(request.headers())
    }

    fn answer(&self, request: Request<axum::body::Body>) -> Direct {
        let answer = self.infer(request.map(Body::new));
        Box::pin(async move { answer.await.map(axum::body::Body::new) })
    }
}

impl Edge {
    fn infer(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send + use<> {
        let calls = Arc::clone(&self.calls);
        let (traced, recording) = traced(&calls.frontend, &request, INFER);
        let arrived = arriving(&calls.frontend, request, Incoming::unary, Carries::Much);
        trace::around(traced, async move {
            let answer = |request, outcome| infer_once(Arc::clone(&calls), request, outcome);
            unary(&calls.frontend, arrived, recording, answer).await
        })
    }
}

/// Bytes of a message that carries neither tensors nor files.
pub(super) fn control_bytes_max(frontend: &Frontend) -> usize {
    frontend.limits.load().of_control().body_bytes_max.as_len()
}

pub(super) fn traced(
    frontend: &Frontend,
    request: &Request<Body>,
    path: &'static str,
) -> (Option<Trace>, Option<Recording>) {
    let traced = trace::of(&frontend.tracer, request.headers());
    let recording = trace::record(&frontend.tracer, traced.as_ref(), || trace::grpc_head(request, path));
    (traced, recording)
}

/// The request as it will be read and answered.
pub(super) fn arriving(
    frontend: &Frontend,
    mut request: Request<Body>,
    counts: fn(Held) -> Incoming,
    carries: Carries,
) -> Arrived {
    answer_as_asked(request.headers_mut());
    let incoming = Arc::new(counts(frontend.pipeline.admission().receive()));
    if http_body::Body::is_end_stream(request.body()) {
        return (incoming, request);
    }
    let coding = inflating::coding(request.headers());
    let limits = frontend.limits.load();
    let pace = Pace::new(&limits);
    let request = request.map(|body| {
        let body = Arriving::new(body, Arc::clone(&incoming), pace);
        let Some(coding) = coding else { return Body::new(body) };
        let bound = match carries {
            Carries::Much => Bound::of(&limits),
            Carries::Control => Bound::of(&limits.of_control()),
        };
        Body::new(Inflating::new(body, frontend, Arc::clone(&incoming), coding, bound))
    });
    (incoming, request)
}

/// Clients say that they accept compressed answers whenever they could read them. An answer is compressed where the
/// request was, in the same way: those clients save bytes, all others save time.
fn answer_as_asked(headers: &mut HeaderMap) {
    match headers.get(ENCODING).cloned() {
        Some(encoding) if headers.contains_key(ACCEPT_ENCODING) => {
            headers.insert(ACCEPT_ENCODING, encoding);
        }
        _ => {
            headers.remove(ACCEPT_ENCODING);
        }
    }
}

/// What a request took, and who has answered it, stands behind its message, as trailing metadata.
fn with_trailers(mut response: Response<Body>, load: Option<&Frontend>) -> Response<Body> {
    let told = response.extensions_mut().remove::<Told>();
    if told.is_none() && load.is_none() {
        return response;
    }
    let mut trailers = HeaderMap::new();
    if let Some(frontend) = load {
        // A refusal has no message to stand behind.
        let is_refused = response.headers().contains_key(Status::GRPC_STATUS);
        frontend.trail_load(if is_refused { response.headers_mut() } else { &mut trailers });
    }
    if let Some(told) = told {
        told.write(&mut trailers);
    }
    if trailers.is_empty() {
        return response;
    }
    response.map(|body| Body::new(body.with_trailers(ready(Some(Ok(trailers))))))
}

/// The library has a code of its own for a message that is longer than it may be; no room of ours uses that one.
pub(super) fn recoded(mut response: Response<Body>) -> Response<Body> {
    if response.headers().get(Status::GRPC_STATUS).is_some_and(|code| code == OUT_OF_RANGE) {
        let code = HeaderValue::from(ErrorCode::PayloadTooLarge.grpc_status());
        response.headers_mut().insert(Status::GRPC_STATUS, code);
    }
    response
}

const ENCODING: &str = "grpc-encoding";
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const LOAD: &str = "/inference.GRPCInferenceService/RepositoryModelLoad";
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
/// What pages of other sites may call, where `cors` lets them. All other calls are control, as those of REST are.
const OPEN: [&str; 9] = [
    INFER,
    STREAM,
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
    "/inference.GRPCInferenceService/ServerMetadata",
    "/inference.GRPCInferenceService/ModelReady",
    "/inference.GRPCInferenceService/ModelMetadata",
    "/inference.GRPCInferenceService/ModelConfig",
    "/inference.GRPCInferenceService/ModelStatistics",
];
/// `google.rpc.Code.OUT_OF_RANGE` as it stands in the header.
const OUT_OF_RANGE: &str = "11";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &'static str)], accepted: Option<&str>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        answer_as_asked(&mut map);
        assert_eq!(map.get(ACCEPT_ENCODING).map(|v| v.to_str().unwrap()), accepted, "{headers:?}");
    }

    #[test]
    fn answers_are_compressed_as_requests_are() {
        check(&[], None);
        check(&[(ACCEPT_ENCODING, "identity, deflate, gzip")], None);
        check(&[(ENCODING, "gzip"), (ACCEPT_ENCODING, "identity, deflate, gzip")], Some("gzip"));
        check(&[(ENCODING, "deflate"), (ACCEPT_ENCODING, "identity, deflate, gzip")], Some("deflate"));
        check(&[(ENCODING, "identity"), (ACCEPT_ENCODING, "gzip")], Some("identity"));
        check(&[(ENCODING, "gzip")], None);
    }
}
