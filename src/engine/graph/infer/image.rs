//! Shapes of operators over images, which are channels-last.

use super::{Fact, Facts, InferError, extents, is_float, is_number, two};
use crate::engine::graph::floats;
use crate::engine::graph::op::{Conv, ConvTranspose, Pool, PoolKind, Spatial, WindowKind, Windows};
use crate::tensor::{DType, Shape};

pub(super) fn conv_transpose(conv: &ConvTranspose, inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let [x, weights] = two(inputs)?;
    let [images, lines, columns, channels] = image(&conv.window, &x.shape)?;
    let mismatch = || InferError::Mismatch(x.shape.to_string(), weights.shape.to_string());
    let &[depth, out, ref kernel @ ..] = &weights.shape[..] else { return Err(mismatch()) };
    if channels != depth || !depth.is_multiple_of(conv.groups) || !is_kernel(&conv.window, kernel) {
        return Err(mismatch());
    }
    let window = || InferError::Window { shape: x.shape.to_string() };
    let [y, x] = conv.output([lines, columns]).ok_or_else(window)?;
    let out = out.checked_mul(conv.groups).ok_or(InferError::Overflow)?;
    if conv.bias {
        bias(inputs, out)?;
    }
    Ok(match conv.window.axes {
        1 => Shape::new(&[images, x.out, out]),
        _ => Shape::new(&[images, y.out, x.out, out]),
    })
}

/// Whether weights have the extents of a window behind their channels.
fn is_kernel(window: &Spatial, kernel: &[usize]) -> bool {
    kernel.len() == window.axes && window.kernel[2 - window.axes..] == *kernel
}

/// Windows over all axes behind the second.
pub(super) fn windows_over(windows: &Windows, x: &Fact) -> Result<Fact, InferError> {
    let &[images, channels, ref size @ ..] = &x.shape[..] else {
        return Err(InferError::Rank { expected: "images", got: x.shape.to_string() });
    };
    let is_extreme = matches!(windows.kind, WindowKind::Max | WindowKind::Place { .. });
    if !(is_float(x.dtype) || is_extreme && is_number(x.dtype)) {
        return Err(InferError::Type { expected: "numbers that windows know", got: x.dtype });
    }
    if size.len() != windows.axes.len() {
        return Err(InferError::Rank { expected: "an axis for each of the window's", got: x.shape.to_string() });
    }
    let out = size.iter().zip(&windows.axes).map(|(size, axis)| Some(axis.output(*size, windows.ceil)?.out));
    let out = out.collect::<Option<Vec<_>>>().ok_or_else(|| InferError::Window { shape: x.shape.to_string() })?;
    let dtype = if let WindowKind::Place { .. } = windows.kind { DType::I64 } else { x.dtype };
    Ok(Fact::new(dtype, [images, channels].into_iter().chain(out).collect()))
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
    if depth.checked_mul(conv.groups) != Some(channels)
        || !out.is_multiple_of(conv.groups)
        || !is_kernel(&conv.window, &weights.shape[2..])
    {
        return Err(mismatch());
    }
    if conv.bias {
        bias(inputs, out)?;
    }
    let out = windows(&conv.window, false, out, &x.shape)?;
    if conv.residual {
        residual(inputs, &out)?
    }
    Ok(out)
}

/// The third operand has an element for each channel.
fn bias(inputs: &Facts<'_>, channels: usize) -> Result<(), InferError> {
    match inputs.get(2).filter(|bias| bias.elements() != channels) {
        Some(bias) => Err(InferError::Mismatch(bias.shape.to_string(), format!("[{channels}]"))),
        None => Ok(()),
    }
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
