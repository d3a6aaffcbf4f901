//! The plan of an ensemble: what it takes, gives and is made of, for whoever asks a build for that.

use std::sync::Arc;

use super::{Ensemble, Step};
use crate::engine::{Batch, Cores, EngineError, Executed, Merging, Part, Plan, Signature};

#[derive(Debug)]
pub(super) struct Chain {
    ensemble: Arc<Ensemble>,
    signature: Signature,
    merging: Merging,
    parts: Vec<Part>,
}

impl Chain {
    pub(super) fn new(ensemble: Arc<Ensemble>, signature: Signature) -> Self {
        let merging =
            Merging::Alone { operator: "ensemble".into(), reason: "requests are merged at each of its steps".into() };
        let part = |step: &Step| {
            let mut parts = step.build.plan.parts().to_vec();
            parts.iter_mut().for_each(|part| part.reason = format!("step {}: {}", step.name, part.reason));
            parts
        };
        let parts = ensemble.steps.iter().flat_map(part).collect();
        Self { ensemble, signature, merging, parts }
    }
}

impl Plan for Chain {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn merging(&self) -> &Merging {
        &self.merging
    }

    fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Steps count their own.
    fn memory_bytes(&self) -> u64 {
        0
    }

    fn follows_contents(&self) -> bool {
        self.ensemble.steps.iter().any(|step| step.build.plan.follows_contents())
    }

    fn random_operator(&self) -> Option<&str> {
        self.ensemble.steps.iter().find_map(|step| step.build.plan.random_operator())
    }

    /// Nobody takes this way: each step has a queue of its own (`pipeline::steps`).
    fn run(&self, _: &Batch, _: &Cores) -> Result<Executed, EngineError> {
        Err(EngineError::Failed("an ensemble runs step by step".into()))
    }

    fn warm_up(&self, _: usize, _: &Cores) -> Result<(), EngineError> {
        Ok(())
    }
}
