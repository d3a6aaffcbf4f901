//! What is no call of any service here: unknown calls, and requests that are not gRPC, such as a probe at the wrong port.

use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use tonic::Status;

use crate::frontend::{is_grpc, is_grpc_web, rest};

pub(super) async fn unknown_call(request: Request) -> Response {
    if !is_grpc(request.headers()) {
        return refusal(request.headers());
    }
    Status::unimplemented(format!("no such call: {}", request.uri().path())).into_http()
}

/// A success would tell a probe that all is well.
pub(super) fn refusal(headers: &HeaderMap) -> Response {
    let why = if is_grpc_web(headers) { WEB_ON_GRPC } else { REST_ON_GRPC };
    rest::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, why)
}

const REST_ON_GRPC: &str = "this port expects gRPC (content-type application/grpc), REST and HTTP probes are served on \
    the port of http.listen (8000 by default)";
const WEB_ON_GRPC: &str =
    "this port expects gRPC (content-type application/grpc), gRPC-Web is served where grpc.web is true";

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::header;

    use super::*;

    async fn check(path: &str, kind: &str, status: StatusCode, content_type: &str) {
        let request = Request::builder().uri(path).header(header::CONTENT_TYPE, kind).body(Body::empty()).unwrap();
        let response = unknown_call(request).await;
        assert_eq!(response.status(), status, "{path} {kind}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], content_type);
    }

    #[tokio::test]
    async fn only_grpc_is_answered_as_grpc() {
        check("/v2/health/ready", "", StatusCode::UNSUPPORTED_MEDIA_TYPE, "application/json").await;
        check("/inference.Other/Call", "application/grpc-web", StatusCode::UNSUPPORTED_MEDIA_TYPE, "application/json")
            .await;
        check("/v2/health/ready", "text/plain", StatusCode::UNSUPPORTED_MEDIA_TYPE, "application/json").await;
        check("/inference.Other/Call", "application/grpc", StatusCode::OK, "application/grpc").await;
    }
}
