//! Functions of single elements between bytes and bytes: a table has the byte that each becomes.

use super::EvaluateIn;
use super::quantization::scale;
use crate::engine::graph::{Graph, Node, Op, ValueId};
use crate::tensor::{DType, Shape, Tensor};

/// Puts a table in the place of each conversion to bytes that ends such a chain.
pub(super) fn tabulate(graph: &mut Graph, evaluate: &EvaluateIn) {
    for at in 0..graph.nodes.len() {
        let Some((bytes, table)) = tabulated(graph, evaluate, at) else { continue };
        let table = graph.add_constant(format!("{} table", graph.nodes[at].name), table);
        graph.nodes[at].op = Op::LookUp;
        graph.nodes[at].inputs = vec![bytes, table];
    }
}

/// What bytes a chain begins with, and what it makes of each.
fn tabulated(graph: &Graph, evaluate: &EvaluateIn, at: usize) -> Option<(ValueId, Tensor)> {
    scale(graph, &graph.nodes[at], true)?;
    let mut chain = vec![(&graph.nodes[at], 0)];
    let mut taken = graph.nodes[at].inputs[0];
    loop {
        let node = &graph.nodes[graph.maker(taken, at)?];
        if scale(graph, node, false).is_some() {
            chain.push((node, 0));
            break;
        }
        let operand = varying(graph, node)?;
        chain.push((node, operand));
        taken = node.inputs[operand];
    }
    let all: Vec<u8> = (0..=u8::MAX).collect();
    let all = Tensor::new(DType::U8, Shape::new(&[all.len()]), all.into()).ok()?;
    let table = chain.iter().rev().try_fold(all, |values, &(node, operand)| {
        let constant =
            |(place, input): (usize, &ValueId)| if place == operand { Some(&values) } else { graph.constant(*input) };
        let operands: Option<Vec<&Tensor>> = node.inputs.iter().enumerate().map(constant).collect();
        evaluate(graph, node, &operands?)
    })?;
    let (first, _) = chain.last()?;
    (table.element_count() == 256).then(|| (first.inputs[0], table))
}

/// The operand whose elements a node computes a function of, one by one.
fn varying(graph: &Graph, node: &Node) -> Option<usize> {
    match node.op {
        Op::Activation(_) | Op::Unary(_) => Some(0),
        Op::Binary(_) => {
            let is_number = |at: usize| {
                graph.constant(node.inputs[at]).is_some_and(|c| c.element_count() == 1 && c.shape().len() < 2)
            };
            [0, 1].into_iter().find(|at| is_number(1 - at))
        }
        _ => None,
    }
}
