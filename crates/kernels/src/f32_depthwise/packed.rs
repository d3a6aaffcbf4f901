//! What both element types share: packing, tiles, and where taps are found.

use std::ptr;

use super::generic::{self, Beside, Element, Job, Pixels, Table};
use crate::aligned::{Aligned, LINE};
use crate::grid::{Grid, Tile};
use crate::isa::Level;
use crate::window::{Walk, Window};

/// A filter for each channel of elements `E`, laid out for the kernels of one instruction set.
#[derive(Debug)]
pub(super) struct Packed<E: Element> {
    pub(super) table: &'static Table<E>,
    taps: usize,
    channels: usize,
    /// `[tap][padded channels]`.
    weights: Aligned,
    bias: Aligned,
    /// What taps outside the image see.
    zeros: Aligned,
    /// Whether taps outside the image add nothing to a sum.
    skips: bool,
    finish: E::Finish,
}

impl<E: Element> Packed<E> {
    /// Packs weights in the order `[tap][channel]`; taps outside the image see `zero`.
    pub(super) fn new(level: Level, filters: &super::Filters<'_>, zero: E, finish: E::Finish) -> Self {
        let super::Filters { weights, taps, channels, bias } = *filters;
        assert!((1..=TAPS_MAX).contains(&taps), "a filter has 1 to {TAPS_MAX} taps");
        assert_eq!(weights.len(), taps * channels, "weights are [tap][channel]");
        assert!(bias.is_none_or(|bias| bias.len() == channels), "there is a bias for each channel");
        let padded = channels.next_multiple_of(LANES_MAX);
        let mut packed = Self {
            table: E::table(level),
            taps,
            channels,
            weights: Aligned::zeroed(taps * padded * size_of::<f32>()),
            bias: padded_floats(bias.unwrap_or_default(), channels),
            zeros: Aligned::zeroed(padded * size_of::<E>()),
            skips: zero == E::zeroed(),
            finish,
        };
        packed.zeros.elements_mut::<E>().fill(zero);
        if channels > 0 {
            let rows = packed.weights.elements_mut::<f32>().chunks_exact_mut(padded);
            for (to, from) in rows.zip(weights.chunks_exact(channels)) {
                to[..channels].copy_from_slice(from);
            }
        }
        packed
    }

    pub(super) fn bytes(&self) -> usize {
        self.weights.bytes() + self.bias.bytes() + self.zeros.bytes()
    }

