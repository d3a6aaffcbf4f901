//! What a model's files declare, held against the model itself and filled up from the server's defaults.
//!
//! Pure but for the labels' files: contradictions are errors that say what was expected and what came.

use std::collections::BTreeMap;

use super::alone::ServedAlone;
use super::batching_defaults::BatchingConfig;
use super::declared::{BatchAxis, Declared, DeclaredTensor, Labels};
use super::error::{ConfigError, LoadError};
use super::files::{Source, TEXT_BYTES_MAX};
use super::layout::MANIFEST;
use super::settings::{BatchSettings, ClassLabels, ModelSettings, Reshape};
use super::shapes::{self, Described};
use crate::engine::{Merging, Plan, Signature, TensorSpec};

/// A plan, how clients see it and how it is served.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) plan: Box<dyn Plan>,
    pub(super) signature: Signature,
    pub(super) settings: ModelSettings,
    /// Whether configured shapes, as those of warm-up requests, leave axis 0 out.
    pub(super) rows_apart: bool,
    /// What the operator should know although it is no error.
    pub(super) notes: Vec<String>,
}

/// The server's side of a resolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults<'a> {
    pub(super) batching: &'a BatchingConfig,
    pub(super) cores: usize,
}

impl Resolved {
    pub(super) fn merges(&self) -> bool {
        *self.plan.merging() == Merging::Rows
    }
}

/// # Errors
/// When what is declared contradicts the model or itself, or a labels file is missing.
pub(super) fn resolve(
    declared: Declared,
    plan: Box<dyn Plan>,
    folder: Option<&Source>,
    defaults: Defaults<'_>,
) -> Result<Resolved, LoadError> {
    let mut notes = declared.warnings.clone();
    let axis = declared.batch;
    check_batch_axis(&declared, plan.signature())?;
    let plan: Box<dyn Plan> = if axis == Some(BatchAxis::Absent) && *plan.merging() == Merging::Rows {
        Box::new(ServedAlone::new(plan, Words::of(&declared).why_alone))
    } else {
        plan
    };
    notes.extend(why_alone(&declared, plan.merging()));
    let keeps = declared.response_cache == Some(true);
    let drawing = plan.random_operator().filter(|_| keeps).map(ToOwned::to_owned);
    notes.extend(drawing.as_ref().map(|operator| {
        format!("answers are not kept: response_cache expects the same answer to equal requests, and {operator} draws random numbers")
    }));
    let merges = *plan.merging() == Merging::Rows;
    let rows_apart = merges || matches!(axis, Some(BatchAxis::UpTo(_)));
    let (signature, reshapes) = client_side(&declared, plan.signature(), merges)?;
    let settings = ModelSettings {
        description: declared.description.clone().unwrap_or_default(),
        license: declared.license.clone().unwrap_or_default(),
        version_policy: declared.version_policy.clone().unwrap_or_default(),
        version_labels: declared.version_labels.clone(),
        default_variant: declared.default_variant.clone(),
        rows_alone_max: match axis {
            Some(BatchAxis::UpTo(rows)) => Some(rows),
            _ => None,
        },
        instances_max: declared.instances_max.unwrap_or(defaults.cores),
        cores_max: declared.cores_max.unwrap_or(defaults.cores).min(defaults.cores),
        labels: labels(&declared.labels, &signature, folder)?,
        reshapes,
        response_cache: keeps && drawing.is_none(),
        parameters: declared.parameters.clone(),
        warm_up: declared.warm_up.clone(),
        ..ModelSettings::plain(batch_settings(&declared, defaults.batching)?, defaults.cores)
    };
    Ok(Resolved { plan, signature, settings, rows_apart, notes })
}

/// A batch size is only possible where axis 0 is free everywhere.
fn check_batch_axis(declared: &Declared, signature: &Signature) -> Result<(), ConfigError> {
    let Some(BatchAxis::UpTo(got)) = declared.batch else { return Ok(()) };
    if signature.is_batched() {
        return Ok(());
    }
    let fixed = signature.inputs.iter().chain(&signature.outputs).find(|spec| !shapes::is_first_free(spec));
    let obstacle = fixed.map_or_else(
        || "it has no input and no output".to_owned(),
        |spec| format!("{:?} has shape {}", spec.name, spec.shown_dims()),
    );
    let none = Words::of(declared).no_size;
    let problem = format!("expected {none}, because axis 0 of the model is not free ({obstacle}), got {got}");
    Err(ConfigError::field(declared.origin.unwrap_or_default(), Words::of(declared).size, problem))
}

/// A line for the operator where batching was asked for in vain.
fn why_alone(declared: &Declared, merging: &Merging) -> Option<String> {
    let sized = declared.batch.is_some() && declared.batch_size_max() != Some(1);
    let asked = sized || declared.batching.preferred.is_some();
    match merging {
        Merging::Alone { operator, reason } if asked && declared.batch != Some(BatchAxis::Absent) => {
            Some(format!("requests are run one at a time: {operator}: {reason}"))
        }
        _ => None,
    }
}

