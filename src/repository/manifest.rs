//! `manifest.toml`: the settings of one model in this server's own words.
//!
//! Only the file's form is known here; whether the settings fit the model is `resolve`'s matter.

mod steps;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use serde::Deserialize;

use self::steps::Step;
use super::declared::{Accuracies, BatchAxis, Declared, DeclaredBatching, DeclaredQueue, DeclaredTensor, Labels};
use super::error::{ConfigError, line_at};
use super::files;
use super::layout::MANIFEST;
use super::settings::{TimeoutAction, WarmUp, WarmUpContent, WarmUpInput};
use super::versions::VersionPolicy;
use crate::digest::Digest;
use crate::engine::{EngineChoice, Precision};
use crate::infer::{VariantName, VersionId};
use crate::integrity;
use crate::tensor::DType;
use crate::units::{ByteSize, Span};

/// Reads a manifest.
///
/// # Errors
/// When the text is not TOML, or a field is unknown or has a wrong value: the error names line and field.
pub(super) fn read(text: &str) -> Result<Declared, ConfigError> {
    let broken = |error: &toml::de::Error, field: String| ConfigError {
        file: MANIFEST.into(),
        line: error.span().map(|span| line_at(text, span.start)),
        field,
        problem: error.message().replace('\n', " "),
    };
    let parsed = toml::Deserializer::parse(text).map_err(|error| broken(&error, String::new()))?;
    let manifest: Manifest = serde_path_to_error::deserialize(parsed).map_err(|error| {
        let field = error.path().to_string();
        broken(error.inner(), if field == "." { String::new() } else { field })
    })?;
    manifest.declare()
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Manifest {
    description: Option<String>,
    license: Option<String>,
    model_file: Option<String>,
    engine: Option<EngineChoice>,
    precision: Option<Precision>,
    accuracy: Option<f64>,
    variant: Option<String>,
    response_cache: Option<bool>,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    batching: Batching,
    instances: Instances,
    versions: Versions,
    variants: BTreeMap<String, Beside>,
    parameters: BTreeMap<String, String>,
    warm_up: Vec<Sample>,
    steps: Vec<Step>,
    digests: BTreeMap<String, String>,
}

/// A build beside a version's own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Beside {
    accuracy: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    name: String,
    datatype: Option<String>,
    dims: Vec<i64>,
    reshape: Option<Vec<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Output {
    name: String,
    datatype: Option<String>,
    dims: Option<Vec<i64>>,
    reshape: Option<Vec<i64>>,
    labels: Option<Vec<String>>,
    labels_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Batching {
    batch_size_max: Option<NonZeroUsize>,
    queue_delay_max: Option<Span>,
    preferred: Option<Vec<usize>>,
    preserve_ordering: Option<bool>,
    priority_levels: Option<u64>,
    default_priority: Option<u64>,
    queue_timeout: Option<Span>,
    timeout_action: Option<Action>,
    allow_timeout_override: Option<bool>,
    queue_requests_max: Option<NonZeroUsize>,
    queue_bytes_max: Option<ByteSize>,
    /// By level; TOML's keys are text.
    priority_queues: BTreeMap<String, Queue>,
}

/// What of a priority level's queue differs from the others.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Queue {
    queue_timeout: Option<Span>,
    timeout_action: Option<Action>,
    allow_timeout_override: Option<bool>,
    queue_requests_max: Option<NonZeroUsize>,
    queue_bytes_max: Option<ByteSize>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Reject,
    Delay,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Instances {
    max: Option<NonZeroUsize>,
    cores_max: Option<NonZeroUsize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Versions {
    policy: Option<Policy>,
    latest: Option<NonZeroUsize>,
    specific: Option<Vec<u64>>,
    labels: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Policy {
    Latest,
    All,
    Specific,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    name: Option<String>,
    #[serde(default = "one")]
    rows: NonZeroUsize,
    #[serde(default = "one")]
    count: NonZeroUsize,
    inputs: BTreeMap<String, SampleInput>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SampleInput {
    datatype: String,
    dims: Vec<usize>,
    content: Option<Content>,
    file: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Content {
    Zeros,
    Random,
}

impl Manifest {
    fn declare(self) -> Result<Declared, ConfigError> {
        if let Some(file) = self.model_file.as_ref().filter(|file| !files::is_file_name(file)) {
            return Err(wrong("model_file", format!("expected a plain file name, got {file:?}")));
        }
        let inputs =
            self.inputs.into_iter().enumerate().map(|(index, input)| input.declare(&format!("inputs[{index}]")));
        let inputs: Vec<DeclaredTensor> = inputs.collect::<Result<_, _>>()?;
        let (mut labels, mut outputs) = (BTreeMap::new(), Vec::new());
        for (index, output) in self.outputs.into_iter().enumerate() {
            let (name, own, shape) = output.declare(&format!("outputs[{index}]"))?;
            labels.extend(own.map(|own| (name, own)));
            outputs.extend(shape);
        }
        let own = self.accuracy.map(|accuracy| share(accuracy, || "accuracy".into())).transpose()?;
        let beside = |(name, beside): (String, Beside)| {
            let field = || format!("variants.{name}");
            let variant = name.parse::<VariantName>().map_err(|error| wrong(field(), error.to_string()))?;
            Ok((variant, share(beside.accuracy, || format!("{}.accuracy", field()))?))
        };
        let variants = self.variants.into_iter().map(beside).collect::<Result<_, _>>()?;
        let parsed = self.variant.as_deref().map(str::parse::<VariantName>).transpose();
        let default_variant = parsed.map_err(|error| wrong("variant", error.to_string()))?;
        let describes = !inputs.is_empty() || !outputs.is_empty();
        let size = self.batching.batch_size_max.map(NonZeroUsize::get);
        let warm_up = self.warm_up.into_iter().enumerate().map(|(index, sample)| sample.declare(index));
        Ok(Declared {
            origin: describes.then_some(MANIFEST),
            description: self.description,
            license: self.license,
            model_file: self.model_file,
            engine: self.engine,
            precision: self.precision,
            accuracy: Accuracies { own, variants },
            default_variant,
            version_labels: self.versions.labels.iter().map(|(label, id)| (label.clone(), VersionId(*id))).collect(),
            version_policy: self.versions.declare()?,
            batch: size.map(if describes { BatchAxis::UpTo } else { BatchAxis::AtMost }),
            inputs,
            outputs,
            labels,
            batching: self.batching.declare()?,
            instances_max: self.instances.max.map(NonZeroUsize::get),
            cores_max: self.instances.cores_max.map(NonZeroUsize::get),
            response_cache: self.response_cache,
            parameters: self.parameters,
            warm_up: warm_up.collect::<Result<_, _>>()?,
            steps: steps::declare(self.steps)?,
            digests: digests(&self.digests)?,
            ..Declared::default()
        })
    }
}

/// SHA-256 of files, by path beneath the model's folder.
fn digests(written: &BTreeMap<String, String>) -> Result<BTreeMap<String, Digest>, ConfigError> {
    let digest = |(path, text): (&String, &String)| {
        let field = || format!("digests.{path:?}");
        if integrity::relative(path).as_ref() != Some(path) || path == MANIFEST {
            return Err(wrong(field(), "expected a path of another file within the model's folder"));
        }
        let digest = text.parse::<Digest>().map_err(|error| wrong(field(), error.to_string()))?;
        Ok((path.clone(), digest))
    };
    written.iter().map(digest).collect()
}

fn share(got: f64, field: impl FnOnce() -> String) -> Result<f64, ConfigError> {
    let expected = || format!("expected a share from 0 to 1, got {got}");
    if (0.0..=1.0).contains(&got) { Ok(got) } else { Err(wrong(field(), expected())) }
}

impl Input {
    fn declare(self, field: &str) -> Result<DeclaredTensor, ConfigError> {
        let dtype = self.datatype.map(|name| datatype(&name, format!("{field}.datatype"))).transpose()?;
        let tensor = DeclaredTensor { name: self.name, dtype, dims: self.dims, reshape: self.reshape };
        match tensor.impossible_extent() {
            Some((is_reshape, got)) => {
                let key = if is_reshape { "reshape" } else { "dims" };
                Err(wrong(format!("{field}.{key}"), format!("expected extents of 1 or more, or -1, got {got}")))
            }
            None => Ok(tensor),
        }
    }
}

impl Output {
    /// Its name, its labels and its shape, of which either may be absent.
    fn declare(self, field: &str) -> Result<(String, Option<Labels>, Option<DeclaredTensor>), ConfigError> {
        let labels = match (self.labels, self.labels_file) {
            (Some(labels), None) => Some(Labels::Given(labels)),
            (None, Some(file)) => Some(Labels::File(file)),
            (None, None) => None,
            (Some(_), Some(_)) => return Err(wrong(field, "labels and labels_file exclude each other")),
        };
        let Some(dims) = self.dims else {
            return match (self.datatype, self.reshape) {
                (None, None) => Ok((self.name, labels, None)),
                _ => Err(wrong(format!("{field}.dims"), "expected a shape beside datatype or reshape, got none")),
            };
        };
        let tensor = Input { name: self.name.clone(), datatype: self.datatype, dims, reshape: self.reshape };
        Ok((self.name, labels, Some(tensor.declare(field)?)))
    }
}

impl Batching {
    fn declare(self) -> Result<DeclaredBatching, ConfigError> {
        let level = |(level, queue): (String, Queue)| match level.parse::<u64>() {
            Ok(level) => Ok((level, queue.declare())),
            Err(_) => Err(wrong("batching.priority_queues", format!("expected the number of a level, got {level:?}"))),
        };
        Ok(DeclaredBatching {
            queue_delay_max: self.queue_delay_max.map(|span| span.0),
            preferred: self.preferred,
            preserve_ordering: self.preserve_ordering,
            priority_levels: self.priority_levels,
            default_priority: self.default_priority,
            queue: Queue {
                queue_timeout: self.queue_timeout,
                timeout_action: self.timeout_action,
                allow_timeout_override: self.allow_timeout_override,
                queue_requests_max: self.queue_requests_max,
                queue_bytes_max: self.queue_bytes_max,
            }
            .declare(),
            priority_queues: self.priority_queues.into_iter().map(level).collect::<Result<_, _>>()?,
        })
    }
}

impl Queue {
    fn declare(self) -> DeclaredQueue {
        DeclaredQueue {
            timeout_action: self.timeout_action.map(|action| match action {
                Action::Reject => TimeoutAction::Reject,
                Action::Delay => TimeoutAction::Delay,
            }),
            default_timeout: self.queue_timeout.map(|span| span.0),
            allow_timeout_override: self.allow_timeout_override,
            requests_max: self.queue_requests_max.map(NonZeroUsize::get),
            bytes_max: self.queue_bytes_max.map(|size| size.0),
        }
    }
}

impl Versions {
    fn declare(self) -> Result<Option<VersionPolicy>, ConfigError> {
        let stray = |key: &str, policy: &str| wrong(format!("versions.{key}"), format!("needs policy = {policy:?}"));
        match self.policy {
            Some(Policy::Latest) | None if self.specific.is_some() => Err(stray("specific", "specific")),
            Some(Policy::All | Policy::Specific) if self.latest.is_some() => Err(stray("latest", "latest")),
            Some(Policy::All) if self.specific.is_some() => Err(stray("specific", "specific")),
            Some(Policy::All) => Ok(Some(VersionPolicy::All)),
            Some(Policy::Specific) => match self.specific {
                Some(versions) if !versions.is_empty() => {
                    Ok(Some(VersionPolicy::Specific(versions.into_iter().map(VersionId).collect())))
                }
                _ => Err(wrong("versions.specific", "expected at least one version, got none")),
            },
            Some(Policy::Latest) => Ok(Some(VersionPolicy::Latest(self.latest.unwrap_or(NonZeroUsize::MIN)))),
            None => Ok(self.latest.map(VersionPolicy::Latest)),
        }
    }
}

impl Sample {
    fn declare(self, index: usize) -> Result<WarmUp, ConfigError> {
        let mut inputs = BTreeMap::new();
        for (name, input) in self.inputs {
            let field = |key: &str| format!("warm_up[{index}].inputs.{name}.{key}");
            let dtype = datatype(&input.datatype, field("datatype"))?;
            let content = match (input.content, input.file) {
                (None | Some(Content::Zeros), None) => WarmUpContent::Zeros,
                (Some(Content::Random), None) => WarmUpContent::Random,
                (None, Some(file)) => WarmUpContent::File(file),
                (Some(_), Some(_)) => return Err(wrong(field("file"), "content and file exclude each other")),
            };
            inputs.insert(name, WarmUpInput { dtype, dims: input.dims, content });
        }
        let name = self.name.unwrap_or_else(|| format!("warm_up[{index}]"));
        Ok(WarmUp { name, rows: self.rows.get(), count: self.count.get(), inputs })
    }
}

fn datatype(name: &str, field: String) -> Result<DType, ConfigError> {
    name.parse().map_err(|error| wrong(field, format!("{error}")))
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> ConfigError {
    ConfigError::field(MANIFEST, field, problem)
}

fn one() -> NonZeroUsize {
    NonZeroUsize::MIN
}

#[cfg(test)]
mod tests;
