//! Resizing of bytes: windows of weights for each axis, then two passes. Knows no file and no layout.
//!
//! The two families that networks are trained with differ in what a smaller image is made of: Pillow widens its filter
//! to cover every pixel of the source, OpenCV takes the pixels next to the point that it looks at.

use super::pixels::Pixels;
use super::settings::{Filter, Resampler};

/// A part of an axis of the resized image: all that is computed of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The extent that the whole axis is resized to.
    pub(super) of: usize,
    pub(super) from: usize,
    pub(super) count: usize,
}

/// For each pixel of an axis, a window of the source and what each pixel of it counts.
#[derive(Debug)]
struct Windows {
    starts: Vec<usize>,
    /// Of every window; those with fewer pixels are filled up with zeros.
    length: usize,
    /// Fixed point; `length` for each window.
    weights: Vec<i32>,
}

/// The parts of the image, resized on both axes. An axis that keeps its extent is not computed, as in Pillow.
pub(super) fn resized(from: &Pixels, across: Part, down: Part, how: Resampler) -> Pixels {
    if how.filter == Filter::Nearest {
        return nearest(from, across, down, how);
    }
    match (from.channels, how.widened) {
        (1, true) => in_two_passes::<1>(from, across, down, how),
        (_, true) => in_two_passes::<3>(from, across, down, how),
        (1, false) => at_points::<1>(from, across, down, how),
        (_, false) => at_points::<3>(from, across, down, how),
    }
}

/// As Pillow: between the passes there are bytes again.
fn in_two_passes<const CHANNELS: usize>(from: &Pixels, across: Part, down: Part, how: Resampler) -> Pixels {
    let rows = Windows::new(from.height, down, how);
    let columns = Windows::new(from.width, across, how);
    let length = across.count * CHANNELS;
    // Rows that some window has, and for each row how many of them stand before it.
    let mut narrowed = Vec::new();
    let mut before = vec![0; from.height];
    let mut done = 0;
    for &start in &rows.starts {
        let new = done.max(start)..start + rows.length;
        for (y, earlier) in new.clone().zip(&mut before[new]) {
            *earlier = narrowed.len() / length;
            columns.across::<CHANNELS>(from.row(y), &mut narrowed);
        }
        done = start + rows.length;
    }
    let mut bytes = vec![0; length * down.count];
    for (y, row) in bytes.chunks_exact_mut(length).enumerate() {
        let weights = &rows.weights[y * rows.length..][..rows.length];
        mixed(&narrowed[before[rows.starts[y]] * length..][..rows.length * length], weights, row);
    }
    Pixels { width: across.count, height: down.count, channels: CHANNELS, bytes }
}

/// As OpenCV: one sum over the pixels next to a point, rounded once.
fn at_points<const CHANNELS: usize>(from: &Pixels, across: Part, down: Part, how: Resampler) -> Pixels {
    let rows = Windows::new(from.height, down, how);
    let columns = Windows::new(from.width, across, how);
    let mut bytes = Vec::with_capacity(across.count * down.count * CHANNELS);
    for (first, down) in rows.starts.iter().zip(rows.weights.chunks_exact(rows.length)) {
        for (left, across) in columns.starts.iter().zip(columns.weights.chunks_exact(columns.length)) {
            let mut sums = [ROUND; CHANNELS];
            for (y, weight) in down.iter().enumerate() {
                let pixels = &from.row(first + y)[left * CHANNELS..][..columns.length * CHANNELS];
                let mut row = [0; CHANNELS];
                pixels.as_chunks().0.iter().zip(across).for_each(|(pixel, weight)| add(&mut row, pixel, *weight));
                sums.iter_mut().zip(row).for_each(|(sum, row)| *sum = sum.wrapping_add(row.wrapping_mul(*weight)));
            }
            bytes.extend(sums.map(byte));
        }
    }
    Pixels { width: across.count, height: down.count, channels: CHANNELS, bytes }
}

fn nearest(from: &Pixels, across: Part, down: Part, how: Resampler) -> Pixels {
    let source = |part: Part, extent: usize| -> Vec<usize> {
        let scale = extent as f64 / part.of as f64;
        // Pillow adds up, which tells where a pixel lies on the border of two.
        let added = std::iter::successors(Some(scale * 0.5), |point| Some(point + scale));
        let points: Vec<f64> = if how.widened {
            added.skip(part.from).take(part.count).collect()
        } else {
            (part.from..part.from + part.count).map(|place| place as f64 * scale).collect()
        };
        points.into_iter().map(|point| truncated(point).min(extent - 1)).collect()
    };
    let columns = source(across, from.width);
    let channels = from.channels;
    let row = |y: usize| {
        let row = from.row(y);
        columns.iter().flat_map(move |x| row[x * channels..][..channels].iter().copied())
    };
    let bytes = source(down, from.height).into_iter().flat_map(row).collect();
    Pixels { width: across.count, height: down.count, channels, bytes }
}

impl Windows {
    fn new(extent: usize, part: Part, how: Resampler) -> Self {
        let scale = extent as f64 / part.of as f64;
        let window = |place: usize| match (part.of == extent, how.widened) {
            (true, _) => (place, vec![1.0]),
            (false, true) => widened(extent, scale, place, how.filter),
            (false, false) => beside(extent, scale, place, how.filter),
        };
        let windows: Vec<(usize, Vec<f64>)> = (part.from..part.from + part.count).map(window).collect();
        let length = windows.iter().map(|(_, weights)| weights.len()).max().unwrap_or(0);
        let mut all = Self { starts: Vec::new(), length, weights: Vec::new() };
        let bits = if how.widened { SHIFT } else { SHIFT / 2 };
        for (start, weights) in windows {
            // Moved back where it would reach beyond the end, so that all are read alike.
            let at = start.min(extent - length);
            let before = start - at;
            all.starts.push(at);
            all.weights.extend(std::iter::repeat_n(0, before));
            all.weights.extend(weights.iter().map(|&weight| fixed(weight, bits)));
            all.weights.extend(std::iter::repeat_n(0, length - before - weights.len()));
        }
        all
    }

