//! Images read at places that another tensor gives, and such places.

use super::super::Io;
use crate::engine::graph::op::{Filter, Grid, Outside};

/// Pixels that an output pixel is made of, and their weights.
type Taps = Vec<(usize, f32)>;

pub(super) fn sample(grid: Grid, io: &mut Io<'_>) {
    let [x, places] = [io.operands[0], io.operands[1]];
    let &[images, channels, ref size @ ..] = &x.shape()[..] else { return };
    let (pixels, axes) = (size.iter().product::<usize>(), size.len());
    let out = places.fact.elements() / (images * axes).max(1);
    let (x, places) = (x.elements::<f32>(), places.elements::<f32>());
    let to: &mut [f32] = bytemuck::cast_slice_mut(io.output.bytes);
    let mut taps = Taps::new();
    for image in 0..images {
        for pixel in 0..out {
            let place = &places[(image * out + pixel) * axes..][..axes];
            grid.taps(size, place, &mut taps);
            for channel in 0..channels {
                let plane = &x[(image * channels + channel) * pixels..][..pixels];
                to[(image * channels + channel) * out + pixel] =
                    taps.iter().map(|(at, weight)| plane[*at] * weight).sum();
            }
        }
    }
}

impl Grid {
    /// A place names the last axis first.
    fn taps(&self, size: &[usize], place: &[f32], taps: &mut Taps) {
        taps.clear();
        taps.push((0, 1.0));
        for (extent, place) in size.iter().zip(place.iter().rev()) {
            let own = self.along(*extent, *place);
            let before = std::mem::take(taps);
            taps.extend(
                before.iter().flat_map(|(at, weight)| {
                    own.iter().map(move |(place, other)| (at * extent + place, weight * other))
                }),
            );
        }
    }

    /// Along one axis.
    #[expect(clippy::cast_possible_truncation, reason = "what is far outside an image stays so")]
    fn along(&self, extent: usize, place: f32) -> Taps {
        let length = extent as f32;
        let (at, bounds) = match self.align_corners {
            true => ((place + 1.0) / 2.0 * (length - 1.0), [0.0, length - 1.0]),
            false => (((place + 1.0) * length - 1.0) / 2.0, [-0.5, length - 0.5]),
        };
        let is_nearest = matches!(self.filter, Filter::Nearest(_));
        let at = if is_nearest { at.round_ties_even() } else { at };
        let at = match self.outside {
            Outside::Edge if at < bounds[0] || at > bounds[1] => at.clamp(0.0, length - 1.0),
            Outside::Reflection => reflected(at, bounds),
            _ => at,
        };
        let (first, ratio) = (at.floor(), at - at.floor());
        let weights: &[f32] = match self.filter {
            Filter::Nearest(_) => &[1.0],
            Filter::Cubic { a } => &cubic(a, ratio),
            Filter::Linear => &[1.0 - ratio, ratio],
        };
        let before = i64::from(weights.len() == 4);
        let step = |(step, weight): (i64, &f32)| {
            let place = first as i64 - before + step;
            Some((self.inside(place, extent, bounds)?, *weight))
        };
        (0..).zip(weights).filter_map(step).collect()
    }

    /// The pixel that stands for one that may lie outside.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is reflected into the image")]
    fn inside(&self, place: i64, extent: usize, bounds: [f32; 2]) -> Option<usize> {
        let last = extent - 1;
        match self.outside {
            Outside::Zeros => usize::try_from(place).ok().filter(|place| *place <= last),
            Outside::Edge => Some(usize::try_from(place.max(0)).unwrap_or(last).min(last)),
            Outside::Reflection => Some((reflected(place as f32, bounds) as usize).min(last)),
        }
    }
}

/// A place thrown back at the bounds until it lies between them.
fn reflected(at: f32, [low, high]: [f32; 2]) -> f32 {
    let range = high - low;
    if (low..=high).contains(&at) || range <= 0.0 || !at.is_finite() {
        return if at.is_finite() && range > 0.0 { at } else { low.max(0.0) };
    }
    let (beyond, from_low) = if at < low { (low - at, true) } else { (at - high, false) };
    let turns = (beyond / range).trunc();
    let rest = beyond - turns * range;
    // An even number of turns ends at the bound where it began.
    if (turns % 2.0 == 0.0) == from_low { low + rest } else { high - rest }
}

/// Keys' cubic convolution, for four pixels around a place.
fn cubic(a: f32, ratio: f32) -> [f32; 4] {
    let far = |x: f32| ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
    let near = |x: f32| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    [far(ratio + 1.0), near(ratio), near(1.0 - ratio), far(2.0 - ratio)]
}

/// Where the pixels of an image come to lie under affine maps.
pub(super) fn affine(align_corners: bool, io: &mut Io<'_>) {
    let maps = io.operands[0].elements::<f32>();
    let shape = io.output.fact.shape.to_vec();
    let [_, size @ .., axes] = shape.as_slice() else { return };
    let pixels: usize = size.iter().product();
    let to: &mut [f32] = bytemuck::cast_slice_mut(io.output.bytes);
    for (at, to) in to.chunks_exact_mut((*axes).max(1)).enumerate() {
        let map = &maps[at / pixels * axes * (axes + 1)..][..axes * (axes + 1)];
        let (mut rest, mut place) = (at % pixels, [1.0; 4]);
        // The last axis comes first.
        for (own, &extent) in place.iter_mut().zip(size.iter().rev()) {
            let (index, length) = ((rest % extent) as f32, extent as f32);
            *own = match (align_corners, extent) {
                (true, 1) => 0.0,
                (true, _) => 2.0 * index / (length - 1.0) - 1.0,
                (false, _) => (2.0 * index + 1.0) / length - 1.0,
            };
            rest /= extent;
        }
        place[*axes] = 1.0;
        for (to, row) in to.iter_mut().zip(map.chunks_exact(axes + 1)) {
            *to = row.iter().zip(place).map(|(factor, place)| factor * place).sum();
        }
    }
}
