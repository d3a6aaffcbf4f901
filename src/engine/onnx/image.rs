//! Operators over images: each is put between two transpositions, because ours are channels-last.

use kinglet_kernels::Activation;

use super::Importer;
use super::node::Source;
use crate::engine::EngineError;
use crate::engine::graph::op::{
    Axes, Conv, ConvTranspose, Filter, Padding, PixelPlace, Pool, PoolKind, Reduce, ReduceKind, Resize, Rounding,
    Spatial,
};
use crate::engine::graph::{Op, ValueId, floats, tensor_of, tensor_of_integers};

pub(super) fn conv(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (x, weights) = (importer.operand(node, 0)?, importer.operand(node, 1)?);
    let bias = importer.optional(node, 2)?;
    conv_of(importer, node, x, weights, bias)
}

/// A convolution of these operands, with the node's attributes.
pub(super) fn conv_of(
    importer: &mut Importer,
    node: &Source<'_>,
    x: ValueId,
    weights: ValueId,
    bias: Option<ValueId>,
) -> Result<ValueId, EngineError> {
    let tensor = importer.graph.constant(weights).ok_or_else(|| node.refuse("its weights are no constant"))?;
    let shape = tensor.shape().clone();
    let kernel = shape.get(2..).unwrap_or_default().to_vec();
    if let Some(given) = node.extents("kernel_shape")?.filter(|given| *given != kernel) {
        return Err(node.invalid(&format!("kernel_shape {given:?} is not that of weights {shape}")));
    }
    let groups = usize::try_from(node.int("group", 1)?).ok().filter(|groups| *groups > 0);
    let conv = Conv {
        window: spatial(node, &kernel)?,
        groups: groups.ok_or_else(|| node.invalid("group must be positive"))?,
        bias: bias.is_some(),
        residual: false,
        activation: Activation::None,
    };
    let operands: Vec<ValueId> = [weights].into_iter().chain(bias).collect();
    let axes = conv.window.axes;
    Ok(channels_last(importer, node, axes, x, Op::Conv(conv), &operands))
}

pub(super) fn pool(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let kernel = node.extents("kernel_shape")?.ok_or_else(|| node.invalid("it has no kernel_shape"))?;
    let kind = match node.proto.op_type.as_str() {
        "MaxPool" => PoolKind::Max,
        _ => PoolKind::Average { count_padding: node.int("count_include_pad", 0)? != 0 },
    };
    if node.int("storage_order", 0)? != 0 {
        return Err(node.refuse("its storage order is by columns"));
    }
    let pool = Pool { kind, window: spatial(node, &kernel)?, ceil: node.int("ceil_mode", 0)? != 0 };
    let axes = pool.window.axes;
    let x = importer.operand(node, 0)?;
    Ok(channels_last(importer, node, axes, x, Op::Pool(pool), &[]))
}

pub(super) fn global_pool(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let kind = if node.proto.op_type == "GlobalMaxPool" { ReduceKind::Max } else { ReduceKind::Mean };
    let x = importer.operand(node, 0)?;
    let reduce = Reduce { kind, axes: Axes::From(2), keep: true };
    Ok(importer.graph.add(&node.shown(), Op::Reduce(reduce), &[x]))
}

