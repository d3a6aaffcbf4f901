//! Ensembles: models made of steps, each a build of its own, and the tensors that pass between them.
//!
//! `declared` is what files say of steps, `wiring` holds that against the signatures of the builds (pure), `loading` makes an ensemble of
//! both, and `awaiting` is the part of the actor that has it wait for the models it needs and makes it anew when one changes.
//! Running the steps is the pipeline's matter: each goes through the rooms like a request, so that it is batched on its own.

mod awaiting;
mod chain;
mod declared;
mod loading;
#[cfg(test)]
mod tests;
mod wiring;

use std::sync::Arc;

pub(super) use awaiting::After;
pub(super) use declared::{DeclaredStep, Runs};
pub(super) use loading::Unlinked;

use super::variant::Variant;
use crate::infer::VersionId;

/// What an ensemble runs. Holds the builds of its steps: what it was checked with is what answers.
#[derive(Debug)]
pub struct Ensemble {
    /// In an order in which each finds its inputs.
    pub steps: Vec<Step>,
    /// Names of the tensors that pass; steps know them by position. Those of the ensemble's inputs come first, in its
    /// signature's order.
    pub tensors: Vec<String>,
    /// The tensors of its outputs, in its signature's order.
    pub outputs: Vec<usize>,
    /// How many steps and outputs take each tensor.
    pub readers: Vec<usize>,
}

/// One step: what runs, and where its tensors come from and go.
#[derive(Debug)]
pub struct Step {
    pub name: Arc<str>,
    pub build: Arc<Variant>,
    /// Variants that may answer in its place.
    pub alike: Vec<Arc<Variant>>,
    /// The version of the model that was asked for; nothing for the newest.
    pub version: Option<VersionId>,
    /// Whether the build is the ensemble's own, and no other model's.
    pub is_own: bool,
    /// In the order of the build's signature.
    pub inputs: Vec<Wire>,
    pub outputs: Vec<Wire>,
}

/// One end of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// What the step calls it.
    pub name: String,
    /// Its position among the ensemble's tensors.
    pub tensor: usize,
}

impl Ensemble {
    /// Builds that live and end with the ensemble.
    pub fn own(&self) -> impl Iterator<Item = &Arc<Variant>> {
        self.steps.iter().filter(|step| step.is_own).map(|step| &step.build)
    }

    /// Of this ensemble and of those among its steps.
    fn steps_total(&self) -> usize {
        let within = |step: &Step| step.build.ensemble.as_ref().map_or(0, |ensemble| ensemble.steps_total());
        self.steps.iter().map(|step| 1 + within(step)).sum()
    }
}
