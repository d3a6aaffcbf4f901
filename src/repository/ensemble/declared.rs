//! Steps as a model's files declare them, whatever form those have.

use std::collections::BTreeMap;

use crate::engine::steps::StepSettings;
use crate::infer::{ModelName, VersionId};

#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct DeclaredStep {
    /// Unlike that of all other steps.
    pub(in super::super) name: String,
    pub(in super::super) runs: Runs,
    /// From the step's inputs to the ensemble's tensors.
    pub(in super::super) inputs: BTreeMap<String, String>,
    pub(in super::super) outputs: BTreeMap<String, String>,
    /// Whether every input must be named, and outputs that are not named are left out; else the rest goes by name and
    /// order.
    pub(in super::super) is_explicit: bool,
}

/// What a step runs.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) enum Runs {
    Model {
        model: ModelName,
        /// `None` for the newest that serves.
        version: Option<VersionId>,
    },
    /// A model file in the folder of the ensemble's version.
    File(String),
    /// No file: settings say it all.
    Said(StepSettings),
}

impl DeclaredStep {
    /// The other model that runs, if one does.
    pub(super) fn model(&self) -> Option<&ModelName> {
        match &self.runs {
            Runs::Model { model, .. } => Some(model),
            Runs::File(_) | Runs::Said(_) => None,
        }
    }
}