/// The signature that clients see, and where its shapes differ from the model's.
fn client_side(
    declared: &Declared,
    signature: &Signature,
    merges: bool,
) -> Result<(Signature, BTreeMap<String, Reshape>), ConfigError> {
    let file = declared.origin.unwrap_or_default();
    let words = Words::of(declared);
    let lead = usize::from(matches!(declared.batch, Some(BatchAxis::UpTo(_))));
    let mut client = signature.clone();
    let mut reshapes = BTreeMap::new();
    let mut apply = |kind: &str, specs: &mut [TensorSpec], tensors: &[DeclaredTensor]| {
        for (index, tensor) in tensors.iter().enumerate() {
            let wrong = |(key, problem): (&'static str, String)| {
                let key = words.key(key);
                ConfigError::field(file, format!("{kind}[{index}].{key}"), format!("{:?}: {problem}", tensor.name))
            };
            if tensors[..index].iter().any(|earlier| earlier.name == tensor.name) {
                return Err(wrong(("name", "it is described twice".into())));
            }
            let known = specs.iter().map(|spec| format!("{:?}", spec.name)).collect::<Vec<_>>().join(", ");
            let Some(spec) = specs.iter_mut().find(|spec| spec.name == tensor.name) else {
                return Err(wrong(("name", format!("expected one of the model's: {known}"))));
            };
            let Described { dims, reshape } = shapes::describe(spec, tensor, lead, merges).map_err(wrong)?;
            spec.dims = dims;
            reshapes.extend(reshape.map(|reshape| (tensor.name.clone(), reshape)));
        }
        Ok(())
    };
    apply(words.input, &mut client.inputs, &declared.inputs)?;
    apply(words.output, &mut client.outputs, &declared.outputs)?;
    let described = |spec: &&TensorSpec| declared.inputs.iter().any(|tensor| tensor.name == spec.name);
    match signature.inputs.iter().find(|spec| !described(spec)) {
        Some(spec) if !declared.inputs.is_empty() => {
            Err(ConfigError::field(file, words.input, format!("expected the model's input {:?} too", spec.name)))
        }
        _ => Ok((client, reshapes)),
    }
}

/// How the file that describes inputs and outputs calls what is wrong with it.
struct Words {
    input: &'static str,
    output: &'static str,
    size: &'static str,
    no_size: &'static str,
    why_alone: &'static str,
}

impl Words {
    fn of(declared: &Declared) -> &'static Self {
        if declared.origin == Some(MANIFEST) { &MANIFEST_WORDS } else { &TRITON_WORDS }
    }

    /// The name of a tensor's field, given Triton's.
    fn key(&self, triton: &'static str) -> &'static str {
        match triton {
            "data_type" if self.input == MANIFEST_WORDS.input => "datatype",
            "reshape.shape" if self.input == MANIFEST_WORDS.input => "reshape",
            same => same,
        }
    }
}

const MANIFEST_WORDS: Words = Words {
    input: "inputs",
    output: "outputs",
    size: "batching.batch_size_max",
    no_size: "none",
    why_alone: "its shapes are given whole, without batching.batch_size_max",
};
const TRITON_WORDS: Words =
    Words { input: "input", output: "output", size: "max_batch_size", no_size: "0", why_alone: "max_batch_size is 0" };

fn batch_settings(declared: &Declared, defaults: &BatchingConfig) -> Result<BatchSettings, ConfigError> {
    let plain = defaults.settings();
    let given = &declared.batching;
    let queue = given.queue.complete(plain.queue);
    let settings = BatchSettings {
        batch_size_max: declared.batch_size_max().unwrap_or(plain.batch_size_max),
        queue_delay_max: given.queue_delay_max.unwrap_or(plain.queue_delay_max),
        preferred: given.preferred.clone().unwrap_or_default(),
        preserve_ordering: given.preserve_ordering.unwrap_or_default(),
        priority_levels: given.priority_levels.unwrap_or_default(),
        default_priority: given.default_priority.unwrap_or_default(),
        queue,
        priority_queues: given.priority_queues.iter().map(|(level, own)| (*level, own.complete(queue))).collect(),
    };
    check_batching(&settings)?;
    Ok(settings)
}

fn check_batching(settings: &BatchSettings) -> Result<(), ConfigError> {
    let wrong = |field: &str, problem: String| Err(ConfigError::field("", field, problem));
    let rows = settings.batch_size_max;
    if let Some(got) = settings.preferred.iter().find(|&&size| size == 0 || size > rows) {
        return wrong("preferred batch size", format!("expected 1 to {rows}, the largest batch, got {got}"));
    }
    let (levels, default) = (settings.priority_levels, settings.default_priority);
    if levels > 0 && (default == 0 || default > levels) {
        return wrong("default priority", format!("expected 1 to {levels}, the number of levels, got {default}"));
    }
    if levels == 0 && default > 0 {
        return wrong("default priority", format!("expected 0, because there are no priority levels, got {default}"));
    }
    match settings.priority_queues.keys().find(|&&level| level == 0 || level > levels) {
        Some(got) => wrong("priority queue policy", format!("expected levels 1 to {levels}, got {got}")),
        None => Ok(()),
    }
}

fn labels(
    declared: &BTreeMap<String, Labels>,
    signature: &Signature,
    folder: Option<&Source>,
) -> Result<BTreeMap<String, ClassLabels>, LoadError> {
    let mut labels = BTreeMap::new();
    for (output, given) in declared {
        if signature.output(output).is_none() {
            let known: Vec<_> = signature.outputs.iter().map(|spec| format!("{:?}", spec.name)).collect();
            let problem = format!("expected one of the model's outputs, {}, got {output:?}", known.join(", "));
            return Err(ConfigError::field("", "labels", problem).into());
        }
        let list = match given {
            Labels::Given(list) => ClassLabels { names: list.as_slice().into(), file: String::new() },
            Labels::File(name) => {
                let text = folder.map(|folder| folder.read_text(name, TEXT_BYTES_MAX)).transpose()?.flatten();
                let missing = || LoadError::File { file: name.clone(), reason: "the labels file is missing".into() };
                let names = text.ok_or_else(missing)?.lines().map(|line| line.trim().to_owned()).collect();
                ClassLabels { names, file: name.clone() }
            }
        };
        labels.insert(output.clone(), list);
    }
    Ok(labels)
}

#[cfg(test)]
mod tests;
