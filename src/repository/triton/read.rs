//! The honoured fields of a model configuration in this server's words.
//!
//! Whether they fit the model is not known here. Errors are a field's path and what is wrong with it.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::time::Duration;

use super::super::declared::{BatchAxis, Declared, DeclaredBatching, DeclaredQueue, DeclaredTensor, Labels};
use super::super::ensemble::{DeclaredStep, Runs};
use super::super::files;
use super::super::settings::{TimeoutAction, WarmUp, WarmUpContent, WarmUpInput};
use super::super::versions::VersionPolicy;
use super::dtype_of;
use super::fields::Refusal;
use crate::infer::{ModelName, VersionId};
use crate::proto::inference::model_config::SchedulingChoice;
use crate::proto::inference::model_instance_group::Kind;
use crate::proto::inference::model_version_policy::PolicyChoice;
use crate::proto::inference::model_warmup::input::InputDataType;
use crate::proto::inference::{
    ModelConfig, ModelDynamicBatching, ModelEnsembling, ModelInstanceGroup, ModelQueuePolicy, ModelTensorReshape,
    ModelVersionPolicy, ModelWarmup, model_queue_policy, model_warmup,
};
use crate::tensor::DType;

pub(super) fn declare(model: &ModelName, config: ModelConfig) -> Result<Declared, Refusal> {
    check_identity(model, &config)?;
    let batch = batch_axis(&config)?;
    let mut warnings = Vec::new();
    let mut steps = Vec::new();
    let batching = match config.scheduling_choice {
        Some(SchedulingChoice::EnsembleScheduling(scheduling)) => {
            steps = ensemble_steps(scheduling)?;
            DeclaredBatching::default()
        }
        Some(SchedulingChoice::DynamicBatching(batching)) => {
            if batch == Some(BatchAxis::Absent) {
                warnings.push("dynamic_batching has no effect: max_batch_size is 0".into());
            }
            dynamic_batching(batching)?
        }
        _ => DeclaredBatching::default(),
    };
    warnings.extend(config.parameters.keys().filter(|name| is_runtimes(name)).map(|name| unhonoured(name)));
    warnings.sort();
    let labels = config.output.iter().filter(|output| !output.label_filename.is_empty());
    let labels = labels.map(|output| (output.name.clone(), Labels::File(output.label_filename.clone()))).collect();
    let inputs = config.input.into_iter().enumerate().map(|(index, input)| {
        tensor(&format!("input[{index}]"), input.name, input.data_type, input.dims, input.reshape)
    });
    let outputs = config.output.into_iter().enumerate().map(|(index, output)| {
        tensor(&format!("output[{index}]"), output.name, output.data_type, output.dims, output.reshape)
    });
    let warm_up = config.model_warmup.into_iter().enumerate().map(|(index, sample)| warm_up(index, sample));
    Ok(Declared {
        model_file: file_name(config.default_model_filename)?,
        version_policy: config.version_policy.map(version_policy).transpose()?.flatten(),
        batch,
        inputs: inputs.collect::<Result<_, _>>()?,
        outputs: outputs.collect::<Result<_, _>>()?,
        labels,
        batching,
        instances_max: instances(&config.instance_group, &mut warnings)?,
        response_cache: config.response_cache.map(|cache| cache.enable),
        parameters: config.parameters.into_iter().map(|(key, value)| (key, value.string_value)).collect(),
        warm_up: warm_up.collect::<Result<_, _>>()?,
        steps,
        warnings,
        ..Declared::default()
    })
}

