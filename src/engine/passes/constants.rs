//! Computes at load what does not depend on the inputs, and takes the branches that are decided so.

use kinglet_kernels::Activation;

use super::EvaluateIn;
use crate::engine::graph::control::Several;
use crate::engine::graph::op::Linear;
use crate::engine::graph::{Graph, Op};
use crate::tensor::{DType, Tensor};

/// Turns nodes whose operands are constants into constants.
pub(super) fn fold(graph: &mut Graph, evaluate: &EvaluateIn) {
    let mut at = 0;
    while at < graph.nodes.len() {
        // The nodes of a branch stand in its place, and are folded next.
        if !take_branch(graph, at) {
            fold_node(graph, at, evaluate);
            have_weights(graph, at);
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

/// A product with a matrix that was computed from constants is a layer, as it is where the file has the matrix.
fn have_weights(graph: &mut Graph, at: usize) {
    let node = &graph.nodes[at];
    let is_matrix = |weights: &Tensor| weights.shape().len() == 2 && weights.dtype() == DType::F32;
    if node.op == Op::MatMul && graph.constant(node.inputs[1]).is_some_and(is_matrix) {
        graph.nodes[at].op = Op::Linear(Linear { bias: false, residual: false, activation: Activation::None });
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
