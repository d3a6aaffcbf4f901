//! Facts of a whole graph, for given extents; and what holds for all extents, learned from samples.
//!
//! Samples give each free axis a prime that no model has by accident. What two samples agree on is taken for fixed, which
//! an accident can make wrong: a pass that relies on it says so ([`Graph::assume`]), and inference for a request's own
//! extents refuses what does not fit. Values whose shapes follow from contents have no fact in a sample, nor has what is
//! made of them.

use kinglet_kernels::f32_attention::Extents;

use super::infer::{self, Fact, Facts, InferError};
use super::tried::{Pair, Tried};
use super::{Graph, Node, Op, ValueId};
use crate::engine::TensorSpec;
use crate::tensor::{DType, Shape, Tensor};

/// Facts by value; constants and computed values have one, values of dead nodes none.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct GraphFacts(Vec<Option<Fact>>);

/// The same graph under different extents of its free axes.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Samples(pub(in crate::engine) [GraphFacts; 2]);

/// What samples are made from.
#[derive(Clone, Debug)]
pub(in crate::engine) enum Inputs<'a> {
    /// What a model declares, in the order of its inputs.
    Declared(&'a [TensorSpec]),
    /// Facts of a graph's inputs in both samples, where there are any.
    Given(Pair),
}

/// Whether free axes besides the batch differ between samples too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Others {
    Different,
    Same,
}

/// Computes a node whose operands are all known.
pub(in crate::engine) type Evaluate<'a> = &'a dyn Fn(&Node, &[&Tensor]) -> Option<Tensor>;

/// Where inference stopped.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{node}: {source}")]
pub(in crate::engine) struct Stopped {
    pub(in crate::engine) node: String,
    pub(in crate::engine) source: InferError,
}

impl GraphFacts {
    /// What is known of a graph before any input is.
    pub(in crate::engine) fn of_constants(graph: &Graph) -> Self {
        let mut facts = vec![None; graph.value_count()];
        for (value, fact) in graph.constant_facts() {
            facts[value.index()] = Some(fact);
        }
        Self(facts)
    }

    /// Infers every value. Those that follow from shapes alone are computed.
    pub(in crate::engine) fn infer(graph: &Graph, inputs: Vec<Fact>, evaluate: Evaluate<'_>) -> Result<Self, Stopped> {
        let mut facts = Self::of_constants(graph);
        for (&value, fact) in graph.inputs.iter().zip(inputs) {
            facts.set(value, fact);
        }
        for node in &graph.nodes {
            let fact = facts.infer_node(graph, node, evaluate)?;
            facts.set(node.output, fact);
        }
        Ok(facts)
    }

    /// Infers what does not depend on contents.
    fn sample(graph: &Graph, inputs: Vec<Option<Fact>>, evaluate: Evaluate<'_>) -> Result<Self, Stopped> {
        let mut facts = Self::of_constants(graph);
        for (value, fact) in graph.inputs.iter().zip(inputs) {
            facts.0[value.index()] = fact.or_else(|| facts.0[value.index()].take());
        }
        for node in &graph.nodes {
            if node.inputs.iter().any(|&input| facts.get(input).is_none()) {
                continue;
            }
            match facts.infer_node(graph, node, evaluate) {
                Ok(fact) => facts.set(node.output, fact),
                Err(Stopped { source: InferError::Unknown { .. }, .. }) => {}
                Err(stopped) => return Err(stopped),
            }
        }
        Ok(facts)
    }

    /// The fact of what a node makes from values that have one.
    pub(in crate::engine) fn infer_node(
        &self,
        graph: &Graph,
        node: &Node,
        evaluate: Evaluate<'_>,
    ) -> Result<Fact, Stopped> {
        let inferred =
            self.inferred(node, evaluate).and_then(|fact| match graph.broken_assumption(node.output, &fact.shape) {
                Some((axis, expected)) => Err(InferError::Assumed { axis, expected, got: fact.shape.to_string() }),
                None => Ok(fact),
            });
        inferred.map_err(|source| Stopped { node: node.name.clone(), source })
    }

    fn inferred(&self, node: &Node, evaluate: Evaluate<'_>) -> Result<Fact, InferError> {
        let operands: Facts<'_> = node.inputs.iter().filter_map(|&input| self.get(input)).collect();
        if operands.len() != node.inputs.len() {
            return Err(InferError::Operands { expected: node.inputs.len(), got: operands.len() });
        }
        let mut fact = infer::infer(&node.op, &operands)?;
        if fact.value.is_none() && fact.elements() <= KNOWN_ELEMENTS_MAX {
            let known: Option<Vec<&Tensor>> = operands.iter().map(|operand| operand.value.as_ref()).collect();
            fact.value = known.and_then(|known| evaluate(node, &known));
        }
        Ok(fact)
    }