    /// Cuts an output of so many pixels into tiles for `run`.
    ///
    /// # Panics
    /// When `out` cannot hold the pixels.
    pub(super) fn grid<'a>(&self, out: &'a mut [E], pitch: usize, pixels: usize) -> Grid<'a, E> {
        let rows = (TILE_ELEMENTS / self.channels.max(1)).max(1).next_multiple_of(self.table.tiles.len());
        Grid::new(out, pitch, [pixels, self.channels], [rows, self.channels.max(1)])
    }

    /// Computes tiles until none is left; any number of threads may do so at once.
    ///
    /// # Panics
    /// When the window reaches beyond `image`, the weights have other taps, or the output another size.
    pub(super) fn run(&self, image: &[E], window: &Window, grid: &Grid<'_, E>) {
        assert!(window.reach(self.channels) <= image.len(), "the window lies within the image");
        assert_eq!(window.taps(), self.taps, "the window has the taps of the weights");
        assert_eq!(grid.size(), [window.pixels(), self.channels], "the output is pixels by channels");
        let mut taps = TapsFound { offsets: [0; TAPS_MAX], pointers: [ptr::null(); TAPS_MAX * generic::PIXELS_MAX] };
        taps.offsets.iter_mut().zip(0..self.taps).for_each(|(offset, tap)| *offset = window.tap_offset(tap));
        while let Some(tile) = grid.take() {
            assert_eq!(tile.size[1], self.channels, "a tile of the output has all channels");
            let mut walk = window.walk(tile.first[0]);
            let mut row = 0;
            while row < tile.size[0] {
                let pixels = self.block(image, &walk, &mut taps, &tile, row);
                walk.advance(pixels);
                row += pixels;
            }
        }
    }

    /// Computes a block of pixels of a line from a row of the tile on: in the image or on its edge. Returns how many.
    fn block(&self, image: &[E], walk: &Walk<'_>, taps: &mut TapsFound<E>, tile: &Tile<'_, E>, row: usize) -> usize {
        let TapsFound { offsets, pointers } = taps;
        let kernels = self.table.tiles;
        let (window, place) = (walk.window(), walk.place());
        let across = walk.across();
        let is_across = across.contains(&place.x);
        let end = match is_across {
            true => across.end,
            false if place.x < across.start => across.start,
            false => window.out[1],
        };
        let line = (tile.size[0] - row).min(end - place.x);
        // Taps beyond the image change no sum, if what they see is nothing.
        let seen = if self.skips { window.inside(place) } else { window.kernel.map(|taps| 0..taps) };
        let is_inside = self.skips || (is_across && walk.inner().contains(&place.x));
        // Pixels on a side of the image differ in the taps that they see.
        let alike = if is_across { line } else { 1 };
        let fits = |beside: &&Beside<E>| {
            let Beside { across, stride, pixels, .. } = **beside;
            across == seen[1].len() && pixels <= alike && (pixels == 1 || stride == window.stride[1])
        };
        let is_dense = is_inside && window.dilation[1] == 1;
        let beside = if is_dense { self.table.beside.iter().find(fits) } else { None };
        let pixels = beside.map_or(kernels.len().min(line), |beside| beside.pixels);
        let is_whole = is_inside && is_across;
        let first_tap = match beside {
            Some(_) => seen[0].start * window.kernel[1] + seen[1].start,
            None if is_whole => seen[0].start * window.kernel[1],
            None => 0,
        };
        let first = walk.origin(image);
        let pixels_at = if beside.is_some() {
            Pixels::Beside {
                first: first.wrapping_add(window.tap_offset(first_tap)),
                step: window.pitch[2],
                line: window.dilation[0] * window.pitch[1],
                lines: seen[0].len(),
                taps: window.kernel[1],
            }
        } else if is_whole {
            let (step, taps) = (window.stride[1] * window.pitch[2], offsets[first_tap..].as_ptr());
            Pixels::Together { first, step, taps }
        } else {
            walk.find(image, self.zeros.elements(), pixels, 0..self.taps, 0, pointers);
            Pixels::Apart(pointers.as_ptr())
        };
        let lines = if is_whole { seen[0].len() } else { window.kernel[0] };
        let weights_pitch = self.channels.next_multiple_of(LANES_MAX);
        let job = Job {
            taps: lines * window.kernel[1],
            channels: self.channels,
            pixels: pixels_at,
            weights: self.weights.elements::<f32>()[first_tap * weights_pitch..].as_ptr(),
            weights_pitch,
            bias: self.bias.elements::<f32>().as_ptr(),
            // Within the tile: `row` is less than its rows.
            out: tile.out.wrapping_add(row * tile.pitch),
            out_pitch: tile.pitch,
            finish: &self.finish,
        };
        generic::call(beside.map_or(kernels[pixels.min(kernels.len()) - 1], |beside| beside.kernel), &job);
        pixels
    }
}

/// Where taps are: from an output pixel's first tap, and those of a block of pixels.
struct TapsFound<E> {
    offsets: [usize; TAPS_MAX],
    pointers: [*const E; TAPS_MAX * generic::PIXELS_MAX],
}

/// A number for each channel, and zeros up to whole vectors.
pub(super) fn padded_floats(floats: &[f32], channels: usize) -> Aligned {
    let mut padded = Aligned::zeroed(channels.next_multiple_of(LANES_MAX) * size_of::<f32>());
    padded.elements_mut::<f32>()[..floats.len()].copy_from_slice(floats);
    padded
}

/// Room for the pointers of a block of pixels on the stack.
pub(super) const TAPS_MAX: usize = 128;

/// Lanes of the widest vector: channels are padded to them for every instruction set.
const LANES_MAX: usize = LINE / size_of::<f32>();

/// Elements of output in a tile.
const TILE_ELEMENTS: usize = 16 << 10;
