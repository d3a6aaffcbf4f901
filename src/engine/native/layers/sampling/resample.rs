//! Images of other extents along any axes, one axis after the other.

use bytemuck::Pod;

use super::super::Io;
use super::super::resize::{nearest, place};
use super::super::types::sized;
use crate::engine::graph::infer::{self, Facts, Scaled};
use crate::engine::graph::op::{Filter, PixelPlace, Resample};

pub(super) fn run(resample: &Resample, io: &mut Io<'_>) {
    let facts: Facts<'_> = io.operands.iter().map(|operand| operand.fact).collect();
    // Inference has read the same scales.
    let Ok(axes) = infer::resampled(resample, &facts) else { return };
    let shape = io.operands[0].shape().to_vec();
    let walk: Vec<Vec<Taps>> = (0..shape.len()).map(|axis| taps(resample, io, axis, axes[axis])).collect();
    match resample.filter {
        Filter::Nearest(_) => sized!(io.output.fact.dtype, T => chosen::<T>(resample, io, &shape, &walk)),
        _ => weighted(resample, io, shape, &walk),
    }
}

/// Pixels that an output pixel is made of along one axis, and their weights; nothing where it lies outside what is seen.
type Taps = Option<Vec<(usize, f64)>>;

fn taps(resample: &Resample, io: &Io<'_>, axis: usize, scaled: Scaled) -> Vec<Taps> {
    let extent = io.operands[0].shape()[axis];
    let roi = io.operands.get(2).filter(|_| resample.place == PixelPlace::Crop).map(|roi| {
        let all = roi.elements::<f32>();
        let named = match &resample.axes {
            Some(axes) => axes.iter().position(|at| infer::axis(*at, io.operands[0].shape()) == Ok(axis)),
            None => Some(axis),
        };
        let bound = |at: usize| all.get(at).copied().map_or(0.0, f64::from);
        named.map_or([0.0, 1.0], |at| [bound(at), bound(at + all.len() / 2)])
    });
    let is_kept =
        scaled.out == extent && scaled.scale.to_bits() == 1f64.to_bits() && roi.is_none_or(|roi| roi == [0.0, 1.0]);
    let one = |at: usize| {
        if is_kept {
            return Some(vec![(at, 1.0)]);
        }
        let place = place(resample.place, at, [extent, scaled.out], scaled.scale, roi);
        let last = (extent - 1) as f64;
        if resample.place == PixelPlace::Crop && !(0.0..=last).contains(&place) {
            return None;
        }
        Some(match resample.filter {
            Filter::Nearest(rounding) => vec![(nearest(rounding, place, extent), 1.0)],
            filter => around(resample, filter, place, extent, scaled.scale),
        })
    };
    (0..scaled.out).map(one).collect()
}

/// Pixels around a place, with the weights that a filter gives them.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "places are within the axis, or next to it"
)]
fn around(resample: &Resample, filter: Filter, place: f64, extent: usize, scale: f64) -> Vec<(usize, f64)> {
    let narrow = if resample.antialias { scale.min(1.0) } else { 1.0 };
    let (reach, weight): (f64, &dyn Fn(f64) -> f64) = match filter {
        Filter::Cubic { a } => (2.0, &move |x| cubic(f64::from(a), x)),
        _ => (1.0, &|x: f64| (1.0 - x.abs()).max(0.0)),
    };
    let (first, ratio) = (place.floor(), place - place.floor());
    let start = (-reach / narrow).floor() as i64 + 1;
    let mut taps: Vec<(usize, f64)> = Vec::new();
    for step in start..2 - start {
        let at = first as i64 + step;
        let inside = at.clamp(0, i64::try_from(extent).unwrap_or(i64::MAX) - 1);
        let weight = weight((step as f64 - ratio) * narrow);
        if weight != 0.0 && (at == inside || !resample.exclude_outside) {
            taps.push((inside as usize, weight));
        }
    }
    let sum: f64 = taps.iter().map(|(_, weight)| weight).sum();
    taps.iter_mut().for_each(|(_, weight)| *weight /= sum);
    taps
}

/// Keys' cubic convolution.
fn cubic(a: f64, x: f64) -> f64 {
    let x = x.abs();
    match x {
        ..=1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        ..2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        _ => 0.0,
    }
}

fn weighted(resample: &Resample, io: &mut Io<'_>, shape: Vec<usize>, walk: &[Vec<Taps>]) {
    let mut extents = shape;
    let mut held: Vec<f32> = io.operands[0].elements::<f32>().to_vec();
    for (axis, taps) in walk.iter().enumerate() {
        let inner: usize = extents[axis + 1..].iter().product();
        let mut made = vec![0.0; held.len() / extents[axis] * taps.len()];
        let lines = held.chunks_exact((extents[axis] * inner).max(1));
        for (from, to) in lines.zip(made.chunks_exact_mut((taps.len() * inner).max(1))) {
            for (taps, to) in taps.iter().zip(to.chunks_exact_mut(inner.max(1))) {
                for (lane, to) in to.iter_mut().enumerate() {
                    let sum = |taps: &Vec<(usize, f64)>| {
                        taps.iter().map(|(at, weight)| f64::from(from[at * inner + lane]) * weight).sum::<f64>()
                    };
                    #[expect(clippy::cast_possible_truncation, reason = "the type of the image")]
                    let narrowed = taps.as_ref().map_or(resample.extrapolation, |taps| sum(taps) as f32);
                    *to = narrowed;
                }
            }
        }
        extents[axis] = taps.len();
        held = made;
    }
    io.output.elements::<f32>().copy_from_slice(&held);
}

/// One pixel along every axis.
fn chosen<T: Pod>(resample: &Resample, io: &mut Io<'_>, shape: &[usize], walk: &[Vec<Taps>]) {
    let x = io.operands[0].elements::<T>();
    let mut outside = T::zeroed();
    if size_of::<T>() == size_of::<f32>() {
        bytemuck::bytes_of_mut(&mut outside).copy_from_slice(&resample.extrapolation.to_le_bytes());
    }
    for (at, to) in io.output.elements::<T>().iter_mut().enumerate() {
        let (mut rest, mut place, mut pitch) = (at, Some(0), 1);
        for (taps, extent) in walk.iter().zip(shape).rev() {
            let tap = taps[rest % taps.len()].as_ref().and_then(|taps| taps.first());
            place = place.zip(tap).map(|(place, (own, _))| place + own * pitch);
            (rest, pitch) = (rest / taps.len(), pitch * extent);
        }
        *to = place.map_or(outside, |place| x[place]);
    }
}
