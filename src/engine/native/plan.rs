//! A loaded model: cuts a batch into pieces that stay in the cache, and runs them on the cores of its job.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use kinglet_kernels::peak::Products;
use kinglet_kernels::{Fill, Level};

use super::chain::Chain;
use super::model::Model;
use super::prepared::{Extents, Prepared};
use super::run::{Arenas, Given};
use super::specialise::{Step, Work, fact};
use super::times::Times;
use crate::engine::batch::{regroup, scatter};
use crate::engine::graph::Fact;
use crate::engine::graph::samples::GraphFacts;
use crate::engine::made_up;
use crate::engine::pool::Team;
use crate::engine::{
    Batch, BatchInput, Cores, Dim, EngineError, Executed, LayerReport, Merging, Part, Plan, Share, Signature,
    TensorSpec,
};
use crate::infer::ComputeTimes;
use crate::tensor::Tensor;

#[derive(Debug)]
pub(super) struct NativePlan {
    pub(super) model: Model,
    pub(super) signature: Signature,
    pub(super) merging: Merging,
    pub(super) parts: [Part; 1],
    pub(super) prepared: Prepared,
    pub(super) arenas: Arenas,
    /// Of one core, once measured.
    pub(super) times: OnceLock<Times>,
    pub(super) warm_up_time_max: Duration,
}

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
        (self.model.bytes() + self.arenas.bytes()) as u64
    }

    fn layers(&self, batch: &Batch, runs: usize) -> Result<Vec<LayerReport>, EngineError> {
        let prepared = self.prepared.get(&self.model, &extents(&batch.inputs, None))?;
        let mut shortest = vec![Duration::MAX; prepared.steps.len()];
        for _ in 0..runs.max(1) {
            let mut at = 0;
            let given = Given { inputs: &batch.inputs, from: 0 };
            self.model.run(&prepared, given, (&self.arenas, &mut Team::alone()), &self.signature.outputs, |time| {
                shortest[at] = shortest[at].min(time);
                at += 1;
            })?;
        }
        let (steps, mut peaks) = (prepared.steps.iter().zip(shortest), Peaks::new(self.model.limits.level));
        let report = |(step, time): (&Step, Duration)| match &step.work {
            Work::Layer(node) => report(&self.model, &prepared.facts, *node, time, &mut peaks),
            Work::Chain(chain) => chain_report(&self.model, &prepared.facts, chain, time, &mut peaks),
        };
        Ok(steps.map(report).collect())
    }

    fn time_of(&self, rows: usize) -> Option<Duration> {
        self.times.get()?.of(rows)
    }

    fn run(&self, batch: &Batch, cores: &Cores) -> Result<Executed, EngineError> {
        self.signature.check_batch(batch, self.merging == Merging::Rows)?;
        let helped = cores.helper_cpu();
        let (shares, times) = match self.merging {
            Merging::Rows => self.run_rows(batch, cores)?,
            Merging::Alone { .. } => self.run_alone(batch, cores)?,
        };
        Ok(Executed { shares, times, helper_cpu: cores.helper_cpu().saturating_sub(helped) })
    }

    fn warm_up(&self, batch_size_max: usize, _cores: &Cores) -> Result<(), EngineError> {
        let batched = self.merging == Merging::Rows;
        let decided =
            |spec: &TensorSpec| spec.dims.iter().skip(usize::from(batched)).any(|dim| matches!(dim, Dim::Free(_)));
        let is_wanted = !self.warm_up_time_max.is_zero() && self.times.get().is_none();
        if is_wanted && !self.signature.inputs.iter().any(decided) {
            let rows_max = if batched { batch_size_max } else { 1 };
            let times = Times::measure(rows_max, self.warm_up_time_max, |rows| self.run_made_up(rows))?;
            // Somebody else may have been faster; either result is right.
            let _ = self.times.set(times);
        }
        Ok(())
    }
}

impl NativePlan {
    /// Cores for a run that takes so long on one, where that is known: others are worth it where they are awake, or where
    /// they have woken long before its end.
    fn team(&self, time: Option<Duration>, cores: &Cores) -> Team {
        let is_worth_it =
            |time| time >= WOKEN_TIME_MIN || (time >= AWAKE_TIME_MIN && cores.limit() > 1 && cores.are_awake());
        cores.team(if time.is_none_or(is_worth_it) { self.model.limits.threads_max } else { 1 })
    }

