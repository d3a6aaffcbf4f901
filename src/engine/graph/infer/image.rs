//! Shapes of operators over images, which are channels-last.

use super::{Fact, Facts, InferError, extents, two};
use crate::engine::graph::floats;
use crate::engine::graph::op::{Conv, ConvTranspose, Pool, PoolKind, Spatial};
use crate::tensor::{DType, Shape};

pub(super) fn conv_transpose(conv: &ConvTranspose, inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let [x, weights] = two(inputs)?;
    let (&[images, ref spatial @ .., channels], &[depth, out, ..]) = (&x.shape[..], &weights.shape[..]) else {
        return Err(InferError::Mismatch(x.shape.to_string(), weights.shape.to_string()));
    };
    if spatial.len() != conv.axes || channels != depth {
        return Err(InferError::Mismatch(x.shape.to_string(), weights.shape.to_string()));
    }
    let extent = |(at, extent): (usize, &usize)| {
        let axis = at + 2 - conv.axes;
        let spread = extent.checked_sub(1)?.checked_mul(conv.stride[axis])?;
        let reach = (conv.kernel[axis] - 1).checked_mul(conv.dilation[axis])?.checked_add(1 + conv.extra[axis])?;
        spread.checked_add(reach)?.checked_sub(conv.before[axis])?.checked_sub(conv.after[axis])
    };
    let extents = spatial.iter().enumerate().map(extent).collect::<Option<Vec<_>>>();
    let extents = extents.ok_or_else(|| InferError::Window { shape: x.shape.to_string() })?;
    Ok([images].into_iter().chain(extents).chain([out]).collect())
}

pub(super) fn resized(by_sizes: bool, inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let [x, given] = two(inputs)?;
    let shape: Shape = if by_sizes {
        extents(&given.integers("sizes")?)?
    } else {
        let scales = given.value.as_ref().and_then(floats).ok_or(InferError::Unknown { what: "scales" })?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the standard rounds down")]
        let scaled = |(&extent, scale): (&usize, f32)| (extent as f64 * f64::from(scale)).floor() as usize;
        if scales.len() != x.shape.len() {
            return Err(InferError::Operands { expected: x.shape.len(), got: scales.len() });
        }
        x.shape.iter().zip(scales).map(scaled).collect()
    };
    let (&[images, _, _, channels], &[images_out, _, _, channels_out]) = (&x.shape[..], &shape[..]) else {
        return Err(InferError::Rank { expected: "images of two axes", got: x.shape.to_string() });
    };
    match (images, channels) == (images_out, channels_out) && !x.shape.contains(&0) {
        true => Ok(shape),
        false => Err(InferError::Mismatch(x.shape.to_string(), shape.to_string())),
    }
}

/// Image, lines, columns and channels of a channels-last image with one or two spatial axes.
pub(in crate::engine) fn image(spatial: &Spatial, shape: &Shape) -> Result<[usize; 4], InferError> {
    match (spatial.axes, &shape[..]) {
        (1, &[images, columns, channels]) => Ok([images, 1, columns, channels]),
        (2, &[images, lines, columns, channels]) => Ok([images, lines, columns, channels]),
        _ => Err(InferError::Rank { expected: "images of one or two axes", got: shape.to_string() }),
    }
}

fn windows(spatial: &Spatial, ceil: bool, channels: usize, shape: &Shape) -> Result<Shape, InferError> {
    let [images, lines, columns, _] = image(spatial, shape)?;
    let [y, x] =
        spatial.output([lines, columns], ceil).ok_or_else(|| InferError::Window { shape: shape.to_string() })?;
    let all = [images, y.out, x.out, channels];
    Ok(if spatial.axes == 1 { Shape::new(&[images, x.out, channels]) } else { Shape::new(&all) })
}

pub(super) fn conv(conv: &Conv, inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let [x, weights] = two(inputs)?;
    let [_, _, _, channels] = image(&conv.window, &x.shape)?;
    let mismatch = || InferError::Mismatch(x.shape.to_string(), weights.shape.to_string());
    let (Some(&out), Some(&depth)) = (weights.shape.first(), weights.shape.get(1)) else { return Err(mismatch()) };
    if depth.checked_mul(conv.groups) != Some(channels) || !out.is_multiple_of(conv.groups) {
        return Err(mismatch());
    }
    let out = windows(&conv.window, false, out, &x.shape)?;
    if conv.residual {
        residual(inputs, &out)?
    }
    Ok(out)
}

/// The last operand is added as it is.
pub(super) fn residual(inputs: &Facts<'_>, out: &Shape) -> Result<(), InferError> {
    match inputs.last() {
        Some(last) if last.shape == *out => Ok(()),
        _ => Err(InferError::Mismatch(
            out.to_string(),
            inputs.last().map(|last| last.shape.to_string()).unwrap_or_default(),
        )),
    }
}

/// Greatest elements are found among bytes too.
pub(super) fn pool(pool: &Pool, x: &Fact) -> Result<Shape, InferError> {
    let is_byte = [DType::U8, DType::I8].contains(&x.dtype) && pool.kind == PoolKind::Max;
    if x.dtype != DType::F32 && !is_byte {
        return Err(InferError::Type { expected: "FP32, or bytes whose greatest are sought", got: x.dtype });
    }
    let [_, _, _, channels] = image(&pool.window, &x.shape)?;
    windows(&pool.window, pool.ceil, channels, &x.shape)
}
