//! SageMaker: `/ping` and `/invocations`, and `/models` for endpoints that hold many models.
//!
//! Loading and unloading obey the repository's control mode, as every call that changes what is served.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;

use super::{default_model, invoke};
use crate::access::{Caller, Verb};
use crate::frontend::browsers::own_pages_only;
use crate::frontend::rest::control::read_small;
use crate::frontend::rest::control_body::{self, Field, Fields};
use crate::frontend::rest::in_path::InPath;
use crate::frontend::rest::infer::JSON_LENGTH;
use crate::frontend::rest::{models, respond};
use crate::frontend::{Frontend, Refusal, guard};
use crate::infer::ModelName;
use crate::repository::{Catalog, LoadOverride};

pub(in crate::frontend::rest) fn routes(frontend: &Frontend) -> Router<Frontend> {
    let all = routing::get(list).post(load).fallback(respond::neither_get_nor_post);
    let one = routing::get(told).delete(unload).fallback(respond::neither_get_nor_delete);
    let models = Router::new().route("/models", all).route("/models/{model}", one);
    Router::new()
        .route("/ping", respond::get(models::ready))
        .route("/invocations", respond::post(invocations))
        .route("/models/{model}/invoke", respond::post(invoke_model))
        .merge(models.route_layer(from_fn_with_state(frontend.clone(), own_pages_only)))
}

async fn invocations(State(frontend): State<Frontend>, request: Request) -> Response {
    answer(&frontend, "POST /invocations", default_model(&frontend), request).await
}

async fn invoke_model(
    State(frontend): State<Frontend>,
    path: Result<InPath<String>, Refusal>,
    request: Request,
) -> Response {
    let model = path.and_then(|InPath(model)| Ok(model.parse::<ModelName>()?));
    answer(&frontend, "POST /models/{model}/invoke", model, request).await
}

/// What v2 says in a header, clients of this platform say in the content type.
async fn answer(
    frontend: &Frontend,
    route: &'static str,
    model: Result<ModelName, Refusal>,
    mut request: Request,
) -> Response {
    if let Some(length) = json_length(request.headers()) {
        request.headers_mut().insert(JSON_LENGTH, length);
    }
    let mut response = invoke(frontend, route, model, request).await;
    let length = response.headers().get(JSON_LENGTH).and_then(|length| length.to_str().ok());
    if let Some(media) = length.map(|length| format!("{MEDIA};{LENGTH}{length}")) {
        let media = HeaderValue::try_from(media).expect("a media type and digits");
        response.headers_mut().insert(header::CONTENT_TYPE, media);
    }
    response
}

/// The length of the JSON before binary tensors, as it stands in the content type.
fn json_length(headers: &HeaderMap) -> Option<HeaderValue> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let mut parts = kind.split(';').map(str::trim);
    let is_ours = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(MEDIA));
    let length = parts.find_map(|part| part.strip_prefix(LENGTH))?;
    HeaderValue::try_from(length).ok().filter(|_| is_ours)
}

async fn list(State(frontend): State<Frontend>, caller: Caller) -> Response {
    let catalog = frontend.repository.catalog();
    let mut names: Vec<&ModelName> =
        catalog.models.iter().filter(|(_, model)| model.is_ready()).map(|(name, _)| name).collect();
    names.retain(|name| caller.may_read(name.as_str()));
    names.sort_unstable();
    let models: Vec<_> = names.iter().map(|name| json!({ "modelName": name.as_str() })).collect();
    respond::json(&json!({ "models": models }))
}

async fn told(State(frontend): State<Frontend>, InPath(model): InPath<String>) -> Result<Response, Refusal> {
    let name = loaded(&frontend, &model)?;
    Ok(respond::json(&json!({ "modelName": name.as_str() })))
}

async fn load(
    State(frontend): State<Frontend>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    frontend.repository.check_explicit()?;
    let body = read_small(&frontend, &headers, body).await?;
    let fields = control_body::fields(&body, &frontend.limits.load())?;
    let name: ModelName = text(&fields, "model_name")?
        .ok_or_else(|| Refusal::invalid("the body expects \"model_name\" and \"url\", got no \"model_name\""))?
        .parse()?;
    guard::check(&caller, Verb::Load, name.as_str())?;
    let folder = text(&fields, "url")?.map(Into::into);
    let catalog = frontend.repository.catalog();
    if catalog.find(&name, None).is_ok() {
        return Ok(respond::error(StatusCode::CONFLICT, &format!("model {name:?} is loaded already")));
    }
    let (taken, max) = (memory_bytes(&catalog), frontend.dialects.sagemaker_memory_max);
    if max.0 > 0 && taken >= max.0 {
        let message = format!(
            "loaded models take {taken} bytes, dialects.sagemaker_memory_max allows another below {max}: unload one first"
        );
        return Ok(respond::error(StatusCode::INSUFFICIENT_STORAGE, &message));
    }
    let wanted = LoadOverride { folder, ..LoadOverride::default() };
    frontend.repository.load(name, wanted).await.map_err(|error| frontend.told_to_wait(error))?;
    Ok(respond::json(&json!({})))
}

async fn unload(State(frontend): State<Frontend>, InPath(model): InPath<String>) -> Result<StatusCode, Refusal> {
    frontend.repository.check_explicit()?;
    let name = loaded(&frontend, &model)?;
    frontend.repository.unload(name, false).await.map_err(|error| frontend.told_to_wait(error))?;
    Ok(StatusCode::OK)
}

/// A model that answers: this platform knows no other state.
fn loaded(frontend: &Frontend, model: &str) -> Result<ModelName, Refusal> {
    let name: ModelName = model.parse()?;
    match frontend.repository.catalog().find(&name, None) {
        Ok(_) => Ok(name),
        Err(_) => Err(Refusal::new(crate::error::ErrorCode::NotFound, format!("model {name:?} is not loaded"))),
    }
}

/// Of all builds that answer.
fn memory_bytes(catalog: &Catalog) -> u64 {
    catalog.builds().map(|build| build.memory_bytes()).sum()
}

fn text<'a>(fields: &'a Fields<'_>, name: &str) -> Result<Option<&'a str>, Refusal> {
    match fields.get(name) {
        None | Some(Field::Null) => Ok(None),
        Some(Field::Text(text)) => Ok(Some(text)),
        Some(other) => Err(Refusal::invalid(format!("{name:?} expects a string, got {other}"))),
    }
}

/// As Triton names binary tensors here.
const MEDIA: &str = "application/vnd.sagemaker-triton.binary+json";
const LENGTH: &str = "json-header-size=";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_tells_the_length() {
        let length = |kind: &'static str| {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
            json_length(&headers).map(|length| length.to_str().unwrap().to_owned())
        };
        assert_eq!(length("application/vnd.sagemaker-triton.binary+json;json-header-size=12").as_deref(), Some("12"));
        assert_eq!(length("application/vnd.sagemaker-triton.binary+json; json-header-size=12").as_deref(), Some("12"));
        assert_eq!(length("application/vnd.sagemaker-triton.binary+json"), None);
        assert_eq!(length("application/json;json-header-size=12"), None);
        assert_eq!(json_length(&HeaderMap::new()), None);
    }
}
