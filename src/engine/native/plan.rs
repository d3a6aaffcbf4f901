//! A loaded model: finds what was prepared for a batch's extents, lends it an arena, and runs its steps.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kinglet_kernels::Aligned;
use smallvec::SmallVec;

use super::layers::{Io, View, ViewMut};
use super::memory;
use super::model::Model;
use super::specialise::{Source, Specialised, Step, fact, specialise};
use super::team::Team;
use crate::engine::batch::scatter;
use crate::engine::graph::Fact;
use crate::engine::{
    Batch, BatchInput, Cores, Dim, EngineError, Executed, LayerReport, Merging, Part, Plan, Share, Signature,
};
use crate::infer::ComputeTimes;
use crate::telemetry::PlanMetrics;
use crate::tensor::{DType, Shape, Tensor};

#[derive(Debug)]
pub(super) struct NativePlan {
    pub(super) model: Model,
    pub(super) signature: Signature,
    pub(super) merging: Merging,
    pub(super) parts: [Part; 1],
    pub(super) prepared: Prepared,
    /// Arenas that no run uses at the moment.
    pub(super) arenas: Mutex<Vec<Aligned>>,
    /// Of a batch of one row and of the largest, once measured.
    pub(super) times: OnceLock<Times>,
    pub(super) warm_up_time_max: Duration,
}

/// How long batches take on one core: a straight line through the smallest and the largest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    one: Duration,
    rows: usize,
    largest: Duration,
}

/// What was prepared for extents seen lately, at most `limit` of them.
#[derive(Debug)]
pub(super) struct Prepared {
    kept: Mutex<HashMap<Extents, (Arc<Specialised>, u64)>>,
    limit: usize,
    clock: AtomicU64,
    metrics: PlanMetrics,
}

/// Shapes of all inputs.
type Extents = SmallVec<[Shape; 4]>;

impl Plan for NativePlan {
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
        let arenas: usize = lock(&self.arenas).iter().map(Aligned::bytes).sum();
        (self.model.bytes() + arenas) as u64
    }

    fn layers(&self, batch: &Batch) -> Result<Vec<LayerReport>, EngineError> {
        let prepared = self.prepared.get(&self.model, &batch.inputs)?;
        let mut shortest = vec![Duration::MAX; prepared.steps.len()];
        for _ in 0..REPORT_RUNS {
            let mut at = 0;
            self.run_prepared(&prepared, &batch.inputs, &mut ComputeTimes::default(), |time| {
                shortest[at] = shortest[at].min(time);
                at += 1;
            })?;
        }
        let report = |(step, time): (&Step, Duration)| {
            let node = &self.model.graph.nodes[step.node];
            let layer = &self.model.layers[step.node].layer;
            let out = fact(&prepared.facts, node.output);
            let moved: usize =
                step.operands.iter().filter_map(|(value, _)| fact(&prepared.facts, *value).bytes()).sum();
            LayerReport {
                name: node.name.clone(),
                operator: node.op.name(),
                shape: out.shape.clone(),
                macs: prepared.facts.macs(node).unwrap_or(0),
                kernel: layer.kernel(),
                time,
                bytes: (moved + out.bytes().unwrap_or(0) + layer.bytes()) as u64,
            }
        };
        Ok(prepared.steps.iter().zip(shortest).map(report).collect())
    }

    fn time_of(&self, rows: usize) -> Option<Duration> {
        let times = self.times.get()?;
        let more = times.largest.saturating_sub(times.one);
        let steps = u32::try_from(times.rows.saturating_sub(1)).ok()?.max(1);
        (rows <= times.rows).then(|| times.one + more * u32::try_from(rows.saturating_sub(1)).unwrap_or(0) / steps)
    }

    fn run(&self, batch: &Batch, cores: &Cores) -> Result<Executed, EngineError> {
        self.signature.check_batch(batch, self.merging == Merging::Rows)?;
        let helped = cores.helper_cpu();
        let mut times = ComputeTimes::default();
        let shares = match self.merging {
            Merging::Rows => {
                let outputs = self.run_inputs(&batch.inputs, &mut times)?;
                let started = Instant::now();
                let shares = scatter(&outputs, &batch.rows);
                times.scatter += started.elapsed();
                shares
            }
            Merging::Alone { .. } => {
                let run = |position| self.run_inputs(&batch.entry(position).inputs, &mut times);
                (0..batch.rows.len()).map(run).collect::<Result<Vec<Share>, _>>()?
            }
        };
        Ok(Executed { shares, times, helper_cpu: cores.helper_cpu().saturating_sub(helped) })
    }

    fn warm_up(&self, batch_size_max: usize, _cores: &Cores) -> Result<(), EngineError> {
        let batched = self.merging == Merging::Rows;
        let decided = |spec: &crate::engine::TensorSpec| {
            spec.dims.iter().skip(usize::from(batched)).any(|dim| matches!(dim, Dim::Free(_)))
        };
        if self.times.get().is_some() || self.signature.inputs.iter().any(decided) {
            return Ok(());
        }
        let one = self.timed(1)?;
        let mut times = Times { one, rows: 1, largest: one };
        let mut rows = 2;
        let started = Instant::now();
        while batched && rows <= batch_size_max && started.elapsed() < self.warm_up_time_max {
            times = Times { rows, largest: self.timed(rows)?, ..times };
            rows += 1;
        }
        // Somebody else may have been faster; either result is right.
        let _ = self.times.set(times);
        Ok(())
    }
}

