//! Four taps of a line with one instruction: the bytes of four pixels that lie beside each other are brought together, so
//! that a lane has those of one channel. Such a quad serves every pixel of the output that sees some of its four, with
//! zeros for weights where the others are. Quads begin at every second pixel.

use std::ops::Range;
use std::ptr;

use super::ByteFilters;
use super::avx512::{KERNELS, Kernel};
use crate::aligned::Aligned;
use crate::grid::Grid;
use crate::isa::{Level, Set};
use crate::vector::ToBytes;
use crate::window::{Place, Window};

/// Filters laid out for quads. Channels are cut into groups of 64, whose lanes are in the order that bringing bytes
/// together leaves: vector `v` has the channels `4v` to `4v + 3` of every 16. Where the last group has 32 channels or
/// fewer, it has them twice or four times, for as many blocks of pixels.
#[derive(Debug)]
pub(super) struct Quads {
    kernel: [usize; 2],
    stride: usize,
    runs: Kernel,
    channels: usize,
    /// `[group][line][set][vector][lane][4]`: the sets of one line are those of a first and a second quad of pixels that
    /// begin where a quad does, then of those that begin one pixel later.
    weights: Aligned,
    /// `[group][vector][lane]`.
    bias: Aligned,
    scale: Aligned,
    /// What taps outside the image see.
    outside: Aligned,
    /// Whether that adds nothing to a sum.
    skips: bool,
    bytes: ToBytes,
}

/// What a kernel works on: some pixels of a line. All pointers are valid for the extents beside them.
pub(super) struct Job {
    pub(super) pixels: usize,
    pub(super) lines: usize,
    pub(super) channels: usize,
    /// `[lines][COLUMNS]`: where the channels of each pixel that is seen begin.
    pub(super) columns: *const *const u8,
    /// Of the first line that is seen, and bytes from one group to the next.
    pub(super) weights: *const i8,
    pub(super) weights_pitch: usize,
    pub(super) bias: *const i32,
    pub(super) scale: *const f32,
    pub(super) bytes: ToBytes,
    pub(super) out: *mut u8,
    pub(super) out_pitch: usize,
}

impl Quads {
    /// Nothing where there is no kernel for these filters. `bias` is that of bytes as they are, without their zero point.
    pub(super) fn pack(level: Level, filters: &ByteFilters<'_>, zero: u8, bytes: ToBytes) -> Option<Self> {
        let ByteFilters { weights, kernel, across: [stride, dilation], channels, bias, scale } = *filters;
        let found = KERNELS.iter().find(|kernels| [kernels.across, kernels.stride] == [kernel[1], stride])?;
        if level.set() < Set::Avx512Vnni || dilation != 1 || kernel[0] > LINES_MAX {
            return None;
        }
        let (groups, sets) = (channels.div_ceil(GROUP), sets(kernel[1]));
        let mut packed = Self {
            kernel,
            stride,
            runs: found.kernel,
            channels,
            weights: Aligned::zeroed(groups * kernel[0] * sets * SET),
            bias: Aligned::zeroed(groups * GROUP * size_of::<i32>()),
            scale: Aligned::zeroed(groups * GROUP * size_of::<f32>()),
            outside: Aligned::zeroed(groups * GROUP),
            skips: zero == 0,
            bytes,
        };
        packed.outside.elements_mut::<u8>().fill(zero);
        for (group, at) in (0..groups).flat_map(|group| (0..GROUP).map(move |at| (group, at))) {
            let channel = group * GROUP + at % (GROUP / together(channels - group * GROUP));
            if channel >= channels {
                continue;
            }
            let lane = lane(at);
            packed.bias.elements_mut::<i32>()[group * GROUP + lane] = bias[channel];
            packed.scale.elements_mut::<f32>()[group * GROUP + lane] = scale[channel];
            for (line, set) in (0..kernel[0]).flat_map(|line| (0..sets).map(move |set| (line, set))) {
                let first = ((group * kernel[0] + line) * sets + set) * SET + lane * 4;
                let to = &mut packed.weights.elements_mut::<i8>()[first..first + 4];
                for (at, to) in to.iter_mut().enumerate() {
                    let tap = tap(kernel[1], set, at);
                    *to = tap.map_or(0, |tap| weights[(line * kernel[1] + tap) * channels + channel]);
                }
            }
        }
        Some(packed)
    }

