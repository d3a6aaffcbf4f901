//! The v1 dialects over REST: TensorFlow Serving's and KServe's, on the same paths.
//!
//! `body` reads what is asked, `outputs` finds the output that an answer is made of, `answer` writes it; what lies between is
//! `infer`'s, as for every dialect. `status` tells about models. docs/dialects.md says where the two differ and what holds.

mod answer;
mod body;
mod glance;
mod outputs;
mod status;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing;
use bytes::Bytes;
use http::{Method, StatusCode};

pub(super) use answer::write;
pub(super) use glance::is_v1;

use super::decode::{self, Head};
use super::events::{self, Mode};
use super::in_path::InPath;
use super::infer::{self, Dialect, Target, Which};
use super::{models, respond};
use crate::engine::Signature;
use crate::error::ErrorCode;
use crate::frontend::config::LimitsConfig;
use crate::frontend::parameters::RequestParameters;
use crate::frontend::{Call, Frontend, Refusal};
use crate::repository::Variant;

pub(super) fn routes() -> Router<Frontend> {
    let both = |get: routing::MethodRouter<Frontend>| get.fallback(respond::neither_get_nor_post);
    let both = Router::new()
        .route("/v1/models/{model}", both(routing::get(status::newest).post(newest)))
        .route("/v1/models/{model}/versions/{version}", both(routing::get(status::version).post(version)))
        .route("/v1/models/{model}/labels/{label}", both(routing::get(status::label).post(label)));
    Router::new()
        .route("/v1/models", respond::get(models::list))
        .route("/v1/models/{model}/metadata", respond::get(status::metadata))
        .route("/v1/models/{model}/versions/{version}/metadata", respond::get(status::version_metadata))
        .route("/v1/models/{model}/labels/{label}/metadata", respond::get(status::label_metadata))
        .merge(both.layer(from_fn(by_verb)))
}

/// A path with a verb at its end is another one than without, which only the router takes for the same.
async fn by_verb(request: Request, next: Next) -> Response {
    let last = request.uri().path().rsplit('/').next().unwrap_or_default();
    let has_colon = last.contains(':') || last.to_ascii_lowercase().contains("%3a");
    let is_expected = match *request.method() {
        Method::POST => has_colon,
        // A name that no model, version or label can have is none of those; what is no verb is part of it.
        Method::GET | Method::HEAD => !has_colon || !ends_with_verb(last),
        _ => false,
    };
    if is_expected {
        return next.run(request).await;
    }
    let (expected, allowed) = if has_colon { ("POST", "POST") } else { ("GET", "GET,HEAD") };
    let refused = match *request.method() {
        Method::POST => respond::error(StatusCode::METHOD_NOT_ALLOWED, NO_VERB),
        _ => respond::not_allowed(&request, expected),
    };
    respond::allowing(refused, allowed)
}

/// The model's name, and what stands behind it.
type TwoNames = Result<InPath<(String, String)>, Refusal>;

/// What is asked of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Predict,
    Classify,
    Regress,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Rows,
    Columns,
    Classes,
    Numbers,
}

/// A call whose body has arrived.
#[derive(Debug)]
pub(super) struct Arrived<'a> {
    pub(super) head: Head,
    pub(super) verb: Verb,
    pub(super) event: Option<Mode>,
    pub(super) variant: &'a Variant,
    /// Whether an array of `inputs` is what `instances` is, where no event says so.
    pub(super) inputs_are_rows: bool,
}

/// # Errors
/// When the body is not what the dialect describes; the message says what was expected and what came.
pub(super) fn call(arrived: Arrived<'_>, body: &Bytes, limits: &LimitsConfig) -> Result<(Call, Form), Refusal> {
    let Arrived { head, verb, event, variant, inputs_are_rows } = arrived;
    if body.is_empty() {
        return Err(Refusal::invalid(format!("the body is empty, expected an object with {}", verb.expected())));
    }
    let wishes = outputs::wanted(verb, &variant.signature)?;
    // Events are KServe's.
    let inputs_are_rows = inputs_are_rows || event.is_some();
    let reading = body::Reading { verb, signature: &variant.signature, limits, inputs_are_rows };
    let (form, inputs) = decode::leniently(body, |text| match event {
        Some(Mode::Structured) => body::read(&events::data(text)?, reading),
        _ => body::read(text, reading),
    })?;
    let parameters = RequestParameters { budget: head.budget, ..RequestParameters::default() };
    Ok((decode::assemble(head, None, inputs, wishes, parameters), form))
}

