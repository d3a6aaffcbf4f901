//! GET: which versions there are and whether they answer, and what a version takes and gives.
//!
//! One body for both dialects: `name` and `ready` are KServe's, `model_version_status` is TensorFlow Serving's.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::body::SIGNATURE;
use crate::engine::TensorSpec;
use crate::error::ErrorCode;
use crate::frontend::rest::in_path::InPath;
use crate::frontend::rest::infer::Which;
use crate::frontend::rest::respond;
use crate::frontend::{Frontend, Refusal};
use crate::infer::{ModelName, VersionId};
use crate::repository::catalog::{LookupError, State as Life, Version};
use crate::tensor::DType;

pub(super) async fn newest(
    State(frontend): State<Frontend>,
    InPath(model): InPath<String>,
) -> Result<Response, Refusal> {
    status(&frontend, &model, Which::Newest).await
}

pub(super) async fn version(
    State(frontend): State<Frontend>,
    InPath((model, version)): InPath<(String, String)>,
) -> Result<Response, Refusal> {
    status(&frontend, &model, Which::Version(&version)).await
}

pub(super) async fn label(
    State(frontend): State<Frontend>,
    InPath((model, label)): InPath<(String, String)>,
) -> Result<Response, Refusal> {
    status(&frontend, &model, Which::Label(&label)).await
}

pub(super) async fn metadata(
    State(frontend): State<Frontend>,
    InPath(model): InPath<String>,
) -> Result<Response, Refusal> {
    described(&frontend, &model, Which::Newest).await
}

pub(super) async fn version_metadata(
    State(frontend): State<Frontend>,
    InPath((model, version)): InPath<(String, String)>,
) -> Result<Response, Refusal> {
    described(&frontend, &model, Which::Version(&version)).await
}

pub(super) async fn label_metadata(
    State(frontend): State<Frontend>,
    InPath((model, label)): InPath<(String, String)>,
) -> Result<Response, Refusal> {
    described(&frontend, &model, Which::Label(&label)).await
}

/// 200 where something answers, 503 with the same body where nothing does.
async fn status(frontend: &Frontend, model: &str, which: Which<'_>) -> Result<Response, Refusal> {
    let name: ModelName = model.parse()?;
    let (wanted, unresolved) = match which.resolve(frontend, &name).await {
        Ok(wanted) => (wanted, None),
        // Labels are known with a version that answers: where none does, all say why.
        Err(refusal) if refusal.code == ErrorCode::Unavailable => (None, Some(refusal.message)),
        Err(refusal) => return Err(refusal),
    };
    let catalog = frontend.repository.catalog();
    let failed = catalog.find(&name, wanted).err().filter(|_| !frontend.repository.would_load(&name));
    if let Some(unknown @ (LookupError::UnknownModel(_) | LookupError::UnknownVersion(..))) = failed {
        return Err(unknown.into());
    }
    let versions = catalog.models.get(&name).map(|model| &model.versions).into_iter().flatten();
    let versions = versions.filter(|(id, _)| wanted.is_none_or(|wanted| wanted == **id));
    let lines: Vec<Value> = versions.map(|(id, version)| line(*id, version)).collect();
    let error = unresolved.or(failed.map(|error| error.to_string()));
    let mut body = json!({ "name": name.as_str(), "ready": error.is_none(), "model_version_status": lines });
    if let Some(error) = &error {
        body["error"] = error.as_str().into();
    }
    let mut response = respond::json(&body);
    if error.is_some() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

fn line(id: VersionId, version: &Version) -> Value {
    let (state, code) = match version.state {
        Life::Loading => ("LOADING", "OK"),
        Life::Ready => ("AVAILABLE", "OK"),
        Life::Unloading => ("UNLOADING", "OK"),
        Life::Unavailable => ("END", "UNAVAILABLE"),
    };
    json!({
        "version": id.to_string(),
        "state": state,
        "status": { "error_code": code, "error_message": version.reason },
    })
}

async fn described(frontend: &Frontend, model: &str, which: Which<'_>) -> Result<Response, Refusal> {
    let name: ModelName = model.parse()?;
    let wanted = which.resolve(frontend, &name).await?;
    let found = frontend.own_build(&name, wanted, None).await;
    let variant = found.map_err(|refusal| frontend.told_to_wait(refusal))?;
    let signature = json!({
        "inputs": tensors(&variant.signature.inputs),
        "outputs": tensors(&variant.signature.outputs),
        "method_name": "tensorflow/serving/predict",
    });
    Ok(respond::json(&json!({
        "model_spec": { "name": name.as_str(), "signature_name": "", "version": variant.version.to_string() },
        "metadata": { "signature_def": { "signature_def": { SIGNATURE: signature } } },
    })))
}

fn tensors(specs: &[TensorSpec]) -> Map<String, Value> {
    let tensor = |spec: &TensorSpec| {
        // Whole numbers of 64 bits are text in protobuf's JSON.
        let dims: Vec<Value> =
            spec.wire_dims().map(|extent| json!({ "size": extent.to_string(), "name": "" })).collect();
        let shape = json!({ "dim": dims, "unknown_rank": false });
        (spec.name.clone(), json!({ "dtype": dtype(spec.dtype), "tensor_shape": shape, "name": spec.name }))
    };
    specs.iter().map(tensor).collect()
}

/// TensorFlow's name of a datatype.
fn dtype(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "DT_BOOL",
        DType::U8 => "DT_UINT8",
        DType::U16 => "DT_UINT16",
        DType::U32 => "DT_UINT32",
        DType::U64 => "DT_UINT64",
        DType::I8 => "DT_INT8",
        DType::I16 => "DT_INT16",
        DType::I32 => "DT_INT32",
        DType::I64 => "DT_INT64",
        DType::F16 => "DT_HALF",
        DType::Bf16 => "DT_BFLOAT16",
        DType::F32 => "DT_FLOAT",
        DType::F64 => "DT_DOUBLE",
        DType::Bytes => "DT_STRING",
    }
}