    /// One row of the source, resized, behind those before it.
    fn across<const CHANNELS: usize>(&self, row: &[u8], out: &mut Vec<u8>) {
        for (start, weights) in self.starts.iter().zip(self.weights.chunks_exact(self.length)) {
            let window = &row[start * CHANNELS..][..self.length * CHANNELS];
            let mut sums = [ROUND; CHANNELS];
            let (pixels, _) = window.as_chunks::<CHANNELS>();
            let (eights, rest) = pixels.as_chunks::<TOGETHER>();
            let (weights, weights_of_rest) = weights.as_chunks::<TOGETHER>();
            let mut lanes = [[0i32; CHANNELS]; TOGETHER];
            for (pixels, weights) in eights.iter().zip(weights) {
                for (lane, (pixel, weight)) in lanes.iter_mut().zip(pixels.iter().zip(weights)) {
                    add(lane, pixel, *weight);
                }
            }
            rest.iter().zip(weights_of_rest).for_each(|(pixel, weight)| add(&mut sums, pixel, *weight));
            for lane in lanes {
                sums.iter_mut().zip(lane).for_each(|(sum, lane)| *sum = sum.wrapping_add(lane));
            }
            out.extend(sums.map(byte));
        }
    }
}

fn add<const CHANNELS: usize>(sums: &mut [i32; CHANNELS], pixel: &[u8; CHANNELS], weight: i32) {
    for (sum, &byte) in sums.iter_mut().zip(pixel) {
        *sum = sum.wrapping_add(i32::from(byte).wrapping_mul(weight));
    }
}

/// A row for each weight, one behind the other, added up.
fn mixed(rows: &[u8], weights: &[i32], out: &mut [u8]) {
    let length = out.len();
    for (from, out) in (0..length).step_by(COLUMNS).zip(out.chunks_mut(COLUMNS)) {
        let mut sums = [ROUND; COLUMNS];
        for (row, &weight) in rows.chunks_exact(length).zip(weights) {
            for (sum, &byte) in sums.iter_mut().zip(&row[from..][..out.len()]) {
                *sum = sum.wrapping_add(i32::from(byte).wrapping_mul(weight));
            }
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = byte(sum));
    }
}

/// The window of a pixel where the filter is as wide as what it stands for: weights of all pixels in reach, to a sum of 1.
fn widened(extent: usize, scale: f64, place: usize, filter: Filter) -> (usize, Vec<f64>) {
    let stretch = scale.max(1.0);
    let centre = (place as f64 + 0.5) * scale;
    let reach = filter.reach() * stretch;
    let start = truncated(centre - reach + 0.5);
    let end = truncated(centre + reach + 0.5).min(extent);
    let weight = |at: usize| filter.at((at as f64 - centre + 0.5) / stretch);
    let weights: Vec<f64> = (start..end).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    (start, weights.into_iter().map(|weight| weight / sum).collect())
}

/// The window of the pixels next to a point. What lies beyond the border counts as the pixel at the border.
fn beside(extent: usize, scale: f64, place: usize, filter: Filter) -> (usize, Vec<f64>) {
    let point = (place as f64 + 0.5) * scale - 0.5;
    let reach = filter.reach();
    let first = point.floor() - reach + 1.0;
    let last = (extent - 1) as f64;
    let count = truncated(2.0 * reach);
    let inside = |step: usize| (first + step as f64).clamp(0.0, last);
    let start = inside(0);
    let mut weights = vec![0.0; truncated(inside(count - 1) - start) + 1];
    for step in 0..count {
        let at = first + step as f64;
        weights[truncated(inside(step) - start)] += filter.beside(at - point);
    }
    (truncated(start), weights)
}

impl Filter {
    /// Pixels to each side.
    fn reach(self) -> f64 {
        match self {
            Self::Nearest | Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// Pillow's filters: the cubic one with -1/2.
    fn at(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Nearest | Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic => cubic(x, -0.5),
            Self::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }

    /// OpenCV's: the cubic one with -3/4.
    fn beside(self, x: f64) -> f64 {
        if self == Self::Bicubic { cubic(x.abs(), -0.75) } else { self.at(x) }
    }
}

/// Keys's cubic convolution.
fn cubic(x: f64, a: f64) -> f64 {
    match x {
        ..1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        1.0..2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * a,
        _ => 0.0,
    }
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { x.sin() / x }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "weights are below 2, so that they fit with all bits behind the point"
)]
fn fixed(weight: f64, bits: u32) -> i32 {
    (weight * f64::from(1 << bits)).round() as i32
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "what is below zero counts as zero")]
fn truncated(place: f64) -> usize {
    place as usize
}

#[expect(clippy::cast_sign_loss, reason = "it is within a byte")]
fn byte(sum: i32) -> u8 {
    (sum >> SHIFT).clamp(0, 255) as u8
}

/// Bits behind the point of a sum, which weights have all of them where one axis is done at a time, and else a half. The weights
/// of a window are 1 together and those below zero less than a quarter, so that a sum over bytes, on both axes too, is
/// below 2^31.
const SHIFT: u32 = 22;

const ROUND: i32 = 1 << (SHIFT - 1);

/// Pixels of a window whose sums are independent of each other.
const TOGETHER: usize = 8;

/// Of a row, at one time: sums that stay in registers.
const COLUMNS: usize = 64;
