//! Images of other extents, read between their pixels, and images put together from pieces.

use super::Importer;
use super::formula::Formula;
use super::image::channels_last;
use super::node::Source;
use crate::engine::EngineError;
use crate::engine::graph::op::{
    Aspect, Filter, Fold, Grid, Outside, PixelPlace, Regions, Resample, Resize, Rounding, Sampling, listed,
};
use crate::engine::graph::{Op, ValueId, floats, tensor_of};
use crate::tensor::DType;

/// Resize from opset 11 on. There is a layer of its own for the two axes of images.
pub(super) fn resize(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
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
    let resample = resample(node, by_sizes)?;
    let plain = Resample {
        by_sizes,
        axes: None,
        filter: resample.filter,
        place: resample.place,
        antialias: false,
        exclude_outside: false,
        extrapolation: resample.extrapolation,
        aspect: Aspect::Stretch,
    };
    let is_plain = resample == plain
        && matches!(resample.filter, Filter::Nearest(_) | Filter::Linear)
        && !matches!(resample.place, PixelPlace::Crop | PixelPlace::Symmetric);
    let x = importer.operand(node, 0)?;
    if is_plain && importer.dtype(x) == DType::F32 && of_images(importer, list, by_sizes) {
        let resize = Resize { by_sizes, filter: resample.filter, place: resample.place };
        return Ok(images(importer, node, resize, x, list));
    }
    let roi = importer.optional(node, 1)?.filter(|_| resample.place == PixelPlace::Crop);
    let mut formula = Formula { dtype: DType::F32, name: node.shown(), importer };
    let roi = roi.map(|roi| formula.cast(roi, DType::F32));
    let operands: Vec<ValueId> = [x, list].into_iter().chain(roi).collect();
    Ok(formula.op(Op::Sample(Sampling::Resample(resample)), &operands))
}

/// Whether a list of scales or sizes may be one of two axes behind those of images and channels.
fn of_images(importer: &Importer, list: ValueId, by_sizes: bool) -> bool {
    let scales = importer.graph.constant(list).filter(|_| !by_sizes).and_then(floats);
    match (scales, importer.extents(list).as_deref()) {
        (Some(scales), _) => scales.len() == 4 && scales[..2].iter().all(|scale| scale.to_bits() == 1f32.to_bits()),
        (None, Some(&[Some(length)])) => length == 4,
        _ => true,
    }
}

fn images(importer: &mut Importer, node: &Source<'_>, resize: Resize, x: ValueId, list: ValueId) -> ValueId {
    // The list is of the axes as the file has them: images first, then channels.
    let order = importer.list_of("channels last", &[0, 2, 3, 1]);
    let list = importer.graph.add(&node.shown(), Op::Gather { axis: 0 }, &[list, order]);
    channels_last(importer, node, 2, x, Op::Resize(resize), &[list])
}

fn resample(node: &Source<'_>, by_sizes: bool) -> Result<Resample, EngineError> {
    let place = match node.text("coordinate_transformation_mode")?.as_deref().unwrap_or("half_pixel") {
        "half_pixel" => PixelPlace::HalfPixel,
        "half_pixel_symmetric" => PixelPlace::Symmetric,
        "pytorch_half_pixel" => PixelPlace::TorchHalfPixel,
        "align_corners" => PixelPlace::AlignCorners,
        "asymmetric" => PixelPlace::Asymmetric,
        "tf_crop_and_resize" => PixelPlace::Crop,
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
        "cubic" => Filter::Cubic { a: node.float("cubic_coeff_a", -0.75)? },
        other => return Err(node.refuse(&format!("mode {other:?} has no layer"))),
    };
    let aspect = match node.text("keep_aspect_ratio_policy")?.as_deref().unwrap_or("stretch") {
        "stretch" => Aspect::Stretch,
        "not_larger" => Aspect::NotLarger,
        "not_smaller" => Aspect::NotSmaller,
        other => return Err(node.invalid(&format!("keep_aspect_ratio_policy {other:?} is not known"))),
    };
    let axes = node.ints("axes")?;
    Ok(Resample {
        by_sizes,
        axes: axes.map(|axes| axes.into_iter().map(listed).collect()),
        filter,
        place,
        antialias: node.int("antialias", 0)? != 0,
        exclude_outside: node.int("exclude_outside", 0)? != 0,
        extrapolation: node.float("extrapolation_value", 0.0)?,
        aspect,
    })
}

