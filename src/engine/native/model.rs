//! A model for any extents: its graph without the contents of packed weights, and a layer for every node.

use kinglet_kernels::{Aligned, Level};

use super::layers::{self, Layer};
use super::specialise::fact;
use crate::engine::EngineError;
use crate::engine::graph::samples::{GraphFacts, Stopped};
use crate::engine::graph::{Fact, Graph, Node, ValueId};
use crate::engine::pool::cores_available;
use crate::tensor::{DType, Tensor};

#[derive(Debug)]
pub(super) struct Model {
    /// Constants here have the contents that shapes may depend on; others were packed or are in `constants`.
    pub(super) graph: Graph,
    /// For every node.
    pub(super) layers: Vec<Layered>,
    /// Constants that layers take at run time, by value.
    pub(super) constants: Vec<Option<Aligned>>,
    /// Of the inputs.
    pub(super) dtypes: Vec<DType>,
    /// Bytes that a run may need for its values.
    pub(super) arena_bytes_max: usize,
    /// Threads that a run may have at most.
    pub(super) threads_max: usize,
    level: Level,
}

#[derive(Debug)]
pub(super) struct Layered {
    pub(super) layer: Box<dyn Layer>,
    /// What the layer takes at run time.
    pub(super) operands: Vec<ValueId>,
}

impl Model {
    /// Packs weights and drops their originals.
    pub(super) fn new(
        mut graph: Graph,
        sample: &GraphFacts,
        level: Level,
        arena_bytes_max: usize,
    ) -> Result<Self, EngineError> {
        let mut layers = Vec::with_capacity(graph.nodes.len());
        for node in &graph.nodes {
            let lowered = layers::lower(&graph, node, fact(sample, node.output), level);
            let lowered = lowered.map_err(|error| EngineError::UnsupportedOperator {
                operator: node.name.clone(),
                reason: error.to_string(),
            })?;
            layers.push(Layered { layer: lowered.layer, operands: lowered.operands });
        }
        let mut constants = vec![None; graph.value_count()];
        for &operand in layers.iter().flat_map(|layered| &layered.operands).chain(&graph.outputs) {
            if let Some(tensor) = graph.constant(operand) {
                constants[operand.index()] = Some(layers::aligned(tensor.bytes()));
            }
        }
        graph.forget_contents(CONTENTS_KEPT_MAX);
        let dtypes = graph.inputs.iter().map(|&input| fact(sample, input).dtype).collect();
        Ok(Self { graph, layers, constants, dtypes, arena_bytes_max, threads_max: cores_available(), level })
    }

    /// Facts of all values for these inputs.
    pub(super) fn infer(&self, inputs: Vec<Fact>) -> Result<GraphFacts, Stopped> {
        GraphFacts::infer(&self.graph, inputs, &|node, operands| evaluate(&self.graph, node, operands, self.level))
    }

    /// Bytes of packed weights and other constants.
    pub(super) fn bytes(&self) -> usize {
        let packed: usize = self.layers.iter().map(|layered| layered.layer.bytes()).sum();
        packed + self.constants.iter().flatten().map(Aligned::bytes).sum::<usize>()
    }
}

/// Computes a node from constants.
pub(super) fn evaluate(graph: &Graph, node: &Node, operands: &[&Tensor], level: Level) -> Option<Tensor> {
    layers::evaluate(graph, node, operands, level)
}

/// Shapes may depend on constants of so many elements.
const CONTENTS_KEPT_MAX: usize = 4096;
