//! POST .../infer: read, decode, walk the pipeline, encode.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::time::Instant;

use super::body::{self, Coding, Pieces, Received};
use super::decode::{self, Head};
use super::encode::{self, Encoded, Wishes};
use super::in_path::InPath;
use super::respond;
use crate::error::ErrorCode;
use crate::frontend::listener::{Direct, Shortcut};
use crate::frontend::report::Told;
use crate::frontend::{Call, Frontend, Refusal, large, parameters, trace};
use crate::pipeline::{Answer, Outcome, Undecoded};

/// The model and version that a path names.
type Named<'a> = (&'a str, Option<&'a str>);

pub(super) async fn newest(
    State(frontend): State<Frontend>,
    path: Result<InPath<String>, Refusal>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let named = path.as_ref().map(|InPath(model)| (model.as_str(), None));
    respond_to(&frontend, named.map_err(Refusal::clone), &parts, body).await
}

pub(super) async fn version(
    State(frontend): State<Frontend>,
    path: Result<InPath<(String, String)>, Refusal>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let named = path.as_ref().map(|InPath((model, version))| (model.as_str(), Some(version.as_str())));
    respond_to(&frontend, named.map_err(Refusal::clone), &parts, body).await
}

/// The calls of both routes above, where their paths are spelt plainly.
#[derive(Debug)]
pub(super) struct Inference(pub Frontend);

impl Shortcut for Inference {
    fn knows(&self, request: &Request) -> bool {
        request.method() == Method::POST && plain_path(request.uri().path()).is_some()
    }

    fn answer(&self, request: Request) -> Direct {
        let frontend = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let named = plain_path(parts.uri.path()).expect("only requests that are known come here");
            respond_to(&frontend, Ok(named), &parts, body).await
        })
    }
}

/// Model and version of an inference call's path that needs no decoding.
fn plain_path(path: &str) -> Option<Named<'_>> {
    let named = path.strip_prefix("/v2/models/")?.strip_suffix("/infer")?;
    let (model, version) = match named.split_once('/') {
        None => (named, None),
        Some((model, rest)) => (model, Some(rest.strip_prefix("versions/")?)),
    };
    let is_plain = |part: &str| !part.is_empty() && !part.contains(['/', '%']);
    (is_plain(model) && version.is_none_or(is_plain)).then_some((model, version))
}

async fn respond_to(frontend: &Frontend, named: Result<Named<'_>, Refusal>, parts: &Parts, body: Body) -> Response {
    let headers = &parts.headers;
    let traced = trace::of(&frontend.tracer, headers);
    let names_version = matches!(named, Ok((_, Some(_))));
    let recording = trace::record(&frontend.tracer, traced.as_ref(), || trace::rest_head(parts, names_version));
    let mut outcome = frontend.pipeline.begin().recorded(recording);
    let answer = async {
        if let Some(unsupported) = unsupported_media(headers) {
            outcome.told(StatusCode::UNSUPPORTED_MEDIA_TYPE.as_u16());
            outcome.settle(Some(ErrorCode::InvalidArgument));
            return respond::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, &unsupported);
        }
        let answer = infer(frontend, named, headers, body, &mut outcome).await;
        outcome.settle(answer.as_ref().err().map(|refusal| refusal.code));
        answer.unwrap_or_else(Refusal::into_response)
    };
    trace::around(traced, answer).await
}

async fn infer(
    frontend: &Frontend,
    named: Result<Named<'_>, Refusal>,
    headers: &HeaderMap,
    body: Body,
    outcome: &mut Outcome,
) -> Result<Response, Refusal> {
    let limits = frontend.limits.load_full();
    let mut head = head(named?, headers, outcome.began())?;
    let Received { bytes, held } = body::read(frontend, headers, body, &limits).await?;
    // Waiting for the client's bytes is no time of ours.
    head.received_at = Instant::now();
    outcome.received(head.received_at);
    let mut reserved = None;
    let Call { request, wishes, binary_default, mut report } = if head.json_length == Some(0) {
        let catalog = frontend.present(&head.model, head.deadline).await?;
        let variant = catalog.find(&head.model, head.version)?;
        outcome.found(variant);
        decode::raw_call(head, bytes, variant)?
    } else if large::is_large(head.json_length.unwrap_or(bytes.len())) {
        let undecoded =
            Undecoded { model: &head.model, version: head.version, bytes: bytes.len() as u64, deadline: head.deadline };
        let place = frontend.pipeline.reserve(&undecoded, outcome).await.map_err(|error| frontend.refusal(&error))?;
        reserved = Some(place);
        Box::pin(frontend.on_pool(move || decode::call(head, bytes, &limits))).await??
    } else {
        decode::call(head, bytes, &limits)?
    };
    // From here on admission counts.
    drop(held);
    let answer = frontend.pipeline.infer(request, reserved, outcome).await.map_err(|error| frontend.refusal(&error))?;
    let replies = frontend.pipeline.meter().replies();
    report.energy |= replies.parameters;
    let wishes = Wishes { outputs: wishes, binary_default, report, energy_headers: replies.headers };
    let coding = body::response_coding(headers);
    if large::is_large(encode::bytes_to_code(&answer, &wishes, coding)) {
        Box::pin(frontend.on_pool(move || response(&answer, &wishes, coding))).await?
    } else {
        response(&answer, &wishes, coding)
    }
}

fn head((model, version): Named<'_>, headers: &HeaderMap, began: Instant) -> Result<Head, Refusal> {
    let timeout = text(headers, TIMEOUT)?.map(decode::timeout_header).transpose()?;
    Ok(Head {
        model: model.parse()?,
        version: version.map(str::parse).transpose()?,
        json_length: text(headers, JSON_LENGTH)?.map(json_length).transpose()?,
        deadline: timeout.and_then(|timeout| began.checked_add(timeout)),
        budget: parameters::budget(headers)?,
        received_at: began,
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

fn response(answer: &Answer, wishes: &Wishes, coding: Option<Coding>) -> Result<Response, Refusal> {
    let Encoded { json_length, pieces } = encode::answer(answer, wishes)?;
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
    Told::of(answer, wishes.energy_headers).write(response.headers_mut());
    answer.encoded();
    Ok(response)
}

/// Length of the JSON in front of binary tensors, before any compression.
const JSON_LENGTH: &str = "inference-header-content-length";
/// How long the client will wait, in milliseconds.
const TIMEOUT: &str = "kinglet-timeout-ms";
/// curl's default form type among them: it is what a pasted command sends.
const ACCEPTED_MEDIA: &[&str] =
    &["application/json", "application/octet-stream", "text/plain", "application/x-www-form-urlencoded"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_are_known_at_a_glance() {
        for (path, wanted) in [
            ("/v2/models/digits/infer", Some(("digits", None))),
            ("/v2/models/digits/versions/2/infer", Some(("digits", Some("2")))),
            ("/v2/models/versions/infer", Some(("versions", None))),
            ("/v2/models/%64igits/infer", None),
            ("/v2/models//infer", None),
            ("/v2/models/digits/versions//infer", None),
            ("/v2/models/digits/versions/2/3/infer", None),
            ("/v2/models/digits/2/infer", None),
            ("/v2/models/digits", None),
        ] {
            assert_eq!(plain_path(path), wanted, "{path}");
        }
    }
}
