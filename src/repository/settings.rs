//! How one model is served: what manifest, Triton configuration and server defaults add up to.
//!
//! Only values; `manifest` and `triton` say where they come from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::versions::VersionPolicy;
use crate::infer::{VariantName, VersionId};
use crate::tensor::{DType, Shape, Tensor};

#[derive(Clone, Debug, PartialEq)]
pub struct ModelSettings {
    pub description: String,
    pub license: String,
    /// The file of the model in its version's folder.
    pub model_file: String,
    pub version_policy: VersionPolicy,
    /// Names of versions that clients may use in their place.
    pub version_labels: BTreeMap<String, VersionId>,
    /// The variant that answers where nothing speaks for another; the version's own build where there is none of this name.
    pub default_variant: Option<VariantName>,
    pub batching: BatchSettings,
    /// Rows of one request where requests are not merged, if a file says that axis 0 is the batch and how long it may be.
    pub rows_alone_max: Option<usize>,
    /// Batches of this model that may run at the same time.
    pub instances_max: usize,
    /// Cores one batch may use.
    pub cores_max: usize,
    /// Class labels by output, for the classification extension.
    pub labels: BTreeMap<String, ClassLabels>,
    /// By tensor: the row shape clients use and the one the model has, where they differ.
    pub reshapes: BTreeMap<String, Reshape>,
    /// Whether its answers are kept for equal requests.
    pub response_cache: bool,
    /// Free-form parameters, shown in the model's configuration.
    pub parameters: BTreeMap<String, String>,
    pub warm_up: Vec<WarmUp>,
    /// A REST request that lies beside the model, for people to try.
    pub sample_request: Option<Bytes>,
}

/// The names of an output's classes, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassLabels {
    pub names: Arc<[String]>,
    /// The file they came from, in the model's folder; empty where the manifest lists them.
    pub file: String,
}

/// When requests are merged and how long they may queue.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchSettings {
    /// Rows of one batch at most.
    pub batch_size_max: usize,
    /// The longest a request may wait for company; zero waits only while no core is idle.
    pub queue_delay_max: Duration,
    /// Sizes that are sent at once when reached; empty where any size serves.
    pub preferred: Vec<usize>,
    /// Answers leave in the order of arrival.
    pub preserve_ordering: bool,
    /// Levels 1 (highest) to this; 0 where priorities are not used.
    pub priority_levels: u64,
    pub default_priority: u64,
    pub queue: QueuePolicy,
    /// Policies of levels that differ from `queue`.
    pub priority_queues: BTreeMap<u64, QueuePolicy>,
}

/// The rules of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePolicy {
    pub timeout_action: TimeoutAction,
    /// The longest any request of the queue may wait.
    pub default_timeout: Option<Duration>,
    /// Whether a request's own timeout counts, where it is shorter.
    pub allow_timeout_override: bool,
    pub requests_max: usize,
    pub bytes_max: u64,
}

/// What happens to a request whose queue timeout has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutAction {
    Reject,
    /// It stays, but behind all requests that are still in time.
    Delay,
}

/// A shape clients see and the shape the model has, both without the batch axis where the model batches; -1 stands for
/// the one free extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reshape {
    pub client: Vec<i64>,
    pub model: Vec<i64>,
}

/// A made-up request that is run before the model serves.
#[derive(Clone, Debug, PartialEq)]
pub struct WarmUp {
    pub name: String,
    pub rows: usize,
    pub count: usize,
    pub inputs: BTreeMap<String, WarmUpInput>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct WarmUpInput {
    pub dtype: DType,
    /// Without the batch axis.
    pub dims: Vec<usize>,
    pub content: WarmUpContent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WarmUpContent {
    Zeros,
    Random,
    /// A file of the model's `warmup` folder, raw tensor bytes.
    File(String),
}

impl ModelSettings {
    /// The settings of a model that no file says anything about, on a machine of `cores`.
    pub fn plain(batching: BatchSettings, cores: usize) -> Self {
        Self {
            description: String::new(),
            license: String::new(),
            model_file: MODEL_FILE.into(),
            version_policy: VersionPolicy::default(),
            version_labels: BTreeMap::new(),
            default_variant: None,
            batching,
            rows_alone_max: None,
            instances_max: cores,
            cores_max: cores,
            labels: BTreeMap::new(),
            reshapes: BTreeMap::new(),
            response_cache: false,
            parameters: BTreeMap::new(),
            warm_up: Vec::new(),
            sample_request: None,
        }
    }

    /// The tensor under the shape the model has; `batched` keeps axis 0 out of the change.
    pub fn to_model_shape(&self, input: &str, tensor: Tensor, batched: bool) -> Tensor {
        match self.reshapes.get(input) {
            Some(reshape) => Reshape::apply(tensor, &reshape.model, batched),
            None => tensor,
        }
    }

    /// The tensor under the shape clients see.
    pub fn to_client_shape(&self, output: &str, tensor: Tensor, batched: bool) -> Tensor {
        match self.reshapes.get(output) {
            Some(reshape) => Reshape::apply(tensor, &reshape.client, batched),
            None => tensor,
        }
    }
}

impl Reshape {
    /// Tensors whose element count does not fit keep their shape: what they are checked against next says why.
    fn apply(tensor: Tensor, dims: &[i64], batched: bool) -> Tensor {
        let lead: usize = if batched { tensor.shape().rows() } else { 1 };
        let known = dims.iter().filter_map(|&dim| usize::try_from(dim).ok());
        let known = known.fold(1, usize::saturating_mul);
        let free = tensor.element_count().checked_div(lead.saturating_mul(known)).unwrap_or(0);
        let inner = dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(free));
        let shape: Shape = batched.then_some(lead).into_iter().chain(inner).collect();
        tensor.clone().reshaped(shape).unwrap_or(tensor)
    }
}

impl BatchSettings {
    /// Requests that the queues of all levels hold together.
    pub fn queue_requests_max(&self) -> u64 {
        let alike = self.priority_levels.max(1).saturating_sub(self.priority_queues.len() as u64);
        let own = self.priority_queues.values().map(|queue| queue.requests_max as u64);
        own.fold(alike.saturating_mul(self.queue.requests_max as u64), u64::saturating_add)
    }

    /// The policy of a priority level.
    pub fn queue_policy(&self, level: u64) -> QueuePolicy {
        self.priority_queues.get(&level).copied().unwrap_or(self.queue)
    }
}

/// The names that a model's file may have where nothing else is configured, of which the first that is there counts.
pub const MODEL_FILES: [&str; 2] = [MODEL_FILE, NATIVE_FILE];
const MODEL_FILE: &str = "model.onnx";
pub const NATIVE_FILE: &str = "model.safetensors";
