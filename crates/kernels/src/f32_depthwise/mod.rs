//! Convolutions of every channel by itself, in `f32`: lanes are channels, and taps are read where they lie.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod generic;
mod portable;

use std::ptr;

use crate::activation::Activation;
use crate::aligned::{Aligned, LINE};
use crate::grid::Grid;
use crate::isa::{Level, Set};
use crate::window::Window;
use generic::{Job, Table};

/// A filter for each channel, laid out for the kernels of one instruction set.
#[derive(Debug)]
pub struct Depthwise {
    table: &'static Table,
    taps: usize,
    channels: usize,
    /// `[tap][padded channels]`.
    weights: Aligned,
    bias: Aligned,
    /// What taps outside the image see.
    zeros: Aligned,
    activation: Activation,
}

impl Depthwise {
    /// Packs weights in the order `[tap][channel]`.
    ///
    /// # Panics
    /// When there are no taps or more than `TAPS_MAX`, or weights or bias do not have the elements that the extents
    /// say.
    pub fn pack(
        level: Level,
        weights: &[f32],
        taps: usize,
        channels: usize,
        bias: Option<&[f32]>,
        activation: Activation,
    ) -> Self {
        assert!((1..=TAPS_MAX).contains(&taps), "a filter has 1 to {TAPS_MAX} taps");
        assert_eq!(weights.len(), taps * channels, "weights are [tap][channel]");
        let padded = channels.next_multiple_of(LANES_MAX);
        let mut packed = Self {
            table: table(level),
            taps,
            channels,
            weights: Aligned::zeroed(taps * padded * size_of::<f32>()),
            bias: Aligned::zeroed(padded * size_of::<f32>()),
            zeros: Aligned::zeroed(padded * size_of::<f32>()),
            activation,
        };
        if let Some(bias) = bias {
            packed.bias.as_mut::<f32>()[..channels].copy_from_slice(bias);
        }
        if channels > 0 {
            let rows = packed.weights.as_mut::<f32>().chunks_exact_mut(padded);
            for (to, from) in rows.zip(weights.chunks_exact(channels)) {
                to[..channels].copy_from_slice(from);
            }
        }
        packed
    }

    /// The most taps of a filter; convolutions of more are products.
    pub const TAPS_MAX: usize = TAPS_MAX;

    pub fn bytes(&self) -> usize {
        self.weights.bytes() + self.bias.bytes() + self.zeros.bytes()
    }

    pub fn kernel(&self) -> String {
        format!("f32_depthwise_{}p__{}", self.table.tiles.len(), self.table.name)
    }

    /// Cuts an output of so many pixels into tiles for `run`.
    ///
    /// # Panics
    /// When `out` cannot hold the pixels.
    pub fn grid<'a>(&self, out: &'a mut [f32], pitch: usize, pixels: usize) -> Grid<'a> {
        let rows = (TILE_ELEMENTS / self.channels.max(1)).max(1).next_multiple_of(self.table.tiles.len());
        Grid::new(out, pitch, [pixels, self.channels], [rows, self.channels.max(1)])
    }

    /// Computes tiles until none is left; any number of threads may do so at once.
    ///
    /// # Panics
    /// When the window reaches beyond `image`, the weights have other taps, or the output another size.
    pub fn run(&self, image: &[f32], window: &Window, grid: &Grid<'_>) {
        assert!(window.reach(self.channels) <= image.len(), "the window lies within the image");
        assert_eq!(window.taps(), self.taps, "the window has the taps of the weights");
        assert_eq!(grid.size(), [window.pixels(), self.channels], "the output is pixels by channels");
        let mut pointers = [ptr::null(); TAPS_MAX * generic::PIXELS_MAX];
        while let Some(tile) = grid.take() {
            assert_eq!(tile.size[1], self.channels, "a tile of the output has all channels");
            let kernels = self.table.tiles;
            for row in (0..tile.size[0]).step_by(kernels.len()) {
                let pixels = kernels.len().min(tile.size[0] - row);
                window.find(image, self.zeros.as_ref(), [tile.first[0] + row, pixels], 0..self.taps, 0, &mut pointers);
                let job = Job {
                    taps: self.taps,
                    channels: self.channels,
                    pixels: pointers.as_ptr(),
                    weights: self.weights.as_ref::<f32>().as_ptr(),
                    weights_pitch: self.channels.next_multiple_of(LANES_MAX),
                    bias: self.bias.as_ref::<f32>().as_ptr(),
                    // Within the tile: `row` is less than its rows.
                    out: tile.out.wrapping_add(row * tile.pitch),
                    out_pitch: tile.pitch,
                    activation: self.activation,
                };
                generic::call(kernels[pixels - 1], &job);
            }
        }
    }
}

fn table(level: Level) -> &'static Table {
    match level.set() {
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 => &avx512::TABLE,
        #[cfg(target_arch = "x86_64")]
        Set::Avx2 => &avx2::TABLE,
        _ => &portable::TABLE,
    }
}

/// Room for the pointers of a block of pixels on the stack.
const TAPS_MAX: usize = 128;

/// Lanes of the widest vector: channels are padded to them for every instruction set.
const LANES_MAX: usize = LINE / size_of::<f32>();

/// Elements of output in a tile: 64 KiB.
const TILE_ELEMENTS: usize = 16 << 10;
