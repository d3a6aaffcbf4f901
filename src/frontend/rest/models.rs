//! GET: health, metadata, configuration and statistics.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::in_path::InPath;
use super::respond;
use crate::access::Caller;
use crate::engine::TensorSpec;
use crate::frontend::{Frontend, Refusal, SERVER_NAME, SERVER_VERSION};
use crate::infer::ModelName;
use crate::metering::SourceFacts;
use crate::metering::statistics::{BatchTotals, Total};
use crate::repository::{Variant, triton};

pub(super) async fn server(State(frontend): State<Frontend>) -> Response {
    let extensions: Vec<&str> = frontend.extensions().collect();
    respond::json(&json!({ "name": SERVER_NAME, "version": SERVER_VERSION, "extensions": extensions }))
}

pub(super) async fn live() -> Response {
    respond::json(&json!({ "live": true }))
}

pub(super) async fn ready(State(frontend): State<Frontend>) -> Response {
    probe(&frontend, "ready", frontend.health.is_ready())
}

pub(super) async fn startup(State(frontend): State<Frontend>) -> Response {
    probe(&frontend, "started", frontend.health.is_started())
}

/// Probes read the status; the state tells people a start from an end.
fn probe(frontend: &Frontend, name: &str, holds: bool) -> Response {
    let mut response = respond::json(&json!({ name: holds, "state": frontend.health.phase().as_str() }));
    if !holds {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

pub(super) async fn list(State(frontend): State<Frontend>, caller: Caller) -> Response {
    let catalog = frontend.repository.catalog();
    let names = catalog.models.keys().map(ModelName::as_str);
    let mut names: Vec<&str> = names.filter(|name| caller.may_read(name)).collect();
    names.sort_unstable();
    respond::json(&json!({ "models": names }))
}

pub(super) async fn model_ready(State(frontend): State<Frontend>, InPath(selector): InPath<Selector>) -> Response {
    match frontend.check_ready(&selector.model, selector.version.as_deref()) {
        Ok(()) => respond::json(&json!({ "name": selector.model, "ready": true })),
        Err(refusal) => refusal.into_response(),
    }
}

pub(super) async fn metadata(
    State(frontend): State<Frontend>,
    InPath(selector): InPath<Selector>,
) -> Result<Response, Refusal> {
    let variant = find(&frontend, &selector).await?;
    let catalog = frontend.repository.catalog();
    let versions: Vec<String> = catalog
        .models
        .get(&variant.model)
        .map(|model| model.ready().map(|variant| variant.version.to_string()).collect())
        .unwrap_or_default();
    let mut metadata = json!({
        "name": variant.model.as_str(),
        "versions": versions,
        "platform": triton::platform(&variant),
        "inputs": tensors(&variant.signature.inputs),
        "outputs": tensors(&variant.signature.outputs),
    });
    let variants = frontend.variants(&variant);
    if !variants.is_empty() {
        metadata["variants"] = variants.into();
    }
    if let Some(signer) = &variant.signer {
        metadata["signer"] = signer.as_ref().into();
    }
    Ok(respond::json(&metadata))
}

pub(super) async fn config(
    State(frontend): State<Frontend>,
    InPath(selector): InPath<Selector>,
) -> Result<Response, Refusal> {
    let variant = find(&frontend, &selector).await?;
    Ok(respond::json(&triton::to_json(&triton::model_config(&variant))))
}

pub(super) async fn statistics(
    State(frontend): State<Frontend>,
    InPath(selector): InPath<Selector>,
) -> Result<Response, Refusal> {
    let newest = find(&frontend, &selector).await?;
    if selector.version.is_some() {
        return Ok(statistics_of(&frontend, [newest].iter()));
    }
    // The model may have gone since: then its newest build tells the last.
    let catalog = frontend.repository.catalog();
    Ok(catalog.models.get(&newest.model).map_or_else(
        || statistics_of(&frontend, [&newest].into_iter()),
        |model| statistics_of(&frontend, model.ready()),
    ))
}

pub(super) async fn all_statistics(State(frontend): State<Frontend>, caller: Caller) -> Response {
    let catalog = frontend.repository.catalog();
    let ready = catalog.ready().filter(|variant| caller.may_read(variant.model.as_str()));
    let mut variants: Vec<&Arc<Variant>> = ready.collect();
    variants.sort_by_key(|variant| (&variant.model, variant.version));
    statistics_of(&frontend, variants.into_iter())
}

/// The model and version in a path.
#[derive(Debug, serde::Deserialize)]
pub struct Selector {
    pub model: String,
    pub version: Option<String>,
}

async fn find(frontend: &Frontend, selector: &Selector) -> Result<Arc<Variant>, Refusal> {
    frontend.find(&selector.model, selector.version.as_deref()).await
}

#[derive(Serialize)]
struct TensorJson<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: Vec<i64>,
}

impl<'a> TensorJson<'a> {
    fn new(spec: &'a TensorSpec) -> Self {
        Self { name: &spec.name, datatype: spec.dtype.name(), shape: spec.wire_dims().collect() }
    }
}

fn tensors(specs: &[TensorSpec]) -> Vec<TensorJson<'_>> {
    specs.iter().map(TensorJson::new).collect()
}

fn statistics_of<'a>(frontend: &Frontend, variants: impl Iterator<Item = &'a Arc<Variant>>) -> Response {
    let source = frontend.pipeline.meter().source();
    let entries: Vec<Value> = variants.map(|variant| statistics_entry(variant, source)).collect();
    respond::json(&json!({ "model_stats": entries }))
}

/// A version, or a step of an ensemble by its own name.
fn statistics_entry(variant: &Variant, source: Option<SourceFacts>) -> Value {
    let name = variant.name.as_ref().map_or(variant.model.as_str(), |step| step.as_str());
    let all = variant.statistics.snapshot();
    let batch = |(size, totals): (&usize, &BatchTotals)| {
        json!({
            "batch_size": size,
            "compute_input": duration(totals.compute_input),
            "compute_infer": duration(totals.compute_infer),
            "compute_output": duration(totals.compute_output),
        })
    };
    let mut entry = json!({
        "name": name,
        "version": variant.version.to_string(),
        "last_inference": all.last_inference_ms,
        "inference_count": all.inference_count,
        "execution_count": all.execution_count,
        "inference_stats": {
            "success": duration(all.success),
            "fail": duration(all.fail),
            "queue": duration(all.queue),
            "compute_input": duration(all.compute_input),
            "compute_infer": duration(all.compute_infer),
            "compute_output": duration(all.compute_output),
            "cache_hit": duration(all.cache_hit),
            "cache_miss": duration(all.cache_miss),
        },
        "response_stats": {},
        "batch_stats": all.batches.iter().map(batch).collect::<Vec<_>>(),
        "memory_usage": [{ "type": "CPU", "id": 0, "byte_size": variant.memory_bytes() }],
        "cpu_seconds": all.cpu.as_secs_f64(),
    });
    // Steps that run other models are counted there.
    let steps: Vec<Value> = variant.own_steps().map(|step| statistics_entry(step, source)).collect();
    if !steps.is_empty() {
        entry["steps"] = steps.into();
    }
    if let (Some(energy), Some(source)) = (all.energy, source) {
        entry["energy_joules"] = energy.as_joules().into();
        entry["energy_source"] = source.kind.as_str().into();
        entry["energy_quality"] = source.kind.quality().as_str().into();
    }
    entry
}

fn duration(total: Total) -> Value {
    json!({ "count": total.count, "ns": total.nanos() })
}