/// Upsample up to opset 9: scales of all axes, an attribute up to opset 8.
pub(super) fn upsample(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let filter = match node.text("mode")?.as_deref().unwrap_or("nearest") {
        "nearest" => Filter::Nearest(Rounding::Floor),
        "linear" | "bilinear" => Filter::Linear,
        other => return Err(node.refuse(&format!("mode {other:?} has no layer"))),
    };
    let scales = match node.floats("scales")? {
        Some(scales) => {
            importer.graph.add_constant(format!("{} scales", node.shown()), tensor_of(&[scales.len()], &scales))
        }
        None => importer.operand(node, 1)?,
    };
    let x = importer.operand(node, 0)?;
    let place = PixelPlace::Asymmetric;
    if importer.dtype(x) == DType::F32 && of_images(importer, scales, false) {
        return Ok(images(importer, node, Resize { by_sizes: false, filter, place }, x, scales));
    }
    let resample = Resample {
        by_sizes: false,
        axes: None,
        filter,
        place,
        antialias: false,
        exclude_outside: false,
        extrapolation: 0.0,
        aspect: Aspect::Stretch,
    };
    Ok(importer.graph.add(&node.shown(), Op::Sample(Sampling::Resample(resample)), &[x, scales]))
}

pub(super) fn grid_sample(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let filter = match node.text("mode")?.as_deref().unwrap_or("linear") {
        "nearest" => Filter::Nearest(Rounding::HalfDown),
        "linear" | "bilinear" => Filter::Linear,
        "cubic" | "bicubic" => Filter::Cubic { a: -0.75 },
        other => return Err(node.invalid(&format!("mode {other:?} is not known"))),
    };
    let outside = match node.text("padding_mode")?.as_deref().unwrap_or("zeros") {
        "zeros" => Outside::Zeros,
        "border" => Outside::Edge,
        "reflection" => Outside::Reflection,
        other => return Err(node.invalid(&format!("padding_mode {other:?} is not known"))),
    };
    let grid = Grid { filter, outside, align_corners: node.int("align_corners", 0)? != 0 };
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?];
    Ok(importer.graph.add(&node.shown(), Op::Sample(Sampling::Grid(grid)), &operands))
}

pub(super) fn affine_grid(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let op = Sampling::AffineGrid { align_corners: node.int("align_corners", 0)? != 0 };
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?];
    Ok(importer.graph.add(&node.shown(), Op::Sample(op), &operands))
}

pub(super) fn fold(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let list = |name: &str| node.extents(name).map(Option::unwrap_or_default);
    let fold = Fold { strides: list("strides")?, dilations: list("dilations")?, pads: list("pads")? };
    if fold.strides.contains(&0) || fold.dilations.contains(&0) {
        return Err(node.invalid("a stride or dilation is zero"));
    }
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?, importer.operand(node, 2)?];
    Ok(importer.graph.add(&node.shown(), Op::Sample(Sampling::Fold(fold)), &operands))
}

/// Corners lie half a pixel further in front from opset 16 on, unless it is told otherwise.
pub(super) fn regions(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let is_new = importer.versions.get("").is_some_and(|version| *version > 15);
    let half_pixel = match node.text("coordinate_transformation_mode")?.as_deref() {
        None => is_new,
        Some("half_pixel") => true,
        Some("output_half_pixel") => false,
        Some(other) => return Err(node.invalid(&format!("mode {other:?} is not known"))),
    };
    let greatest = match node.text("mode")?.as_deref().unwrap_or("avg") {
        "avg" => false,
        "max" => true,
        other => return Err(node.invalid(&format!("mode {other:?} is not known"))),
    };
    let extent = |name: &str, default: i64| {
        let extent = usize::try_from(node.int(name, default)?).ok().filter(|extent| *extent <= 1 << 12);
        extent.ok_or_else(|| node.invalid(&format!("{name} is none")))
    };
    let out = [extent("output_height", 1)?, extent("output_width", 1)?];
    if out.contains(&0) {
        return Err(node.invalid("its output has no pixels"));
    }
    let (samples, scale) = (extent("sampling_ratio", 0)?, node.float("spatial_scale", 1.0)?);
    let operands = [importer.operand(node, 0)?, importer.operand(node, 1)?, importer.operand(node, 2)?];
    let regions = Regions { out, scale, samples, half_pixel, greatest };
    Ok(importer.graph.add(&node.shown(), Op::Sample(Sampling::Regions(regions)), &operands))
}

pub(super) fn determinant(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let x = importer.operand(node, 0)?;
    Ok(importer.graph.add(&node.shown(), Op::Sample(Sampling::Determinant), &[x]))
}
