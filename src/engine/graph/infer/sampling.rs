//! Shapes of operators that read images between their pixels, or put pieces of images together.

use super::{Fact, Facts, InferError, axis, extents, is_float, two};
use crate::engine::graph::floats;
use crate::engine::graph::op::{Aspect, Filter, Fold, Regions, Resample, Sampling};
use crate::tensor::{DType, Shape};

pub(super) fn sampled(op: &Sampling, inputs: &Facts<'_>) -> Result<Fact, InferError> {
    let x = *inputs.first().ok_or(InferError::Operands { expected: 1, got: 0 })?;
    let is_nearest = matches!(op, Sampling::Resample(Resample { filter: Filter::Nearest(_), .. }));
    let fits = match op {
        Sampling::Determinant => is_float(x.dtype),
        _ => x.dtype == DType::F32 || is_nearest && x.dtype.size().is_some(),
    };
    if !fits {
        return Err(InferError::Type { expected: "FP32", got: x.dtype });
    }
    let shape = match op {
        Sampling::Resample(resample) => resampled(resample, inputs)?.iter().map(|scaled| scaled.out).collect(),
        Sampling::Grid(_) => grid(two(inputs)?)?,
        Sampling::AffineGrid { .. } => affine(two(inputs)?)?,
        Sampling::Fold(fold) => {
            let folded = folded(fold, inputs)?;
            [folded.images, folded.channels].into_iter().chain(folded.axes.iter().map(|axis| axis.extent)).collect()
        }
        Sampling::Regions(regions) => self::regions(regions, inputs)?,
        Sampling::Determinant => match x.shape.split_last_chunk::<2>() {
            Some((before, [rows, columns])) if rows == columns => Shape::new(before),
            _ => return Err(InferError::Rank { expected: "square matrices", got: x.shape.to_string() }),
        },
    };
    Ok(Fact::new(x.dtype, shape))
}

/// What becomes of an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::engine) struct Scaled {
    pub(in crate::engine) out: usize,
    pub(in crate::engine) scale: f64,
}

/// What becomes of every axis.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the standard rounds down, or to the nearest"
)]
pub(in crate::engine) fn resampled(resample: &Resample, inputs: &Facts<'_>) -> Result<Vec<Scaled>, InferError> {
    let [x, given] = two(inputs)?;
    let axes = match &resample.axes {
        Some(axes) => axes.iter().map(|&at| axis(at, &x.shape)).collect::<Result<Vec<_>, _>>()?,
        None => (0..x.shape.len()).collect(),
    };
    let mut all: Vec<Scaled> = x.shape.iter().map(|&out| Scaled { out, scale: 1.0 }).collect();
    if x.shape.contains(&0) || given.elements() != axes.len() {
        return Err(InferError::Mismatch(x.shape.to_string(), given.shape.to_string()));
    }
    if !resample.by_sizes {
        let scales = given.value.as_ref().and_then(floats).ok_or(InferError::Unknown { what: "scales" })?;
        for (&axis, scale) in axes.iter().zip(scales) {
            let scale = f64::from(scale);
            all[axis] = Scaled { out: (x.shape[axis] as f64 * scale).floor() as usize, scale };
        }
        return Ok(all);
    }
    let sizes = extents(&given.integers("sizes")?)?;
    for (&axis, &out) in axes.iter().zip(sizes.iter()) {
        all[axis] = Scaled { out, scale: out as f64 / x.shape[axis] as f64 };
    }
    let scales = axes.iter().map(|&axis| all[axis].scale);
    let common = match resample.aspect {
        Aspect::Stretch => return Ok(all),
        Aspect::NotLarger => scales.fold(f64::INFINITY, f64::min),
        Aspect::NotSmaller => scales.fold(0.0, f64::max),
    };
    for &axis in &axes {
        all[axis] = Scaled { out: (common * x.shape[axis] as f64 + 0.5) as usize, scale: common };
    }
    Ok(all)
}

fn grid([x, grid]: [&Fact; 2]) -> Result<Shape, InferError> {
    let mismatch = || InferError::Mismatch(x.shape.to_string(), grid.shape.to_string());
    if grid.dtype != DType::F32 {
        return Err(InferError::Type { expected: "a grid of FP32", got: grid.dtype });
    }
    let &[images, channels, ref size @ ..] = &x.shape[..] else { return Err(mismatch()) };
    let &[rows, ref out @ .., axes] = &grid.shape[..] else { return Err(mismatch()) };
    if images != rows || axes != size.len() || out.len() != axes || axes == 0 || size.contains(&0) {
        return Err(mismatch());
    }
    Ok([images, channels].into_iter().chain(out.iter().copied()).collect())
}

