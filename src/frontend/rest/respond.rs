//! Responses that are the same everywhere: errors, empty successes, JSON.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::frontend::Refusal;

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = error(status, &self.message);
        if let Some(wait) = self.retry_after {
            // Whole seconds, rounded up: "0" would ask for an immediate retry.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

/// `{"error": ...}` with a status of its own.
pub fn error(status: StatusCode, message: &str) -> Response {
    #[derive(Serialize)]
    struct Error<'a> {
        error: &'a str,
    }
    let mut response = json(&Error { error: message });
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

pub(super) async fn unknown_path() -> Response {
    error(StatusCode::NOT_FOUND, "Not Found")
}

pub(super) async fn wrong_method() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}

pub(super) async fn empty() -> StatusCode {
    StatusCode::OK
}

pub(super) async fn no_trace() -> Refusal {
    Refusal::extension("trace")
}

pub(super) async fn no_system_memory() -> Refusal {
    Refusal::extension("system_shared_memory")
}

pub(super) async fn no_cuda_memory() -> Refusal {
    Refusal::extension("cuda_shared_memory")
}
