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
        let at = at as f64;
        let place = match self.0.place {
            PixelPlace::TorchHalfPixel if out == 1 => 0.0,
            PixelPlace::HalfPixel | PixelPlace::TorchHalfPixel => (at + 0.5) / scale - 0.5,
            PixelPlace::AlignCorners if out == 1 => 0.0,
            PixelPlace::AlignCorners => at * (extent - 1) as f64 / (out - 1) as f64,
            PixelPlace::Asymmetric => at / scale,
        };
        let last = (extent - 1) as f64;
        match self.0.filter {
            Filter::Linear => {
                let place = place.clamp(0.0, last);
                let first = place.floor();
                (first as usize, (first + 1.0).min(last) as usize, (place - first) as f32)
            }
            Filter::Nearest(rounding) => {
                let rounded = match rounding {
                    Rounding::HalfDown => (place - 0.5).ceil(),
                    Rounding::HalfUp => (place + 0.5).floor(),
                    Rounding::Floor => place.floor(),
                    Rounding::Ceil => place.ceil(),
                };
                let nearest = rounded.clamp(0.0, last) as usize;
                (nearest, nearest, 0.0)
            }
        }
    }
}
