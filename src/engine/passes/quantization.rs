//! Finds products of bytes in what is written as products of floats between conversions, whichever way the file has it:
//! operators between DequantizeLinear and QuantizeLinear, or on integers, which are imported so.

use kinglet_kernels::Activation;
use kinglet_kernels::u8_functions::{Scale, Sum};
use kinglet_kernels::u8s8_depthwise::ByteDepthwise;
use kinglet_kernels::u8s8_gemm::{Finish, Gemm, Matrix, Zeros};

use super::{EvaluateIn, tables};
use crate::engine::graph::op::{Binary, Conv, Linear, PoolKind, Quantized, QuantizedConv, QuantizedMatMul};
use crate::engine::graph::samples::Samples;
use crate::engine::graph::{Graph, Node, Op, ValueId, floats, floats_in, tensor_of};
use crate::tensor::{DType, Shape, Tensor};

/// Has bytes be unsigned, move instead of the floats that they mean, and stay what they are where conversions cancel.
pub(super) fn settle(graph: &mut Graph) {
    make_unsigned(graph);
    move_bytes(graph);
    for at in 0..graph.nodes.len() {
        let made = scale(graph, &graph.nodes[at], true).zip(meaning(graph, graph.nodes[at].inputs[0], at));
        if let Some((_, (bytes, _))) = made.filter(|(to, (_, of))| to == of) {
            graph.retire(at, bytes);
        }
    }
}

/// Converts to floats behind operators that move elements, not before.
fn move_bytes(graph: &mut Graph) {
    let nodes = std::mem::take(&mut graph.nodes);
    graph.nodes.reserve(nodes.len());
    for node in nodes {
        let before = graph.nodes.len();
        let maker = if moves(&node.op) { graph.maker(node.inputs[0], before) } else { None };
        let converts = maker.filter(|&maker| scale(graph, &graph.nodes[maker], false).is_some());
        let Some(conversion) = converts.map(|maker| graph.nodes[maker].clone()) else {
            graph.nodes.push(node);
            continue;
        };
        let mut moved = node.clone();
        moved.inputs[0] = conversion.inputs[0];
        moved.output = graph.add_value(format!("{} bytes", node.name));
        let mut conversion = Node { output: node.output, ..conversion };
        conversion.inputs[0] = moved.output;
        graph.nodes.extend([moved, conversion]);
    }
}

/// Whether each output element is one of the first operand's, whatever their order is.
fn moves(op: &Op) -> bool {
    match op {
        Op::Reshape { .. }
        | Op::Flatten { .. }
        | Op::Squeeze
        | Op::Unsqueeze
        | Op::Transpose { .. }
        | Op::Gather { .. }
        | Op::Slice
        | Op::Expand => true,
        Op::Pool(pool) => pool.kind == PoolKind::Max,
        _ => false,
    }
}

/// INT8 between conversions becomes UINT8 with a zero point 128 higher, because the kernels take that; where something
/// else sees such a value, all stay as they are.
fn make_unsigned(graph: &mut Graph) {
    let is_signed = |graph: &Graph, value: ValueId| graph.constant(value).is_some_and(|c| c.dtype() == DType::I8);
    let mut signed = vec![false; graph.value_count()];
    for node in &graph.nodes {
        let passes = moves(&node.op) && signed[node.inputs[0].index()];
        let makes = matches!(node.op, Op::Quantize { .. }) && is_signed(graph, node.inputs[2]);
        signed[node.output.index()] = passes || makes;
    }
    let takes = |node: &Node| {
        let taken = |at: &usize| signed[node.inputs[*at].index()];
        let is_met = matches!(node.op, Op::Dequantize { .. }) && node.inputs.len() == 3;
        (0..node.inputs.len()).filter(taken).all(|at| at == 0 && (is_met || moves(&node.op)))
    };
    let leaves = graph.outputs.iter().any(|output| signed[output.index()]);
    if leaves || !graph.nodes.iter().all(takes) {
        return;
    }
    for at in 0..graph.nodes.len() {
        let node = &graph.nodes[at];
        let meets = match node.op {
            Op::Quantize { .. } => signed[node.output.index()],
            Op::Dequantize { .. } => signed[node.inputs[0].index()],
            _ => false,
        };
        let zero = if meets { graph.constant(node.inputs[2]).cloned() } else { None };
        let Some(zero) = zero.filter(|zero| zero.dtype() == DType::I8) else { continue };
        let raised: Vec<u8> = zero.bytes().iter().map(|byte| byte ^ 0x80).collect();
        let Ok(raised) = Tensor::new(DType::U8, zero.shape().clone(), raised.into()) else { continue };
        let name = format!("{} zero point", node.name);
        let raised = graph.add_constant(name, raised);
        graph.nodes[at].inputs[2] = raised;
    }
}