    pub(super) fn bytes(&self) -> usize {
        self.weights.bytes() + self.bias.bytes() + self.scale.bytes() + self.outside.bytes()
    }

    /// As [`ByteDepthwise::grid`](super::ByteDepthwise::grid).
    ///
    /// # Panics
    /// As that.
    pub(super) fn grid<'a>(&self, out: &'a mut [u8], pitch: usize, window: &Window) -> Grid<'a, u8> {
        let rows = (TILE_BYTES / self.channels.max(1)).max(PIXELS_TOGETHER);
        Grid::new(out, pitch, [window.pixels(), self.channels], [rows, self.channels.max(1)])
    }

    /// As [`ByteDepthwise::run`](super::ByteDepthwise::run).
    ///
    /// # Panics
    /// As that.
    pub(super) fn run(&self, image: &[u8], window: &Window, grid: &Grid<'_, u8>) {
        assert!(window.reach(self.channels) <= image.len(), "the window lies within the image");
        let taps = (window.kernel, window.stride[1], window.dilation[1]);
        assert_eq!(taps, (self.kernel, self.stride, 1), "the window has the taps of the weights");
        assert_eq!(grid.size(), [window.pixels(), self.channels], "the output is pixels by channels");
        let mut columns = [ptr::null(); LINES_MAX * COLUMNS];
        while let Some(tile) = grid.take() {
            assert_eq!(tile.size[1], self.channels, "a tile of the output has all channels");
            let mut row = 0;
            while row < tile.size[0] {
                let place = window.place(tile.first[0] + row);
                let pixels = (tile.size[0] - row).min(window.out[1] - place.x).min(PIXELS_TOGETHER);
                let lines = self.find(image, window, place, pixels, &mut columns);
                // Within the tile: `row` is less than its rows.
                let out = tile.out.wrapping_add(row * tile.pitch);
                super::avx512::call(self.runs, &self.job(lines, pixels, &columns, (out, tile.pitch)));
                row += pixels;
            }
        }
    }

    /// Writes where each pixel begins that some pixels of an output line see, in lines of `COLUMNS`. Returns the lines of
    /// taps that it is for.
    fn find(
        &self,
        image: &[u8],
        window: &Window,
        place: Place,
        pixels: usize,
        columns: &mut [*const u8; LINES_MAX * COLUMNS],
    ) -> Range<usize> {
        let outside = self.outside.elements::<u8>().as_ptr();
        // Lines beyond the image change no sum, if what they see is nothing.
        let seen = if self.skips { window.inside(place)[0].clone() } else { 0..self.kernel[0] };
        let first = place.x * self.stride;
        let count = columns_of(self.kernel[1], pixels, self.stride);
        let (pad, pitch) = (window.pad[1], window.pitch[2]);
        for (line, columns) in seen.clone().zip(columns.chunks_exact_mut(COLUMNS)) {
            let y = (place.y * window.stride[0] + line * window.dilation[0]).wrapping_sub(window.pad[0]);
            let end = if y < window.size[0] { (pad + window.size[1]).saturating_sub(first).min(count) } else { 0 };
            let start = pad.saturating_sub(first).min(end);
            columns[..start].fill(outside);
            columns[end..count].fill(outside);
            if start < end {
                let from = place.image * window.pitch[0] + y * window.pitch[1] + (first + start - pad) * pitch;
                let from = image[from..].as_ptr();
                let inside = columns[start..end].iter_mut().enumerate();
                inside.for_each(|(at, column)| *column = from.wrapping_add(at * pitch));
            }
        }
        seen
    }

    fn job(
        &self,
        lines: Range<usize>,
        pixels: usize,
        columns: &[*const u8; LINES_MAX * COLUMNS],
        (out, out_pitch): (*mut u8, usize),
    ) -> Job {
        let of_line = sets(self.kernel[1]) * SET;
        Job {
            pixels,
            lines: lines.len(),
            channels: self.channels,
            columns: columns.as_ptr(),
            weights: self.weights.elements::<i8>().as_ptr().wrapping_add(lines.start * of_line),
            weights_pitch: self.kernel[0] * of_line,
            bias: self.bias.elements::<i32>().as_ptr(),
            scale: self.scale.elements::<f32>().as_ptr(),
            bytes: self.bytes,
            out,
            out_pitch,
        }
    }
}

