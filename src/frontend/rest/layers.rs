//! GET: what every layer of a model takes on one core, and what is left of its weights. The model is run for it, a few times
//! on made-up rows.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};

use super::in_path::{InPath, InQuery};
use super::models::Selector;
use super::respond;
use crate::engine::{EngineError, LayerReport, made_up};
use crate::error::ErrorCode;
use crate::frontend::{Frontend, Refusal};

/// The rows of the run, the extent of axes that are free besides, and the build.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    #[serde(default = "one")]
    batch: usize,
    #[serde(default = "one")]
    extent: usize,
    variant: Option<String>,
}

fn one() -> usize {
    1
}

pub(super) async fn layers(
    State(frontend): State<Frontend>,
    InPath(selector): InPath<Selector>,
    InQuery(run): InQuery<Run>,
) -> Result<Response, Refusal> {
    let build = frontend.find_variant(&selector.model, selector.version.as_deref(), run.variant.as_deref()).await?;
    if build.ensemble.is_some() {
        return Err(Refusal::invalid("an ensemble has no layers: expected a model that is one of its steps"));
    }
    let most = build.batch_size_max();
    if !(1..=most).contains(&run.batch) || !(1..=EXTENT_MAX).contains(&run.extent) {
        return Err(Refusal::invalid(format!(
            "batch must be from 1 to {most} and extent from 1 to {EXTENT_MAX}, got {} and {}",
            run.batch, run.extent
        )));
    }
    // One core, as for any run: requests wait for it no longer than for a batch.
    let core = frontend.pool.acquire().await;
    let (send, receive) = tokio::sync::oneshot::channel();
    let measured = Arc::clone(&build);
    frontend.pool.spawn(core, 1, move |_cores| {
        let plan = &*measured.plan;
        let layers = made_up::batch(plan, run.batch, run.extent).and_then(|batch| plan.layers(&batch, RUNS));
        // Whoever asked may have gone.
        let _ = send.send(layers);
    });
    let ended = || EngineError::Failed("the run ended in a panic".into());
    let layers = receive.await.map_err(|_| ended()).flatten().map_err(|error| refused(&error))?;
    let layers: Vec<Value> = layers.iter().map(layer).collect();
    Ok(respond::json(&json!({
        "name": build.model.as_str(),
        "version": build.version.to_string(),
        "batch": run.batch,
        "memory_bytes": build.plan.memory_bytes(),
        "layers": layers,
    })))
}

/// Made-up rows may not be what a model takes.
fn refused(error: &EngineError) -> Refusal {
    match error {
        EngineError::InvalidShape(_) | EngineError::InvalidContents(_) => Refusal::invalid(error.to_string()),
        _ => Refusal::new(ErrorCode::Internal, error.to_string()),
    }
}

/// What is left of the weights of a layer.
#[derive(Serialize)]
struct Weights {
    all: usize,
    nonzero: usize,
    /// With the zeros that share a block with others.
    multiplied: usize,
    sparsity: f64,
    fill: f64,
    /// Beside a dense product at the processor's peak: if zeros took no time, and as it was.
    speed_up_max: Option<f64>,
    speed_up: Option<f64>,
}

fn layer(layer: &LayerReport) -> Value {
    let weights = layer.fill.map(|fill| Weights {
        all: fill.all,
        nonzero: fill.nonzero,
        multiplied: fill.multiplied,
        sparsity: 1.0 - fill.nonzero as f64 / fill.all.max(1) as f64,
        fill: fill.nonzero as f64 / fill.multiplied.max(1) as f64,
        speed_up_max: layer.speed_up_max(),
        speed_up: layer.speed_up(),
    });
    json!({
        "name": layer.name,
        "operator": layer.operator,
        "kernel": layer.kernel,
        "datatype": layer.dtype.name(),
        "shape": &layer.shape[..],
        "macs": layer.macs,
        "time_us": layer.time.as_secs_f64() * 1e6,
        "peak_gmacs": layer.peak.map(|peak| peak / 1e9),
        "macs_effective": layer.macs_effective(),
        "parameters": layer.parameters,
        "activations": layer.activations,
        "bytes": layer.bytes,
        "weight_bytes": layer.weight_bytes,
        "weights": weights,
    })
}

/// Of which the shortest counts for each layer.
const RUNS: usize = 5;

/// An extent beyond this is a mistake of whoever asks.
const EXTENT_MAX: usize = 1 << 16;