/// Makes products and sums of bytes.
pub(super) fn fuse(graph: &mut Graph, samples: &Samples, evaluate: &EvaluateIn) {
    // Transpositions have been carried out since.
    move_bytes(graph);
    for at in 0..graph.nodes.len() {
        if matches!(graph.nodes[at].op, Op::Quantize { .. })
            && let Some(node) = requantized(graph, samples, at)
        {
            graph.nodes[at] = node;
        }
    }
    tables::tabulate(graph, samples, evaluate);
    graph.drop_dead();
    let mut at = 0;
    while at < graph.nodes.len() {
        let made = product(graph, at, None).or_else(|| computed_product(graph, samples, at, None));
        match made {
            Some(node) => graph.nodes[at] = Node { output: graph.nodes[at].output, ..node },
            None => add_behind(graph, at),
        }
        at += 1;
    }
}

/// Makes a product of bytes that makes floats where the bias alone kept it from being one, because it is none of the sums'
/// integers: it is added behind.
fn add_behind(graph: &mut Graph, at: usize) {
    let node = graph.nodes[at].clone();
    let without = match &node.op {
        Op::Conv(conv) if conv.bias => Op::Conv(Conv { bias: false, ..conv.clone() }),
        Op::Linear(linear) if linear.bias => Op::Linear(Linear { bias: false, ..*linear }),
        _ => return,
    };
    let mut bare = Node { op: without, ..node.clone() };
    let bias = bare.inputs.remove(2);
    if graph.constant(bias).is_none_or(|bias| bias.dtype() != DType::F32) {
        return;
    }
    graph.nodes[at] = bare;
    let Some(made) = product(graph, at, None) else {
        graph.nodes[at] = node;
        return;
    };
    let sums = graph.add_value(format!("{} sums", node.name));
    graph.nodes[at] = Node { output: sums, ..made };
    graph.nodes.insert(at + 1, Node { op: Op::Binary(Binary::Add), inputs: vec![sums, bias], ..node });
}

/// What a conversion to bytes and the operators before it are together.
fn requantized(graph: &mut Graph, samples: &Samples, at: usize) -> Option<Node> {
    let to = scale(graph, &graph.nodes[at], true)?;
    let mut maker = graph.sole_maker(graph.nodes[at].inputs[0], at)?;
    let mut bounds = [0, u8::MAX];
    if let Op::Activation(Activation::Clip { low, high }) = graph.nodes[maker].op {
        bounds = [byte(low, to), byte(high, to)];
        maker = graph.sole_maker(graph.nodes[maker].inputs[0], maker)?;
    }
    let made = match graph.nodes[maker].op {
        Op::Binary(Binary::Add) => sum(graph, samples, maker, to, bounds),
        Op::MatMul => computed_product(graph, samples, maker, Some((to, bounds))),
        _ => product(graph, maker, Some((to, bounds))),
    }?;
    Some(Node { output: graph.nodes[at].output, ..made })
}