/// The tap that meets an element of a quad, by the set of weights.
fn tap(across: usize, set: usize, at: usize) -> Option<usize> {
    let (is_late, nth) = if across > 4 { (set / 2, set % 2) } else { (set, 0) };
    // A second quad begins two pixels behind the first, which has had what both see.
    let tap = (nth * 2 + at).checked_sub(is_late)?;
    (tap < across && (nth == 0 || at >= 2)).then_some(tap)
}

/// Sets of weights of a line.
fn sets(across: usize) -> usize {
    if across > 4 { 4 } else { 2 }
}

/// Pixels of a line that the quads of so many pixels of the output have, up to the most blocks that are worked on together.
fn columns_of(across: usize, pixels: usize, stride: usize) -> usize {
    (pixels.next_multiple_of(4 * PIXELS) - 1) * stride / 2 * 2 + if across > 4 { 6 } else { 4 }
}

/// How many blocks of pixels lie in one register, of a group that has so many channels left.
pub(super) fn together(channels: usize) -> usize {
    match channels {
        ..=16 => 4,
        17..=32 => 2,
        _ => 1,
    }
}

/// Where a channel of a group lies.
fn lane(channel: usize) -> usize {
    let (sixteen, within) = (channel / 16, channel % 16);
    within / 4 * 16 + sixteen * 4 + within % 4
}

/// Channels of a group, and the bytes of a set of weights for them.
pub(super) const GROUP: usize = 64;
pub(super) const SET: usize = GROUP * 4;

/// Pixels of a block.
pub(super) const PIXELS: usize = 4;

/// Pixels of the output in one call of a kernel.
const PIXELS_TOGETHER: usize = 32;

/// Room for what those see in a line.
pub(super) const COLUMNS: usize = PIXELS_TOGETHER * 2 + 8;

/// Bytes of output in a tile.
const TILE_BYTES: usize = 16 << 10;

/// The most lines of a filter.
const LINES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tap_meets_one_element() {
        for across in [3, 5] {
            for is_late in 0..2 {
                let quads = sets(across) / 2;
                let met = (0..quads).flat_map(|nth| (0..4).map(move |at| (nth, at)));
                let taps: Vec<_> =
                    met.filter_map(|(nth, at)| Some((tap(across, is_late * quads + nth, at)?, nth * 2 + at))).collect();
                assert_eq!(taps, (0..across).map(|tap| (tap, tap + is_late)).collect::<Vec<_>>(), "{across} {is_late}");
            }
        }
    }

    #[test]
    fn what_is_seen_has_room() {
        assert!(columns_of(5, PIXELS_TOGETHER, 2) <= COLUMNS);
    }

    #[test]
    fn lanes_are_all_channels() {
        let mut lanes: Vec<_> = (0..GROUP).map(lane).collect();
        assert_eq!((lanes[5], lanes[16]), (17, 4));
        lanes.sort_unstable();
        assert!(lanes.into_iter().eq(0..GROUP));
    }
}
