//! The trace extension: GET reads the settings of all models or of one, POST changes those that it names.

use std::borrow::Cow;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde_json::{Map, Value};

use super::control::read_small;
use super::control_body::{self, Field, Fields};
use super::in_path::InPath;
use super::respond;
use crate::frontend::trace_settings::Asked;
use crate::frontend::{Frontend, Refusal};
use crate::telemetry::spans::settings::{TraceSettings, TraceValue};

pub(super) async fn of_all(State(frontend): State<Frontend>) -> Result<Response, Refusal> {
    Ok(told(&frontend.trace_settings("")?))
}

pub(super) async fn of_model(
    State(frontend): State<Frontend>,
    InPath(model): InPath<String>,
) -> Result<Response, Refusal> {
    Ok(told(&frontend.trace_settings(&model)?))
}

pub(super) async fn set_for_all(
    State(frontend): State<Frontend>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    set(&frontend, "", &headers, body).await
}

pub(super) async fn set_for_model(
    State(frontend): State<Frontend>,
    InPath(model): InPath<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    set(&frontend, &model, &headers, body).await
}

async fn set(frontend: &Frontend, model: &str, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
    let body = read_small(frontend, headers, body).await?;
    let Fields(fields) = control_body::fields(&body, &frontend.limits.load())?;
    let asked = fields.into_iter().map(asked).collect::<Result<Vec<_>, _>>()?;
    Ok(told(&frontend.set_trace_settings(model, &asked)?))
}

/// Numbers are as good as the texts that the protocol has.
fn asked((name, field): (Cow<'_, str>, Field<'_>)) -> Result<Asked, Refusal> {
    let values = match field {
        Field::Null => Vec::new(),
        Field::Text(text) => vec![text.into_owned()],
        Field::Number(number) => vec![number.to_string()],
        // An empty list is none: over gRPC it could not be told from nothing.
        Field::Texts(texts) if !texts.is_empty() => texts.into_iter().map(Cow::into_owned).collect(),
        other => {
            let expected = "a string, a list of strings or null";
            return Err(Refusal::invalid(format!("trace setting {name:?} expects {expected}, got {other}")));
        }
    };
    Ok((name.into_owned(), values))
}

fn told(settings: &TraceSettings) -> Response {
    let value = |value| match value {
        TraceValue::Text(text) => text.into(),
        TraceValue::List(list) => list.into(),
    };
    let entries = settings.entries().into_iter().map(|(name, setting)| (name.to_owned(), value(setting)));
    respond::json(&entries.collect::<Map<String, Value>>())
}
