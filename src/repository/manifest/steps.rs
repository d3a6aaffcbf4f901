//! The steps of an ensemble as a manifest lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::super::ensemble::{DeclaredStep, Runs};
use super::super::error::ConfigError;
use super::super::files;
use super::wrong;
use crate::infer::{ModelName, VariantName, VersionId};

/// Runs one thing: what it is called by is what it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    name: Option<String>,
    model: Option<String>,
    version: Option<u64>,
    file: Option<String>,
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
        let (own, runs) = match (self.model, self.file) {
            (Some(model), None) => {
                let parsed = model.parse::<ModelName>();
                let name = parsed.map_err(|error| wrong(format!("{field}.model"), error.to_string()))?;
                (model, Runs::Model { model: name, version: self.version.map(VersionId) })
            }
            (None, Some(file)) if files::is_file_name(&file) => {
                let stem = Path::new(&file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
                (stem, Runs::File(file))
            }
            (None, Some(file)) => {
                return Err(wrong(format!("{field}.file"), format!("expected a plain file name, got {file:?}")));
            }
            (None, None) | (Some(_), Some(_)) => {
                return Err(wrong(field, "expected one of model and file"));
            }
        };
        if self.version.is_some() && matches!(runs, Runs::File(_)) {
            return Err(wrong(format!("{field}.version"), "needs model"));
        }
        let name = self.name.unwrap_or(own);
        // Metrics tell the builds of steps apart as they do variants.
        name.parse::<VariantName>().map_err(|error| wrong(format!("{field}.name"), error.to_string()))?;
        Ok(DeclaredStep { name, runs, inputs: self.inputs, outputs: self.outputs, is_explicit: false })
    }
}
