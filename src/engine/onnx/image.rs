//! Operators over images: each is put between two transpositions, because ours are channels-last.

use kinglet_kernels::Activation;

use super::formula::Formula;
use super::node::Source;
use super::{Importer, volume};
use crate::engine::EngineError;
use crate::engine::graph::op::{
    Axes, AxisPadding, Binary, Conv, ConvTranspose, PadKind, Pool, PoolKind, Reduce, ReduceKind, Spatial, WindowAxis,
    WindowKind, Windows,
};
use crate::engine::graph::{Op, ValueId};
use crate::tensor::{DType, Shape};

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
    let axes = axes(node, &kernel(importer, node, weights)?)?;
    let (groups, operands) = (groups(node)?, Operands { x, weights, bias });
    if groups > 1 || axes.len() > 2 {
        importer.graph.decode(weights);
    }
    match *axes {
        [depth, lines, columns] => volume::conv(importer, node, operands, groups, [depth, lines, columns]),
        _ => conv_over(importer, node, operands, groups, (&axes, false)),
    }
}

/// A convolution of integers, whose sums are exact.
pub(super) fn exact_conv(
    importer: &mut Importer,
    node: &Source<'_>,
    operands: Operands,
    groups: usize,
    axes: &[WindowAxis],
) -> Result<ValueId, EngineError> {
    conv_over(importer, node, operands, groups, (axes, true))
}

/// What a convolution is of.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    pub(super) x: ValueId,
    pub(super) weights: ValueId,
    pub(super) bias: Option<ValueId>,
}

/// Over one or two axes; exact or not.
pub(super) fn conv_over(
    importer: &mut Importer,
    node: &Source<'_>,
    operands: Operands,
    groups: usize,
    (axes, exact): (&[WindowAxis], bool),
) -> Result<ValueId, EngineError> {
    let window = spatial(node, axes)?;
    let bias = operands.bias.is_some();
    let conv = Conv { window, groups, bias, scale: false, residual: false, activation: Activation::None, exact };
    let others: Vec<ValueId> = [operands.weights].into_iter().chain(operands.bias).collect();
    Ok(channels_last(importer, node, axes.len(), operands.x, Op::Conv(conv), &others))
}

pub(super) fn groups(node: &Source<'_>) -> Result<usize, EngineError> {
    let groups = usize::try_from(node.int("group", 1)?).ok().filter(|groups| *groups > 0);
    groups.ok_or_else(|| node.invalid("group must be positive"))
}

/// Extents of a kernel: those of its weights, or those that the node names.
pub(super) fn kernel(importer: &Importer, node: &Source<'_>, weights: ValueId) -> Result<Vec<usize>, EngineError> {
    let known = importer.extents(weights).and_then(|all| all.get(2..)?.iter().copied().collect::<Option<Vec<_>>>());
    match (node.extents("kernel_shape")?, known) {
        (Some(given), Some(known)) if given != known => {
            let shape: Vec<_> = importer.extents(weights).unwrap_or_default().into_iter().flatten().collect();
            Err(node.invalid(&format!("kernel_shape {given:?} is not that of weights {}", Shape::new(&shape))))
        }
        (Some(kernel), _) | (None, Some(kernel)) => Ok(kernel),
        (None, None) => Err(node.refuse("the extents of its weights are not known")),
    }
}

/// Greatest elements, where they are if that is asked for, and averages. There are kernels for images of one or two axes.
pub(super) fn pool(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    let x = importer.operand(node, 0)?;
    pool_of(importer, node, x)
}

/// A pool of this operand, with the node's attributes.
pub(super) fn pool_of(importer: &mut Importer, node: &Source<'_>, x: ValueId) -> Result<Vec<ValueId>, EngineError> {
    let kernel = node.extents("kernel_shape")?.ok_or_else(|| node.invalid("it has no kernel_shape"))?;
    let (axes, ceil) = (axes(node, &kernel)?, node.int("ceil_mode", 0)? != 0);
    let count_padding = node.int("count_include_pad", 0)? != 0;
    let by_columns = node.int("storage_order", 0)? != 0;
    let p = node.int("p", 2)?;
    let (kind, fast) = match node.proto.op_type.as_str() {
        "MaxPool" | "NhwcMaxPool" => (WindowKind::Max, Some(PoolKind::Max)),
        "LpPool" => {
            let p = u16::try_from(p).ok().filter(|p| *p > 0).ok_or_else(|| node.invalid("p must be positive"))?;
            (WindowKind::Length { p }, None)
        }
        _ => (WindowKind::Average { count_padding }, Some(PoolKind::Average { count_padding })),
    };
    let is_average = kind == WindowKind::Average { count_padding: true };
    if is_average && ceil && axes.iter().any(|axis| axis.dilation > 1) {
        return Err(node.refuse("it is not agreed on what a dilated window counts beyond the padding"));
    }
    let is_byte = matches!(importer.dtype(x), DType::U8 | DType::I8) && kind == WindowKind::Max;
    let fast = fast.filter(|_| axes.len() <= 2 && (is_byte || importer.dtype(x) == DType::F32));
    let pooled = match fast {
        Some(kind) => {
            let pool = Pool { kind, window: spatial(node, &axes)?, ceil };
            channels_last(importer, node, axes.len(), x, Op::Pool(pool), &[])
        }
        None => importer.graph.add(&node.shown(), Op::Windows(Windows { kind, axes: axes.clone(), ceil }), &[x]),
    };
    if !node.has_output(1) {
        return Ok(vec![pooled]);
    }
    let places = Windows { kind: WindowKind::Place { by_columns }, axes, ceil };
    Ok(vec![pooled, importer.graph.add(&node.shown(), Op::Windows(places), &[x])])
}