fn sum(graph: &Graph, samples: &Samples, at: usize, to: Scale, bounds: [u8; 2]) -> Option<Node> {
    let node = &graph.nodes[at];
    let [a, b] = [node.inputs[0], node.inputs[1]];
    let same = samples.same_shape(a, b);
    let ((a, of_a), (b, of_b)) = (meaning(graph, a, at)?, meaning(graph, b, at)?);
    let op = Op::QuantizedAdd(Sum { of: [of_a, of_b], to, bounds });
    same.then(|| Node { inputs: vec![a, b], op, ..node.clone() })
}

/// A layer whose operand and weights are bytes, as a product of bytes; its own output is floats, or bytes of a scale
/// within bounds.
fn product(graph: &mut Graph, at: usize, to: Option<(Scale, [u8; 2])>) -> Option<Node> {
    let node = graph.nodes[at].clone();
    let (is_conv, has_bias) = match &node.op {
        Op::Conv(conv) if !conv.scale && !conv.residual && conv.activation == Activation::None => (true, conv.bias),
        Op::Linear(linear) if !linear.residual && linear.activation == Activation::None => (false, linear.bias),
        _ => return None,
    };
    let (bytes, of) = meaning(graph, node.inputs[0], at)?;
    graph.decode(node.inputs[1]);
    let weights = graph.constant(node.inputs[1])?.clone();
    let channels_axis = if is_conv { 0 } else { 1 };
    let channels = *weights.shape().get(channels_axis)?;
    let taps: usize = if is_conv { weights.shape()[2..].iter().product() } else { 1 };
    let depth = weights.element_count() / channels.max(1);
    let is_depthwise = matches!(&node.op, Op::Conv(conv) if conv.is_depthwise(weights.shape()));
    let suits = match is_depthwise {
        true => taps <= ByteDepthwise::TAPS_MAX && to.is_some(),
        false => taps <= Gemm::TAPS_MAX && depth <= Gemm::PRODUCTS_MAX,
    };
    if !suits {
        return None;
    }
    let (integers, scales) = integral(graph, node.inputs[1], &weights, channels_axis, channels)?;
    let units: Vec<f32> = scales.iter().map(|scale| of.scale * scale).collect();
    let bias = if has_bias { floats(graph.constant(node.inputs[2])?)? } else { vec![0.0; channels] };
    // Half a unit is far less than what bytes can tell apart; floats could.
    let in_units = |(bias, unit): (&f32, &f32)| if to.is_some() { nearest(bias / unit) } else { whole(bias / unit) };
    let bias: Vec<i32> = bias.iter().zip(&units).map(in_units).collect::<Option<_>>()?;
    if is_depthwise && bias.iter().any(|bias| bias.abs() > ByteDepthwise::BIAS_MAX) {
        return None;
    }
    let (factor, finish) = match to {
        None => (units, Finish::Floats),
        Some((to, [low, high])) => {
            let factor = units.iter().map(|unit| unit / to.scale).collect();
            (factor, Finish::Bytes { zero: to.zero, low, high })
        }
    };
    let tensor = |dtype, shape: &Shape, bytes: Vec<u8>| Tensor::new(dtype, shape.clone(), bytes.into()).ok();
    let integers = tensor(DType::I8, weights.shape(), integers)?;
    let bias = tensor(DType::I32, &Shape::new(&[channels]), bias.iter().flat_map(|b| b.to_le_bytes()).collect())?;
    let factor = tensor_of(&[channels], &factor);
    let mut named = |what: &str, tensor| graph.add_constant(format!("{} {what}", node.name), tensor);
    let operands = [named("weights", integers), named("scales", factor), named("bias", bias)];
    let product = Quantized { zero: of.zero, finish };
    let op = match &node.op {
        Op::Conv(conv) => Op::QuantizedConv(QuantizedConv { conv: conv.clone(), product, plus: None }),
        _ => Op::QuantizedLinear(product),
    };
    Some(Node { op, inputs: [bytes].into_iter().chain(operands).collect(), ..node })
}

