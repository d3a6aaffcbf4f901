//! POST .../infer and its likes of other dialects: read, decode, walk the pipeline, encode.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::time::Instant;

use super::body::{self, Pieces, Received};
use super::decode::{self, Head};
use super::encode::{self, Encoded, Wishes};
use super::events::{self, Mode};
use super::in_path::InPath;
use super::respond;
use super::v1::{self, Verb};
use crate::access;
use crate::error::ErrorCode;
use crate::frontend::config::{InputsAs, LimitsConfig};
use crate::frontend::inflate::Coding;
use crate::frontend::listener::{Direct, Shortcut};
use crate::frontend::load_report::Format;
use crate::frontend::report::Told;
use crate::frontend::{Call, Frontend, Refusal, SharedMemory, guard, large, parameters, shared_memory, trace};
use crate::infer::{ModelName, VersionId};
use crate::pipeline::{Answer, Outcome, Undecoded};
use crate::repository::Variant;

/// An inference call as its path tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) model: &'a str,
    pub(super) which: Which<'a>,
    pub(super) dialect: Dialect,
    /// As spans name it: the verb and the path's form.
    pub(super) route: &'static str,
}

/// Which version of a model a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which<'a> {
    Newest,
    Version(&'a str),
    Label(&'a str),
}

/// What a body's bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V1(Verb),
    /// The body tells: v2, or a prediction of v1.
    Either,
}

/// A call whose body has arrived and is not decoded yet.
#[derive(Debug)]
struct Arrived {
    head: Head,
    bytes: Bytes,
    limits: Arc<LimitsConfig>,
    memory: SharedMemory,
    /// How v1 is read, where the body is or may be of it.
    v1: Option<V1>,
}

#[derive(Debug)]
struct V1 {
    verb: Verb,
    is_certain: bool,
    event: Option<Mode>,
    variant: Arc<Variant>,
    inputs_are_rows: bool,
}

pub(super) async fn newest(
    State(frontend): State<Frontend>,
    path: Result<InPath<String>, Refusal>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let target = path.as_ref().map(|InPath(model)| v2_target(model, None));
    respond_to(&frontend, V2_NEWEST, target.map_err(Refusal::clone), &parts, body).await
}

pub(super) async fn version(
    State(frontend): State<Frontend>,
    path: Result<InPath<(String, String)>, Refusal>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let target = path.as_ref().map(|InPath((model, version))| v2_target(model, Some(version)));
    respond_to(&frontend, V2_VERSION, target.map_err(Refusal::clone), &parts, body).await
}

/// The calls of the routes above and of v1, where their paths are spelt plainly.
#[derive(Debug)]
pub(super) struct Inference(pub Frontend);

impl Shortcut for Inference {
    fn knows(&self, request: &Request) -> bool {
        let (path, dialects) = (request.uri().path(), &self.0.dialects);
        let is_ours = request.method() == Method::POST && !dialects.is_vertex_prediction(path);
        is_ours && plain_target(path, dialects.v1).is_some()
    }

    fn answer(&self, request: Request) -> Direct {
        let frontend = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let target = plain_target(parts.uri.path(), true).expect("only requests that are known come here");
            respond_to(&frontend, target.route, Ok(target), &parts, body).await
        })
    }
}

/// The call of a path that needs no decoding.
fn plain_target(path: &str, is_v1_served: bool) -> Option<Target<'_>> {
    let target = match path.strip_prefix("/v2/models/") {
        Some(rest) => {
            let named = rest.strip_suffix("/infer")?;
            match named.split_once('/') {
                None => v2_target(named, None),
                Some((model, rest)) => v2_target(model, Some(rest.strip_prefix("versions/")?)),
            }
        }
        None if is_v1_served => v1::plain_target(path.strip_prefix("/v1/models/")?)?,
        None => return None,
    };
    let is_plain = |part: &str| !part.is_empty() && !part.contains(['/', '%']);
    (is_plain(target.model) && target.which.name().is_none_or(is_plain)).then_some(target)
}

fn v2_target<'a>(model: &'a str, version: Option<&'a str>) -> Target<'a> {
    let (which, route) = version.map_or((Which::Newest, V2_NEWEST), |version| (Which::Version(version), V2_VERSION));
    Target { model, which, dialect: Dialect::V2, route }
}

