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
        // Lines of taps beyond the image change no sum, if what they see is nothing.
        let (inner, lines) =
            if E::ZERO_IS_NOTHING { (walk.across(), walk.lines()) } else { (walk.inner(), 0..window.kernel[0]) };
        let is_inner = inner.contains(&place.x);
        let seen = if is_inner { lines } else { 0..window.kernel[0] };
        let first_tap = seen.start * window.kernel[1];
        let end = match is_inner {
            true => inner.end,
            false if place.x < inner.start => inner.start,
            false => window.out[1],
        };
        let line = (tile.size[0] - row).min(end - place.x);
        let fits = |beside: &&Beside<E>| beside.across == window.kernel[1] && beside.pixels <= line;
        let is_dense = is_inner && window.stride[1] == 1 && window.dilation[1] == 1;
        let beside = self.table.beside.iter().find(fits).filter(|_| is_dense);
        let pixels = beside.map_or(kernels.len().min(line), |beside| beside.pixels);
        let pixels_at = if beside.is_some() {
            let first = walk.origin(image).wrapping_add(window.tap_offset(first_tap));
            Pixels::Beside { first, step: window.pitch[2], line: window.dilation[0] * window.pitch[1] }
        } else if is_inner {
            Pixels::Together {
                first: walk.origin(image),
                step: window.stride[1] * window.pitch[2],
                taps: offsets[first_tap..].as_ptr(),
            }
        } else {
            walk.find(image, self.zeros.elements(), pixels, 0..self.taps, 0, pointers);
            Pixels::Apart(pointers.as_ptr())
        };
        let weights_pitch = self.channels.next_multiple_of(LANES_MAX);
        let job = Job {
            taps: seen.len() * window.kernel[1],
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
