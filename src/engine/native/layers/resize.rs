//! Images of other extents.

use super::{Io, Layer};
use crate::engine::graph::op::{Filter, PixelPlace, Resize, Rounding};
use crate::engine::pool::Team;

#[derive(Debug)]
pub(super) struct Resizing(pub(super) Resize);

/// Two input pixels, and the share of the second.
type Between = (usize, usize, f32);

impl Layer for Resizing {
    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        let x = io.operands[0];
        let (&[images, lines, columns, channels], &[_, lines_out, columns_out, _]) =
            (&x.shape()[..], &io.output.fact.shape[..])
        else {
            return;
        };
        let scale = |axis: usize| -> Option<f64> {
            let scales = io.operands.get(1).filter(|_| !self.0.by_sizes)?;
            Some(f64::from(scales.elements::<f32>()[axis]))
        };
        let (down, across) = (self.places(lines, lines_out, scale(1)), self.places(columns, columns_out, scale(2)));
        let from: &[f32] = bytemuck::cast_slice(x.bytes);
        let pixel =
            |image: usize, y: usize, x: usize| &from[((image * lines + y) * columns + x) * channels..][..channels];
        let out: &mut [f32] = bytemuck::cast_slice_mut(io.output.bytes);
        let mut pixels = out.chunks_exact_mut(channels.max(1));
        for image in 0..images {
            for &(top, bottom, low) in &down {
                for (&(left, right, far), to) in across.iter().zip(&mut pixels) {
                    if let Filter::Nearest(_) = self.0.filter {
                        to.copy_from_slice(pixel(image, top, left));
                        continue;
                    }
                    let corners = [
                        pixel(image, top, left),
                        pixel(image, top, right),
                        pixel(image, bottom, left),
                        pixel(image, bottom, right),
                    ];
                    for (channel, to) in to.iter_mut().enumerate() {
                        let [a, b, c, d] = corners.map(|corner| corner[channel]);
                        *to = (a * (1.0 - far) + b * far) * (1.0 - low) + (c * (1.0 - far) + d * far) * low;
                    }
                }
            }
        }
    }
}

impl Resizing {
    /// Where each output pixel of an axis lies between the input's.
    fn places(&self, extent: usize, out: usize, scale: Option<f64>) -> Vec<Between> {
        let scale = scale.unwrap_or(out as f64 / extent as f64);
        (0..out).map(|at| self.between(at, extent, out, scale)).collect()
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "places are within the axis")]
    fn between(&self, at: usize, extent: usize, out: usize, scale: f64) -> Between {
        let place = place(self.0.place, at, [extent, out], scale, None);
        let last = (extent - 1) as f64;
        match self.0.filter {
            Filter::Nearest(rounding) => {
                let nearest = nearest(rounding, place, extent);
                (nearest, nearest, 0.0)
            }
            _ => {
                let place = place.clamp(0.0, last);
                let first = place.floor();
                (first as usize, (first + 1.0).min(last) as usize, (place - first) as f32)
            }
        }
    }
}

/// Where an output pixel lies along an axis of the input, which is a whole number at a pixel's centre. The part that is
/// seen is given by its ends.
pub(super) fn place(
    place: PixelPlace,
    at: usize,
    [extent, out]: [usize; 2],
    scale: f64,
    seen: Option<[f64; 2]>,
) -> f64 {
    let (at, length) = (at as f64, extent as f64);
    // What the scale makes of the extent, before it is rounded.
    let width = length * scale;
    let is_single = (width - 1.0).abs() < 1e-6;
    let half_pixel = (at + 0.5) / scale - 0.5;
    match place {
        PixelPlace::TorchHalfPixel if is_single => -0.5,
        PixelPlace::HalfPixel | PixelPlace::TorchHalfPixel => half_pixel,
        PixelPlace::Symmetric => half_pixel + length / 2.0 * (1.0 - out as f64 / width),
        PixelPlace::AlignCorners if is_single => 0.0,
        PixelPlace::AlignCorners => at * (length - 1.0) / (width - 1.0),
        PixelPlace::Asymmetric => at / scale,
        PixelPlace::Crop => {
            let [from, to] = seen.unwrap_or([0.0, 1.0]);
            let along = if is_single { (to - from) / 2.0 } else { at * (to - from) / (width - 1.0) };
            (from + along) * (length - 1.0)
        }
    }
}

/// The pixel that a place is rounded to.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "places are within the axis")]
pub(super) fn nearest(rounding: Rounding, place: f64, extent: usize) -> usize {
    let rounded = match rounding {
        Rounding::HalfDown => (place - 0.5).ceil(),
        Rounding::HalfUp => (place + 0.5).floor(),
        Rounding::Floor => place.floor(),
        Rounding::Ceil => place.ceil(),
    };
    rounded.clamp(0.0, (extent - 1) as f64) as usize
}