/// The way of every inference call, whatever its dialect.
pub(super) async fn respond_to(
    frontend: &Frontend,
    route: &'static str,
    target: Result<Target<'_>, Refusal>,
    parts: &Parts,
    body: Body,
) -> Response {
    let headers = &parts.headers;
    let load = Format::asked(headers);
    let traced = trace::of(&frontend.tracer, headers);
    let recording = trace::record(&frontend.tracer, traced.as_ref(), || trace::rest_head(parts, route));
    let mut outcome = frontend.pipeline.begin(frontend.caller(&parts.extensions)).recorded(recording);
    let answer = async {
        if let Some(unsupported) = unsupported_media(headers) {
            outcome.told(StatusCode::UNSUPPORTED_MEDIA_TYPE.as_u16());
            outcome.settle(Some(ErrorCode::InvalidArgument));
            return respond::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, &unsupported);
        }
        let answer = infer(frontend, target, headers, body, &mut outcome).await;
        outcome.settle(answer.as_ref().err().map(|refusal| refusal.code));
        answer.unwrap_or_else(Refusal::into_response)
    };
    let mut response = trace::around(traced, answer).await;
    frontend.tell_load(load, response.headers_mut());
    response
}

async fn infer(
    frontend: &Frontend,
    target: Result<Target<'_>, Refusal>,
    headers: &HeaderMap,
    body: Body,
    outcome: &mut Outcome,
) -> Result<Response, Refusal> {
    let target = target?;
    // The settings may have named the model.
    guard::check(outcome.caller(), access::Verb::Infer, target.model)?;
    let limits = frontend.limits.load_full();
    let mut head = head(frontend, target, headers, outcome.began()).await?;
    let event = if target.dialect == Dialect::V2 { None } else { events::mode(headers)? };
    let Received { bytes, held } = body::read(frontend, headers, body, &limits).await?;
    // Waiting for the client's bytes is no time of ours.
    head.received_at = Instant::now();
    outcome.received(head.received_at);
    let mut reserved = None;
    let (mut call, form) = if head.json_length == Some(0) {
        let variant = frontend.own_build(&head.model, head.version, head.deadline).await?;
        outcome.found(&variant);
        (decode::raw_call(head, bytes, &variant)?, None)
    } else {
        let length = head.json_length.unwrap_or(bytes.len());
        if large::is_large(length) {
            let (model, version) = (&head.model, head.version);
            let undecoded = Undecoded { model, version, bytes: bytes.len() as u64, deadline: head.deadline };
            let place =
                frontend.pipeline.reserve(&undecoded, outcome).await.map_err(|error| frontend.refusal(&error))?;
            reserved = Some(place);
        }
        let v1 = v1_of(frontend, target.dialect, &head, event, outcome).await?;
        let arrived = Arrived { head, bytes, limits, memory: frontend.memory.for_call(headers, outcome.caller()), v1 };
        if reserved.is_some() {
            Box::pin(frontend.on_pool(move || arrived.decode())).await??
        } else {
            arrived.decode()?
        }
    };
    if !call.placed.is_empty() {
        Box::pin(frontend.fetch(&mut call, &mut reserved, outcome)).await?;
    }
    // From here on admission counts.
    drop(held);
    let Call { request, wishes, binary_default, mut report, .. } = call;
    let answer = frontend.pipeline.infer(request, reserved, outcome).await.map_err(|error| frontend.refusal(&error))?;
    let replies = frontend.pipeline.meter().replies();
    report.energy |= replies.parameters;
    let energy_headers = replies.headers;
    let wishes = Wishes { outputs: wishes, binary_default, report, energy_headers, v1: form, event };
    let coding = body::response_coding(headers);
    let slots = shared_memory::bytes_to_copy(&answer, &wishes.outputs);
    let mut response =
        if large::is_large(encode::bytes_to_code(&answer, &wishes, coding)) || large::is_large_copy(slots) {
            Box::pin(frontend.on_pool(move || response(answer, &wishes, coding))).await??
        } else {
            response(answer, &wishes, coding)?
        };
    let bytes = http_body::Body::size_hint(response.body()).lower();
    frontend.let_leave(bytes, response.extensions_mut())?;
    Ok(response)
}

/// What reading v1 needs, where the body may be of it: the signature gives inputs and datatypes.
async fn v1_of(
    frontend: &Frontend,
    dialect: Dialect,
    head: &Head,
    event: Option<Mode>,
    outcome: &mut Outcome,
) -> Result<Option<V1>, Refusal> {
    let (verb, is_certain) = match dialect {
        Dialect::V1(verb) => (verb, true),
        Dialect::Either if head.json_length.is_none() => (Verb::Predict, event.is_some()),
        Dialect::V2 | Dialect::Either => return Ok(None),
    };
    let found = frontend.own_build(&head.model, head.version, head.deadline).await;
    let variant = found.map_err(|refusal| frontend.told_to_wait(refusal))?;
    outcome.found(&variant);
    let inputs_are_rows = frontend.dialects.inputs_as == InputsAs::Rows;
    Ok(Some(V1 { verb, is_certain, event, variant, inputs_are_rows }))
}