/// With constant statistics it is a scale and a shift of each channel.
pub(super) fn batch_normalization(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    importer.expect_test(node)?;
    if node.int("training_mode", 0)? != 0 || node.int("spatial", 1)? == 0 {
        return Err(node.refuse("it trains, or normalises elements by themselves"));
    }
    let x = importer.operand(node, 0)?;
    let constant = |at: usize| {
        let tensor = importer.graph.constant(importer.operand(node, at)?);
        tensor.and_then(floats).ok_or_else(|| node.refuse("its statistics are no constants of FP32"))
    };
    let [scale, bias, mean, variance] = [constant(1)?, constant(2)?, constant(3)?, constant(4)?];
    if [&bias, &mean, &variance].iter().any(|other| other.len() != scale.len()) {
        return Err(node.invalid("its statistics have not the same number of channels"));
    }
    let epsilon = node.float("epsilon", 1e-5)?;
    let scale: Vec<f32> =
        scale.iter().zip(&variance).map(|(scale, variance)| scale / (variance + epsilon).sqrt()).collect();
    let shift: Vec<f32> = bias.iter().zip(&mean).zip(&scale).map(|((bias, mean), scale)| bias - mean * scale).collect();
    let mut channels = |what: &str, elements: &[f32]| {
        importer.graph.add_constant(format!("{} {what}", node.shown()), tensor_of(&[elements.len()], elements))
    };
    let operands = [x, channels("scale", &scale), channels("shift", &shift)];
    Ok(importer.graph.add(&node.shown(), Op::Affine { axis: 1 }, &operands))
}

pub(super) fn conv_transpose(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let weights = importer.operand(node, 1)?;
    let tensor = importer.graph.constant(weights).ok_or_else(|| node.refuse("its weights are no constant"))?;
    let kernel = tensor.shape().get(2..).unwrap_or_default().to_vec();
    if node.int("group", 1)? != 1 || node.extents("output_shape")?.is_some() {
        return Err(node.refuse("it has groups, or an output_shape"));
    }
    let spatial = spatial(node, &kernel)?;
    let Padding::Given { before, after } = spatial.padding else {
        return Err(node.refuse("its padding follows from the output's extents"));
    };
    let extra = node.extents("output_padding")?.unwrap_or_else(|| vec![0; spatial.axes]);
    let extra = match *extra {
        [x] if spatial.axes == 1 => [0, x],
        [y, x] if spatial.axes == 2 => [y, x],
        _ => return Err(node.invalid("output_padding is not one for each axis")),
    };
    let bias = importer.optional(node, 2)?;
    let Spatial { axes, kernel, stride, dilation, .. } = spatial;
    let conv = ConvTranspose { axes, kernel, stride, dilation, before, after, extra, bias: bias.is_some() };
    let operands: Vec<ValueId> = [weights].into_iter().chain(bias).collect();
    let x = importer.operand(node, 0)?;
    Ok(channels_last(importer, node, axes, x, Op::ConvTranspose(conv), &operands))
}

/// Resize from opset 11 on, of the two spatial axes, by constant scales or by sizes.
pub(super) fn resize(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let place = match node.text("coordinate_transformation_mode")?.as_deref().unwrap_or("half_pixel") {
        "half_pixel" => PixelPlace::HalfPixel,
        "pytorch_half_pixel" => PixelPlace::TorchHalfPixel,
        "align_corners" => PixelPlace::AlignCorners,
        "asymmetric" => PixelPlace::Asymmetric,
        other => return Err(node.refuse(&format!("mode {other:?} has no layer"))),
    };
    let rounding = match node.text("nearest_mode")?.as_deref().unwrap_or("round_prefer_floor") {
        "round_prefer_floor" => Rounding::HalfDown,
        "round_prefer_ceil" => Rounding::HalfUp,
        "floor" => Rounding::Floor,
        "ceil" => Rounding::Ceil,
        other => return Err(node.invalid(&format!("nearest_mode {other:?} is not known"))),
    };
    let filter = match node.text("mode")?.as_deref().unwrap_or("nearest") {
        "nearest" => Filter::Nearest(rounding),
        "linear" => Filter::Linear,
        other => return Err(node.refuse(&format!("mode {other:?} has no layer"))),
    };
    let told_otherwise = node.int("antialias", 0)? != 0
        || node.int("exclude_outside", 0)? != 0
        || node.ints("axes")?.is_some()
        || node.text("keep_aspect_ratio_policy")?.is_some_and(|policy| policy != "stretch");
    if told_otherwise {
        return Err(node.refuse("it filters, or names axes"));
    }
    // Exporters leave an empty list where the other is given.
    let given = |at: usize| {
        let value = importer.optional(node, at)?;
        let is_empty = |value: ValueId| importer.graph.constant(value).is_some_and(|list| list.element_count() == 0);
        Ok::<_, EngineError>(value.filter(|value| !is_empty(*value)))
    };
    let (by_sizes, list) = match (given(2)?, given(3)?) {
        (Some(scales), None) => (false, scales),
        (None, Some(sizes)) => (true, sizes),
        _ => return Err(node.invalid("it needs either scales or sizes")),
    };
    // The list is of the axes as the file has them: images first, then channels.
    let order = importer.graph.add_constant("channels last", tensor_of_integers(&[4], &[0, 2, 3, 1]));
    let list = importer.graph.add(&node.shown(), Op::Gather { axis: 0 }, &[list, order]);
    let x = importer.operand(node, 0)?;
    Ok(channels_last(importer, node, 2, x, Op::Resize(Resize { by_sizes, filter, place }), &[list]))
}

