//! Convolutions of every channel by itself: lanes are channels, and taps are read where they lie. Sums are `f32`, which
//! are exact for bytes too: a filter's products of bytes stay below 2^24.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod generic;
mod packed;
mod portable;

use crate::activation::Activation;
use crate::aligned::Aligned;
use crate::grid::Grid;
use crate::isa::Level;
use crate::u8s8_gemm::Finish;
use crate::vector::ToBytes;
use crate::window::Window;
use packed::{Packed, TAPS_MAX, padded_floats};

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
pub struct Depthwise(Packed<f32>);

/// Filters of an image of bytes, to bytes.
#[derive(Debug)]
pub struct ByteDepthwise(Packed<u8>);

/// How sums become bytes.
#[derive(Debug)]
struct Requantize {
    scale: Aligned,
    bytes: ToBytes,
}

impl Depthwise {
    /// The most taps of a filter; convolutions of more are products.
    pub const TAPS_MAX: usize = TAPS_MAX;

    /// # Panics
    /// When there are no taps or more than `TAPS_MAX`, or weights or bias do not have the elements that the extents
    /// say.
    pub fn pack(level: Level, filters: &Filters<'_>, activation: Activation) -> Self {
        Self(Packed::new(level, filters, 0.0, activation))
    }

    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    pub fn kernel(&self) -> String {
        format!("f32_depthwise_{}p__{}", self.0.table.tiles.len(), self.0.table.name)
    }

    /// Cuts an output of so many pixels into tiles for `run`.
    ///
    /// # Panics
    /// When `out` cannot hold the pixels.
    pub fn grid<'a>(&self, out: &'a mut [f32], pitch: usize, pixels: usize) -> Grid<'a> {
        self.0.grid(out, pitch, pixels)
    }

    /// Computes tiles until none is left; any number of threads may do so at once.
    ///
    /// # Panics
    /// When the window reaches beyond `image`, the weights have other taps, or the output another size.
    pub fn run(&self, image: &[f32], window: &Window, grid: &Grid<'_>) {
        self.0.run(image, window, grid);
    }
}

impl ByteDepthwise {
    /// As [`Depthwise::TAPS_MAX`].
    pub const TAPS_MAX: usize = TAPS_MAX;

    /// With a larger bias sums may not be exact: products, and what the zero point takes off, make up as much again.
    pub const BIAS_MAX: i32 = 1 << 23;

    /// Weights and bias are integers, the latter at most [`Self::BIAS_MAX`]; `zero` is the zero point of the
    /// image, `scale` what the sums of each channel are multiplied with.
    ///
    /// # Panics
    /// As [`Depthwise::pack`], and when `scale` has not an element for each channel or `finish` is floats.
    pub fn pack(level: Level, filters: &Filters<'_>, zero: u8, scale: &[f32], finish: Finish) -> Self {
        assert_eq!(scale.len(), filters.channels, "there is a scale for each channel");
        let Finish::Bytes { zero: zero_out, low, high } = finish else { panic!("the output is bytes") };
        let mut bias = filters.bias.map_or_else(|| vec![0.0; filters.channels], <[f32]>::to_vec);
        for row in filters.weights.chunks_exact(filters.channels.max(1)) {
            bias.iter_mut().zip(row).for_each(|(bias, weight)| *bias -= f32::from(zero) * weight);
        }
        let scale = padded_floats(scale, filters.channels);
        let finish = Requantize { scale, bytes: ToBytes::within(zero_out, [low, high]) };
        Self(Packed::new(level, &Filters { bias: Some(&bias), ..*filters }, zero, finish))
    }

    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    pub fn kernel(&self) -> String {
        format!("u8s8_depthwise_{}p__{}", self.0.table.tiles.len(), self.0.table.name)
    }

    /// Cuts an output of so many pixels into tiles for `run`.
    ///
    /// # Panics
    /// When `out` cannot hold the pixels.
    pub fn grid<'a>(&self, out: &'a mut [u8], pitch: usize, pixels: usize) -> Grid<'a, u8> {
        self.0.grid(out, pitch, pixels)
    }

    /// Computes tiles until none is left; any number of threads may do so at once.
    ///
    /// # Panics
    /// When the window reaches beyond `image`, the weights have other taps, or the output another size.
    pub fn run(&self, image: &[u8], window: &Window, grid: &Grid<'_, u8>) {
        self.0.run(image, window, grid);
    }
}