/// A product of two computed operands that both are bytes.
fn computed_product(graph: &Graph, samples: &Samples, at: usize, to: Option<(Scale, [u8; 2])>) -> Option<Node> {
    let node = &graph.nodes[at];
    if node.op != Op::MatMul {
        return None;
    }
    let depth = samples.fixed(node.inputs[0])?.last().copied()?;
    let [(a, of_a), (b, of_b)] = [meaning(graph, node.inputs[0], at)?, meaning(graph, node.inputs[1], at)?];
    if depth.is_some_and(|depth| depth > Matrix::DEPTH_MAX) {
        return None;
    }
    let unit = of_a.scale * of_b.scale;
    let (scale, finish) = match to {
        None => (unit, Finish::Floats),
        Some((to, [low, high])) => (unit / to.scale, Finish::Bytes { zero: to.zero, low, high }),
    };
    let op = Op::QuantizedMatMul(QuantizedMatMul { zeros: Zeros { left: of_a.zero, right: of_b.zero }, scale, finish });
    Some(Node { inputs: vec![a, b], op, ..node.clone() })
}

/// Weights as the integers that they were, if these fit signed bytes, and a scale for each channel.
fn integral(
    graph: &Graph,
    value: ValueId,
    weights: &Tensor,
    axis: usize,
    channels: usize,
) -> Option<(Vec<u8>, Vec<f32>)> {
    let grain = graph.grain(value)?;
    let scales = match grain.scales.as_slice() {
        &[scale] => vec![scale; channels],
        many if grain.axis == axis && many.len() == channels => many.to_vec(),
        _ => return None,
    };
    let inner: usize = weights.shape()[axis + 1..].iter().product();
    let elements = floats_in(weights)?;
    let integer = |(at, element): (usize, &f32)| {
        let integer = whole(element / scales[at / inner.max(1) % channels])?;
        i8::try_from(integer).ok().map(|integer| integer.to_le_bytes()[0])
    };
    Some((elements.iter().enumerate().map(integer).collect::<Option<_>>()?, scales))
}

/// An integer that was scaled and is scaled back; none where it cannot have been one.
fn whole(x: f32) -> Option<i32> {
    let near = x.round();
    let fits = near.abs() < 2e9 && (x - near).abs() <= 1e-3 + 1e-6 * x.abs();
    #[expect(clippy::cast_possible_truncation, reason = "an integer of 31 bits")]
    fits.then_some(near as i32)
}

/// The nearest integer, if 31 bits hold it.
fn nearest(x: f32) -> Option<i32> {
    let near = x.round_ties_even();
    #[expect(clippy::cast_possible_truncation, reason = "an integer of 31 bits")]
    (near.abs() < 2e9).then_some(near as i32)
}

/// What bytes a value is made of, before a node, and what they mean.
fn meaning(graph: &Graph, value: ValueId, before: usize) -> Option<(ValueId, Scale)> {
    let node = &graph.nodes[graph.maker(value, before)?];
    Some((node.inputs[0], scale(graph, node, false)?))
}

/// The one scale of a conversion to bytes, or from them.
pub(super) fn scale(graph: &Graph, node: &Node, to_bytes: bool) -> Option<Scale> {
    match node.op {
        Op::Quantize { .. } if to_bytes => {}
        Op::Dequantize { .. } if !to_bytes => {}
        _ => return None,
    }
    let (scales, zero) = (floats(graph.constant(node.inputs[1])?)?, graph.constant(*node.inputs.get(2)?)?);
    match (scales.as_slice(), &zero.bytes()[..]) {
        (&[scale], &[zero_point]) if zero.dtype() == DType::U8 && scale > 0.0 => {
            Some(Scale { scale, zero: zero_point })
        }
        _ => None,
    }
}

/// The byte that a number becomes.
fn byte(x: f32, to: Scale) -> u8 {
    let shifted = (x / to.scale).round_ties_even() + f32::from(to.zero);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
    let byte = shifted as u8;
    byte
}
