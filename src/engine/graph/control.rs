//! Operators that make several values at once: most run graphs of their own.
//!
//! The values have no common shape, so such a node has no fact; [`Op::Part`](super::Op::Part)
//! takes one of them.

use std::sync::Arc;

use super::foreign::Foreign;
use super::{Graph, ValueId};
use crate::tensor::{DType, Shape};

/// What makes several values.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) enum Several {
    Branch(Branch),
    Repeat(Repeat),
    Foreign(Foreign),
}

/// A graph within a node. Its inputs are values that the node is given, in their order.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Body(pub(in crate::engine) Arc<Graph>);

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A truth value, and what both graphs are given: the values of the first where it holds, else of the second.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct Branch {
    pub(in crate::engine) bodies: [Body; 2],
}

/// How often at most, whether at all, values that are carried from one round to the next, and what each round is given
/// besides. A round is given its number, a truth value, those that are carried, and the rest; it makes a truth value
/// (whether another follows), those that are carried, and those that are collected, which lie behind each other along
/// a new first axis in the end.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct Repeat {
    pub(in crate::engine) body: Body,
    pub(in crate::engine) carried: usize,
    /// Of collected values where there was no round.
    pub(in crate::engine) empty: Vec<(DType, Shape)>,
}

impl Graph {
    /// Puts a graph in the place of the node at `at` and the nodes that take its parts.
    pub(in crate::engine) fn inline(&mut self, at: usize, body: &Self, given: &[ValueId]) {
        let mut places = vec![None; body.value_count()];
        for (input, &value) in body.inputs.iter().zip(given) {
            places[input.index()] = Some(value);
        }
        let bundle = self.nodes[at].output;
        let mut nodes = Vec::with_capacity(body.nodes.len());
        for node in &body.nodes {
            let inputs = node.inputs.iter().map(|&input| self.adopt(body, input, &mut places)).collect();
            let output = self.adopt(body, node.output, &mut places);
            nodes.push(super::Node { name: node.name.clone(), op: node.op.clone(), inputs, output });
        }
        let outputs: Vec<ValueId> = body.outputs.iter().map(|&output| self.adopt(body, output, &mut places)).collect();
        for taker in 0..self.nodes.len() {
            if let (super::Op::Part(part), true) = (&self.nodes[taker].op, self.nodes[taker].inputs == [bundle]) {
                let made = outputs[*part];
                self.retire(taker, made);
            }
        }
        self.nodes[at].inputs.clear();
        self.nodes.splice(at..at, nodes);
    }

    /// A value of another graph as one of this.
    fn adopt(&mut self, body: &Self, value: ValueId, places: &mut [Option<ValueId>]) -> ValueId {
        *places[value.index()].get_or_insert_with(|| match body.constant(value) {
            Some(constant) => self.add_grained(body.name(value), constant.clone(), body.grain(value).cloned()),
            None => self.add_value(body.name(value)),
        })
    }
}
