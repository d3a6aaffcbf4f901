//! The system shared memory extension: which regions there are, registers and unregisters them.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::control::read_small;
use super::control_body::{self, Field, Fields};
use super::in_path::InPath;
use super::respond;
use crate::access::Caller;
use crate::frontend::shared_memory::Registration;
use crate::frontend::{Frontend, Refusal, SharedMemory};

pub(super) async fn status(
    State(frontend): State<Frontend>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    told(&frontend.memory.for_call(&headers, &caller), None)
}

pub(super) async fn status_of_one(
    State(frontend): State<Frontend>,
    InPath(region): InPath<String>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    told(&frontend.memory.for_call(&headers, &caller), Some(&region))
}

fn told(memory: &SharedMemory, region: Option<&str>) -> Result<Response, Refusal> {
    let regions = memory.status(region)?;
    let line = |(name, registration): (String, Registration)| {
        let Registration { key, offset, byte_size } = registration;
        json!({ "name": name, "key": key, "offset": offset, "byte_size": byte_size })
    };
    Ok(respond::json(&regions.into_iter().map(line).collect::<Vec<Value>>()))
}

pub(super) async fn register(
    State(frontend): State<Frontend>,
    InPath(region): InPath<String>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let memory = frontend.memory.for_call(&headers, &caller);
    let body = read_small(&frontend, &headers, body).await?;
    let fields = control_body::fields(&body, &frontend.limits.load())?;
    memory.register(&region, registration(&fields)?)?;
    Ok(StatusCode::OK)
}

pub(super) async fn unregister(
    State(frontend): State<Frontend>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    frontend.memory.for_call(&headers, &caller).unregister(None)?;
    Ok(StatusCode::OK)
}

pub(super) async fn unregister_one(
    State(frontend): State<Frontend>,
    InPath(region): InPath<String>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    frontend.memory.for_call(&headers, &caller).unregister(Some(&region))?;
    Ok(StatusCode::OK)
}

fn registration(fields: &Fields<'_>) -> Result<Registration, Refusal> {
    let missing = |name: &str| Refusal::invalid(format!("the request has no {name:?}"));
    let key = match fields.get("key") {
        Some(Field::Text(key)) => key.clone().into_owned(),
        // What came is not repeated: it may be a key.
        Some(_) => return Err(Refusal::invalid("\"key\" expects a string")),
        None => return Err(missing("key")),
    };
    let offset = bytes(fields, "offset")?.unwrap_or(0);
    let byte_size = bytes(fields, "byte_size")?.ok_or_else(|| missing("byte_size"))?;
    Ok(Registration { key, offset, byte_size })
}

fn bytes(fields: &Fields<'_>, name: &str) -> Result<Option<u64>, Refusal> {
    let wrong = |got: &Field<'_>| Refusal::invalid(format!("{name:?} expects a number of bytes, got {got}"));
    match fields.get(name) {
        None | Some(Field::Null) => Ok(None),
        Some(field @ Field::Number(number)) => u64::try_from(*number).map(Some).map_err(|_| wrong(field)),
        Some(other) => Err(wrong(other)),
    }
}
