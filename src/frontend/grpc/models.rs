//! What a model is and how it does: readiness, metadata, configuration, statistics.

use std::collections::HashMap;
use std::sync::Arc;

use crate::access::{Caller, Verb};
use crate::engine::TensorSpec;
use crate::frontend::{Frontend, Refusal, guard};
use crate::infer::ModelName;
use crate::metering::statistics::{BatchTotals, Total};
use crate::proto::inference::model_metadata_response::TensorMetadata;
use crate::proto::inference::{
    InferBatchStatistics, InferStatistics, MemoryUsage, ModelConfigRequest, ModelConfigResponse, ModelMetadataRequest,
    ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatistics, ModelStatisticsRequest,
    ModelStatisticsResponse, StatisticDuration,
};
use crate::repository::{Variant, triton};

/// A model that nobody knows is not ready: that is an answer and no error.
pub(super) fn ready(
    frontend: &Frontend,
    caller: &Caller,
    request: &ModelReadyRequest,
) -> Result<ModelReadyResponse, Refusal> {
    guard::check(caller, Verb::Read, &request.name)?;
    Ok(ModelReadyResponse { ready: frontend.check_ready(&request.name, given(&request.version)).is_ok() })
}

pub(super) async fn metadata(
    frontend: &Frontend,
    caller: &Caller,
    request: &ModelMetadataRequest,
) -> Result<ModelMetadataResponse, Refusal> {
    let variant = find(frontend, caller, &request.name, &request.version).await?;
    let versions = all_ready(frontend, &variant.model).iter().map(|variant| variant.version.to_string()).collect();
    let tensors = |specs: &[TensorSpec]| specs.iter().map(tensor).collect();
    let variants = Some(frontend.variants(&variant).join(",")).filter(|names| !names.is_empty());
    let variants = variants.map(|names| ("variants".to_owned(), names));
    let signer = variant.signer.as_deref().map(|signer| ("signer".to_owned(), signer.to_owned()));
    Ok(ModelMetadataResponse {
        name: variant.model.to_string(),
        versions,
        platform: triton::platform(&variant).to_owned(),
        inputs: tensors(&variant.signature.inputs),
        outputs: tensors(&variant.signature.outputs),
        properties: variants.into_iter().chain(signer).collect(),
    })
}

pub(super) async fn config(
    frontend: &Frontend,
    caller: &Caller,
    request: &ModelConfigRequest,
) -> Result<ModelConfigResponse, Refusal> {
    let variant = find(frontend, caller, &request.name, &request.version).await?;
    Ok(ModelConfigResponse { config: Some(triton::model_config(&variant)) })
}

/// One version's, one model's, or everything's.
pub(super) async fn statistics(
    frontend: &Frontend,
    caller: &Caller,
    request: &ModelStatisticsRequest,
) -> Result<ModelStatisticsResponse, Refusal> {
    let mut variants = if request.name.is_empty() {
        let catalog = frontend.repository.catalog();
        catalog.ready().filter(|variant| caller.may_read(variant.model.as_str())).map(Arc::clone).collect()
    } else {
        let found = find(frontend, caller, &request.name, &request.version).await?;
        if request.version.is_empty() { all_ready(frontend, &found.model) } else { vec![found] }
    };
    variants.sort_by(|a, b| (&a.model, a.version).cmp(&(&b.model, b.version)));
    Ok(ModelStatisticsResponse { model_stats: variants.iter().map(|variant| counts(variant)).collect() })
}

async fn find(frontend: &Frontend, caller: &Caller, name: &str, version: &str) -> Result<Arc<Variant>, Refusal> {
    guard::check(caller, Verb::Read, name)?;
    frontend.find(name, given(version)).await
}

/// No version is an empty one here.
fn given(version: &str) -> Option<&str> {
    Some(version).filter(|version| !version.is_empty())
}

fn all_ready(frontend: &Frontend, name: &ModelName) -> Vec<Arc<Variant>> {
    let catalog = frontend.repository.catalog();
    catalog.models.get(name).map(|model| model.ready().map(Arc::clone).collect()).unwrap_or_default()
}

fn tensor(spec: &TensorSpec) -> TensorMetadata {
    TensorMetadata {
        name: spec.name.clone(),
        datatype: spec.dtype.name().to_owned(),
        shape: spec.wire_dims().collect(),
    }
}

fn counts(variant: &Variant) -> ModelStatistics {
    let all = variant.statistics.snapshot();
    let batch = |(rows, totals): (&usize, &BatchTotals)| InferBatchStatistics {
        batch_size: *rows as u64,
        compute_input: duration(totals.compute_input),
        compute_infer: duration(totals.compute_infer),
        compute_output: duration(totals.compute_output),
    };
    ModelStatistics {
        name: variant.model.to_string(),
        version: variant.version.to_string(),
        last_inference: all.last_inference_ms,
        inference_count: all.inference_count,
        execution_count: all.execution_count,
        inference_stats: Some(InferStatistics {
            success: duration(all.success),
            fail: duration(all.fail),
            queue: duration(all.queue),
            compute_input: duration(all.compute_input),
            compute_infer: duration(all.compute_infer),
            compute_output: duration(all.compute_output),
            cache_hit: duration(all.cache_hit),
            cache_miss: duration(all.cache_miss),
        }),
        batch_stats: all.batches.iter().map(batch).collect(),
        memory_usage: vec![MemoryUsage { r#type: "CPU".to_owned(), id: 0, byte_size: variant.memory_bytes() }],
        // Only decoupled models have several answers to tell apart.
        response_stats: HashMap::new(),
    }
}

fn duration(total: Total) -> Option<StatisticDuration> {
    Some(StatisticDuration { count: total.count, ns: total.nanos() })
}
