//! The steps of an ensemble, each as soon as its tensors are there: every one is routed, looked up, queued and batched by itself.
//!
//! Tensors pass by reference. Steps share the place and the deadline of the request that they are part of, and end with it.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::{Computed, InferError, Pipeline, client_side, note_kept, observe_run};
use crate::admission::Admitted;
use crate::batching::{BatchError, Executed};
use crate::cache::{Found, Kept};
use crate::engine::EngineError;
use crate::infer::{Budget, ComputeTimes, InferRequest, Schedule, Usage, Wanted};
use crate::metering::statistics::{RequestTimes, Settled};
use crate::repository::{Ensemble, Step};
use crate::routing::Routed;
use crate::telemetry::spans::{Began, StepRun, Traced};
use crate::tensor::{NamedTensor, Tensor};

/// What a step has made.
struct Made {
    /// By position among the step's outputs.
    tensors: Vec<Tensor>,
    usage: Usage,
    runs: Vec<StepRun>,
}

impl Pipeline {
    /// Runs an ensemble.
    ///
    /// # Errors
    /// When a step is refused or fails: the error names it.
    pub(super) async fn run_steps(
        &self,
        mut routed: Routed,
        ensemble: &Ensemble,
        traced: Option<Traced>,
    ) -> Result<Computed, InferError> {
        let began = Instant::now();
        let mut passing = Passing::new(ensemble, std::mem::take(&mut routed.inputs));
        let mut usage =
            Usage { queue: Default::default(), compute: ComputeTimes::default(), batch: None, cpu: Default::default() };
        let mut runs = Vec::new();
        let mut running = FuturesUnordered::new();
        let schedule = routed.admitted.request.schedule;
        loop {
            for (at, inputs) in passing.ready() {
                let part;
                let request = request(&ensemble.steps[at], inputs, schedule);
                (routed.admitted, part) = routed.admitted.part(request);
                running.push(self.run_step(at, &ensemble.steps[at], part, traced.clone()));
            }
            let Some((at, made)) = running.next().await else { break };
            let step = &ensemble.steps[at];
            let in_step = |error| InferError::Step { step: step.name.to_string(), error: Box::new(error) };
            let Made { tensors, usage: used, runs: ran } = made.map_err(in_step)?;
            passing.put(step, tensors);
            usage.queue += used.queue;
            usage.compute += used.compute;
            usage.cpu += used.cpu;
            runs.extend(ran);
        }
        drop(running);
        let share = passing.outputs()?;
        let request = RequestTimes { queue: usage.queue, total: routed.admitted.request.received_at.elapsed() };
        let settled = Settled { rows: routed.rows, times: usage.compute, requests: &[request] };
        routed.variant.statistics.record_batch(&settled);
        routed.variant.profile.costs(|costs| costs.learn(routed.rows, began.elapsed(), usage.cpu));
        Ok(Computed { executed: Executed { routed, share, usage, began: Began { at: began, batch: None } }, runs })
    }

    async fn run_step(
        &self,
        at: usize,
        step: &Step,
        admitted: Admitted,
        traced: Option<Traced>,
    ) -> (usize, Result<Made, InferError>) {
        let began = Instant::now();
        let made = self.make(step, admitted, traced).await;
        if made.is_err() {
            step.build.statistics.record_failure(began.elapsed());
        }
        (at, made)
    }

    async fn make(&self, step: &Step, admitted: Admitted, traced: Option<Traced>) -> Result<Made, InferError> {
        let began = Instant::now();
        let choice =
            self.router.choose_among(&step.build, step.alike.iter(), &admitted.request, || self.conditions())?;
        let mut routed = self.router.bind(admitted, Arc::clone(&choice.variant))?;
        let lead = match self.cache.look_up(&routed).await? {
            Some(Found::Answer(Kept { share, lookup, .. })) => {
                let usage = note_kept(&routed, lookup);
                let run = traced.is_some().then(|| StepRun::of(&step.name, began, None));
                return Ok(Made { tensors: outputs(step, &routed, share), usage, runs: run.into_iter().collect() });
            }
            Some(Found::Nothing(lead)) => Some(lead),
            None => None,
        };
        self.take_power(&mut routed, &choice)?;
        let is_traced = traced.is_some();
        let Computed { executed, mut runs } = self.compute(routed, lead, traced).await?;
        let Executed { routed, share, usage, began: batch } = executed;
        observe_run(&routed.variant, &usage, routed.rows);
        if is_traced {
            runs.iter_mut().for_each(|run| run.within(&step.name));
            runs.insert(0, StepRun::of(&step.name, began, batch.batch));
        }
        Ok(Made { tensors: outputs(step, &routed, share), usage, runs })
    }
}