async fn newest(State(frontend): State<Frontend>, path: Result<InPath<String>, Refusal>, request: Request) -> Response {
    match path.as_ref().map_err(Refusal::clone).and_then(|InPath(last)| split(last)) {
        Ok((model, verb)) => ask(&frontend, (model, Which::Newest), verb, request).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn version(frontend: State<Frontend>, path: TwoNames, request: Request) -> Response {
    within(frontend, path, request, |version| Which::Version(version)).await
}

async fn label(frontend: State<Frontend>, path: TwoNames, request: Request) -> Response {
    within(frontend, path, request, |label| Which::Label(label)).await
}

async fn within(
    State(frontend): State<Frontend>,
    path: TwoNames,
    request: Request,
    which: fn(&str) -> Which<'_>,
) -> Response {
    match path.as_ref().map_err(Refusal::clone).and_then(|InPath((model, last))| Ok((model, split(last)?))) {
        Ok((model, (name, verb))) => ask(&frontend, (model, which(name)), verb, request).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn ask(frontend: &Frontend, (model, which): (&str, Which<'_>), verb: Verb, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let target = target(model, which, verb);
    infer::respond_to(frontend, target.route, Ok(target), &parts, body).await
}

/// The call of a path that needs no decoding, without what stands before the model's name.
pub(super) fn plain_target(path: &str) -> Option<Target<'_>> {
    let (named, verb) = split(path).ok()?;
    let (model, which) = match named.split_once('/') {
        None => (named, Which::Newest),
        Some((model, rest)) => match rest.split_once('/')? {
            ("versions", version) => (model, Which::Version(version)),
            ("labels", label) => (model, Which::Label(label)),
            _ => return None,
        },
    };
    Some(target(model, which, verb))
}

fn target<'a>(model: &'a str, which: Which<'a>, verb: Verb) -> Target<'a> {
    let route = match (which, verb) {
        (Which::Newest, Verb::Predict) => "POST /v1/models/{model}:predict",
        (Which::Newest, Verb::Classify) => "POST /v1/models/{model}:classify",
        (Which::Newest, Verb::Regress) => "POST /v1/models/{model}:regress",
        (Which::Version(_), Verb::Predict) => "POST /v1/models/{model}/versions/{version}:predict",
        (Which::Version(_), Verb::Classify) => "POST /v1/models/{model}/versions/{version}:classify",
        (Which::Version(_), Verb::Regress) => "POST /v1/models/{model}/versions/{version}:regress",
        (Which::Label(_), Verb::Predict) => "POST /v1/models/{model}/labels/{label}:predict",
        (Which::Label(_), Verb::Classify) => "POST /v1/models/{model}/labels/{label}:classify",
        (Which::Label(_), Verb::Regress) => "POST /v1/models/{model}/labels/{label}:regress",
    };
    Target { model, which, dialect: Dialect::V1(verb), route }
}

/// Whether a model has an output that answers such calls.
pub(super) fn suits(verb: Verb, signature: &Signature) -> bool {
    outputs::wanted(verb, signature).is_ok()
}

/// What stands before the verb, and the verb.
fn split(text: &str) -> Result<(&str, Verb), Refusal> {
    match text.rsplit_once(':') {
        Some((named, "predict")) => Ok((named, Verb::Predict)),
        Some((named, "classify")) => Ok((named, Verb::Classify)),
        Some((named, "regress")) => Ok((named, Verb::Regress)),
        Some((_, "explain")) => Err(Refusal::unsupported("explanations are not served, expected :predict")),
        _ => Err(Refusal::invalid(NO_VERB)),
    }
}

/// Whether a path's last part ends with a verb that is known, served or not.
fn ends_with_verb(last: &str) -> bool {
    let plain = last.to_ascii_lowercase().replace("%3a", ":");
    split(&plain).map_or_else(|refused| refused.code == ErrorCode::Unsupported, |_| true)
}

impl Verb {
    fn expected(self) -> &'static str {
        match self {
            Self::Predict => "either \"instances\" or \"inputs\"",
            Self::Classify | Self::Regress => "\"examples\"",
        }
    }
}

const NO_VERB: &str = "the path expects :predict, :classify or :regress at its end";
