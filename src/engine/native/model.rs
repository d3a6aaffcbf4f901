//! A model for any extents: its graph without the contents of packed weights, and a layer for every node.

use std::ops::Range;

use kinglet_kernels::f32_gemm::PairGemm;
use kinglet_kernels::{Aligned, Level};

use super::layers::{self, Layer, Lowering};
use super::tuning::Tuning;
use super::{factors, halves};
use crate::engine::beside::beside_each_other;
use crate::engine::graph::control::{Body, Repeat, Several};
use crate::engine::graph::samples::{GraphFacts, Inputs, Others, Samples, Stopped};
use crate::engine::graph::{Fact, Graph, Node, Op, ValueId};
use crate::engine::{EngineError, LoadOptions, Precision, passes};
use crate::tensor::{DType, Shape, Tensor};

#[derive(Debug)]
pub(super) struct Model {
    /// Constants here have the contents that shapes may depend on; others were packed or are in `constants`.
    pub(super) graph: Graph,
    /// For every node.
    pub(super) layers: Vec<Layered>,
    /// Constants that layers take at run time, by value.
    pub(super) constants: Vec<Option<Aligned>>,
    /// For every node, the values that it is the last to take.
    pub(super) ends: Vec<Vec<ValueId>>,
    /// Values that lie in memory as bf16.
    halves: Vec<ValueId>,
    pub(super) limits: Limits,
}

#[derive(Debug)]
pub(super) struct Layered {
    pub(super) layer: Box<dyn Layer>,
    /// What the layer takes at run time.
    pub(super) operands: Vec<ValueId>,
    /// Models within the node.
    pub(super) bodies: Vec<Model>,
}

/// What models and their runs may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) level: Level,
    pub(super) precision: Precision,
    /// Bytes that a run may need for its values.
    pub(super) arena_bytes_max: usize,
    /// Threads that a run may have at most.
    pub(super) threads_max: usize,
    /// Rounds of one loop.
    pub(super) rounds_max: u64,
}

impl Limits {
    pub(super) fn of(options: &LoadOptions) -> Self {
        Self {
            level: Level::detect(options.isa_max),
            precision: options.precision,
            arena_bytes_max: usize::try_from(options.arena_bytes_max).unwrap_or(usize::MAX),
            threads_max: options.cores_max.max(1),
            rounds_max: options.loop_rounds_max,
        }
    }

    fn lowering(self, tuning: &Tuning) -> Lowering<'_> {
        Lowering { level: self.level, precision: self.precision, tuning: Some(tuning) }
    }
}

impl Model {
    /// Runs the passes, packs weights and drops their originals. Returns what samples say of the graph, too.
    pub(super) fn compile(
        imported: Graph,
        inputs: &Inputs<'_>,
        limits: Limits,
        tuning: &Tuning,
    ) -> Result<(Self, Samples), EngineError> {
        let level = limits.level;
        let mut graph =
            passes::run(imported, inputs, &move |graph, node, operands| evaluate(graph, node, operands, level))
                .map_err(stopped)?;
        let mut samples = samples(&graph, inputs, Others::Different, level).map_err(stopped)?;
        samples.forget_constants(&graph);
        factors::settle(&mut graph, &samples, limits.lowering(tuning));
        Ok((Self::new(graph, &samples, limits, tuning)?, samples))
    }

    fn new(mut graph: Graph, samples: &Samples, limits: Limits, tuning: &Tuning) -> Result<Self, EngineError> {
        let lowering = limits.lowering(tuning);
        let mut layers = Vec::with_capacity(graph.nodes.len());
        let mut constants: Vec<Option<Aligned>> = (0..graph.value_count()).map(|_| None).collect();
        let ends = ends(&graph);
        // What runs beside a measurement would be measured too.
        let threads = if tuning.may_measure() { 1 } else { limits.threads_max };
        while layers.len() < graph.nodes.len() {
            let round = round(&graph, layers.len());
            let size = |at: usize| weights_bytes(&graph, &graph.nodes[at]);
            let made = beside_each_other(threads, round.clone(), size, |at| {
                let node = &graph.nodes[at];
                let lowered = layers::lower(&graph, node, samples.0[0].get(node.output), lowering);
                let lowered = lowered.map_err(|error| EngineError::UnsupportedOperator {
                    operator: node.name.clone(),
                    reason: error.to_string(),
                })?;
                let bodies = bodies(&graph, node, samples, limits, tuning)?;
                Ok(Layered { layer: lowered.layer, operands: lowered.operands, bodies })
            });
            for layered in made {
                let layered = layered?;
                keep(&mut constants, &graph, &layered.operands);
                layers.push(layered);
            }
            // At once: originals of all weights would take as much memory as those that are packed.
            for &end in ends[round].iter().flatten() {
                graph.forget_contents(end, CONTENTS_KEPT_MAX);
            }
        }
        keep(&mut constants, &graph, &graph.outputs);
        graph.values().for_each(|value| graph.forget_contents(value, CONTENTS_KEPT_MAX));
        let rounds = limits.precision == Precision::Bf16 && PairGemm::is_faster(limits.level);
        let halves = if rounds { halves::find(&graph, &layers, samples) } else { Vec::new() };
        Ok(Self { graph, layers, constants, ends, halves, limits })
    }

