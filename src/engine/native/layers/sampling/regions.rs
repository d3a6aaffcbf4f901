//! Parts of images, each as an image of the same extents.

use super::super::Io;
use super::super::movement::place;
use crate::engine::graph::op::Regions;

pub(super) fn run(regions: &Regions, io: &mut Io<'_>) {
    let [x, corners, images] = [io.operands[0], io.operands[1], io.operands[2]];
    let &[count, channels, lines, columns] = &x.shape()[..] else { return };
    let plane = lines * columns;
    let x = x.elements::<f32>();
    let [out_lines, out_columns] = regions.out;
    let to: &mut [f32] = bytemuck::cast_slice_mut(io.output.bytes);
    let bins = to.chunks_exact_mut((out_lines * out_columns).max(1));
    for (at, to) in bins.enumerate() {
        let (region, channel) = (at / channels, at % channels);
        let image = place(&images, region, count);
        let pixels = &x[(image * channels + channel) * plane..][..plane];
        let part = Part::of(regions, &corners.elements::<f32>()[region * 4..][..4]);
        for (bin, to) in to.iter_mut().enumerate() {
            *to = part.bin(regions, [bin / out_columns, bin % out_columns], pixels, [lines, columns]);
        }
    }
}

/// A region by its lines and its columns: where it begins, how large a bin is, and how many places are read in one.
struct Part {
    first: [f32; 2],
    bin: [f32; 2],
    samples: [usize; 2],
}

impl Part {
    /// Corners are column and line of the first pixel, then of the last.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of places in a bin")]
    fn of(regions: &Regions, corners: &[f32]) -> Self {
        let offset = if regions.half_pixel { 0.5 } else { 0.0 };
        let ends = [[corners[1], corners[3]], [corners[0], corners[2]]];
        let ends = ends.map(|ends| ends.map(|end| end * regions.scale - offset));
        let size = ends.map(|[first, last]| if regions.half_pixel { last - first } else { (last - first).max(1.0) });
        let bin = [0, 1].map(|axis| size[axis] / regions.out[axis] as f32);
        let samples = match regions.samples {
            0 => bin.map(|bin| (bin.ceil().max(0.0) as usize).min(SAMPLES_MAX)),
            samples => [samples; 2],
        };
        Self { first: ends.map(|[first, _]| first), bin, samples }
    }

    fn bin(&self, regions: &Regions, at: [usize; 2], pixels: &[f32], size: [usize; 2]) -> f32 {
        let place = |axis: usize, sample: usize| {
            let within = (sample as f32 + 0.5) / self.samples[axis] as f32;
            self.first[axis] + (at[axis] as f32 + within) * self.bin[axis]
        };
        let count = self.samples[0] * self.samples[1];
        let corners = |sample: usize| {
            let [y, x] = [place(0, sample / self.samples[1]), place(1, sample % self.samples[1])];
            let [line, column] = [between(y, size[0])?, between(x, size[1])?];
            let corner = |down: usize, across: usize| {
                let [(line, low), (column, far)] = [line[down], column[across]];
                pixels[line * size[1] + column] * low * far
            };
            Some([corner(0, 0), corner(0, 1), corner(1, 0), corner(1, 1)])
        };
        // What lies far outside the image is zero.
        let all = (0..count).map(|sample| corners(sample).unwrap_or_default());
        match regions.greatest {
            true => all.flatten().reduce(f32::max).unwrap_or(0.0),
            false => all.flatten().sum::<f32>() / count.max(1) as f32,
        }
    }
}

/// Two pixels along an axis, and the share of each.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within the axis")]
fn between(at: f32, extent: usize) -> Option<[(usize, f32); 2]> {
    let last = extent - 1;
    if !(-1.0..=extent as f32).contains(&at) {
        return None;
    }
    let at = at.clamp(0.0, last as f32);
    let first = (at as usize).min(last);
    let share = at - first as f32;
    Some([(first, 1.0 - share), ((first + 1).min(last), share)])
}

/// More places are not read along one axis of a bin, however large the region.
const SAMPLES_MAX: usize = 1 << 12;
