//! A loaded build as Triton's model configuration, which clients ask for.
//!
//! It says what the server does, not what the file said: shapes come from the signature, limits from the settings.

use std::time::Duration;

use prost_reflect::{DynamicMessage, SerializeOptions};

use super::super::ensemble::{Ensemble, Step, Wire};
use super::super::settings::{BatchSettings, QueuePolicy, Reshape, TimeoutAction, WarmUp, WarmUpContent, WarmUpInput};
use super::super::variant::Variant;
use super::super::versions::VersionPolicy;
use super::{data_type_of, descriptor};
use crate::engine::TensorSpec;
use crate::proto::inference::model_config::SchedulingChoice;
use crate::proto::inference::model_instance_group::Kind;
use crate::proto::inference::model_version_policy::{All, Latest, PolicyChoice, Specific};
use crate::proto::inference::model_warmup::input::InputDataType;
use crate::proto::inference::{
    ModelConfig, ModelDynamicBatching, ModelEnsembling, ModelInput, ModelInstanceGroup, ModelOutput, ModelParameter,
    ModelQueuePolicy, ModelResponseCache, ModelTensorReshape, ModelVersionPolicy, ModelWarmup, model_ensembling,
    model_queue_policy, model_warmup,
};

/// The configuration of a loaded build. Where requests are merged, here or at an ensemble's steps, `max_batch_size` is the limit
/// and shapes leave the batch out; where they are not, it is 0 and shapes are whole.
pub fn model_config(variant: &Variant) -> ModelConfig {
    let settings = &variant.settings;
    let merges = variant.merges();
    let rows_max = variant.rows_max();
    let shape = |spec: &TensorSpec| spec.wire_dims().skip(usize::from(rows_max.is_some())).collect::<Vec<_>>();
    let reshape = |name: &str| settings.reshapes.get(name).map(model_shape);
    let inputs = variant.signature.inputs.iter().map(|spec| ModelInput {
        name: spec.name.clone(),
        data_type: data_type_of(spec.dtype),
        dims: shape(spec),
        reshape: reshape(&spec.name),
        ..ModelInput::default()
    });
    let outputs = variant.signature.outputs.iter().map(|spec| ModelOutput {
        name: spec.name.clone(),
        data_type: data_type_of(spec.dtype),
        dims: shape(spec),
        reshape: reshape(&spec.name),
        label_filename: settings.labels.get(&spec.name).map(|labels| labels.file.clone()).unwrap_or_default(),
        ..ModelOutput::default()
    });
    let scheduling = match &variant.ensemble {
        Some(ensemble) => Some(SchedulingChoice::EnsembleScheduling(ensemble_scheduling(ensemble))),
        None => merges.then(|| SchedulingChoice::DynamicBatching(dynamic_batching(&settings.batching))),
    };
    let instances = || ModelInstanceGroup {
        name: variant.model.to_string(),
        kind: Kind::Cpu.into(),
        count: to_i32(settings.instances_max),
        ..ModelInstanceGroup::default()
    };
    let is_ensemble = variant.ensemble.is_some();
    let parameter = |(key, value): (&String, &String)| (key.clone(), ModelParameter { string_value: value.clone() });
    ModelConfig {
        name: variant.model.to_string(),
        platform: platform(variant).into(),
        backend: if is_ensemble { "" } else { BACKEND }.into(),
        version_policy: Some(version_policy(&settings.version_policy)),
        max_batch_size: rows_max.map_or(0, to_i32),
        input: inputs.collect(),
        output: outputs.collect(),
        scheduling_choice: scheduling,
        instance_group: if is_ensemble { Vec::new() } else { vec![instances()] },
        default_model_filename: settings.model_file.clone(),
        parameters: settings.parameters.iter().map(parameter).collect(),
        model_warmup: settings.warm_up.iter().map(warm_up).collect(),
        response_cache: settings.response_cache.then_some(ModelResponseCache { enable: true }),
        ..ModelConfig::default()
    }
}

/// The configuration as REST prints it: the protocol's own field names, enums by name, 64-bit integers as numbers.
pub fn to_json(config: &ModelConfig) -> serde_json::Value {
    let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false);
    let mut message = DynamicMessage::new(descriptor().clone());
    message.transcode_from(config).expect("the configuration's own descriptor describes it");
    message
        .serialize_with_options(serde_json::value::Serializer, &options.skip_default_fields(false))
        .expect("a configuration has no value that JSON lacks")
}

