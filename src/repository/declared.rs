//! What the files of one model say about how it is served, whatever form they are written in.
//!
//! Everything is optional: `resolve` fills the gaps from the server's defaults and the model itself.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ensemble::DeclaredStep;
use super::settings::{QueuePolicy, TimeoutAction, WarmUp};
use super::versions::VersionPolicy;
use crate::digest::Digest;
use crate::engine::{EngineChoice, Precision};
use crate::infer::{VariantName, VersionId};
use crate::tensor::DType;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Declared {
    /// The file that describes inputs, outputs and the batch axis, for errors about them.
    pub(super) origin: Option<&'static str>,
    pub(super) description: Option<String>,
    pub(super) license: Option<String>,
    pub(super) model_file: Option<String>,
    pub(super) engine: Option<EngineChoice>,
    pub(super) precision: Option<Precision>,
    pub(super) accuracy: Accuracies,
    pub(super) default_variant: Option<VariantName>,
    pub(super) version_policy: Option<VersionPolicy>,
    pub(super) version_labels: BTreeMap<String, VersionId>,
    pub(super) batch: Option<BatchAxis>,
    pub(super) inputs: Vec<DeclaredTensor>,
    pub(super) outputs: Vec<DeclaredTensor>,
    pub(super) labels: BTreeMap<String, Labels>,
    pub(super) batching: DeclaredBatching,
    pub(super) instances_max: Option<usize>,
    pub(super) cores_max: Option<usize>,
    pub(super) response_cache: Option<bool>,
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) warm_up: Vec<WarmUp>,
    /// What it is made of, where it is an ensemble.
    pub(super) steps: Vec<DeclaredStep>,
    /// Of files of the model, by path.
    pub(super) digests: BTreeMap<String, Digest>,
    /// Fields that are not honoured, for the operator.
    pub(super) warnings: Vec<String>,
}

/// The shares of rows with the right answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Accuracies {
    pub(super) own: Option<f64>,
    pub(super) variants: BTreeMap<VariantName, f64>,
}

/// What is said about axis 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchAxis {
    /// The shapes given are whole; requests are not merged.
    Absent,
    /// Axis 0 is the batch, up to this many rows; the shapes given leave it out.
    UpTo(usize),
    /// Batches of at most this many rows, where the model allows merging at all.
    AtMost(usize),
}