impl NativePlan {
    /// The shortest of a few runs on zeros.
    fn timed(&self, rows: usize) -> Result<Duration, EngineError> {
        let input = |spec: &crate::engine::TensorSpec| {
            let extent = |(axis, dim): (usize, &Dim)| match dim {
                Dim::Fixed(extent) => *extent,
                Dim::Free(_) if axis == 0 => rows,
                Dim::Free(_) => 1,
            };
            let shape: Shape = spec.dims.iter().enumerate().map(extent).collect();
            let length = Fact::new(spec.dtype, shape.clone()).bytes().unwrap_or(0);
            BatchInput { dtype: spec.dtype, shape, pieces: vec![Bytes::from(vec![0; length])] }
        };
        let inputs: Vec<BatchInput> = self.signature.inputs.iter().map(input).collect();
        let mut shortest = Duration::MAX;
        for _ in 0..WARM_UP_RUNS {
            let started = Instant::now();
            self.run_inputs(&inputs, &mut ComputeTimes::default())?;
            shortest = shortest.min(started.elapsed());
        }
        Ok(shortest)
    }

    fn run_inputs(&self, inputs: &[BatchInput], times: &mut ComputeTimes) -> Result<Vec<Tensor>, EngineError> {
        let prepared = self.prepared.get(&self.model, inputs)?;
        self.run_prepared(&prepared, inputs, times, |_| {})
    }

    /// Tells after each step how long it took, to those who want to know.
    fn run_prepared(
        &self,
        prepared: &Specialised,
        inputs: &[BatchInput],
        times: &mut ComputeTimes,
        tell: impl FnMut(Duration),
    ) -> Result<Vec<Tensor>, EngineError> {
        let started = Instant::now();
        let mut arena = lock(&self.arenas).pop().unwrap_or_default();
        if arena.bytes() < prepared.arena_bytes {
            arena = Aligned::zeroed(prepared.arena_bytes);
        }
        let memory: &mut [u8] = arena.as_mut();
        for (input, place) in inputs.iter().zip(&prepared.inputs) {
            let to = &mut memory[place.clone()];
            input.gather(to);
            if input.dtype == DType::Bool {
                to.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
            }
        }
        let gathered = Instant::now();
        self.model.run(prepared, memory, &Team::alone(), tell);
        let ran = Instant::now();
        let outputs = self.outputs(prepared, memory)?;
        lock(&self.arenas).push(arena);
        times.gather += gathered - started;
        times.infer += ran - gathered;
        times.scatter += ran.elapsed();
        Ok(outputs)
    }

