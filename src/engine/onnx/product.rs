//! Matrix products.

use kinglet_kernels::Activation;

use super::Importer;
use super::formula::Formula;
use super::node::Source;
use crate::engine::EngineError;
use crate::engine::graph::op::{Binary, Linear};
use crate::engine::graph::{Grain, Op, ValueId, floats, floats_in, taps_first, tensor_holding, tensor_of};
use crate::tensor::DType;

/// Products with constant weights are linear layers.
pub(super) fn matmul(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (a, b) = (importer.operand(node, 0)?, importer.operand(node, 1)?);
    Ok(matmul_of(importer, node, a, b))
}

pub(super) fn matmul_of(importer: &mut Importer, node: &Source<'_>, a: ValueId, b: ValueId) -> ValueId {
    let is_linear = is_weights(importer, b);
    if !is_linear {
        importer.graph.decode(b);
    }
    let mut formula = Formula::with_name(importer, node);
    if is_linear { formula.op(Op::Linear(plain(false)), &[a, b]) } else { formula.product(a, b) }
}

/// Whether a linear layer can have a value for its weights.
pub(super) fn is_weights(importer: &Importer, value: ValueId) -> bool {
    let constant = importer.graph.constant(value);
    constant.is_some_and(|weights| weights.shape().len() == 2 && weights.dtype() == DType::F32)
        || importer.graph.coded(value).is_some_and(|weights| weights.shape.len() == 2)
}

/// FusedMatMul of ONNX Runtime's own operators: a product, scaled, of operands that may be transposed.
pub(super) fn fused_matmul(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let a = turned(importer, node, 0, ["transA", "transBatchA"])?;
    let b = importer.operand(node, 1)?;
    if is_weights(importer, b) {
        return gemm_of(importer, node, a, b, None);
    }
    importer.graph.decode(b);
    let b = turned(importer, node, 1, ["transB", "transBatchB"])?;
    let alpha = node.float("alpha", 1.0)?;
    let (mut formula, _) = Formula::of(importer, node)?;
    let product = formula.product(a, b);
    Ok(times(&mut formula, product, alpha))
}

/// An operand with its last two axes in each other's place, and with the first axis behind those of the batch, where that
/// is asked for.
fn turned(
    importer: &mut Importer,
    node: &Source<'_>,
    at: usize,
    [lines, batch]: [&str; 2],
) -> Result<ValueId, EngineError> {
    let mut x = importer.operand(node, at)?;
    let rank = importer.extents(x).map(|extents| extents.len());
    let mut formula = Formula::with_name(importer, node);
    if node.int(batch, 0)? != 0 {
        let rank = rank.filter(|rank| *rank > 2);
        let rank =
            rank.ok_or_else(|| node.refuse(&format!("{batch} is of three axes or more, its operand's are not known")))?;
        let axes = (1..rank - 1).chain([0, rank - 1]).collect();
        x = formula.op(Op::Transpose { axes }, &[x]);
    }
    // A vector stays what it is.
    Ok(if node.int(lines, 0)? != 0 && rank != Some(1) { formula.turned(x) } else { x })
}

/// Gemm with constant weights and bias: `alpha` and `beta` are folded into them.
pub(super) fn gemm(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let turned = node.int("transA", 0)? != 0;
    let (x, weights) = (importer.operand(node, 0)?, importer.operand(node, 1)?);
    let x = if turned { importer.graph.add(&node.shown(), Op::Transpose { axes: vec![1, 0] }, &[x]) } else { x };
    let bias = importer.optional(node, 2)?;
    let is_constant = |value: ValueId| importer.graph.constant(value).is_some();
    if (is_constant(weights) || is_weights(importer, weights))
        && bias.is_none_or(is_constant)
        && importer.dtype(x) == DType::F32
    {
        return gemm_of(importer, node, x, weights, bias);
    }
    importer.graph.decode(weights);
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
    let (alpha, beta) = (node.float("alpha", 1.0)?, node.float("beta", 1.0)?);
    let dtype = importer.dtype(x);
    let mut formula = Formula { dtype, name: node.shown(), importer };
    let turned = node.int("transB", 0)? != 0;
    let weights = if turned { formula.op(Op::Transpose { axes: vec![1, 0] }, &[weights]) } else { weights };
    let product = formula.product(x, weights);
    let product = times(&mut formula, product, alpha);
    let Some(bias) = bias else { return Ok(product) };
    let bias = times(&mut formula, bias, beta);
    Ok(formula.binary(Binary::Add, product, bias))
}

fn times(formula: &mut Formula<'_>, x: ValueId, factor: f32) -> ValueId {
    if factor.to_bits() == 1f32.to_bits() { x } else { formula.with(Binary::Mul, x, factor) }
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
    let (weights, width) = weights_of(importer, node, weights, alpha)?;
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

/// Weights of a product with the node's attributes, `[depth][column]`, and how many columns they have.
fn weights_of(
    importer: &mut Importer,
    node: &Source<'_>,
    weights: ValueId,
    alpha: f32,
) -> Result<(ValueId, usize), EngineError> {
    let (transposed, is_one) = (node.int("transB", 0)? != 0, alpha.to_bits() == 1f32.to_bits());
    let name = format!("{} weights", node.shown());
    if let Some(coded) = importer.graph.coded(weights).filter(|coded| is_one && coded.shape.len() == 2) {
        let coded = if transposed { coded.turned() } else { None }.unwrap_or_else(|| coded.clone());
        let width = coded.shape[1];
        return Ok((importer.coded(&name, coded), width));
    }
    importer.graph.decode(weights);
    let grain = importer.graph.grain(weights).cloned();
    let tensor = importer.graph.constant(weights).ok_or_else(|| node.refuse("its weights are no constant"))?;
    let (Some(elements), &[rows, columns]) = (floats_in(tensor), &tensor.shape()[..]) else {
        return Err(node.refuse("its weights are no matrix of FP32"));
    };
    let [depth, width] = if transposed { [columns, rows] } else { [rows, columns] };
    if !transposed && is_one {
        return Ok((weights, width));
    }
    let mut weights = if transposed { taps_first(&elements, [depth, 1], 0..width) } else { elements.into_owned() };
    weights.iter_mut().for_each(|weight| *weight *= alpha);
    let turned = |Grain { axis, scales }| Grain { axis: if transposed { 1 - axis.min(1) } else { axis }, scales };
    let grain = grain.filter(|_| is_one).map(turned);
    let weights = tensor_holding(&[depth, width], weights);
    Ok((importer.graph.add_grained(name, weights, grain), width))
}

pub(super) fn plain(bias: bool) -> Linear {
    Linear { bias, residual: false, activation: Activation::None }
}