/// Whether a parameter would change what ONNX Runtime does under Triton.
fn is_runtimes(name: &str) -> bool {
    RUNTIME_PARAMETERS.contains(&name) || RUNTIME_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn unhonoured(name: &str) -> String {
    format!("parameters.{name} is not honoured: it is a setting of ONNX Runtime")
}

/// The steps of an ensemble. One that runs the same model as an earlier one is told apart by a number.
fn ensemble_steps(scheduling: ModelEnsembling) -> Result<Vec<DeclaredStep>, Refusal> {
    if scheduling.step.is_empty() {
        return wrong("ensemble_scheduling.step", "expected at least one step, got none");
    }
    let mut steps: Vec<DeclaredStep> = Vec::with_capacity(scheduling.step.len());
    for (at, step) in scheduling.step.into_iter().enumerate() {
        let field = |key: &str| format!("ensemble_scheduling.step[{at}].{key}");
        let model: ModelName = step.model_name.parse().map_err(|error| (field("model_name"), format!("{error}")))?;
        let version = match step.model_version {
            -1 => None,
            id => match u64::try_from(id) {
                Ok(id) if id > 0 => Some(VersionId(id)),
                _ => return wrong(field("model_version"), format!("expected -1, or 1 or more, got {id}")),
            },
        };
        let earlier = steps.iter().filter(|step| matches!(&step.runs, Runs::Model { model: of, .. } if *of == model));
        let name = match earlier.count() {
            0 => model.to_string(),
            others => format!("{model}#{}", others + 1),
        };
        let (inputs, outputs) = (step.input_map.into_iter().collect(), step.output_map.into_iter().collect());
        steps.push(DeclaredStep { name, runs: Runs::Model { model, version }, inputs, outputs, is_explicit: true });
    }
    Ok(steps)
}

fn check_identity(model: &ModelName, config: &ModelConfig) -> Result<(), Refusal> {
    if !config.name.is_empty() && config.name != model.as_str() {
        return wrong("name", format!("expected {model:?}, the name of its folder, got {:?}", config.name));
    }
    let is_ensemble = matches!(config.scheduling_choice, Some(SchedulingChoice::EnsembleScheduling(_)));
    let (platforms, backends) =
        if is_ensemble { (&["", ENSEMBLE][..], &["", ENSEMBLE][..]) } else { (PLATFORMS, BACKENDS) };
    if config.platform == ENSEMBLE && !is_ensemble {
        return wrong("ensemble_scheduling", "expected the steps of the ensemble, got none");
    }
    for (field, got, expected) in [("platform", &config.platform, platforms), ("backend", &config.backend, backends)] {
        if !expected.contains(&got.as_str()) {
            return wrong(field, format!("expected {:?}, got {got:?}, which is not served", expected[1]));
        }
    }
    Ok(())
}

/// Shapes given beside a size of 0 are whole. Where neither is given, the model itself decides.
fn batch_axis(config: &ModelConfig) -> Result<Option<BatchAxis>, Refusal> {
    let shapes = !config.input.is_empty() || !config.output.is_empty();
    match usize::try_from(config.max_batch_size) {
        Ok(0) if shapes => Ok(Some(BatchAxis::Absent)),
        Ok(0) => Ok(None),
        Ok(rows) => Ok(Some(BatchAxis::UpTo(rows))),
        Err(_) => wrong("max_batch_size", format!("expected 0 or more, got {}", config.max_batch_size)),
    }
}

fn file_name(name: String) -> Result<Option<String>, Refusal> {
    match name.as_str() {
        "" => Ok(None),
        plain if files::is_file_name(plain) => Ok(Some(name)),
        _ => wrong("default_model_filename", format!("expected a plain file name, got {name:?}")),
    }
}

fn version_policy(policy: ModelVersionPolicy) -> Result<Option<VersionPolicy>, Refusal> {
    match policy.policy_choice {
        None => Ok(None),
        Some(PolicyChoice::All(_)) => Ok(Some(VersionPolicy::All)),
        Some(PolicyChoice::Latest(latest)) => {
            let count = usize::try_from(latest.num_versions).ok().and_then(NonZeroUsize::new);
            match count {
                Some(count) => Ok(Some(VersionPolicy::Latest(count))),
                None => wrong("version_policy.latest.num_versions", "expected 1 or more, got 0"),
            }
        }
        Some(PolicyChoice::Specific(specific)) => {
            let field = "version_policy.specific.versions";
            if specific.versions.is_empty() {
                return wrong(field, "expected at least one version, got none");
            }
            let version = |&id: &i64| u64::try_from(id).map(VersionId).map_err(|_| id);
            match specific.versions.iter().map(version).collect() {
                Ok(versions) => Ok(Some(VersionPolicy::Specific(versions))),
                Err(id) => wrong(field, format!("expected 0 or more, got {id}")),
            }
        }
    }
}

fn tensor(
    field: &str,
    name: String,
    data_type: i32,
    dims: Vec<i64>,
    reshape: Option<ModelTensorReshape>,
) -> Result<DeclaredTensor, Refusal> {
    if name.is_empty() {
        return wrong(format!("{field}.name"), "expected a name, got none");
    }
    let dtype = match dtype_of(data_type) {
        None if data_type != 0 => return wrong(format!("{field}.data_type"), format!("unknown type {data_type}")),
        known => known,
    };
    let tensor = DeclaredTensor { name, dtype, dims, reshape: reshape.map(|reshape| reshape.shape) };
    if let Some((is_reshape, got)) = tensor.impossible_extent() {
        let key = if is_reshape { "reshape.shape" } else { "dims" };
        return wrong(format!("{field}.{key}"), format!("expected extents of 1 or more, or -1, got {got}"));
    }
    Ok(tensor)
}

fn dynamic_batching(batching: ModelDynamicBatching) -> Result<DeclaredBatching, Refusal> {
    let preferred = batching.preferred_batch_size.iter().map(|&rows| match usize::try_from(rows) {
        Ok(rows) if rows > 0 => Ok(rows),
        _ => wrong("dynamic_batching.preferred_batch_size", format!("expected 1 or more, got {rows}")),
    });
    let preferred: Vec<usize> = preferred.collect::<Result<_, _>>()?;
    Ok(DeclaredBatching {
        queue_delay_max: Some(Duration::from_micros(batching.max_queue_delay_microseconds)),
        preferred: Some(preferred),
        preserve_ordering: Some(batching.preserve_ordering),
        priority_levels: Some(batching.priority_levels),
        default_priority: Some(batching.default_priority_level),
        queue: batching.default_queue_policy.map(queue_policy).unwrap_or_default(),
        priority_queues: priority_queues(batching.priority_queue_policy),
    })
}

fn priority_queues(policies: HashMap<u64, ModelQueuePolicy>) -> BTreeMap<u64, DeclaredQueue> {
    policies.into_iter().map(|(level, policy)| (level, queue_policy(policy))).collect()
}

/// A size of 0 stands for no limit, which no queue here has: the server's own limit then holds.
fn queue_policy(policy: ModelQueuePolicy) -> DeclaredQueue {
    let action = match policy.timeout_action() {
        model_queue_policy::TimeoutAction::Reject => TimeoutAction::Reject,
        model_queue_policy::TimeoutAction::Delay => TimeoutAction::Delay,
    };
    let size = usize::try_from(policy.max_queue_size).unwrap_or(usize::MAX);
    DeclaredQueue {
        timeout_action: Some(action),
        default_timeout: Some(Duration::from_micros(policy.default_timeout_microseconds)),
        allow_timeout_override: Some(policy.allow_timeout_override),
        requests_max: (size > 0).then_some(size),
        bytes_max: None,
    }
}

/// Batches that may run side by side: the copies of all groups together.
fn instances(groups: &[ModelInstanceGroup], warnings: &mut Vec<String>) -> Result<Option<usize>, Refusal> {
    let mut total = 0usize;
    for group in groups {
        if group.kind() == Kind::Gpu {
            warnings.push("instance_group.kind KIND_GPU is not honoured: models run on the CPU".into());
        }
        match usize::try_from(group.count) {
            // Triton takes one copy where none is said.
            Ok(count) => total = total.saturating_add(count.max(1)),
            Err(_) => return wrong("instance_group.count", format!("expected 0 or more, got {}", group.count)),
        }
    }
    Ok((total > 0).then_some(total))
}

fn warm_up(index: usize, sample: ModelWarmup) -> Result<WarmUp, Refusal> {
    let mut inputs = BTreeMap::new();
    for (name, input) in sample.inputs {
        let field = format!("model_warmup[{index}].inputs.{name}");
        inputs.insert(name, warm_up_input(&field, input)?);
    }
    let name = if sample.name.is_empty() { format!("model_warmup[{index}]") } else { sample.name };
    let at_least_one = |count: u32| usize::try_from(count).unwrap_or(usize::MAX).max(1);
    Ok(WarmUp { name, rows: at_least_one(sample.batch_size), count: at_least_one(sample.count), inputs })
}

fn warm_up_input(field: &str, input: model_warmup::Input) -> Result<WarmUpInput, Refusal> {
    let dtype: Option<DType> = dtype_of(input.data_type);
    let Some(dtype) = dtype else {
        return wrong(format!("{field}.data_type"), "expected a type, got none");
    };
    let dims: Result<Vec<usize>, _> = input.dims.iter().map(|&dim| usize::try_from(dim)).collect();
    let Ok(dims) = dims else {
        return wrong(format!("{field}.dims"), format!("expected extents of 0 or more, got {:?}", input.dims));
    };
    let content = match input.input_data_type {
        None | Some(InputDataType::ZeroData(_)) => WarmUpContent::Zeros,
        Some(InputDataType::RandomData(_)) => WarmUpContent::Random,
        Some(InputDataType::InputDataFile(file)) => WarmUpContent::File(file),
    };
    Ok(WarmUpInput { dtype, dims, content })
}

fn wrong<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, Refusal> {
    Err((field.into(), problem.into()))
}

/// Parameters that Triton's ONNX Runtime backend reads.
const RUNTIME_PARAMETERS: &[&str] = &[
    "arena_extend_strategy",
    "cudnn_conv_algo_search",
    "cudnn_conv_max_workspace",
    "do_copy_in_default_stream",
    "enable_cuda_graph",
    "enable_mem_arena",
    "enable_mem_pattern",
    "execution_mode",
    "gpu_mem_limit",
    "inter_op_thread_count",
    "intra_op_thread_count",
    "level",
];
/// What its session and run options begin with.
const RUNTIME_PREFIXES: &[&str] = &["ep.", "graph.", "memory.", "optimization.", "session."];

/// What may stand in `platform` and `backend`; the second of each is the name errors suggest.
const PLATFORMS: &[&str] = &["", "onnxruntime_onnx"];
/// The platform of ensembles, in Triton's words.
const ENSEMBLE: &str = "ensemble";
const BACKENDS: &[&str] = &["", "onnxruntime"];
