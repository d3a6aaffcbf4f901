//! Matrix products.

use kinglet_kernels::Activation;

use super::Importer;
use super::node::Source;
use crate::engine::EngineError;
use crate::engine::graph::op::Linear;
use crate::engine::graph::{Op, ValueId, floats, tensor_of};

/// Products with constant weights are linear layers.
pub(super) fn matmul(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?];
    let constant = importer.graph.constant(operands[1]);
    let is_linear = constant.is_some_and(|weights| weights.shape().len() == 2 && floats(weights).is_some());
    let op = if is_linear { Op::Linear(plain(false)) } else { Op::MatMul };
    Ok(importer.graph.add(&node.shown(), op, &operands))
}

/// Gemm with constant weights and bias: `alpha` and `beta` are folded into them.
pub(super) fn gemm(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    if node.int("transA", 0)? != 0 {
        return Err(node.refuse("its left side is transposed"));
    }
    let x = importer.operand(node, 0)?;
    let (alpha, beta) = (node.float("alpha", 1.0)?, node.float("beta", 1.0)?);
    let tensor = importer
        .graph
        .constant(importer.operand(node, 1)?)
        .ok_or_else(|| node.refuse("its weights are no constant"))?;
    let (Some(elements), &[rows, columns]) = (floats(tensor), &tensor.shape()[..]) else {
        return Err(node.refuse("its weights are no matrix of FP32"));
    };
    let transposed = node.int("transB", 0)? != 0;
    let [depth, width] = if transposed { [columns, rows] } else { [rows, columns] };
    let at = |k: usize, n: usize| if transposed { n * depth + k } else { k * width + n };
    let weights: Vec<f32> =
        (0..depth).flat_map(|k| (0..width).map(move |n| at(k, n))).map(|at| alpha * elements[at]).collect();
    let weights =
        importer.graph.add_constant(format!("{} weights", node.shown()), tensor_of(&[depth, width], &weights));
    let mut operands = vec![x, weights];
    if let Some(bias) = importer.optional(node, 2)? {
        let tensor = importer.graph.constant(bias).ok_or_else(|| node.refuse("its bias is no constant"))?;
        let row = tensor.shape().iter().rev().skip(1).all(|&extent| extent == 1);
        let elements = floats(tensor).filter(|_| row).ok_or_else(|| node.refuse("its bias is no row of FP32"))?;
        let bias: Vec<f32> = match elements.as_slice() {
            [one] => vec![beta * one; width],
            all if all.len() == width => all.iter().map(|x| beta * x).collect(),
            _ => return Err(node.invalid("its bias has not an element for each column")),
        };
        operands.push(importer.graph.add_constant(format!("{} bias", node.shown()), tensor_of(&[width], &bias)));
    }
    Ok(importer.graph.add(&node.shown(), Op::Linear(plain(operands.len() > 2)), &operands))
}

fn plain(bias: bool) -> Linear {
    Linear { bias, residual: false, activation: Activation::None }
}