fn affine([maps, size]: [&Fact; 2]) -> Result<Shape, InferError> {
    let size = extents(&size.integers("sizes")?)?;
    let mismatch = || InferError::Mismatch(maps.shape.to_string(), size.to_string());
    let &[images, _, ref size @ ..] = &size[..] else { return Err(mismatch()) };
    match size.len() {
        axes @ 2..=3 if maps.shape[..] == [images, axes, axes + 1] => {
            Ok([images].into_iter().chain(size.iter().copied()).chain([axes]).collect())
        }
        _ => Err(mismatch()),
    }
}

fn regions(regions: &Regions, inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let &[x, corners, images] = inputs.as_slice() else {
        return Err(InferError::Operands { expected: 3, got: inputs.len() });
    };
    if corners.dtype != DType::F32 || images.dtype != DType::I64 {
        return Err(InferError::Type { expected: "corners of FP32 and images of INT64", got: images.dtype });
    }
    match (&x.shape[..], &corners.shape[..], &images.shape[..]) {
        (&[_, channels, lines, columns], &[count, 4], &[other]) if count == other && lines * columns > 0 => {
            Ok(Shape::new(&[count, channels, regions.out[0], regions.out[1]]))
        }
        _ => Err(InferError::Mismatch(x.shape.to_string(), corners.shape.to_string())),
    }
}

/// Blocks and the image that they are put together to.
pub(in crate::engine) struct Folded {
    pub(in crate::engine) images: usize,
    pub(in crate::engine) channels: usize,
    pub(in crate::engine) axes: Vec<FoldedAxis>,
}

/// One axis of the image, of a block, and how many blocks lie along it.
pub(in crate::engine) struct FoldedAxis {
    pub(in crate::engine) extent: usize,
    pub(in crate::engine) block: usize,
    pub(in crate::engine) count: usize,
    pub(in crate::engine) stride: usize,
    pub(in crate::engine) dilation: usize,
    pub(in crate::engine) before: usize,
}

pub(in crate::engine) fn folded(fold: &Fold, inputs: &Facts<'_>) -> Result<Folded, InferError> {
    let &[x, size, block] = inputs.as_slice() else {
        return Err(InferError::Operands { expected: 3, got: inputs.len() });
    };
    let (size, block) =
        (extents(&size.integers("an image's extents")?)?, extents(&block.integers("a block's extents")?)?);
    let mismatch = || InferError::Mismatch(x.shape.to_string(), size.to_string());
    let &[images, rows, columns] = &x.shape[..] else { return Err(mismatch()) };
    let axes = size.len();
    let lists = [(&fold.strides, axes), (&fold.dilations, axes), (&fold.pads, 2 * axes)];
    if axes == 0 || block.len() != axes || block.contains(&0) {
        return Err(mismatch());
    }
    if let Some((list, _)) = lists.into_iter().find(|(list, length)| !list.is_empty() && list.len() != *length) {
        return Err(InferError::Operands { expected: axes, got: list.len() });
    }
    let or = |list: &[usize], at: usize, missing: usize| list.get(at).copied().unwrap_or(missing);
    let axis = |at: usize| {
        let (stride, dilation) = (or(&fold.strides, at, 1), or(&fold.dilations, at, 1));
        let (before, after) = (or(&fold.pads, at, 0), or(&fold.pads, at + axes, 0));
        let reach = (block[at] - 1).checked_mul(dilation)?.checked_add(1)?;
        let slack = size[at].checked_add(before)?.checked_add(after)?.checked_sub(reach)?;
        Some(FoldedAxis { extent: size[at], block: block[at], count: slack / stride + 1, stride, dilation, before })
    };
    let axes = (0..axes).map(axis).collect::<Option<Vec<_>>>().ok_or_else(mismatch)?;
    let taps = axes.iter().try_fold(1usize, |taps, axis| taps.checked_mul(axis.block)).ok_or_else(mismatch)?;
    let count = axes.iter().try_fold(1usize, |count, axis| count.checked_mul(axis.count)).ok_or_else(mismatch)?;
    match rows.is_multiple_of(taps) && count == columns {
        true => Ok(Folded { images, channels: rows / taps, axes }),
        false => Err(mismatch()),
    }
}
