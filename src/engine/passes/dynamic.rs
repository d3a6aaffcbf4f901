//! Products of bytes whose scale follows from contents, as exporters write them: integers multiplied, cast, scaled, and a
//! bias added. With constant weights that is one layer, whose weights are packed once. How bytes came to be is not looked
//! at: one quantization may feed several products.

use kinglet_kernels::u8s8_gemm::Gemm;

use crate::engine::graph::op::Binary;
use crate::engine::graph::samples::Samples;
use crate::engine::graph::{Graph, Node, Op, ValueId};
use crate::tensor::{DType, Shape, Tensor};

pub(super) fn fuse(graph: &mut Graph, samples: &Samples) {
    for at in 0..graph.nodes.len() {
        let fused = match graph.nodes[at].op {
            Op::Binary(Binary::Mul) => scaled(graph, samples, at),
            Op::Binary(Binary::Add) => biased(graph, at),
            _ => None,
        };
        if let Some(node) = fused {
            graph.nodes[at] = node;
        }
    }
}

/// The product behind a multiplication with its scale.
fn scaled(graph: &mut Graph, samples: &Samples, at: usize) -> Option<Node> {
    let [a, b] = [graph.nodes[at].inputs[0], graph.nodes[at].inputs[1]];
    let (floats, scale, product) = [(a, b), (b, a)].into_iter().find_map(|(floats, scale)| {
        let cast = graph.sole_maker(floats, at).filter(|&cast| graph.nodes[cast].op == Op::Cast { to: DType::F32 })?;
        let product = graph.sole_maker(graph.nodes[cast].inputs[0], cast)?;
        (graph.nodes[product].op == Op::IntegerMatMul).then_some((floats, scale, product))
    })?;
    let [x, weights, zero, of_weights] = graph.nodes[product].inputs[..] else { return None };
    let (weights, of_weights) = signed(graph, weights, of_weights)?;
    let &[depth, columns] = &weights.shape()[..] else { return None };
    let [one_scale, one_zero] = [scale, zero].map(|value| elements(samples, value));
    let is_unsigned = samples.0[0].get(x).is_some_and(|fact| fact.dtype == DType::U8);
    let by_column = one_scale == Some(columns) && samples.fixed(scale)?.last() == Some(&Some(columns));
    let fits = one_zero == Some(1) && (one_scale == Some(1) || by_column);
    // Neither makes the product larger.
    let same = samples.same_shape(graph.nodes[at].output, floats);
    if !(is_unsigned && fits && same && depth <= Gemm::PRODUCTS_MAX) {
        return None;
    }
    let node = graph.nodes[at].clone();
    let weights = graph.add_constant(format!("{} weights", node.name), weights);
    let name = graph.nodes[product].name.clone();
    graph.nodes[product].inputs.clear();
    Some(Node { name, op: Op::DynamicLinear { zero: of_weights }, inputs: vec![x, weights, zero, scale], ..node })
}

/// The product and a bias for each of its columns.
fn biased(graph: &mut Graph, at: usize) -> Option<Node> {
    let [a, b] = [graph.nodes[at].inputs[0], graph.nodes[at].inputs[1]];
    let (product, bias) = [(a, b), (b, a)].into_iter().find_map(|(sums, bias)| {
        let product = graph.sole_maker(sums, at)?;
        let Node { op: Op::DynamicLinear { .. }, inputs, .. } = &graph.nodes[product] else { return None };
        let &[_, weights, _, _] = &inputs[..] else { return None };
        let columns = graph.constant(weights)?.shape().last().copied()?;
        let bias_shape = graph.constant(bias).filter(|bias| bias.dtype() == DType::F32)?.shape();
        (bias_shape[..] == [columns]).then_some((product, bias))
    })?;
    let mut node = graph.nodes[product].clone();
    node.inputs.push(bias);
    node.output = graph.nodes[at].output;
    graph.nodes[product].inputs.clear();
    Some(node)
}

/// Constant bytes as signed ones with one zero point.
fn signed(graph: &Graph, weights: ValueId, zero: ValueId) -> Option<(Tensor, i8)> {
    let (weights, zeros) = (graph.constant(weights)?, graph.constant(zero)?);
    let flip = match weights.dtype() {
        DType::I8 => 0,
        DType::U8 => 0x80,
        _ => return None,
    };
    let (first, others) = zeros.bytes().split_first()?;
    if others.iter().any(|other| other != first) {
        return None;
    }
    let bytes: Vec<u8> = weights.bytes().iter().map(|byte| byte ^ flip).collect();
    let shape: Shape = weights.shape().clone();
    Some((Tensor::new(DType::I8, shape, bytes.into()).ok()?, (first ^ flip).cast_signed()))
}

/// How many elements a value has, whatever the request.
fn elements(samples: &Samples, value: ValueId) -> Option<usize> {
    samples.fixed(value)?.into_iter().product()
}