/// What a step is asked: what a client would ask, in the time that the whole request has.
fn request(step: &Step, inputs: Vec<NamedTensor>, schedule: Schedule) -> InferRequest {
    InferRequest {
        model: step.build.model.clone(),
        version: Some(step.build.version),
        variant: Wanted::Any,
        // What the client allows is for the whole.
        budget: Budget::default(),
        id: None,
        inputs,
        outputs: Vec::new(),
        schedule,
        received_at: Instant::now(),
        decode: std::time::Duration::ZERO,
    }
}

/// The outputs of a step that others take, as clients would see them.
fn outputs(step: &Step, routed: &Routed, share: Vec<Tensor>) -> Vec<Tensor> {
    let mut named: Vec<Option<NamedTensor>> = client_side(&routed.variant, share).map(Some).collect();
    let find = |name: &str, named: &mut Vec<Option<NamedTensor>>| {
        let found = named.iter_mut().find(|tensor| tensor.as_ref().is_some_and(|tensor| tensor.name == name))?;
        found.take().map(|named| named.tensor)
    };
    step.outputs.iter().filter_map(|wire| find(&wire.name, &mut named)).collect()
}

/// The tensors of one request on their way between steps.
struct Passing<'a> {
    ensemble: &'a Ensemble,
    tensors: Vec<Option<Tensor>>,
    /// Readers that have not had it yet: the last one takes it along.
    left: Vec<usize>,
    begun: Vec<bool>,
}

impl<'a> Passing<'a> {
    fn new(ensemble: &'a Ensemble, inputs: Vec<Tensor>) -> Self {
        let mut tensors: Vec<Option<Tensor>> = inputs.into_iter().map(Some).collect();
        tensors.resize(ensemble.tensors.len(), None);
        Self { ensemble, tensors, left: ensemble.readers.clone(), begun: vec![false; ensemble.steps.len()] }
    }

    /// Steps that can begin now, with their inputs.
    fn ready(&mut self) -> Vec<(usize, Vec<NamedTensor>)> {
        let mut ready = Vec::new();
        for (at, step) in self.ensemble.steps.iter().enumerate() {
            if !self.begun[at] && step.inputs.iter().all(|wire| self.tensors[wire.tensor].is_some()) {
                self.begun[at] = true;
                let inputs = step.inputs.iter();
                let named = |wire: &crate::repository::Wire| {
                    Some(NamedTensor { name: wire.name.clone(), tensor: self.take(wire.tensor)? })
                };
                ready.push((at, inputs.filter_map(named).collect()));
            }
        }
        ready
    }

    fn take(&mut self, position: usize) -> Option<Tensor> {
        self.left[position] = self.left[position].saturating_sub(1);
        if self.left[position] == 0 { self.tensors[position].take() } else { self.tensors[position].clone() }
    }

    fn put(&mut self, step: &Step, tensors: Vec<Tensor>) {
        for (wire, tensor) in step.outputs.iter().zip(tensors) {
            if self.left[wire.tensor] > 0 {
                self.tensors[wire.tensor] = Some(tensor);
            }
        }
    }

    fn outputs(mut self) -> Result<Vec<Tensor>, InferError> {
        let missing = || {
            let error = EngineError::Failed("a step has made fewer tensors than its signature says".into());
            InferError::Batch(BatchError::Engine(Arc::new(error)))
        };
        self.ensemble.outputs.iter().map(|&position| self.take(position).ok_or_else(missing)).collect()
    }
}