    /// Rows of all entries, in pieces at most of the size that was measured to be fastest: beyond it activations leave the
    /// cache. Pieces run beside each other where there are several, and a single one shares its steps out.
    fn run_rows(&self, batch: &Batch, cores: &Cores) -> Result<(Vec<Share>, ComputeTimes), EngineError> {
        let rows = batch.rows_total();
        let times = self.times.get();
        let mut team = self.team(times.and_then(|times| times.of(rows)), cores);
        let count = times.map_or(1, |times| times.pieces(rows, team.size()));
        let first = |at: usize| at * (rows / count) + at.min(rows % count);
        let sizes: Vec<usize> = (0..count).map(|at| first(at + 1) - first(at)).collect();
        let run = |at: usize, team: &mut Team| {
            let given = Given { inputs: &batch.inputs, from: first(at) };
            self.run_piece(given, Some(sizes[at]), team)
        };
        if let [_] = sizes[..] {
            let (outputs, times) = run(0, &mut team)?;
            let started = Instant::now();
            let shares = scatter(&outputs, &batch.rows);
            return Ok((shares, ComputeTimes { scatter: times.scatter + started.elapsed(), ..times }));
        }
        let started = Instant::now();
        let outputs: Vec<OnceLock<_>> = sizes.iter().map(|_| OnceLock::new()).collect();
        team.for_each(sizes.len(), &|at| {
            // Each position is run once.
            let _ = outputs[at].set(run(at, &mut Team::alone()));
        });
        let lost = || EngineError::Failed("a part of the batch was not run".into());
        let outputs = outputs.into_iter().map(|output| output.into_inner().unwrap_or_else(|| Err(lost())));
        let outputs = outputs.map(|output| Ok(output?.0)).collect::<Result<Vec<_>, EngineError>>()?;
        let ran = Instant::now();
        let shares = regroup(&outputs, &sizes, &batch.rows, &self.arenas.outputs);
        // Gathering and scattering of pieces is part of running them beside each other.
        let times = ComputeTimes { gather: Duration::ZERO, infer: ran - started, scatter: ran.elapsed() };
        Ok((shares, times))
    }

    /// Entries one after the other, each as a whole.
    fn run_alone(&self, batch: &Batch, cores: &Cores) -> Result<(Vec<Share>, ComputeTimes), EngineError> {
        let mut times = ComputeTimes::default();
        let mut shares = Vec::with_capacity(batch.rows.len());
        let mut team = self.team(self.time_of(1), cores);
        for position in 0..batch.rows.len() {
            let entry = if batch.rows.len() == 1 { None } else { Some(batch.entry(position)) };
            let inputs = &entry.as_ref().unwrap_or(batch).inputs;
            let (share, taken) = self.run_piece(Given { inputs, from: 0 }, None, &mut team)?;
            shares.push(share);
            times.gather += taken.gather;
            times.infer += taken.infer;
            times.scatter += taken.scatter;
        }
        Ok((shares, times))
    }

    /// So many rows, or all of inputs that have none.
    fn run_piece(
        &self,
        given: Given<'_>,
        rows: Option<usize>,
        team: &mut Team,
    ) -> Result<(Vec<Tensor>, ComputeTimes), EngineError> {
        let prepared = self.prepared.get(&self.model, &extents(given.inputs, rows))?;
        self.model.run(&prepared, given, (&self.arenas, team), &self.signature.outputs, |_| {})
    }

    /// How long a batch takes here. One row of zeros would take no time: what meets them is not read.
    fn run_made_up(&self, rows: usize) -> Result<Duration, EngineError> {
        // No axis but that of rows is free.
        let batch = made_up::batch(self, rows, 1)?;
        let batched = (self.merging == Merging::Rows).then_some(rows);
        let (_, times) = self.run_piece(Given { inputs: &batch.inputs, from: 0 }, batched, &mut Team::alone())?;
        Ok(times.total())
    }
}

