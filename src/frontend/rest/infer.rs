//! POST .../infer: read, decode, walk the pipeline, encode.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::Instant;
use tracing::Instrument;

use super::body::{self, Pieces};
use super::decode::{self, Head};
use super::encode::{self, Encoded, Wishes};
use super::respond;
use crate::frontend::{Call, Frontend, Refusal, trace};

pub(super) async fn newest(State(frontend): State<Frontend>, Path(model): Path<String>, request: Request) -> Response {
    respond_to(&frontend, &model, None, request).await
}

pub(super) async fn version(
    State(frontend): State<Frontend>,
    Path((model, version)): Path<(String, String)>,
    request: Request,
) -> Response {
    respond_to(&frontend, &model, Some(&version), request).await
}

async fn respond_to(frontend: &Frontend, model: &str, version: Option<&str>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if let Some(unsupported) = unsupported_media(&parts.headers) {
        return respond::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, &unsupported);
    }
    let answer = infer(frontend, model, version, &parts.headers, body);
    match trace::span(&parts.headers) {
        None => answer.await.unwrap_or_else(Refusal::into_response),
        Some((context, span)) => {
            let mut response = answer.instrument(span).await.unwrap_or_else(Refusal::into_response);
            trace::tell(&context, response.headers_mut());
            response
        }
    }
}

async fn infer(
    frontend: &Frontend,
    model: &str,
    version: Option<&str>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let limits = frontend.limits.load();
    let mut head = head(model, version, headers)?;
    let body = body::read(headers, body, &limits).await?;
    // Waiting for the client's bytes is no time of ours.
    head.received_at = Instant::now();
    let Call { request, wishes, binary_default, report } = if head.json_length == Some(0) {
        let catalog = frontend.repository.catalog();
        let variant = catalog.find(&head.model, head.version)?;
        decode::raw_call(head, body, variant)?
    } else {
        decode::call(head, &body, &limits)?
    };
    let answer =
        frontend.pipeline.infer(request).await.map_err(|error| Refusal::infer(&error, frontend.retry_after()))?;
    let encoded = encode::answer(&answer, &Wishes { outputs: wishes, binary_default, report })?;
    answer.encoded();
    Ok(response(encoded, body::response_coding(headers)))
}

fn head(model: &str, version: Option<&str>, headers: &HeaderMap) -> Result<Head, Refusal> {
    let received_at = Instant::now();
    let timeout = text(headers, TIMEOUT)?.map(decode::timeout_header).transpose()?;
    Ok(Head {
        model: model.parse()?,
        version: version.map(str::parse).transpose()?,
        json_length: text(headers, JSON_LENGTH)?.map(json_length).transpose()?,
        deadline: timeout.and_then(|timeout| received_at.checked_add(timeout)),
        received_at,
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Refusal> {
    let unreadable = |_| Refusal::invalid(format!("header {name} is no text"));
    headers.get(name).map(|value| value.to_str().map_err(unreadable)).transpose()
}

fn json_length(text: &str) -> Result<usize, Refusal> {
    let wrong = |_| Refusal::invalid(format!("header {JSON_LENGTH} expects a length in bytes, got {text:?}"));
    text.trim().parse().map_err(wrong)
}

/// Clients send JSON under many names, or under none; what is certainly something else is refused.
fn unsupported_media(headers: &HeaderMap) -> Option<String> {
    if let Err(refusal) = body::request_coding(headers) {
        return Some(refusal.message);
    }
    let given = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("?");
    let kind = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let known = kind.is_empty() || ACCEPTED_MEDIA.contains(&kind.as_str()) || kind.ends_with("+json");
    (!known).then(|| {
        format!("content-type {given:?} is not supported, expected application/json or application/octet-stream")
    })
}

fn response(encoded: Encoded, coding: Option<body::Coding>) -> Response {
    let Encoded { json_length, pieces } = encoded;
    let content_type = if json_length.is_some() { "application/octet-stream" } else { "application/json" };
    let mut response = match coding {
        None => respond::with_type(Body::new(Pieces(pieces)), content_type),
        Some(coding) => {
            let mut response = respond::with_type(Body::from(body::deflate(coding, &pieces)), content_type);
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
            response
        }
    };
    if let Some(length) = json_length {
        response.headers_mut().insert(JSON_LENGTH, HeaderValue::from(length));
    }
    response
}

/// Length of the JSON in front of binary tensors, before any compression.
const JSON_LENGTH: &str = "inference-header-content-length";
/// How long the client will wait, in milliseconds.
const TIMEOUT: &str = "kinglet-timeout-ms";
/// curl's default form type among them: it is what a pasted command sends.
const ACCEPTED_MEDIA: &[&str] =
    &["application/json", "application/octet-stream", "text/plain", "application/x-www-form-urlencoded"];
