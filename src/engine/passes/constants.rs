//! Computes at load what does not depend on the inputs.

use super::EvaluateIn;
use crate::engine::graph::Graph;
use crate::tensor::Tensor;

/// Turns nodes whose operands are constants into constants.
pub(super) fn fold(graph: &mut Graph, evaluate: &EvaluateIn) {
    for at in 0..graph.nodes.len() {
        let node = &graph.nodes[at];
        let operands: Option<Vec<&Tensor>> = node.inputs.iter().map(|&input| graph.constant(input)).collect();
        let folded = operands.and_then(|known| evaluate(graph, node, &known));
        if let Some(tensor) = folded {
            graph.fix(graph.nodes[at].output, tensor);
        }
    }
}
