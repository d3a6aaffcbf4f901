//! A loaded model whose shapes follow from contents: requests run one at a time, each step by step.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::model::Model;
use super::plan::{Peaks, report};
use super::prepared::unfit;
use super::spare::Spare;
use super::stepwise::{NotRun, Value, Walk, run};
use crate::engine::graph::Fact;
use crate::engine::graph::foreign::Program;
use crate::engine::graph::samples::GraphFacts;
use crate::engine::pool::Team;
use crate::engine::{
    Batch, BatchInput, Cores, EngineError, Executed, LayerReport, Merging, Part, Plan, Share, Signature,
};
use crate::infer::ComputeTimes;
use crate::tensor::{DType, Tensor};

#[derive(Debug)]
pub(super) struct StepwisePlan {
    pub(super) model: Model,
    pub(super) signature: Signature,
    pub(super) merging: Merging,
    pub(super) parts: Vec<Part>,
    pub(super) spare: Spare,
}

type Tell<'a> = &'a mut dyn FnMut(&Model, usize, &GraphFacts, Duration);

impl Plan for StepwisePlan {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn merging(&self) -> &Merging {
        &self.merging
    }

    fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn memory_bytes(&self) -> u64 {
        (self.model.bytes() + self.spare.bytes()) as u64
    }

    /// One run, however many are asked for; the rounds of a loop are summed.
    fn layers(&self, batch: &Batch, _runs: usize) -> Result<Vec<LayerReport>, EngineError> {
        let mut reports: Vec<LayerReport> = Vec::new();
        let (mut seen, mut peaks) = (HashMap::new(), Peaks::new(self.model.limits.level));
        let mut tell = |model: &Model, node: usize, facts: &GraphFacts, time: Duration| {
            let at = *seen.entry((std::ptr::from_ref(model), node)).or_insert(reports.len());
            match reports.get_mut(at) {
                Some(report) => report.time += time,
                None => reports.push(report(model, facts, node, time, &mut peaks)),
            }
        };
        self.run_entry(&batch.inputs, &mut Team::alone(), &mut tell)?;
        Ok(reports)
    }

    fn follows_contents(&self) -> bool {
        true
    }

    fn random_operator(&self) -> Option<&str> {
        let mut operators = self.model.graph.programs().into_iter().map(Program::operator);
        operators.find(|operator| DRAWING.contains(operator))
    }

    fn run(&self, batch: &Batch, cores: &Cores) -> Result<Executed, EngineError> {
        self.signature.check_batch(batch, false)?;
        let helped = cores.helper_cpu();
        let mut times = ComputeTimes::default();
        let mut shares = Vec::with_capacity(batch.rows.len());
        for position in 0..batch.rows.len() {
            let entry = if batch.rows.len() == 1 { None } else { Some(batch.entry(position)) };
            let inputs = &entry.as_ref().unwrap_or(batch).inputs;
            let (share, taken) =
                self.run_entry(inputs, &mut cores.team(self.model.limits.threads_max), &mut |_, _, _, _| {})?;
            shares.push(share);
            times.gather += taken.gather;
            times.infer += taken.infer;
            times.scatter += taken.scatter;
        }
        Ok(Executed { shares, times, helper_cpu: cores.helper_cpu().saturating_sub(helped) })
    }

    /// What a run does depends on contents that nobody can make up.
    fn warm_up(&self, _batch_size_max: usize, _cores: &Cores) -> Result<(), EngineError> {
        Ok(())
    }
}

impl StepwisePlan {
    fn run_entry(
        &self,
        inputs: &[BatchInput],
        team: &mut Team,
        tell: Tell<'_>,
    ) -> Result<(Share, ComputeTimes), EngineError> {
        let started = Instant::now();
        let limit = self.model.limits.arena_bytes_max;
        let mut memory = self.spare.memory(limit);
        let given = inputs.iter().map(|input| {
            let fact = Fact::new(input.dtype, input.shape.clone());
            Value::given(fact, &mut memory, |to| {
                input.gather_from(0, to);
                if input.dtype == DType::Bool {
                    to.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
                }
            })
        });
        let given: Option<Vec<Value<'_>>> = given.collect();
        let shapes = || inputs.iter().map(|input| &input.shape);
        let given =
            given.ok_or_else(|| unfit(&self.model, shapes(), &format!("the inputs need more than {limit} bytes")))?;
        let gathered = Instant::now();
        let made = run(&self.model, given, &mut Walk { memory: &mut memory, team, tell });
        let made = made.map_err(|error| match error {
            NotRun::Endless { .. } => EngineError::Failed(error.to_string()),
            NotRun::Unfit { .. } => EngineError::InvalidContents(error.to_string()),
            _ => unfit(&self.model, shapes(), &error.to_string()),
        })?;
        let ran = Instant::now();
        let outputs = made.iter().zip(&self.signature.outputs).map(|(value, spec)| {
            let bytes = Bytes::copy_from_slice(value.bytes());
            let tensor = Tensor::new(value.fact.dtype, value.fact.shape.clone(), bytes);
            let wrong = |problem: String| EngineError::Failed(format!("output {:?}: {problem}", spec.name));
            match tensor {
                Ok(tensor) if tensor.dtype() == spec.dtype => Ok(tensor),
                Ok(tensor) => Err(wrong(format!("it declares {}, its operator makes {}", spec.dtype, tensor.dtype()))),
                Err(error) => Err(wrong(error.to_string())),
            }
        });
        let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        let times = ComputeTimes { gather: gathered - started, infer: ran - gathered, scatter: ran.elapsed() };
        Ok((outputs, times))
    }
}

/// Operators of the standard that draw random numbers, with a seed too: they go on from it at every run.
const DRAWING: &[&str] =
    &["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"];