/// Elements where they stood before a pool took the greatest, and zeros elsewhere.
pub(super) fn unpool(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let kernel = node.extents("kernel_shape")?.ok_or_else(|| node.invalid("it has no kernel_shape"))?;
    let axes = axes(node, &kernel)?;
    let (places, given) = (importer.operand(node, 1)?, importer.optional(node, 2)?);
    let (mut formula, x) = Formula::of(importer, node)?;
    let mut stride = Vec::new();
    let mut more = Vec::new();
    for axis in &axes {
        let AxisPadding::Given { before, after } = axis.padding else {
            return Err(node.refuse("its padding follows from the output's extents"));
        };
        let number = |extent: usize| i64::try_from(extent).unwrap_or(i64::MAX);
        stride.push(number(axis.stride));
        more.push(number(axis.kernel) - number(axis.stride) - number(before) - number(after));
    }
    let images = formula.extents(x, 0, Some(2));
    let size = formula.extents(x, 2, None);
    let [stride, more] = [stride, more].map(|list| formula.list(&list));
    let size = formula.binary(Binary::Mul, size, stride);
    let size = formula.binary(Binary::Add, size, more);
    let own = formula.concat(0, &[images, size]);
    let rank = axes.len() + 2;
    let all = formula.list(&[-1]);
    let dtype = formula.dtype;
    let empty = formula.filled(own, dtype, 0.0);
    let flat = formula.reshape(empty, all);
    let [places, x] = [places, x].map(|operand| formula.reshape(operand, all));
    let put = formula.op(Op::ScatterElements { axis: 0, with: None }, &[flat, places, x]);
    let image = formula.reshape_exactly(put, own);
    let Some(given) = given else { return Ok(image) };
    // A greater output has it at its beginning.
    let before = formula.list(&vec![0; rank]);
    let after = formula.binary(Binary::Sub, given, own);
    let pads = formula.concat(0, &[before, after]);
    Ok(formula.op(Op::Pad(PadKind::Constant), &[image, pads]))
}

pub(super) fn global_pool(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let x = importer.operand(node, 0)?;
    Ok(global_pool_of(importer, node, x))
}

/// A pool of all pixels of this operand.
pub(super) fn global_pool_of(importer: &mut Importer, node: &Source<'_>, x: ValueId) -> ValueId {
    let kind = if node.proto.op_type == "GlobalMaxPool" { ReduceKind::Max } else { ReduceKind::Mean };
    let reduce = Reduce { kind, axes: Axes::From(2), keep: true };
    importer.graph.add(&node.shown(), Op::Reduce(reduce), &[x])
}

/// NhwcMaxPool of ONNX Runtime's own operators.
pub(super) fn max_pool_of_last(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let x = importer.operand(node, 0)?;
    channels_first(importer, node, x, |importer, x| pool_of(importer, node, x).map(|pooled| pooled[0]))
}

/// An operator of channels-first images on one that the file has channels-last.
pub(super) fn channels_first(
    importer: &mut Importer,
    node: &Source<'_>,
    x: ValueId,
    inner: impl FnOnce(&mut Importer, ValueId) -> Result<ValueId, EngineError>,
) -> Result<ValueId, EngineError> {
    let axes = node.extents("kernel_shape")?.map(|kernel| kernel.len() + 2);
    let rank = axes.or_else(|| importer.extents(x).map(|extents| extents.len())).filter(|rank| *rank > 2);
    let rank = rank.ok_or_else(|| node.refuse("how many axes its channels-last image has is not known"))?;
    let to = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    let back = [0].into_iter().chain(2..rank).chain([1]).collect();
    let x = importer.graph.add(&node.shown(), Op::Transpose { axes: to }, &[x]);
    let y = inner(importer, x)?;
    Ok(importer.graph.add(&node.shown(), Op::Transpose { axes: back }, &[y]))
}