    /// Facts of all values for these inputs.
    pub(super) fn infer(&self, inputs: Vec<Fact>) -> Result<GraphFacts, Stopped> {
        let evaluate = |node: &Node, operands: &[&Tensor]| evaluate(&self.graph, node, operands, self.limits.level);
        GraphFacts::infer(&self.graph, inputs, &evaluate)
    }

    /// As `infer`, with the types that values lie in memory as.
    pub(super) fn infer_stored(&self, inputs: Vec<Fact>) -> Result<GraphFacts, Stopped> {
        let mut facts = self.infer(inputs)?;
        self.halves.iter().for_each(|&value| facts.store_as(value, DType::Bf16));
        Ok(facts)
    }

    /// Bytes of packed weights and other constants.
    pub(super) fn bytes(&self) -> usize {
        let within = |layered: &Layered| layered.bodies.iter().map(Self::bytes).sum::<usize>();
        let packed: usize = self.layers.iter().map(|layered| layered.layer.bytes() + within(layered)).sum();
        packed + self.constants.iter().flatten().map(Aligned::bytes).sum::<usize>()
    }
}

/// Nodes from one on that are packed before their originals go: as many as have so many bytes of weights together.
fn round(graph: &Graph, from: usize) -> Range<usize> {
    let mut bytes = 0;
    let is_full = |node: &Node| {
        bytes += weights_bytes(graph, node);
        bytes >= ROUND_BYTES
    };
    let count = graph.nodes[from..].iter().position(is_full).map_or(graph.nodes.len() - from, |last| last + 1);
    from..from + count
}

fn weights_bytes(graph: &Graph, node: &Node) -> usize {
    let constants = node.inputs.iter().filter_map(|&input| graph.constant(input));
    constants.map(|constant| constant.bytes().len()).sum()
}

/// Copies constants that are taken at run time.
fn keep(constants: &mut [Option<Aligned>], graph: &Graph, taken: &[ValueId]) {
    for &value in taken {
        if let (None, Some(tensor)) = (&constants[value.index()], graph.constant(value)) {
            constants[value.index()] = Some(Aligned::of(tensor.bytes()));
        }
    }
}

/// For every node, the values that nothing takes after it.
fn ends(graph: &Graph) -> Vec<Vec<ValueId>> {
    let mut taken = vec![false; graph.value_count()];
    graph.outputs.iter().for_each(|output| taken[output.index()] = true);
    let mut ends: Vec<Vec<ValueId>> = graph.nodes.iter().map(|_| Vec::new()).collect();
    for (node, ends) in graph.nodes.iter().zip(&mut ends).rev() {
        let values = node.inputs.iter().chain([&node.output]);
        ends.extend(values.filter(|value| !std::mem::replace(&mut taken[value.index()], true)));
    }
    ends
}

/// What samples say of a graph.
pub(super) fn samples(graph: &Graph, inputs: &Inputs<'_>, vary: Others, level: Level) -> Result<Samples, Stopped> {
    Samples::of(graph, inputs, vary, &|node, operands| evaluate(graph, node, operands, level))
}

/// Computes a node from constants.
pub(super) fn evaluate(graph: &Graph, node: &Node, operands: &[&Tensor], level: Level) -> Option<Tensor> {
    layers::evaluate(graph, node, operands, level)
}

pub(super) fn stopped(error: Stopped) -> EngineError {
    EngineError::UnsupportedOperator { operator: error.node, reason: error.source.to_string() }
}

/// The models of graphs within a node, by what is known of the values that they will be given.
fn bodies(
    graph: &Graph,
    node: &Node,
    samples: &Samples,
    limits: Limits,
    tuning: &Tuning,
) -> Result<Vec<Model>, EngineError> {
    let known = |values: &[ValueId]| {
        let known = |sample: usize, value: ValueId| match graph.constant(value) {
            Some(constant) => Some(Fact::of(constant.clone())),
            None => samples.0[sample].get(value).cloned(),
        };
        [0, 1].map(|sample| values.iter().map(|&value| known(sample, value)).collect::<Vec<_>>())
    };
    let compile = |body: &Body, given: &[ValueId], before: [Vec<Option<Fact>>; 2]| {
        let mut inner = (*body.0).clone();
        let captured = inner.inputs[before[0].len()..].to_vec();
        for (input, constant) in captured.into_iter().zip(given.iter().map(|&value| graph.constant(value))) {
            if let Some(constant) = constant {
                inner.fix(input, constant.clone());
            }
        }
        let [a, b] = before;
        let [more_a, more_b] = known(given);
        let facts = [[a, more_a].concat(), [b, more_b].concat()];
        Model::compile(inner, &Inputs::Given(facts), limits, tuning).map(|(model, _)| model)
    };
    match &node.op {
        Op::Several(Several::Branch(branch)) => {
            branch.bodies.iter().map(|body| compile(body, &node.inputs[1..], [vec![], vec![]])).collect()
        }
        Op::Several(Several::Repeat(Repeat { body, carried, .. })) => {
            let scalar = |dtype| Some(Fact::new(dtype, Shape::new(&[])));
            let mut before = vec![scalar(DType::I64), scalar(DType::Bool)];
            before.resize(2 + carried, None);
            let given = &node.inputs[2 + carried..];
            Ok(vec![compile(body, given, [before.clone(), before])?])
        }
        _ => Ok(Vec::new()),
    }
}

/// Enough that threads rarely wait for each other, and little beside a model of that size.
const ROUND_BYTES: usize = 32 << 20;

/// Shapes may depend on constants of so many elements.
const CONTENTS_KEPT_MAX: usize = 4096;
