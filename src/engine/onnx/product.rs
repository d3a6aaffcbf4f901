//! Matrix products.

use kinglet_kernels::Activation;

use super::Importer;
use super::node::Source;
use crate::engine::EngineError;
use crate::engine::graph::op::{Binary, Linear};
use crate::engine::graph::{Grain, Graph, Op, ValueId, floats, floats_in, taps_first, tensor_holding, tensor_of};
use crate::tensor::DType;

/// Products with constant weights are linear layers.
pub(super) fn matmul(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (a, b) = (importer.operand(node, 0)?, importer.operand(node, 1)?);
    Ok(matmul_of(importer, node, a, b))
}

pub(super) fn matmul_of(importer: &mut Importer, node: &Source<'_>, a: ValueId, b: ValueId) -> ValueId {
    let constant = importer.graph.constant(b);
    let is_linear = constant.is_some_and(|weights| weights.shape().len() == 2 && weights.dtype() == DType::F32);
    let op = if is_linear { Op::Linear(plain(false)) } else { Op::MatMul };
    importer.graph.add(&node.shown(), op, &[a, b])
}

/// Gemm with constant weights and bias: `alpha` and `beta` are folded into them.
pub(super) fn gemm(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let turned = node.int("transA", 0)? != 0;
    let (x, weights) = (importer.operand(node, 0)?, importer.operand(node, 1)?);
    let x = if turned { importer.graph.add(&node.shown(), Op::Transpose { axes: vec![1, 0] }, &[x]) } else { x };
    let bias = importer.optional(node, 2)?;
    let is_constant = |value: ValueId| importer.graph.constant(value).is_some();
    if is_constant(weights) && bias.is_none_or(is_constant) {
        return gemm_of(importer, node, x, weights, bias);
    }
    computed_gemm(importer, node, x, weights, bias)
}

/// `alpha * x * weights + beta * bias`, step by step.
fn computed_gemm(
    importer: &mut Importer,
    node: &Source<'_>,
    x: ValueId,
    weights: ValueId,
    bias: Option<ValueId>,
) -> Result<ValueId, EngineError> {
    let (alpha, beta, name) = (node.float("alpha", 1.0)?, node.float("beta", 1.0)?, node.shown());
    let graph = &mut importer.graph;
    let scaled = |graph: &mut Graph, value: ValueId, factor: f32| {
        if factor.to_bits() == 1f32.to_bits() {
            return value;
        }
        let factor = graph.add_constant(format!("{name} factor"), tensor_of(&[], &[factor]));
        graph.add(&name, Op::Binary(Binary::Mul), &[value, factor])
    };
    let turned = node.int("transB", 0)? != 0;
    let weights = if turned { graph.add(&name, Op::Transpose { axes: vec![1, 0] }, &[weights]) } else { weights };
    let product = graph.add(&name, Op::MatMul, &[x, weights]);
    let product = scaled(graph, product, alpha);
    let Some(bias) = bias else { return Ok(product) };
    let bias = scaled(graph, bias, beta);
    Ok(graph.add(&name, Op::Binary(Binary::Add), &[product, bias]))
}

/// A product of these operands, with the node's attributes.
pub(super) fn gemm_of(
    importer: &mut Importer,
    node: &Source<'_>,
    x: ValueId,
    weights: ValueId,
    bias: Option<ValueId>,
) -> Result<ValueId, EngineError> {
    let (alpha, beta) = (node.float("alpha", 1.0)?, node.float("beta", 1.0)?);
    let grain = importer.graph.grain(weights).cloned();
    let tensor = importer.graph.constant(weights).ok_or_else(|| node.refuse("its weights are no constant"))?;
    let (Some(elements), &[rows, columns]) = (floats_in(tensor), &tensor.shape()[..]) else {
        return Err(node.refuse("its weights are no matrix of FP32"));
    };
    let transposed = node.int("transB", 0)? != 0;
    let [depth, width] = if transposed { [columns, rows] } else { [rows, columns] };
    let mut weights = if transposed { taps_first(&elements, [depth, 1], 0..width) } else { elements.into_owned() };
    weights.iter_mut().for_each(|weight| *weight *= alpha);
    let turned = |Grain { axis, scales }| Grain { axis: if transposed { 1 - axis.min(1) } else { axis }, scales };
    let grain = grain.filter(|_| alpha.to_bits() == 1f32.to_bits()).map(turned);
    let weights = tensor_holding(&[depth, width], weights);
    let weights = importer.graph.add_grained(format!("{} weights", node.shown()), weights, grain);
    let mut operands = vec![x, weights];
    if let Some(bias) = bias {
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