/// An input or output as a configuration describes it; -1 is a free extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeclaredTensor {
    pub(super) name: String,
    pub(super) dtype: Option<DType>,
    pub(super) dims: Vec<i64>,
    /// The shape the model has, where `dims` is only what clients see.
    pub(super) reshape: Option<Vec<i64>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Labels {
    Given(Vec<String>),
    /// A file of the model's folder, a label a line.
    File(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DeclaredBatching {
    pub(super) queue_delay_max: Option<Duration>,
    pub(super) preferred: Option<Vec<usize>>,
    pub(super) preserve_ordering: Option<bool>,
    pub(super) priority_levels: Option<u64>,
    pub(super) default_priority: Option<u64>,
    pub(super) queue: DeclaredQueue,
    pub(super) priority_queues: BTreeMap<u64, DeclaredQueue>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DeclaredQueue {
    pub(super) timeout_action: Option<TimeoutAction>,
    /// Zero: none.
    pub(super) default_timeout: Option<Duration>,
    pub(super) allow_timeout_override: Option<bool>,
    pub(super) requests_max: Option<usize>,
    pub(super) bytes_max: Option<u64>,
}

impl Declared {
    /// What this says, and what `below` says where this is silent. Lists are taken whole.
    pub(super) fn over(self, below: Self) -> Self {
        let mut labels = below.labels;
        labels.extend(self.labels);
        let mut version_labels = below.version_labels;
        version_labels.extend(self.version_labels);
        let mut parameters = below.parameters;
        parameters.extend(self.parameters);
        let mut warnings = below.warnings;
        warnings.extend(self.warnings);
        Self {
            origin: self.origin.or(below.origin),
            description: self.description.or(below.description),
            license: self.license.or(below.license),
            model_file: self.model_file.or(below.model_file),
            engine: self.engine.or(below.engine),
            precision: self.precision.or(below.precision),
            accuracy: self.accuracy.over(below.accuracy),
            default_variant: self.default_variant.or(below.default_variant),
            version_policy: self.version_policy.or(below.version_policy),
            version_labels,
            batch: BatchAxis::over(self.batch, below.batch),
            inputs: or_below(self.inputs, below.inputs),
            outputs: or_below(self.outputs, below.outputs),
            labels,
            batching: self.batching.over(below.batching),
            instances_max: self.instances_max.or(below.instances_max),
            cores_max: self.cores_max.or(below.cores_max),
            response_cache: self.response_cache.or(below.response_cache),
            parameters,
            warm_up: or_below(self.warm_up, below.warm_up),
            steps: or_below(self.steps, below.steps),
            digests: if self.digests.is_empty() { below.digests } else { self.digests },
            warnings,
        }
    }

    /// With nothing left open: shapes that nothing is said about are whole, as in Triton's configurations.
    pub(super) fn settled(mut self) -> Self {
        if self.batch.is_none() && !(self.inputs.is_empty() && self.outputs.is_empty()) {
            self.batch = Some(BatchAxis::Absent);
        }
        self
    }

    /// The rows of one batch at most, where a file says so.
    pub(super) fn batch_size_max(&self) -> Option<usize> {
        match self.batch? {
            BatchAxis::Absent => None,
            BatchAxis::UpTo(rows) | BatchAxis::AtMost(rows) => Some(rows),
        }
    }
}

impl Accuracies {
    fn over(self, below: Self) -> Self {
        let mut variants = below.variants;
        variants.extend(self.variants);
        Self { own: self.own.or(below.own), variants }
    }

    /// Of a variant, or of a version's own build.
    pub(super) fn of(&self, variant: Option<&VariantName>) -> Option<f64> {
        variant.map_or(self.own, |name| self.variants.get(name).copied())
    }
}

impl DeclaredTensor {
    /// An extent that no tensor has, and whether it stands in the shape of the model.
    pub(super) fn impossible_extent(&self) -> Option<(bool, i64)> {
        let of = |shape: &[i64]| shape.iter().copied().find(|&extent| extent < -1 || extent == 0);
        let dims = of(&self.dims).map(|extent| (false, extent));
        dims.or_else(|| Some((true, of(self.reshape.as_ref()?)?)))
    }
}

impl BatchAxis {
    /// A bare limit changes the rows of what lies below, not whether the shapes there have a batch axis.
    fn over(above: Option<Self>, below: Option<Self>) -> Option<Self> {
        match (above, below) {
            (Some(Self::AtMost(_)), Some(Self::Absent)) => below,
            (Some(Self::AtMost(rows)), Some(Self::UpTo(_))) => Some(Self::UpTo(rows)),
            (above, below) => above.or(below),
        }
    }
}

impl DeclaredBatching {
    fn over(self, below: Self) -> Self {
        let mut priority_queues = below.priority_queues;
        for (level, queue) in self.priority_queues {
            let below = priority_queues.get(&level).copied().unwrap_or_default();
            priority_queues.insert(level, queue.over(below));
        }
        Self {
            queue_delay_max: self.queue_delay_max.or(below.queue_delay_max),
            preferred: self.preferred.or(below.preferred),
            preserve_ordering: self.preserve_ordering.or(below.preserve_ordering),
            priority_levels: self.priority_levels.or(below.priority_levels),
            default_priority: self.default_priority.or(below.default_priority),
            queue: self.queue.over(below.queue),
            priority_queues,
        }
    }
}

impl DeclaredQueue {
    fn over(self, below: Self) -> Self {
        Self {
            timeout_action: self.timeout_action.or(below.timeout_action),
            default_timeout: self.default_timeout.or(below.default_timeout),
            allow_timeout_override: self.allow_timeout_override.or(below.allow_timeout_override),
            requests_max: self.requests_max.or(below.requests_max),
            bytes_max: self.bytes_max.or(below.bytes_max),
        }
    }

    /// The policy with its gaps filled.
    pub(super) fn complete(self, default: QueuePolicy) -> QueuePolicy {
        let timeout = |timeout: Duration| (!timeout.is_zero()).then_some(timeout);
        QueuePolicy {
            timeout_action: self.timeout_action.unwrap_or(default.timeout_action),
            default_timeout: self.default_timeout.map_or(default.default_timeout, timeout),
            allow_timeout_override: self.allow_timeout_override.unwrap_or(default.allow_timeout_override),
            requests_max: self.requests_max.unwrap_or(default.requests_max),
            bytes_max: self.bytes_max.unwrap_or(default.bytes_max),
        }
    }
}

fn or_below<T>(above: Vec<T>, below: Vec<T>) -> Vec<T> {
    if above.is_empty() { below } else { above }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_file_wins_where_it_speaks() {
        let upper = Declared {
            batch: Some(BatchAxis::AtMost(4)),
            batching: DeclaredBatching {
                preserve_ordering: Some(true),
                priority_queues: [(1, DeclaredQueue { requests_max: Some(3), ..DeclaredQueue::default() })].into(),
                ..DeclaredBatching::default()
            },
            parameters: [("a".into(), "upper".into())].into(),
            ..Declared::default()
        };
        let lower = Declared {
            batch: Some(BatchAxis::UpTo(16)),
            instances_max: Some(2),
            batching: DeclaredBatching {
                preserve_ordering: Some(false),
                priority_levels: Some(3),
                priority_queues: [(1, DeclaredQueue { bytes_max: Some(5), ..DeclaredQueue::default() })].into(),
                ..DeclaredBatching::default()
            },
            parameters: [("a".into(), "lower".into()), ("b".into(), "lower".into())].into(),
            ..Declared::default()
        };
        let both = upper.over(lower);
        assert_eq!(both.batch, Some(BatchAxis::UpTo(4)), "the shapes still leave the batch out");
        assert_eq!((both.batching.preserve_ordering, both.batching.priority_levels), (Some(true), Some(3)));
        assert_eq!(both.instances_max, Some(2));
        let first = both.batching.priority_queues[&1];
        assert_eq!((first.requests_max, first.bytes_max), (Some(3), Some(5)));
        assert_eq!(both.parameters.values().collect::<Vec<_>>(), ["upper", "lower"]);
    }
}
