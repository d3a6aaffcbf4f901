//! What surrounds every call of the inference service and the gRPC library does not do by itself: compression as the
//! client does it, a time in which the message must arrive, our code for messages that are too large, and a codec that
//! counts before it decodes, for the two calls that carry tensors.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use prost::Message;
use tokio::time::{Sleep, sleep};
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, NamedService};
use tonic::{Code, Status, Streaming};
use tower::{Service, service_fn};

use super::bounded::Bounded;
use super::service::Calls;
use super::stream::Answers;
use crate::error::ErrorCode;
use crate::frontend::LimitsConfig;
use crate::frontend::listener::{Direct, Shortcut};
use crate::proto::inference::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use crate::proto::inference::{ModelInferRequest, ModelInferResponse};

/// The inference service with its edge.
#[derive(Clone, Debug)]
pub(super) struct Edge {
    calls: Arc<Calls>,
    /// Knows every call; here it answers those that carry no tensors.
    generated: GrpcInferenceServiceServer<Calls>,
}

impl Edge {
    pub(super) fn new(calls: Calls) -> Self {
        let bytes_max = calls.frontend.limits.load().body_bytes_max.as_len();
        let calls = Arc::new(calls);
        let generated = GrpcInferenceServiceServer::from_arc(Arc::clone(&calls))
            .max_decoding_message_size(bytes_max)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate)
            .send_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Deflate);
        Self { calls, generated }
    }
}

async fn infer(calls: Arc<Calls>, request: Request<Body>) -> Response<Body> {
    let mut grpc = with_limits(&calls.frontend.limits);
    grpc.unary(service_fn(move |request| infer_once(Arc::clone(&calls), request)), request).await
}

async fn stream_infer(calls: Arc<Calls>, request: Request<Body>) -> Response<Body> {
    let mut grpc = with_limits(&calls.frontend.limits);
    grpc.streaming(service_fn(move |request| open_stream(Arc::clone(&calls), request)), request).await
}

/// As the generated service is set up, with the limits of this moment.
fn with_limits<T: Message + 'static>(limits: &Arc<ArcSwap<LimitsConfig>>) -> Grpc<Bounded<T>> {
    Grpc::new(Bounded::new(limits))
        .max_decoding_message_size(limits.load().body_bytes_max.as_len())
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate)
        .send_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Deflate)
}

async fn infer_once(
    calls: Arc<Calls>,
    request: tonic::Request<ModelInferRequest>,
) -> Result<tonic::Response<ModelInferResponse>, Status> {
    calls.model_infer(request).await
}

async fn open_stream(
    calls: Arc<Calls>,
    request: tonic::Request<Streaming<ModelInferRequest>>,
) -> Result<tonic::Response<Answers>, Status> {
    calls.model_stream_infer(request).await
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
        match request.uri().path() {
            INFER => {
                let answer = self.infer(request);
                Box::pin(async move { Ok(answer.await) })
            }
            STREAM => {
                // A stream stays open between its messages; its client's connection is watched instead.
                let calls = Arc::clone(&self.calls);
                Box::pin(async move { Ok(recoded(stream_infer(calls, answered_as_asked(request)).await)) })
            }
            _ => {
                let answer = self.generated.call(self.punctual(answered_as_asked(request)));
                Box::pin(async move { answer.await.map(recoded) })
            }
        }
    }
}

impl Shortcut for Edge {
    fn take(&self, request: Request<axum::body::Body>) -> Result<Direct, Request<axum::body::Body>> {
        if request.uri().path() != INFER {
            return Err(request);
        }
        let answer = self.infer(request.map(Body::new));
        Ok(Box::pin(async move { answer.await.map(axum::body::Body::new) }))
    }
}

impl Edge {
    fn infer(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send + use<> {
        let request = self.punctual(answered_as_asked(request));
        let calls = Arc::clone(&self.calls);
        async move { recoded(infer(calls, request).await) }
    }

    fn punctual(&self, request: Request<Body>) -> Request<Body> {
        if http_body::Body::is_end_stream(request.body()) {
            return request;
        }
        let patience = self.calls.frontend.limits.load().body_timeout.0;
        request.map(|body| Body::new(Punctual { body, patience, timer: None }))
    }
}

/// Clients say that they accept compressed answers whenever they could read them. An answer is compressed where the
/// request was, in the same way: those clients save bytes, all others save time.
fn answered_as_asked(mut request: Request<Body>) -> Request<Body> {
    answer_as_asked(request.headers_mut());
    request
}

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

/// The library has a code of its own for a message that is longer than it may be; no room of ours uses that one.
fn recoded(mut response: Response<Body>) -> Response<Body> {
    if response.headers().get(Status::GRPC_STATUS).is_some_and(|code| code == OUT_OF_RANGE) {
        let code = HeaderValue::from(ErrorCode::PayloadTooLarge.grpc_status());
        response.headers_mut().insert(Status::GRPC_STATUS, code);
    }
    response
}

/// A request body that must be there in time.
struct Punctual {
    body: Body,
    patience: Duration,
    /// Set when the body was first waited for: most are there at once.
    timer: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Punctual {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let patience = self.patience;
        ready!(self.timer.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx));
        let code = Code::from_i32(ErrorCode::DeadlineExceeded.grpc_status());
        Poll::Ready(Some(Err(Status::new(code, format!("the message did not arrive within {patience:?}")))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

const ENCODING: &str = "grpc-encoding";
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
/// `google.rpc.Code.OUT_OF_RANGE` as it stands in the header.
const OUT_OF_RANGE: &str = "11";

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::BodyExt;

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

    /// A body whose one piece comes after a while.
    fn late(after: Duration) -> Body {
        let piece = async move {
            sleep(after).await;
            Ok::<_, Status>(Frame::data(Bytes::from_static(b"x")))
        };
        Body::new(http_body_util::StreamBody::new(futures_util::stream::once(Box::pin(piece))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_must_arrive_in_time() {
        let patience = Duration::from_secs(30);
        for (after, arrives) in [(29, true), (31, false)] {
            let body = Punctual { body: late(Duration::from_secs(after)), patience, timer: None };
            assert!(!body.is_end_stream());
            let collected = body.collect().await;
            assert_eq!(collected.is_ok(), arrives, "after {after} s");
        }
    }
}
