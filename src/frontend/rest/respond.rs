//! Responses that are the same everywhere: errors, empty successes, JSON.

use axum::body::Body;
use axum::extract::Request;
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::frontend::refusal::shortened;
use crate::frontend::{Refusal, is_grpc};

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.log();
        let status = StatusCode::from_u16(self.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = error(status, &self.message);
        if let Some(seconds) = self.retry_after_seconds() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// `{"error": ...}` with a status of its own. Every error body is written here, and never longer than a page.
pub fn error(status: StatusCode, message: &str) -> Response {
    #[derive(Serialize)]
    struct Error<'a> {
        error: &'a str,
    }
    let mut response = json(&Error { error: &shortened(message) });
    *response.status_mut() = status;
    response
}

pub fn json(value: &impl Serialize) -> Response {
    let text = serde_json::to_vec(value).expect("writing JSON into memory succeeds");
    with_type(Body::from(text), "application/json")
}

pub fn with_type(body: Body, content_type: &'static str) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// gRPC that came to this port is told so in its own form: its clients show no body of any other.
pub(super) async fn unknown_path(request: Request) -> Response {
    let path = request.uri().path();
    if is_grpc(request.headers()) {
        return tonic::Status::unimplemented(format!("{GRPC_ON_REST}, got {}", shortened(path))).into_http();
    }
    error(StatusCode::NOT_FOUND, &format!("no such path: {path}"))
}

/// For routes that do not say what they expect.
pub(super) async fn wrong_method(request: Request) -> Response {
    not_allowed(&request, "another method")
}

/// A route for GET alone; HEAD belongs to it.
pub fn get<H: Handler<T, S>, T: 'static, S: Clone + Send + Sync + 'static>(handler: H) -> MethodRouter<S> {
    routing::get(handler).fallback(|request: Request| async move { not_allowed(&request, "GET") })
}

/// A route for POST alone.
pub fn post<H: Handler<T, S>, T: 'static, S: Clone + Send + Sync + 'static>(handler: H) -> MethodRouter<S> {
    routing::post(handler).fallback(|request: Request| async move { not_allowed(&request, "POST") })
}

pub(super) async fn neither_get_nor_post(request: Request) -> Response {
    not_allowed(&request, "GET or POST")
}

pub(super) async fn neither_get_nor_delete(request: Request) -> Response {
    not_allowed(&request, "GET or DELETE")
}

pub(super) fn not_allowed(request: &Request, expected: &str) -> Response {
    if is_grpc(request.headers()) {
        return tonic::Status::unimplemented(GRPC_ON_REST).into_http();
    }
    let message = format!("expected {expected} for {}, got {}", request.uri().path(), request.method());
    error(StatusCode::METHOD_NOT_ALLOWED, &message)
}

/// An answer that says what would be allowed, where no route says it.
pub(super) fn allowing(mut response: Response, methods: &'static str) -> Response {
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

pub(super) async fn empty() -> StatusCode {
    StatusCode::OK
}

pub(super) async fn no_generate() -> Refusal {
    Refusal::extension("generate")
}

pub(super) async fn no_cuda_memory() -> Refusal {
    Refusal::extension("cuda_shared_memory")
}

const GRPC_ON_REST: &str = "this is the REST port, gRPC is served on the port of grpc.listen (8001 by default)";

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn text(response: Response) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    fn request(method: &str, path: &str, kind: &str) -> Request {
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, kind);
        request.body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn an_error_does_not_repeat_all_that_came() {
        let response = Refusal::invalid(format!("unexpected input {:?}", "ü".repeat(4 << 20))).into_response();
        let text = text(response).await;
        assert!((2000..2200).contains(&text.len()), "{}", text.len());
        assert!(text.starts_with("{\"error\":\"unexpected input") && text.ends_with("ü...\"}"), "{text}");
    }

    #[tokio::test]
    async fn wrong_paths_and_verbs_are_named() {
        let response = unknown_path(request("GET", "/v2/nothing", "")).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(text(response).await, r#"{"error":"no such path: /v2/nothing"}"#);
        let response = not_allowed(&request("PUT", "/v2", ""), "GET");
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(text(response).await, r#"{"error":"expected GET for /v2, got PUT"}"#);
    }

    #[tokio::test]
    async fn grpc_is_answered_in_its_own_form() {
        for response in [
            unknown_path(request("POST", "/inference.GRPCInferenceService/ServerLive", "application/grpc")).await,
            wrong_method(request("POST", "/v2", "application/grpc+proto")).await,
        ] {
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()["grpc-status"], "12");
            assert!(response.headers()["grpc-message"].to_str().unwrap().starts_with("this%20is%20the%20REST%20port"));
        }
    }
}