    fn outputs(&self, prepared: &Specialised, memory: &[u8]) -> Result<Vec<Tensor>, EngineError> {
        let values = self.model.graph.outputs.iter().zip(&prepared.outputs).zip(&self.signature.outputs);
        let output = |((&value, source), spec): ((_, &Source), &crate::engine::TensorSpec)| {
            let fact = fact(&prepared.facts, value);
            let bytes = Bytes::copy_from_slice(self.model.source(prepared, source, memory, fact));
            let tensor = Tensor::new(spec.dtype, fact.shape.clone(), bytes);
            tensor.map_err(|error| EngineError::Failed(format!("output {:?}: {error}", spec.name)))
        };
        values.map(output).collect()
    }
}

impl Model {
    /// Runs all steps in order.
    fn run(&self, prepared: &Specialised, memory: &mut [u8], team: &Team, mut tell: impl FnMut(Duration)) {
        for step in &prepared.steps {
            let started = Instant::now();
            let in_arena: SmallVec<[_; 4]> = step
                .operands
                .iter()
                .map(|(_, source)| if let Source::Arena(place) = source { place.clone() } else { 0..0 })
                .collect();
            let ([output, scratch], read) = memory::views(memory, [&step.output, &step.scratch], &in_arena);
            let operands = step.operands.iter().zip(read).map(|((value, source), read)| {
                let fact = fact(&prepared.facts, *value);
                View {
                    fact,
                    bytes: if let Source::Arena(_) = source { read } else { self.source(prepared, source, &[], fact) },
                }
            });
            let made = fact(&prepared.facts, self.graph.nodes[step.node].output);
            let mut io = Io { operands: operands.collect(), output: ViewMut { fact: made, bytes: output }, scratch };
            self.layers[step.node].layer.run(&mut io, team);
            tell(started.elapsed());
        }
    }

    fn source<'a>(&'a self, prepared: &'a Specialised, source: &Source, memory: &'a [u8], fact: &Fact) -> &'a [u8] {
        let length = fact.bytes().unwrap_or(0);
        match source {
            Source::Arena(place) => &memory[place.clone()],
            Source::Constant(value) => {
                self.constants[value.index()].as_ref().map_or(&[][..], |constant| &constant.as_ref()[..length])
            }
            Source::Known(at) => &prepared.known[*at].as_ref()[..length],
        }
    }
}

impl Prepared {
    pub(super) fn new(limit: usize, metrics: PlanMetrics) -> Self {
        Self { kept: Mutex::default(), limit: limit.max(1), clock: AtomicU64::new(0), metrics }
    }

    /// What was prepared for these inputs, prepared now where it was not. The one not used for longest makes room.
    fn get(&self, model: &Model, inputs: &[BatchInput]) -> Result<Arc<Specialised>, EngineError> {
        let extents: Extents = inputs.iter().map(|input| input.shape.clone()).collect();
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        if let Some((prepared, used)) = lock(&self.kept).get_mut(&extents) {
            *used = now;
            return Ok(Arc::clone(prepared));
        }
        let facts = inputs.iter().map(|input| Fact::new(input.dtype, input.shape.clone())).collect();
        let shown = || {
            let names = model.graph.inputs.iter().zip(&extents);
            let shown: Vec<String> =
                names.map(|(&input, shape)| format!("{}: {shape}", model.graph.name(input))).collect();
            shown.join(", ")
        };
        let prepared =
            specialise(model, facts).map_err(|error| EngineError::InvalidShape(format!("got {}: {error}", shown())))?;
        let prepared = Arc::new(prepared);
        let mut kept = lock(&self.kept);
        if kept.len() >= self.limit
            && let Some(oldest) = kept.iter().min_by_key(|(_, (_, used))| *used).map(|(extents, _)| extents.clone())
        {
            kept.remove(&oldest);
        }
        kept.insert(extents, (Arc::clone(&prepared), now));
        Ok(prepared)
    }
}

/// A panic in a step leaves the arena out and the rest whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs of which the shortest counts.
const WARM_UP_RUNS: usize = 3;
const REPORT_RUNS: usize = 20;