pub(super) fn conv_transpose(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (x, weights) = (importer.operand(node, 0)?, importer.operand(node, 1)?);
    let bias = importer.optional(node, 2)?;
    let axes = axes(node, &kernel(importer, node, weights)?)?;
    let (groups, operands) = (groups(node)?, Operands { x, weights, bias });
    let list = |name: &str| match node.extents(name)? {
        Some(list) if list.len() != axes.len() => Err(node.invalid(&format!("{name} is not one for each axis"))),
        given => Ok(given),
    };
    let (extra, to) = (list("output_padding")?.unwrap_or_else(|| vec![0; axes.len()]), list("output_shape")?);
    if let ([depth, lines, columns], [z, y, x]) = (axes.as_slice(), extra.as_slice()) {
        let axes = [(*depth, *z), (*lines, *y), (*columns, *x)];
        return match to {
            None => volume::conv_transpose(importer, node, operands, groups, axes),
            Some(_) => Err(node.refuse("its padding follows from the output's extents")),
        };
    }
    conv_transpose_over(importer, node, operands, groups, &axes, [extra, to.unwrap_or_default()])
}

/// Over one or two axes, with what is added behind the last pixels, and the output's extents if they are given.
pub(super) fn conv_transpose_over(
    importer: &mut Importer,
    node: &Source<'_>,
    operands: Operands,
    groups: usize,
    axes: &[WindowAxis],
    [extra, to]: [Vec<usize>; 2],
) -> Result<ValueId, EngineError> {
    let pair = |list: &[usize], missing: usize| match *list {
        [x] => [missing, x],
        [y, x, ..] => [y, x],
        [] => [missing; 2],
    };
    let to = (!to.is_empty()).then(|| pair(&to, 1));
    let bias = operands.bias.is_some();
    let activation = Activation::None;
    let conv = ConvTranspose { window: spatial(node, axes)?, groups, extra: pair(&extra, 0), to, bias, activation };
    let others: Vec<ValueId> = [operands.weights].into_iter().chain(operands.bias).collect();
    Ok(channels_last(importer, node, axes.len(), operands.x, Op::ConvTranspose(conv), &others))
}

/// Windows as attributes give them, an axis for each of the kernel's.
pub(super) fn axes(node: &Source<'_>, kernel: &[usize]) -> Result<Vec<WindowAxis>, EngineError> {
    let axes = kernel.len();
    if !(1..=AXES_MAX).contains(&axes) {
        return Err(node.refuse(&format!("it has {axes} spatial axes, 1 to {AXES_MAX} are served")));
    }
    let list = |name: &str| {
        let given = node.extents(name)?.unwrap_or_else(|| vec![1; axes]);
        match given.len() == axes {
            _ if given.contains(&0) => Err(node.invalid(&format!("{name} {given:?} has a zero"))),
            false => Err(node.invalid(&format!("{name} {given:?} is not one for each of {axes} axes"))),
            true => Ok(given),
        }
    };
    let pads = node.extents("pads")?.unwrap_or_else(|| vec![0; 2 * axes]);
    if pads.len() != 2 * axes {
        return Err(node.invalid(&format!("pads {pads:?} are not two for each of {axes} axes")));
    }
    let padding: fn([usize; 2]) -> AxisPadding = match node.text("auto_pad")?.as_deref().unwrap_or("NOTSET") {
        "NOTSET" => |[before, after]| AxisPadding::Given { before, after },
        "VALID" => |_| AxisPadding::Given { before: 0, after: 0 },
        "SAME_UPPER" => |_| AxisPadding::Same { odd_before: false },
        "SAME_LOWER" => |_| AxisPadding::Same { odd_before: true },
        other => return Err(node.invalid(&format!("auto_pad {other:?} is not known"))),
    };
    if kernel.contains(&0) {
        return Err(node.invalid("its kernel has no elements"));
    }
    let (strides, dilations) = (list("strides")?, list("dilations")?);
    let axis = |at: usize| WindowAxis {
        kernel: kernel[at],
        stride: strides[at],
        dilation: dilations[at],
        padding: padding([pads[at], pads[at + axes]]),
    };
    Ok((0..axes).map(axis).collect())
}

/// Three, as pictures of bodies have them.
const AXES_MAX: usize = 3;

fn spatial(node: &Source<'_>, axes: &[WindowAxis]) -> Result<Spatial, EngineError> {
    Spatial::of(axes).ok_or_else(|| node.refuse(&format!("there is no layer over {} axes", axes.len())))
}

/// Adds an operator of channels-last images on a channels-first one, and gives back its channels-first output.
pub(super) fn channels_last(
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
