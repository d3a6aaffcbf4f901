//! Images of other extents.

use super::{Io, Layer};
use crate::engine::graph::Op;
use crate::engine::graph::infer::{self, Facts};
use crate::engine::graph::op::{Filter, PixelPlace, Resize, Rounding};
use crate::engine::pool::Team;

#[derive(Debug)]
pub(super) struct Resizing(pub(super) Resize);

/// Two input pixels, and the share of the second.
#[derive(Clone, Copy)]
struct Between {
    pixels: [usize; 2],
    share: f32,
}

impl Layer for Resizing {
    /// Where the columns of the output lie between those of the image.
    fn scratch(&self, operands: &Facts<'_>, _threads: usize) -> usize {
        let out = infer::infer(&Op::Resize(self.0), operands).ok().and_then(|out| out.shape.get(2).copied());
        out.unwrap_or(0) * size_of::<Kept>()
    }

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
        let [down, across] = [(1, lines, lines_out), (2, columns, columns_out)].map(|(axis, extent, out)| Scaled {
            extent,
            out,
            scale: scale(axis).unwrap_or(out as f64 / extent as f64),
        });
        let kept: &mut [Kept] = &mut bytemuck::cast_slice_mut(io.scratch)[..columns_out];
        kept.iter_mut().enumerate().for_each(|(at, kept)| *kept = self.between(at, &across).kept());
        let from: &[f32] = bytemuck::cast_slice(x.bytes);
        let pixel =
            |image: usize, y: usize, x: usize| &from[((image * lines + y) * columns + x) * channels..][..channels];
        let out: &mut [f32] = bytemuck::cast_slice_mut(io.output.bytes);
        let mut pixels = out.chunks_exact_mut(channels.max(1));
        for image in 0..images {
            for line in 0..lines_out {
                let Between { pixels: [top, bottom], share: low } = self.between(line, &down);
                for (kept, to) in kept.iter().zip(&mut pixels) {
                    let Between { pixels: [left, right], share: far } = Between::of(*kept);
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
    /// Where an output pixel of an axis lies between the input's.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "places are within the axis")]
    fn between(&self, at: usize, axis: &Scaled) -> Between {
        let extent = axis.extent;
        let place = place(self.0.place, at, [extent, axis.out], axis.scale, None);
        let last = (extent - 1) as f64;
        match self.0.filter {
            Filter::Nearest(rounding) => {
                let nearest = nearest(rounding, place, extent);
                Between { pixels: [nearest; 2], share: 0.0 }
            }
            _ => {
                let place = place.clamp(0.0, last);
                let first = place.floor();
                let pixels = [first, (first + 1.0).min(last)].map(|pixel| pixel as usize);
                Between { pixels, share: (place - first) as f32 }
            }
        }
    }
}

/// What becomes of an axis.
struct Scaled {
    extent: usize,
    out: usize,
    scale: f64,
}

/// A place between two pixels in memory that has no type.
type Kept = [usize; 3];

impl Between {
    fn kept(self) -> Kept {
        [self.pixels[0], self.pixels[1], self.share.to_bits() as usize]
    }

    #[expect(clippy::cast_possible_truncation, reason = "the bits of a float")]
    fn of([first, second, share]: Kept) -> Self {
        Self { pixels: [first, second], share: f32::from_bits(share as u32) }
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
