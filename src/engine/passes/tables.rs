//! Functions of one byte: whatever is computed between a conversion from bytes and one to bytes, from nothing but the
//! elements of one tensor at the same place, is a table of 256 bytes.

use std::collections::HashMap;

use super::quantization::scale;
use super::{EvaluateIn, number};
use crate::engine::graph::samples::Samples;
use crate::engine::graph::{Graph, Node, Op, ValueId};
use crate::tensor::{DType, Shape, Tensor};

/// A value that is a function of the bytes at the same place of another: what it is for each of 256.
#[derive(Clone)]
struct Function {
    of: ValueId,
    values: Tensor,
}

/// Puts a table in the place of each conversion to bytes that ends such a function. What has become of no use stays
/// behind, for [`Graph::drop_dead`] to find.
pub(super) fn tabulate(graph: &mut Graph, samples: &Samples, evaluate: &EvaluateIn) {
    let mut functions = HashMap::new();
    for at in 0..graph.nodes.len() {
        let Some(function) = function(graph, samples, evaluate, &functions, at) else { continue };
        let node = &graph.nodes[at];
        if matches!(node.op, Op::Quantize { .. }) {
            let table = graph.add_constant(format!("{} table", node.name), function.values.clone());
            graph.nodes[at].op = Op::LookUp;
            graph.nodes[at].inputs = vec![function.of, table];
        }
        functions.insert(graph.nodes[at].output, function);
    }
}

fn function(
    graph: &Graph,
    samples: &Samples,
    evaluate: &EvaluateIn,
    functions: &HashMap<ValueId, Function>,
    at: usize,
) -> Option<Function> {
    let node = &graph.nodes[at];
    let known = |value: ValueId| functions.get(&value).cloned();
    let (of, varying) = match node.op {
        Op::Dequantize { .. } => {
            scale(graph, node, false)?;
            let bytes = node.inputs[0];
            let itself = || Some(Function { of: bytes, values: all_bytes()? });
            let function = known(bytes).or_else(itself)?;
            (function.of, vec![Some(function.values)])
        }
        Op::Quantize { .. } if scale(graph, node, true).is_none() => return None,
        Op::Quantize { .. } | Op::Activation(_) | Op::Unary(_) => {
            let function = known(node.inputs[0])?;
            (function.of, vec![Some(function.values)])
        }
        Op::Binary(_) => {
            let operands = [known(node.inputs[0]), known(node.inputs[1])];
            let of = operands.iter().flatten().next()?.of;
            let same_place = |value: ValueId| samples.same_shape(value, node.output);
            let fits = node.inputs.iter().zip(&operands).all(|(&input, operand)| match operand {
                Some(function) => function.of == of && same_place(input),
                None => number(graph, input).is_some(),
            });
            (of, fits.then(|| operands.map(|operand| operand.map(|function| function.values)).to_vec())?)
        }
        _ => return None,
    };
    let values = computed(graph, evaluate, node, &varying)?;
    (values.element_count() == 256).then_some(Function { of, values })
}

/// A node of the values that vary, and of constants.
fn computed(graph: &Graph, evaluate: &EvaluateIn, node: &Node, varying: &[Option<Tensor>]) -> Option<Tensor> {
    let operand = |(place, input): (usize, &ValueId)| {
        varying.get(place).and_then(Option::as_ref).or_else(|| graph.constant(*input))
    };
    let operands: Option<Vec<&Tensor>> = node.inputs.iter().enumerate().map(operand).collect();
    evaluate(graph, node, &operands?)
}

fn all_bytes() -> Option<Tensor> {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    Tensor::new(DType::U8, Shape::new(&[all.len()]), all.into()).ok()
}
