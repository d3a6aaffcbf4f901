//! POST: what is loaded (repository extension) and what is logged (logging extension).

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use super::{body, respond};
use crate::frontend::{Frontend, Refusal};
use crate::repository::{LoadOverride, RepositoryError};
use crate::telemetry::logs::{LogValue, Logs};

pub(super) async fn index(
    State(frontend): State<Frontend>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let object = read_object(&frontend, &headers, body).await?;
    let ready_only = flag(&object, "ready")?;
    let lines: Vec<Value> = frontend
        .repository
        .index(ready_only)
        .into_iter()
        .map(|entry| {
            let mut line = json!({ "name": entry.name.as_str(), "reason": entry.reason });
            if let Some(version) = entry.version {
                line["version"] = version.to_string().into();
            }
            line["state"] = entry.state.map_or("UNAVAILABLE", |state| state.as_str()).into();
            line
        })
        .collect();
    Ok(respond::json(&lines))
}

pub(super) async fn load(
    State(frontend): State<Frontend>,
    Path(model): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let parameters = read_parameters(&frontend, &headers, body).await?;
    frontend.repository.load(model.parse()?, load_override(parameters)?).await?;
    Ok(StatusCode::OK)
}

/// There is one repository, whatever it is called.
pub(super) async fn load_from(
    frontend: State<Frontend>,
    Path((_, model)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refusal> {
    load(frontend, Path(model), headers, body).await
}

pub(super) async fn unload(
    State(frontend): State<Frontend>,
    Path(model): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let parameters = read_parameters(&frontend, &headers, body).await?;
    let dependents = flag(&parameters, "unload_dependents")?;
    frontend.repository.unload(model.parse()?, dependents).await?;
    Ok(StatusCode::OK)
}

pub(super) async fn unload_from(
    frontend: State<Frontend>,
    Path((_, model)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refusal> {
    unload(frontend, Path(model), headers, body).await
}

pub(super) async fn log_settings(State(frontend): State<Frontend>) -> Response {
    log_response(&frontend.logs)
}

pub(super) async fn set_log_settings(
    State(frontend): State<Frontend>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let object = read_object(&frontend, &headers, body).await?;
    let changes = object.into_iter().map(|(key, value)| Ok((key.clone(), log_value(&key, value)?)));
    let changes = changes.collect::<Result<Vec<_>, Refusal>>()?;
    frontend.logs.update(changes).map_err(|error| Refusal::invalid(error.to_string()))?;
    Ok(log_response(&frontend.logs))
}

impl From<RepositoryError> for Refusal {
    fn from(error: RepositoryError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

fn load_override(parameters: Map<String, Value>) -> Result<LoadOverride, Refusal> {
    let mut wanted = LoadOverride::default();
    for (key, value) in parameters {
        let Value::String(text) = value else {
            // Parameters of other kinds mean nothing to a load.
            continue;
        };
        if key == "config" {
            wanted.config_json = Some(text);
        } else if let Some(name) = key.strip_prefix("file:") {
            let content = STANDARD
                .decode(text)
                .map_err(|error| Refusal::invalid(format!("parameter {key:?} expects base64: {error}")))?;
            wanted.files.insert(name.to_owned(), content.into());
        }
    }
    Ok(wanted)
}

async fn read_parameters(frontend: &Frontend, headers: &HeaderMap, body: Body) -> Result<Map<String, Value>, Refusal> {
    match read_object(frontend, headers, body).await?.remove("parameters") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(parameters)) => Ok(parameters),
        Some(_) => Err(Refusal::invalid("\"parameters\" expects an object")),
    }
}

/// A boolean that is false where it is absent.
fn flag(object: &Map<String, Value>, name: &str) -> Result<bool, Refusal> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(Refusal::invalid(format!("{name:?} expects a boolean, got {other}"))),
    }
}

/// The body's JSON object; an empty body is an empty one.
async fn read_object(frontend: &Frontend, headers: &HeaderMap, body: Body) -> Result<Map<String, Value>, Refusal> {
    let body = body::read(headers, body, &frontend.limits.load(), frontend.pipeline.admission().receive()).await?;
    if body.bytes.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&body.bytes).map_err(|error| Refusal::invalid(format!("invalid request: {error}")))
}

fn log_value(key: &str, value: Value) -> Result<LogValue, Refusal> {
    match value {
        Value::Bool(flag) => Ok(LogValue::Flag(flag)),
        Value::String(text) => Ok(LogValue::Text(text)),
        Value::Number(number) if number.is_i64() => Ok(LogValue::Number(number.as_i64().unwrap_or(0))),
        other => {
            Err(Refusal::invalid(format!("log setting {key:?} expects a boolean, a number or a string, got {other}")))
        }
    }
}

fn log_response(logs: &Logs) -> Response {
    let settings: Map<String, Value> = logs
        .settings()
        .entries()
        .into_iter()
        .map(|(name, value)| {
            let value = match value {
                LogValue::Flag(flag) => flag.into(),
                LogValue::Number(number) => number.into(),
                LogValue::Text(text) => text.into(),
            };
            (name.to_owned(), value)
        })
        .collect();
    respond::json(&settings)
}
