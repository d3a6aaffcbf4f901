//! Computes at load what does not depend on the inputs.

use super::EvaluateIn;
use crate::engine::graph::Graph;
use crate::engine::graph::samples::Samples;
use crate::tensor::Tensor;

/// Turns nodes whose operands are constants into constants.
pub(super) fn fold(graph: &mut Graph, evaluate: &EvaluateIn) {
    for at in 0..graph.nodes.len() {
        let node = &graph.nodes[at];
        let operands: Option<Vec<&Tensor>> = node.inputs.iter().map(|&input| graph.constant(input)).collect();
        let folded = operands.filter(|operands| small(operands)).and_then(|known| evaluate(graph, node, &known));
        if let Some(tensor) = folded {
            graph.fix(graph.nodes[at].output, tensor);
        }
    }
}

/// Turns values into constants that are known for every extent of the inputs, such as an extent that never varies.
pub(super) fn fix_known(graph: &mut Graph, samples: &Samples) {
    for at in 0..graph.nodes.len() {
        let output = graph.nodes[at].output;
        let [first, second] = [0, 1].map(|sample: usize| samples.0[sample].get(output).and_then(|fact| fact.value.as_ref()));
        if let (Some(first), Some(second)) = (first, second)
            && first == second
            && graph.constant(output).is_none()
        {
            let tensor = first.clone();
            graph.fix(output, tensor);
        }
    }
}

/// A constant may grow by folding (a repeated row), but not without bound.
fn small(operands: &[&Tensor]) -> bool {
    operands.iter().map(|operand| operand.element_count()).sum::<usize>() <= ELEMENTS_MAX
}

const ELEMENTS_MAX: usize = 64 << 20;