impl Arrived {
    fn decode(self) -> Result<(Call, Option<v1::Form>), Refusal> {
        let Self { head, bytes, limits, memory, v1 } = self;
        match v1 {
            Some(V1 { verb, is_certain, event, variant, inputs_are_rows }) if is_certain || v1::is_v1(&bytes) => {
                let arrived = v1::Arrived { head, verb, event, variant: &variant, inputs_are_rows };
                v1::call(arrived, &bytes, &limits).map(|(call, form)| (call, Some(form)))
            }
            _ => decode::call(head, bytes, &limits, &memory).map(|call| (call, None)),
        }
    }
}

impl Which<'_> {
    /// The version that is asked for, where it is one.
    ///
    /// # Errors
    /// When it is no number, or a label that the model does not have.
    pub(super) async fn resolve(self, frontend: &Frontend, model: &ModelName) -> Result<Option<VersionId>, Refusal> {
        match self {
            Self::Newest => Ok(None),
            Self::Version(version) => Ok(Some(version.parse()?)),
            Self::Label(label) => Ok(Some(frontend.present(model, None).await?.labelled(model, label)?)),
        }
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Newest => None,
            Self::Version(name) | Self::Label(name) => Some(name),
        }
    }
}

async fn head(frontend: &Frontend, target: Target<'_>, headers: &HeaderMap, began: Instant) -> Result<Head, Refusal> {
    let timeout = text(headers, TIMEOUT)?.map(decode::timeout_header).transpose()?;
    let model = target.model.parse()?;
    let version = target.which.resolve(frontend, &model).await?;
    // All of a body of v1 is JSON.
    let lengths = if matches!(target.dialect, Dialect::V1(_)) { None } else { text(headers, JSON_LENGTH)? };
    Ok(Head {
        model,
        version,
        json_length: lengths.map(json_length).transpose()?,
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

/// The answer is gone with it: what it held of the budget of what leaves, its response holds next.
fn response(answer: Answer, wishes: &Wishes, coding: Option<Coding>) -> Result<Response, Refusal> {
    let Encoded { json_length, pieces } = encode::answer(&answer, wishes)?;
    let content_type = match (json_length, wishes.event) {
        (Some(_), _) => "application/octet-stream",
        (None, Some(Mode::Structured)) => events::MEDIA,
        (None, _) => "application/json",
    };
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
    if wishes.event == Some(Mode::Binary) {
        events::write(&answer.response.model, response.headers_mut());
    }
    Told::of(&answer, wishes.energy_headers).write(response.headers_mut());
    answer.encoded();
    drop(answer);
    Ok(response)
}

/// Length of the JSON in front of binary tensors, before any compression.
pub(super) const JSON_LENGTH: &str = "inference-header-content-length";
/// How long the client will wait, in milliseconds.
const TIMEOUT: &str = "kinglet-timeout-ms";
const V2_NEWEST: &str = "POST /v2/models/{model}/infer";
const V2_VERSION: &str = "POST /v2/models/{model}/versions/{version}/infer";
/// curl's default form type among them: it is what a pasted command sends.
const ACCEPTED_MEDIA: &[&str] =
    &["application/json", "application/octet-stream", "text/plain", "application/x-www-form-urlencoded"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_are_known_at_a_glance() {
        for (path, wanted) in [
            ("/v2/models/digits/infer", Some(("digits", Which::Newest))),
            ("/v2/models/digits/versions/2/infer", Some(("digits", Which::Version("2")))),
            ("/v2/models/versions/infer", Some(("versions", Which::Newest))),
            ("/v2/models/%64igits/infer", None),
            ("/v2/models//infer", None),
            ("/v2/models/digits/versions//infer", None),
            ("/v2/models/digits/versions/2/3/infer", None),
            ("/v2/models/digits/2/infer", None),
            ("/v2/models/digits", None),
            ("/v1/models/digits:predict", Some(("digits", Which::Newest))),
            ("/v1/models/digits/versions/2:classify", Some(("digits", Which::Version("2")))),
            ("/v1/models/digits/labels/stable:regress", Some(("digits", Which::Label("stable")))),
            ("/v1/models/digits/labels/%41:predict", None),
            ("/v1/models/digits:explain", None),
            ("/v1/models/digits", None),
            ("/v1/models/:predict", None),
        ] {
            let target = plain_target(path, true).map(|target| (target.model, target.which));
            assert_eq!(target, wanted, "{path}");
        }
        assert!(plain_target("/v1/models/digits:predict", false).is_none());
    }
}
