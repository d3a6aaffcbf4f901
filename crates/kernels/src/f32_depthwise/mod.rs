//! Convolutions of every channel by itself: lanes are channels, and taps are read where they lie. Images are floats, or
//! bytes for `u8s8_depthwise`.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod generic;
mod packed;
mod portable;

use half::bf16;

use crate::activation::Activation;
use crate::grid::Grid;
use crate::isa::Level;
use crate::window::Window;
pub(crate) use packed::Packed;
use packed::TAPS_MAX;

/// A filter for each channel.
#[derive(Clone, Copy, Debug)]
pub struct Filters<'a> {
    /// `[tap][channel]`.
    pub weights: &'a [f32],
    pub taps: usize,
    pub channels: usize,
    pub bias: Option<&'a [f32]>,
}

/// Filters of an image of floats.
#[derive(Debug)]
pub struct Depthwise(Packed<Activation>);

impl Depthwise {
    /// The most taps of a filter; convolutions of more are products.
    pub const TAPS_MAX: usize = TAPS_MAX;

    /// # Panics
    /// When there are no taps or more than `TAPS_MAX`, or weights or bias do not have the elements that the extents
    /// say.
    pub fn pack(level: Level, filters: &Filters<'_>, activation: Activation) -> Self {
        Self(Packed::new(level, filters, 0.0f32, activation))
    }

    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    pub fn kernel(&self) -> String {
        let table = self.0.table::<f32>();
        format!("f32_depthwise_{}p__{}", table.tiles.len(), table.name)
    }

    /// Cuts the output of a window into tiles for `run`.
    ///
    /// # Panics
    /// When `out` cannot hold the pixels.
    pub fn grid<'a>(&self, out: &'a mut [f32], pitch: usize, window: &Window) -> Grid<'a> {
        self.0.grid(out, pitch, window)
    }

    /// As `grid`, for `run_halves`.
    ///
    /// # Panics
    /// As `grid`, or when the instruction set has no kernels of bf16.
    pub fn grid_of_halves<'a>(&self, out: &'a mut [bf16], pitch: usize, window: &Window) -> Grid<'a, bf16> {
        self.0.grid(out, pitch, window)
    }

    /// As `run`, of an image of bf16.
    ///
    /// # Panics
    /// As `run`, or when the instruction set has no kernels of bf16.
    pub fn run_halves(&self, image: &[bf16], window: &Window, grid: &Grid<'_, bf16>) {
        self.0.run(image, window, grid);
    }

    /// Computes tiles until none is left; any number of threads may do so at once.
    ///
    /// # Panics
    /// When the window reaches beyond `image`, the weights have other taps, or the output another size or was
    /// cut otherwise than by `grid`.
    pub fn run(&self, image: &[f32], window: &Window, grid: &Grid<'_>) {
        self.0.run(image, window, grid);
    }
}
