//! The steps of an ensemble as a manifest lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::super::ensemble::{DeclaredStep, Runs};
use super::super::error::ConfigError;
use super::super::files;
use super::wrong;
use crate::engine::steps::{ImageSettings, LabelsSettings, PoolSettings, StepSettings, TextSettings};
use crate::infer::{ModelName, VariantName, VersionId};

/// Runs one thing: what it is called by is what it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    name: Option<String>,
    model: Option<String>,
    version: Option<u64>,
    file: Option<String>,
    image: Option<ImageSettings>,
    text: Option<TextSettings>,
    pool: Option<PoolSettings>,
    labels: Option<LabelsSettings>,
    #[serde(default)]
    inputs: BTreeMap<String, String>,
    #[serde(default)]
    outputs: BTreeMap<String, String>,
}

pub(super) fn declare(steps: Vec<Step>) -> Result<Vec<DeclaredStep>, ConfigError> {
    let mut declared: Vec<DeclaredStep> = Vec::with_capacity(steps.len());
    let mut names = BTreeSet::new();
    for (at, step) in steps.into_iter().enumerate() {
        let step = step.declare(&format!("steps[{at}]"))?;
        if !names.insert(step.name.clone()) {
            let problem = format!("expected a name that no other step has, got {:?}", step.name);
            return Err(wrong(format!("steps[{at}].name"), problem));
        }
        declared.push(step);
    }
    Ok(declared)
}

impl Step {
    fn declare(self, field: &str) -> Result<DeclaredStep, ConfigError> {
        let said = |name: &str, settings: StepSettings| (name.to_owned(), Runs::Said(settings));
        let kinds = [
            self.model.map(|model| model_named(model, self.version, field)).transpose()?,
            self.file.map(|file| file_named(file, field)).transpose()?,
            self.image.map(|settings| said("image", StepSettings::Image(settings))),
            self.text.map(|settings| said("text", StepSettings::Text(settings))),
            self.pool.map(|settings| said("pool", StepSettings::Pool(settings))),
            self.labels.map(|settings| said("labels", StepSettings::Labels(settings))),
        ];
        let mut kinds = kinds.into_iter().flatten();
        let (Some((own, runs)), None) = (kinds.next(), kinds.next()) else {
            return Err(wrong(field, "expected one of model, file, image, text, pool and labels"));
        };
        if self.version.is_some() && !matches!(runs, Runs::Model { .. }) {
            return Err(wrong(format!("{field}.version"), "needs model"));
        }
        let name = self.name.unwrap_or(own);
        // Metrics tell the builds of steps apart as they do variants.
        name.parse::<VariantName>().map_err(|error| wrong(format!("{field}.name"), error.to_string()))?;
        Ok(DeclaredStep { name, runs, inputs: self.inputs, outputs: self.outputs, is_explicit: false })
    }
}

/// Another model, and what the step is called by default.
fn model_named(model: String, version: Option<u64>, field: &str) -> Result<(String, Runs), ConfigError> {
    let parsed = model.parse::<ModelName>();
    let name = parsed.map_err(|error| wrong(format!("{field}.model"), error.to_string()))?;
    Ok((model, Runs::Model { model: name, version: version.map(VersionId) }))
}

fn file_named(file: String, field: &str) -> Result<(String, Runs), ConfigError> {
    if !files::is_file_name(&file) {
        return Err(wrong(format!("{field}.file"), format!("expected a plain file name, got {file:?}")));
    }
    let stem = Path::new(&file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok((stem, Runs::File(file)))
}
