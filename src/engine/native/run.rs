//! One run: inputs into an arena, all steps in order, outputs out of it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kinglet_kernels::Aligned;

use super::layers::{Io, Unfit, View, ViewMut};
use super::memory;
use super::model::Model;
use super::specialise::{Source, Specialised, Step, Work, fact};
use crate::engine::graph::Fact;
use crate::engine::graph::infer::PerOperand;
use crate::engine::kept::Kept;
use crate::engine::pool::{Team, lock};
use crate::engine::{BatchInput, EngineError, TensorSpec};
use crate::infer::ComputeTimes;
use crate::tensor::{DType, Tensor};

/// Arenas that no run uses at the moment, and memory of outputs that nobody reads any more. A run that panics takes its
/// arena with it.
#[derive(Debug, Default)]
pub(super) struct Arenas {
    idle: Mutex<Vec<Aligned>>,
    pub(super) outputs: Kept,
}

/// What a run is given: some rows of inputs, or all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given<'a> {
    pub(super) inputs: &'a [BatchInput],
    /// The first row.
    pub(super) from: usize,
}

impl Arenas {
    pub(super) fn bytes(&self) -> usize {
        lock(&self.idle).iter().map(Aligned::bytes).sum::<usize>() + self.outputs.bytes()
    }

    fn lend(&self, bytes: usize) -> Aligned {
        let arena = lock(&self.idle).pop().unwrap_or_default();
        if arena.bytes() < bytes { Aligned::zeroed(bytes) } else { arena }
    }

    fn give_back(&self, arena: Aligned) {
        lock(&self.idle).push(arena);
    }
}

impl Model {
    /// Runs what was prepared. `tell` hears after each step how long it took.
    pub(super) fn run(
        &self,
        prepared: &Specialised,
        given: Given<'_>,
        (arenas, team): (&Arenas, &mut Team),
        outputs: &[TensorSpec],
        tell: impl FnMut(Duration),
    ) -> Result<(Vec<Tensor>, ComputeTimes), EngineError> {
        let started = Instant::now();
        let mut arena = arenas.lend(prepared.arena_bytes);
        let memory: &mut [u8] = arena.elements_mut();
        for (input, place) in given.inputs.iter().zip(&prepared.inputs) {
            let to = &mut memory[place.clone()];
            let row_bytes = input.pieces.iter().map(Bytes::len).sum::<usize>().checked_div(input.shape.rows());
            input.gather_from(given.from * row_bytes.unwrap_or(0), to);
            if input.dtype == DType::Bool {
                to.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
            }
        }
        let gathered = Instant::now();
        let run = self.steps(prepared, memory, team, tell);
        let ran = Instant::now();
        let made = run.and_then(|()| self.outputs(prepared, memory, outputs, &arenas.outputs));
        arenas.give_back(arena);
        let times = ComputeTimes { gather: gathered - started, infer: ran - gathered, scatter: ran.elapsed() };
        Ok((made?, times))
    }

    fn steps(
        &self,
        prepared: &Specialised,
        memory: &mut [u8],
        team: &mut Team,
        mut tell: impl FnMut(Duration),
    ) -> Result<(), EngineError> {
        for step in &prepared.steps {
            let started = Instant::now();
            let ran = self.step(prepared, step, memory, team);
            let node = || &self.graph.nodes[step.work.node()].name;
            ran.map_err(|unfit| EngineError::InvalidContents(format!("{}: {unfit}", node())))?;
            tell(started.elapsed());
        }
        Ok(())
    }

    /// One step over its places of the arena. Takes nothing from the allocator, but for rare operators.
    pub(super) fn step(
        &self,
        prepared: &Specialised,
        step: &Step,
        memory: &mut [u8],
        team: &mut Team,
    ) -> Result<(), Unfit> {
        let in_arena = |source: &Source| if let Source::Arena(place) = source { place.clone() } else { 0..0 };
        let places: PerOperand<_> = step.operands.iter().map(|(_, source)| in_arena(source)).collect();
        let ([output, scratch], read) = memory::views(memory, [&step.output, &step.scratch], &places);
        let operands = step.operands.iter().zip(read).map(|((value, source), read)| {
            let fact = fact(&prepared.facts, *value);
            let bytes = if let Source::Arena(_) = source { read } else { self.bytes_of(prepared, source, &[], fact) };
            View { fact, bytes }
        });
        let made = fact(&prepared.facts, self.graph.nodes[step.work.node()].output);
        let output = ViewMut { fact: made, bytes: output };
        let mut io = Io { operands: operands.collect(), output, scratch };
        match &step.work {
            Work::Layer(node) => io.run(&*self.layers[*node].layer, team)?,
            Work::Chain(chain) => chain.run(self, &prepared.facts, &mut io, team),
        }
        Ok(())
    }

    fn outputs(
        &self,
        prepared: &Specialised,
        memory: &[u8],
        specs: &[TensorSpec],
        kept: &Kept,
    ) -> Result<Vec<Tensor>, EngineError> {
        let values = self.graph.outputs.iter().zip(&prepared.outputs).zip(specs);
        let output = |((&value, source), spec): ((_, &Source), &TensorSpec)| {
            let fact = fact(&prepared.facts, value);
            let bytes = self.bytes_of(prepared, source, memory, fact);
            let bytes = kept.joined(bytes.len(), [bytes].into_iter());
            let tensor = Tensor::new(spec.dtype, fact.shape.clone(), bytes);
            tensor.map_err(|error| EngineError::Failed(format!("output {:?}: {error}", spec.name)))
        };
        values.map(output).collect()
    }

    fn bytes_of<'a>(&'a self, prepared: &'a Specialised, source: &Source, memory: &'a [u8], fact: &Fact) -> &'a [u8] {
        let length = fact.bytes().unwrap_or(0);
        match source {
            Source::Arena(place) => &memory[place.clone()],
            Source::Constant(value) => {
                self.constants[value.index()].as_ref().map_or(&[][..], |constant| &constant.elements()[..length])
            }
            Source::Known(at) => &prepared.known[*at].elements()[..length],
        }
    }
}