    pub(in crate::engine) fn set(&mut self, value: ValueId, fact: Fact) {
        self.0[value.index()] = Some(fact);
    }

    /// Says what type a value lies in memory as. Contents that are known are of another, and are made anew.
    pub(in crate::engine) fn store_as(&mut self, value: ValueId, dtype: DType) {
        if let Some(fact) = &mut self.0[value.index()] {
            (fact.dtype, fact.value) = (dtype, None);
        }
    }

    pub(in crate::engine) fn get(&self, value: ValueId) -> Option<&Fact> {
        self.0.get(value.index())?.as_ref()
    }

    /// Multiply-accumulates of a node.
    pub(in crate::engine) fn macs(&self, node: &Node) -> Option<u64> {
        let depth = match &node.op {
            // Weights of one output channel meet every output element.
            Op::Conv(_) | Op::QuantizedConv(_) => self.shape(node.inputs[1])?[1..].iter().product::<usize>(),
            Op::Linear(_) | Op::QuantizedLinear(_) | Op::DynamicLinear { .. } => self.shape(node.inputs[1])?[0],
            Op::MatMul | Op::QuantizedMatMul(_) | Op::IntegerMatMul => *self.shape(node.inputs[0])?.last()?,
            Op::Attention(attention) => {
                let facts: Option<Facts<'_>> = node.inputs.iter().map(|&input| self.get(input)).collect();
                let Extents { batch, heads, queries, keys, depth, width } = infer::heads(attention, &facts?).ok()?;
                return Some((batch * heads * queries * keys * (depth + width)) as u64);
            }
            Op::Recurrent(_) => {
                // Every row of every step meets all weights.
                let [x, weights, recurrent] = [0, 1, 2].map(|at| self.get(node.inputs[at]));
                let rows: usize = x?.shape.iter().take(2).product();
                return Some((rows * (weights?.elements() + recurrent?.elements())) as u64);
            }
            _ => 0,
        };
        Some((self.get(node.output)?.elements() * depth) as u64)
    }

    pub(in crate::engine) fn shape(&self, value: ValueId) -> Option<&Shape> {
        Some(&self.get(value)?.shape)
    }
}

impl Samples {
    /// Samples of a graph, or why there are none for any extents that were tried.
    pub(in crate::engine) fn of(
        graph: &Graph,
        inputs: &Inputs<'_>,
        vary: Others,
        evaluate: Evaluate<'_>,
    ) -> Result<Self, Stopped> {
        let mut stopped = None;
        for inputs in Tried::of(inputs).all(vary) {
            let [a, b] = inputs.map(|facts| GraphFacts::sample(graph, facts, evaluate));
            match (a, b) {
                (Ok(first), Ok(second)) => return Ok(Self([first, second])),
                (Err(error), _) | (_, Err(error)) => stopped = stopped.or(Some(error)),
            }
        }
        Err(stopped.unwrap_or(Stopped { node: String::new(), source: InferError::Overflow }))
    }

    /// Keeps no contents of constants, which stand in the graph.
    pub(in crate::engine) fn forget_constants(&mut self, graph: &Graph) {
        for value in graph.values().filter(|value| graph.constant(*value).is_some()) {
            let facts = self.0.iter_mut().filter_map(|sample| sample.0[value.index()].as_mut());
            facts.for_each(|fact| fact.value = None);
        }
    }

    /// The first node whose output has a shape that follows from contents.
    pub(in crate::engine) fn undecided<'a>(&self, graph: &'a Graph) -> Option<&'a Node> {
        graph.nodes.iter().find(|node| self.0.iter().any(|sample| sample.get(node.output).is_none()))
    }

    pub(in crate::engine) fn rank(&self, value: ValueId) -> Option<usize> {
        Some(self.0[0].shape(value)?.len())
    }

    /// Whether two values have one shape, for any extents.
    pub(in crate::engine) fn same_shape(&self, a: ValueId, b: ValueId) -> bool {
        self.0.iter().all(|facts| facts.shape(a).is_some() && facts.shape(a) == facts.shape(b))
    }

    /// The extents of a value that do not depend on the request.
    pub(in crate::engine) fn fixed(&self, value: ValueId) -> Option<Vec<Option<usize>>> {
        let [a, b] = [self.0[0].shape(value)?, self.0[1].shape(value)?];
        (a.len() == b.len()).then(|| a.iter().zip(b.iter()).map(|(a, b)| (a == b).then_some(*a)).collect())
    }
}

/// The contents of larger values are not looked at while shapes are inferred, but by operators that say so.
pub(in crate::engine) const KNOWN_ELEMENTS_MAX: usize = 4096;