/// Windows as attributes give them, over one or two axes.
fn spatial(node: &Source<'_>, kernel: &[usize]) -> Result<Spatial, EngineError> {
    let axes = kernel.len();
    if !(1..=2).contains(&axes) {
        return Err(node.refuse(&format!("it has {axes} spatial axes, 1 or 2 are served")));
    }
    let pair = |name: &str, given: &[usize], missing: usize| match *given {
        [x] if axes == 1 => Ok([missing, x]),
        [y, x] if axes == 2 => Ok([y, x]),
        _ => Err(node.invalid(&format!("{name} {given:?} is not one for each of {axes} axes"))),
    };
    let ones = vec![1; axes];
    let list = |name: &str| {
        let given = node.extents(name)?.unwrap_or_else(|| ones.clone());
        let pair = pair(name, &given, 1)?;
        if pair.contains(&0) { Err(node.invalid(&format!("{name} {given:?} has a zero"))) } else { Ok(pair) }
    };
    let pads = node.extents("pads")?.unwrap_or_else(|| vec![0; 2 * axes]);
    if pads.len() != 2 * axes {
        return Err(node.invalid(&format!("pads {pads:?} are not two for each of {axes} axes")));
    }
    let padding = match node.text("auto_pad")?.as_deref().unwrap_or("NOTSET") {
        "NOTSET" => Padding::Given { before: pair("pads", &pads[..axes], 0)?, after: pair("pads", &pads[axes..], 0)? },
        "VALID" => Padding::Given { before: [0, 0], after: [0, 0] },
        "SAME_UPPER" => Padding::Same { odd_before: false },
        "SAME_LOWER" => Padding::Same { odd_before: true },
        other => return Err(node.invalid(&format!("auto_pad {other:?} is not known"))),
    };
    let kernel = pair("kernel_shape", kernel, 1)?;
    if kernel.contains(&0) {
        return Err(node.invalid("its kernel has no elements"));
    }
    Ok(Spatial { axes, kernel, stride: list("strides")?, dilation: list("dilations")?, padding })
}

/// Adds an operator of channels-last images on a channels-first one, and gives back its channels-first output.
fn channels_last(
    importer: &mut Importer,
    node: &Source<'_>,
    axes: usize,
    x: ValueId,
    op: Op,
    others: &[ValueId],
) -> ValueId {
    let (to, back) = if axes == 1 { (vec![0, 2, 1], vec![0, 2, 1]) } else { (vec![0, 2, 3, 1], vec![0, 3, 1, 2]) };
    let name = node.shown();
    let x = importer.graph.add(&name, Op::Transpose { axes: to }, &[x]);
    let operands: Vec<ValueId> = [x].into_iter().chain(others.iter().copied()).collect();
    let y = importer.graph.add(&name, op, &operands);
    importer.graph.add(&name, Op::Transpose { axes: back }, &[y])
}
