//! POST: what is loaded (repository extension) and what is logged (logging extension).

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use super::control_body::{self, Field, Fields};
use super::in_path::InPath;
use super::{body, respond};
use crate::access::Caller;
use crate::frontend::{Frontend, Refusal};
use crate::repository::{LoadOverride, RepositoryError, VariantEntry};
use crate::telemetry::logs::{LogValue, Logs};

pub(super) async fn index(
    State(frontend): State<Frontend>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let body = read_small(&frontend, &headers, body).await?;
    let fields = control_body::fields(&body, &frontend.limits.load())?;
    let ready_only = flag(&fields, "ready")?;
    let lines: Vec<Value> = frontend
        .repository
        .index(ready_only)
        .into_iter()
        .filter(|entry| caller.may_read(entry.name.as_str()))
        .map(|entry| {
            let mut line = json!({ "name": entry.name.as_str(), "reason": entry.reason });
            if let Some(version) = entry.version {
                line["version"] = version.to_string().into();
            }
            if !entry.variants.is_empty() {
                line["variants"] = entry.variants.iter().map(variant).collect();
            }
            if let Some(signer) = &entry.signer {
                line["signer"] = signer.as_ref().into();
            }
            line["state"] = entry.state.map_or("UNAVAILABLE", |state| state.as_str()).into();
            line
        })
        .collect();
    Ok(respond::json(&lines))
}

fn variant(entry: &VariantEntry) -> Value {
    let mut line = json!({ "name": entry.name.as_str(), "state": entry.state.as_str(), "reason": entry.reason });
    if let Some(signer) = &entry.signer {
        line["signer"] = signer.as_ref().into();
    }
    line
}

pub(super) async fn load(
    State(frontend): State<Frontend>,
    InPath(model): InPath<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refusal> {
    // A body that carries files is large; where it would be refused it is not read.
    frontend.repository.check_explicit()?;
    let limits = frontend.limits.load_full();
    let body = body::read(&frontend, &headers, body, &limits).await?;
    let wanted = load_override(control_body::parameters(&body.bytes, &limits)?)?;
    drop(body);
    frontend.repository.load(model.parse()?, wanted).await.map_err(|error| frontend.told_to_wait(error))?;
    Ok(StatusCode::OK)
}

/// There is one repository, whatever it is called.
pub(super) async fn load_from(
    frontend: State<Frontend>,
    InPath((_, model)): InPath<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refusal> {
    load(frontend, InPath(model), headers, body).await
}

pub(super) async fn unload(
    State(frontend): State<Frontend>,
    InPath(model): InPath<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let body = read_small(&frontend, &headers, body).await?;
    let dependents = flag(&control_body::parameters(&body, &frontend.limits.load())?, "unload_dependents")?;
    frontend.repository.unload(model.parse()?, dependents).await.map_err(|error| frontend.told_to_wait(error))?;
    Ok(StatusCode::OK)
}

pub(super) async fn unload_from(
    frontend: State<Frontend>,
    InPath((_, model)): InPath<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refusal> {
    unload(frontend, InPath(model), headers, body).await
}

pub(super) async fn log_settings(State(frontend): State<Frontend>) -> Response {
    log_response(&frontend.logs)
}

pub(super) async fn set_log_settings(
    State(frontend): State<Frontend>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let body = read_small(&frontend, &headers, body).await?;
    let Fields(fields) = control_body::fields(&body, &frontend.limits.load())?;
    let changes = fields.into_iter().map(|(key, field)| log_value(&key, field).map(|value| (key, value)));
    let changes = changes.collect::<Result<Vec<_>, Refusal>>()?;
    frontend.logs.update(changes).map_err(|error| Refusal::invalid(error.to_string()))?;
    Ok(log_response(&frontend.logs))
}

impl From<RepositoryError> for Refusal {
    fn from(error: RepositoryError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

fn load_override(Fields(parameters): Fields<'_>) -> Result<LoadOverride, Refusal> {
    let mut wanted = LoadOverride::default();
    for (key, value) in parameters {
        let is_known = key == "config" || key.starts_with("file:");
        let text = match value {
            Field::Text(text) => text,
            Field::Null => continue,
            other if is_known => {
                return Err(Refusal::invalid(format!("parameter {key:?} expects a string, got {other}")));
            }
            _ => continue,
        };
        if key == "config" {
            wanted.config_json = Some(text.into_owned());
        } else if let Some(name) = key.strip_prefix("file:") {
            let content = STANDARD
                .decode(&*text)
                .map_err(|error| Refusal::invalid(format!("parameter {key:?} expects base64: {error}")))?;
            wanted.files.insert(name.to_owned(), content.into());
        }
    }
    Ok(wanted)
}

/// The body of a call that says little. It stands outside admission, so that its bound is one of its own.
pub(super) async fn read_small(frontend: &Frontend, headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let limits = frontend.limits.load().of_control();
    Ok(body::read(frontend, headers, body, &limits).await?.bytes)
}

/// A field that is false where it is missing.
fn flag(fields: &Fields<'_>, name: &str) -> Result<bool, Refusal> {
    match fields.get(name) {
        None | Some(Field::Null) => Ok(false),
        Some(Field::Flag(flag)) => Ok(*flag),
        Some(other) => Err(Refusal::invalid(format!("{name:?} expects a boolean, got {other}"))),
    }
}

fn log_value(key: &str, field: Field<'_>) -> Result<LogValue, Refusal> {
    match field {
        Field::Flag(flag) => Ok(LogValue::Flag(flag)),
        Field::Text(text) => Ok(LogValue::Text(text.into_owned())),
        Field::Number(number) => Ok(LogValue::Number(number)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_load_brings_is_text() {
        let limits = crate::config::Config::default().limits;
        let read = |body: &str| {
            let wanted = control_body::parameters(body.as_bytes(), &limits).and_then(load_override);
            wanted.map(|wanted| (wanted.config_json, wanted.files.len())).map_err(|refusal| refusal.message)
        };
        let both = r#"{"parameters": {"config": "{}", "file:1/model.onnx": "QUJD", "other": 7}}"#;
        assert_eq!(read(both), Ok((Some("{}".into()), 1)));
        assert_eq!(read(r#"{"parameters": {"config": null}}"#), Ok((None, 0)));
        let object = r#"parameter "config" expects a string, got an array or an object"#;
        assert_eq!(read(r#"{"parameters": {"config": {"name": "m"}}}"#), Err(object.into()));
        let number = r#"parameter "file:1/model.onnx" expects a string, got 7"#;
        assert_eq!(read(r#"{"parameters": {"file:1/model.onnx": 7}}"#), Err(number.into()));
    }
}
