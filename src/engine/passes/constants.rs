//! Computes at load what does not depend on the inputs, and takes the branches that are decided so.

use super::EvaluateIn;
use crate::engine::graph::control::Several;
use crate::engine::graph::{Graph, Op};
use crate::tensor::Tensor;

/// Turns nodes whose operands are constants into constants.
pub(super) fn fold(graph: &mut Graph, evaluate: &EvaluateIn) {
    let mut at = 0;
    while at < graph.nodes.len() {
        // The nodes of a branch stand in its place, and are folded next.
        if !take_branch(graph, at) {
            fold_node(graph, at, evaluate);
            at += 1;
        }
    }
}

fn fold_node(graph: &mut Graph, at: usize, evaluate: &EvaluateIn) {
    let node = &graph.nodes[at];
    let operands: Option<Vec<&Tensor>> = node.inputs.iter().map(|&input| graph.constant(input)).collect();
    let folded = operands.and_then(|known| evaluate(graph, node, &known));
    if let Some(tensor) = folded {
        graph.fix(graph.nodes[at].output, tensor);
    }
}

fn take_branch(graph: &mut Graph, at: usize) -> bool {
    let node = &graph.nodes[at];
    let (Op::Several(Several::Branch(branch)), Some((condition, given))) = (&node.op, node.inputs.split_first()) else {
        return false;
    };
    let Some(condition) = graph.constant(*condition).and_then(|constant| constant.bytes().first().copied()) else {
        return false;
    };
    let (body, given) = (branch.bodies[usize::from(condition == 0)].clone(), given.to_vec());
    graph.inline(at, &body.0, &given);
    true
}
