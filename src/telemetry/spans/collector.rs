//! The collector, as OTLP is spoken to it: one call with many spans, over HTTP with protobuf or over gRPC. One
//! connection is kept. TLS is not spoken: a collector beside the server, or one of the node, does that.

use std::error::Error;
use std::iter::successors;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::config::{Protocol, TracingConfig};
use crate::proto::otlp::{ExportTraceServiceRequest, ExportTraceServiceResponse};

#[derive(Debug)]
pub(super) struct Collector {
    client: Client<HttpConnector, Body>,
    protocol: Protocol,
    endpoint: Uri,
    headers: HeaderMap,
    timeout: Duration,
}

/// Why spans were not taken.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Failure {
    pub(super) reason: String,
    /// Whether they may be taken later.
    pub(super) is_transient: bool,
}

impl Collector {
    /// Connects with nobody yet.
    pub(super) fn new(endpoint: Uri, config: &TracingConfig) -> Self {
        let protocol = config.protocol;
        let client = Client::builder(TokioExecutor::new()).http2_only(protocol == Protocol::Grpc).build_http();
        let mut headers = HeaderMap::from_iter([(header::USER_AGENT, HeaderValue::from_static(USER_AGENT))]);
        headers.extend(config.headers.iter().map(|header| (header.name.clone(), header.value.clone())));
        Self { client, protocol, endpoint, headers, timeout: config.timeout.0 }
    }

    /// Sends spans; gives the number of those that the collector refused.
    ///
    /// # Errors
    /// When it took none of them.
    pub(super) async fn send(&self, message: ExportTraceServiceRequest) -> Result<u64, Failure> {
        let sent = async {
            match self.protocol {
                Protocol::Http => self.over_http(&message).await,
                Protocol::Grpc => self.over_grpc(message).await,
            }
        };
        let late = || Failure { reason: format!("no answer within {:?}", self.timeout), is_transient: true };
        let response = tokio::time::timeout(self.timeout, sent).await.map_err(|_| late())??;
        let refused = response.partial_success.map_or(0, |partial| partial.rejected_spans);
        Ok(u64::try_from(refused).unwrap_or(0))
    }

    async fn over_http(&self, message: &ExportTraceServiceRequest) -> Result<ExportTraceServiceResponse, Failure> {
        let mut request = Request::new(Body::new(Full::from(message.encode_to_vec())));
        *request.method_mut() = Method::POST;
        let uri = format!("{}{HTTP_PATH}", self.endpoint.to_string().trim_end_matches('/'));
        *request.uri_mut() = uri.parse().map_err(|error| Failure::lasting(&error))?;
        request.headers_mut().clone_from(&self.headers);
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let response = self.client.request(request).await.map_err(|error| Failure::away(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        if !status.is_success() {
            return Err(Failure { reason: format!("it answered {status}"), is_transient: TRANSIENT.contains(&status) });
        }
        let body = body.map_err(|error| Failure::away(&*error))?.to_bytes();
        // What it says is a courtesy: the spans are taken.
        Ok(ExportTraceServiceResponse::decode(body).unwrap_or_default())
    }

    async fn over_grpc(&self, message: ExportTraceServiceRequest) -> Result<ExportTraceServiceResponse, Failure> {
        let mut grpc = Grpc::with_origin(&self.client, self.endpoint.clone());
        grpc.ready().await.map_err(|error| Failure::away(&error))?;
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(self.headers.clone());
        let codec = ProstCodec::<_, ExportTraceServiceResponse>::default();
        let response = grpc.unary(request, GRPC_PATH.parse().expect("it is a path"), codec).await;
        response.map(tonic::Response::into_inner).map_err(Failure::from)
    }
}

impl Failure {
    fn away(error: &(dyn Error + 'static)) -> Self {
        Self { reason: with_causes(error), is_transient: true }
    }

    fn lasting(error: &(dyn Error + 'static)) -> Self {
        Self { reason: with_causes(error), is_transient: false }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let reason = match status.source() {
            Some(cause) => with_causes(cause),
            None => format!("it answered {:?}: {}", status.code(), status.message()),
        };
        Self { reason, is_transient: GRPC_TRANSIENT.contains(&status.code()) }
    }
}

fn with_causes(error: &(dyn Error + 'static)) -> String {
    successors(Some(error), |&error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

const USER_AGENT: &str = concat!("kinglet/", env!("CARGO_PKG_VERSION"));
const HTTP_PATH: &str = "/v1/traces";
const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// It has little to say.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// That may be asked again, by the protocol; others never will be taken.
const TRANSIENT: [StatusCode; 4] = [
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];
/// Likewise; what never came to an answer is `Unknown`.
const GRPC_TRANSIENT: [Code; 8] = [
    Code::Unknown,
    Code::Cancelled,
    Code::DeadlineExceeded,
    Code::ResourceExhausted,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unavailable,
    Code::DataLoss,
];