/// What a model is, in Triton's words: clients look for these names.
pub fn platform(variant: &Variant) -> &'static str {
    if variant.ensemble.is_some() { "ensemble" } else { "onnxruntime_onnx" }
}

/// Steps that run no other model have the name that they have themselves.
fn ensemble_scheduling(ensemble: &Ensemble) -> ModelEnsembling {
    let map =
        |wires: &[Wire]| wires.iter().map(|wire| (wire.name.clone(), ensemble.tensors[wire.tensor].clone())).collect();
    let step = |step: &Step| model_ensembling::Step {
        model_name: if step.is_own { step.name.to_string() } else { step.build.model.to_string() },
        model_version: step.version.map_or(-1, |version| i64::try_from(version.0).unwrap_or(i64::MAX)),
        input_map: map(&step.inputs),
        output_map: map(&step.outputs),
        model_namespace: String::new(),
    };
    ModelEnsembling { step: ensemble.steps.iter().map(step).collect(), max_inflight_requests: 0 }
}

fn model_shape(reshape: &Reshape) -> ModelTensorReshape {
    ModelTensorReshape { shape: reshape.model.clone() }
}

fn version_policy(policy: &VersionPolicy) -> ModelVersionPolicy {
    let choice = match policy {
        VersionPolicy::Latest(count) => {
            PolicyChoice::Latest(Latest { num_versions: u32::try_from(count.get()).unwrap_or(u32::MAX) })
        }
        VersionPolicy::All => PolicyChoice::All(All {}),
        VersionPolicy::Specific(versions) => {
            let id = |id: u64| i64::try_from(id).unwrap_or(i64::MAX);
            PolicyChoice::Specific(Specific { versions: versions.iter().map(|version| id(version.0)).collect() })
        }
    };
    ModelVersionPolicy { policy_choice: Some(choice) }
}

fn dynamic_batching(batching: &BatchSettings) -> ModelDynamicBatching {
    let levels = batching.priority_queues.iter();
    ModelDynamicBatching {
        preferred_batch_size: batching.preferred.iter().copied().map(to_i32).collect(),
        max_queue_delay_microseconds: micros(batching.queue_delay_max),
        preserve_ordering: batching.preserve_ordering,
        priority_levels: batching.priority_levels,
        default_priority_level: batching.default_priority,
        default_queue_policy: Some(queue_policy(&batching.queue)),
        priority_queue_policy: levels.map(|(level, policy)| (*level, queue_policy(policy))).collect(),
    }
}

fn queue_policy(policy: &QueuePolicy) -> ModelQueuePolicy {
    let action = match policy.timeout_action {
        TimeoutAction::Reject => model_queue_policy::TimeoutAction::Reject,
        TimeoutAction::Delay => model_queue_policy::TimeoutAction::Delay,
    };
    ModelQueuePolicy {
        timeout_action: action.into(),
        default_timeout_microseconds: policy.default_timeout.map_or(0, micros),
        allow_timeout_override: policy.allow_timeout_override,
        max_queue_size: u32::try_from(policy.requests_max).unwrap_or(u32::MAX),
    }
}

fn warm_up(sample: &WarmUp) -> ModelWarmup {
    let to_u32 = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    ModelWarmup {
        name: sample.name.clone(),
        batch_size: to_u32(sample.rows),
        inputs: sample.inputs.iter().map(|(name, input)| (name.clone(), warm_up_input(input))).collect(),
        count: to_u32(sample.count),
    }
}

fn warm_up_input(input: &WarmUpInput) -> model_warmup::Input {
    let content = match &input.content {
        WarmUpContent::Zeros => InputDataType::ZeroData(true),
        WarmUpContent::Random => InputDataType::RandomData(true),
        WarmUpContent::File(file) => InputDataType::InputDataFile(file.clone()),
    };
    model_warmup::Input {
        data_type: data_type_of(input.dtype),
        dims: input.dims.iter().map(|&dim| i64::try_from(dim).unwrap_or(i64::MAX)).collect(),
        input_data_type: Some(content),
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn to_i32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

const BACKEND: &str = "onnxruntime";
