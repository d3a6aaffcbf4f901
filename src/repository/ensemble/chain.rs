//! The plan of an ensemble: its steps one after the other on the calling thread.
//!
//! Requests do not take this way, since each step has a queue of its own; it is for who has a plan and no server.

use std::sync::Arc;

use super::{Ensemble, Step};
use crate::engine::{Batch, Cores, EngineError, Executed, Merging, Part, Plan, Signature};
use crate::infer::ComputeTimes;
use crate::tensor::Tensor;

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

    fn run(&self, batch: &Batch, cores: &Cores) -> Result<Executed, EngineError> {
        let mut tensors: Vec<Option<Tensor>> = vec![None; self.ensemble.tensors.len()];
        for (slot, input) in tensors.iter_mut().zip(&batch.inputs) {
            *slot = Some(input.to_tensor());
        }
        let (mut times, mut helper_cpu) = (ComputeTimes::default(), std::time::Duration::ZERO);
        let taken = |tensors: &[Option<Tensor>], position: usize| {
            tensors[position].clone().ok_or_else(|| EngineError::Failed("a step has made no tensor".into()))
        };
        for step in &self.ensemble.steps {
            let (build, merges) = (&step.build, step.build.merges());
            let mut inputs = Vec::with_capacity(step.inputs.len());
            for wire in &step.inputs {
                let tensor = taken(&tensors, wire.tensor)?;
                inputs.push(build.settings.to_model_shape(&wire.name, tensor, merges));
            }
            let rows = inputs.first().filter(|_| merges).map_or(1, |tensor| tensor.shape().rows());
            let executed = build.plan.run(&Batch::merge(&[inputs], vec![rows]), cores)?;
            times += executed.times;
            helper_cpu += executed.helper_cpu;
            let specs = build.signature.outputs.iter();
            for (spec, tensor) in specs.zip(executed.shares.into_iter().flatten()) {
                if let Some(wire) = step.outputs.iter().find(|wire| wire.name == spec.name) {
                    tensors[wire.tensor] = Some(build.settings.to_client_shape(&spec.name, tensor, merges));
                }
            }
        }
        let share =
            self.ensemble.outputs.iter().map(|&position| taken(&tensors, position)).collect::<Result<_, _>>()?;
        Ok(Executed { shares: vec![share], times, helper_cpu })
    }

    fn warm_up(&self, _: usize, _: &Cores) -> Result<(), EngineError> {
        Ok(())
    }
}