/// What `inspect` tells of a node that ran.
pub(super) fn report(model: &Model, facts: &GraphFacts, node: usize, time: Duration, peaks: &mut Peaks) -> LayerReport {
    let layered = &model.layers[node];
    let node = &model.graph.nodes[node];
    let out = fact(facts, node.output);
    let operands = || layered.operands.iter().filter(|&&value| model.graph.constant_elements(value).is_none());
    let taken: usize = layered.operands.iter().filter_map(|&value| fact(facts, value).bytes()).sum();
    let activations: usize = operands().filter_map(|&value| fact(facts, value).shape.element_count()).sum();
    let parameters: usize = node.inputs.iter().filter_map(|&value| model.graph.constant_elements(value)).sum();
    let (macs, kernel) = (facts.macs(node).unwrap_or(0), layered.layer.kernel(out.dtype));
    LayerReport {
        name: node.name.clone(),
        operator: node.op.name(),
        shape: out.shape.clone(),
        dtype: out.dtype,
        macs,
        time,
        peak: if macs > 0 { peaks.of(&kernel) } else { None },
        kernel,
        parameters: parameters as u64,
        activations: (activations + out.shape.element_count().unwrap_or(0)) as u64,
        bytes: (taken + out.bytes().unwrap_or(0) + layered.layer.bytes()) as u64,
        weight_bytes: layered.layer.bytes() as u64,
        fill: layered.layer.fill(),
    }
}

/// What `inspect` tells of layers that ran as one step: what lies between them is no memory that moves.
fn chain_report(model: &Model, facts: &GraphFacts, chain: &Chain, time: Duration, peaks: &mut Peaks) -> LayerReport {
    let links: Vec<LayerReport> = chain.nodes().map(|node| report(model, facts, node, time, peaks)).collect();
    let macs = links.iter().map(|link| link.macs).sum();
    let node = |node: usize| &model.graph.nodes[node];
    let made = fact(facts, node(chain.last()).output);
    let (first, last) = (links.first().map(|link| link.name.as_str()), node(chain.last()));
    let taken = chain.operands(model).chain([last.output]);
    let moved: Vec<&Fact> = taken.map(|value| fact(facts, value)).collect();
    let weights: usize = chain.nodes().map(|node| model.layers[node].layer.bytes()).sum();
    LayerReport {
        name: format!("{} .. {}", first.unwrap_or_default(), last.name),
        operator: "Chain",
        shape: made.shape.clone(),
        dtype: made.dtype,
        macs,
        kernel: chain.kernel(),
        time,
        peak: LayerReport::peak_of(&links),
        parameters: links.iter().map(|link| link.parameters).sum(),
        activations: moved.iter().filter_map(|fact| fact.shape.element_count()).sum::<usize>() as u64,
        bytes: (moved.iter().filter_map(|fact| fact.bytes()).sum::<usize>() + weights) as u64,
        weight_bytes: weights as u64,
        fill: links.iter().filter_map(|link| link.fill).reduce(Fill::with),
    }
}

/// What one core can do, measured once for each kind of products that occurs.
pub(super) struct Peaks {
    level: Level,
    known: Vec<(Products, f64)>,
}

impl Peaks {
    pub(super) fn new(level: Level) -> Self {
        Self { level, known: Vec::new() }
    }

    /// Of the products that a kernel does.
    fn of(&mut self, kernel: &str) -> Option<f64> {
        let products = Products::of_kernel(kernel)?;
        let known = self.known.iter().find(|(of, _)| *of == products).map(|(_, peak)| *peak);
        known.or_else(|| {
            let peak = products.peak(self.level);
            self.known.push((products, peak));
            Some(peak)
        })
    }
}

fn extents(inputs: &[BatchInput], rows: Option<usize>) -> Extents {
    let shape = |input: &BatchInput| rows.map_or_else(|| input.shape.clone(), |rows| input.shape.with_rows(rows));
    inputs.iter().map(shape).collect()
}

/// What takes less time on one core stays there: waking another takes as long.
const WOKEN_TIME_MIN: Duration = Duration::from_micros(100);

/// The same where another is awake: each step's work takes some hundred nanoseconds to hand over.
const AWAKE_TIME_MIN: Duration = Duration::from_micros(15);
