//! Convolutions of every channel by itself, of bytes to bytes. Sums are exact. With VNNI four taps are multiplied at once
//! (`quads`); elsewhere, and for filters that have no kernel of that kind, sums are `f32`, which are exact too: a filter's
//! products of bytes stay below 2^24.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod quads;

use crate::aligned::Aligned;
use crate::f32_depthwise::{Filters, Packed};
use crate::grid::Grid;
use crate::isa::Level;
use crate::u8s8_gemm::Finish;
use crate::vector::ToBytes;
use crate::window::Window;
#[cfg(target_arch = "x86_64")]
use quads::Quads;

/// A filter for each channel.
#[derive(Clone, Copy, Debug)]
pub struct ByteFilters<'a> {
    /// `[line][tap of a line][channel]`.
    pub weights: &'a [i8],
    /// Lines and taps of a line.
    pub kernel: [usize; 2],
    /// Stride and dilation along a line.
    pub across: [usize; 2],
    pub channels: usize,
    /// At most [`ByteDepthwise::BIAS_MAX`].
    pub bias: &'a [i32],
    /// What the sums of each channel are multiplied with.
    pub scale: &'a [f32],
}

/// Filters laid out for the kernels of one instruction set.
#[derive(Debug)]
pub struct ByteDepthwise(Packing);

#[derive(Debug)]
enum Packing {
    Floats(Packed<ToResults>),
    #[cfg(target_arch = "x86_64")]
    Quads(Quads),
}

/// How sums become bytes.
#[derive(Debug)]
pub(crate) struct ToResults {
    pub(crate) scale: Aligned,
    pub(crate) bytes: ToBytes,
}

impl ByteDepthwise {
    /// The most taps of a filter; convolutions of more are products.
    pub const TAPS_MAX: usize = crate::f32_depthwise::Depthwise::TAPS_MAX;

    /// With a larger bias sums may not be exact: products, and what the zero point takes off, make up as much again.
    pub const BIAS_MAX: i32 = 1 << 23;

    /// For an image with this zero point.
    ///
    /// # Panics
    /// When there are no taps or more than `TAPS_MAX`, when weights, bias or scale do not have the elements that the
    /// extents say, or `finish` is floats.
    pub fn pack(level: Level, filters: &ByteFilters<'_>, zero: u8, finish: Finish) -> Self {
        let ByteFilters { weights, kernel, channels, bias, scale, .. } = *filters;
        let Finish::Bytes { zero: zero_out, low, high } = finish else { panic!("the output is bytes") };
        assert_eq!(weights.len(), kernel[0] * kernel[1] * channels, "weights are [line][tap][channel]");
        assert!(bias.len() == channels && scale.len() == channels, "there are a bias and a scale for each channel");
        let mut bias = bias.to_vec();
        for row in weights.chunks_exact(channels.max(1)) {
            bias.iter_mut().zip(row).for_each(|(bias, &weight)| *bias -= i32::from(zero) * i32::from(weight));
        }
        let bytes = ToBytes::within(zero_out, [low, high]);
        #[cfg(target_arch = "x86_64")]
        if let Some(quads) = Quads::pack(level, &ByteFilters { bias: &bias, ..*filters }, zero, bytes) {
            return Self(Packing::Quads(quads));
        }
        let weights: Vec<f32> = weights.iter().copied().map(f32::from).collect();
        let bias: Vec<f32> = bias.iter().map(|&bias| bias as f32).collect();
        let filters = Filters { weights: &weights, taps: kernel[0] * kernel[1], channels, bias: Some(&bias) };
        let finish = ToResults { scale: Aligned::of(scale), bytes };
        Self(Packing::Floats(Packed::new(level, &filters, zero, finish)))
    }

    pub fn bytes(&self) -> usize {
        match &self.0 {
            Packing::Floats(floats) => floats.bytes(),
            #[cfg(target_arch = "x86_64")]
            Packing::Quads(quads) => quads.bytes(),
        }
    }

    pub fn kernel(&self) -> String {
        match &self.0 {
            Packing::Floats(floats) => {
                let table = floats.table::<u8>();
                format!("u8s8_depthwise_{}p__{}", table.tiles.len(), table.name)
            }
            #[cfg(target_arch = "x86_64")]
            Packing::Quads(_) => format!("u8s8_depthwise_{}p__avx512vnni", quads::PIXELS),
        }
    }

    /// Cuts the output of a window into tiles for `run`.
    ///
    /// # Panics
    /// When `out` cannot hold the pixels.
    pub fn grid<'a>(&self, out: &'a mut [u8], pitch: usize, window: &Window) -> Grid<'a, u8> {
        match &self.0 {
            Packing::Floats(floats) => floats.grid(out, pitch, window),
            #[cfg(target_arch = "x86_64")]
            Packing::Quads(quads) => quads.grid(out, pitch, window),
        }
    }

    /// Computes tiles until none is left; any number of threads may do so at once.
    ///
    /// # Panics
    /// When the window reaches beyond `image`, has other taps than the weights, or another stride or dilation along a line,
    /// or when the output has another size or was cut otherwise than by `grid`.
    pub fn run(&self, image: &[u8], window: &Window, grid: &Grid<'_, u8>) {
        match &self.0 {
            Packing::Floats(floats) => floats.run(image, window, grid),
            #[cfg(target_arch = "x86_64")]
            Packing::Quads(quads) => quads.run(image, window, grid),
        }
    }
}
