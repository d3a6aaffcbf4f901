//! Products with weights that are places in a table of at most sixteen numbers (a codebook; Han et al., "Deep Compression",
//! 2016), times a scale for each column: one to four bits a weight. Rows, numbers and sums are `f32`, and nothing is rounded
//! on the way: codes become numbers in registers.
//!
//! Every result is one chain of multiply-adds over taps and depth in order, times its scale.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod generic;
mod portable;

use super::generic::Kernels;
use super::{Codes, Ends, Gemm, Operands, TAPS_MAX};
use crate::activation::Activation;
use crate::aligned::Aligned;
use crate::grid::Grid;
use crate::isa::{Level, choose};
use crate::panels::Residual;
use crate::window::Window;

/// Weights of few bits: places in a table, in the order `[tap][depth][column]`, dense.
#[derive(Clone, Copy, Debug)]
pub struct CodedWeights<'a> {
    pub elements: &'a [u8],
    pub taps: usize,
    pub depth: usize,
    pub columns: usize,
}

/// As [`Gemm`], of codes.
#[derive(Debug)]
pub struct CodebookGemm {
    gemm: Gemm,
    /// Of a code.
    bits: u32,
    /// Of a tap.
    depth: usize,
    /// What four bits mean.
    table: Aligned,
    /// One for each column and zeros up to a whole vector.
    scales: Aligned,
}

impl CodebookGemm {
    /// Numbers of a table.
    pub const NUMBERS_MAX: usize = 16;

    /// The most taps of weights.
    pub const TAPS_MAX: usize = TAPS_MAX;

    /// As [`Gemm::pack`]; weights are places in the table. Without scales all are one.
    ///
    /// # Panics
    /// When `weights`, `scales` or `bias` do not have the elements that the extents say, there are too many taps or numbers, a
    /// weight is beyond the table, or no kernel is so wide.
    pub fn pack(
        level: Level,
        weights: &CodedWeights<'_>,
        [table, scales]: [&[f32]; 2],
        bias: Option<&[f32]>,
        activation: Activation,
        vectors: Option<usize>,
    ) -> Self {
        let CodedWeights { elements, taps, depth, columns } = *weights;
        assert!(table.len() <= Self::NUMBERS_MAX && taps <= TAPS_MAX, "{} numbers and {taps} taps fit", table.len());
        assert!(scales.is_empty() || scales.len() == columns, "there is a scale for each column");
        let bits = bits(table.len());
        let per_word = (u32::BITS / bits) as usize;
        let steps = depth.div_ceil(per_word);
        let mut gemm =
            Gemm::unfilled(level, kernels(level), ([taps, columns], [steps, depth]), bias, activation, vectors);
        let mut words = vec![0u32; taps * steps * columns];
        for (row, from) in elements.chunks_exact(columns.max(1)).enumerate() {
            let (tap, k) = (row / depth, row % depth);
            let to = &mut words[(tap * steps + k / per_word) * columns..][..columns];
            for (word, &code) in to.iter_mut().zip(from) {
                assert!(usize::from(code) < table.len(), "code {code} is one of {}", table.len());
                *word |= u32::from(code) << (k % per_word * bits as usize);
            }
        }
        gemm.packing.pack(bytemuck::cast_slice(&words), [columns, 1], gemm.weights.elements_mut());
        let mut packed = Aligned::zeroed(gemm.packing.panels.padded() * size_of::<f32>());
        match scales {
            [] => packed.elements_mut::<f32>().fill(1.0),
            given => packed.elements_mut()[..columns].copy_from_slice(given),
        }
        // What a lane has beyond its code does not count.
        let number = |at: usize| table.get(at % (1 << bits)).copied().unwrap_or_default();
        let table: Vec<f32> = (0..Self::NUMBERS_MAX).map(number).collect();
        Self { gemm, bits, depth, table: Aligned::of(&table), scales: packed }
    }

    /// As [`Gemm::widths`].
    pub fn widths(level: Level) -> std::ops::RangeInclusive<usize> {
        1..=kernels(level).tiles.tiles.len()
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.gemm.bytes() + self.table.bytes() + self.scales.bytes()
    }

    pub fn columns(&self) -> usize {
        self.gemm.columns()
    }

    /// As [`Gemm::kernel`], with the bits of a code.
    pub fn kernel(&self) -> String {
        let packing = &self.gemm.packing;
        packing.kernels.tiles.kernel(&format!("f32u{}_gemm", self.bits), &packing.panels)
    }

    /// As [`Gemm::grid`].
    ///
    /// # Panics
    /// When `out` cannot hold `rows` rows `pitch` elements apart.
    pub fn grid<'a, E>(&self, out: &'a mut [E], pitch: usize, rows: usize) -> Grid<'a, E> {
        self.gemm.grid(out, pitch, rows)
    }

    /// As [`Gemm::run`].
    ///
    /// # Panics
    /// When the window reaches beyond `left`, the weights have other taps, the sizes of residual or output differ, or the
    /// output was cut otherwise than by `grid`.
    pub fn run(&self, left: &[f32], window: &Window, residual: Option<Residual<'_>>, grid: &Grid<'_>) {
        let (gemm, (activation, function)) = (&self.gemm, self.gemm.activation.split());
        let codes = Codes {
            bits: self.bits,
            depth: self.depth,
            block: self.depth,
            table: self.table.elements().as_ptr(),
            scales: self.scales.elements().as_ptr(),
            shifts: std::ptr::null(),
            blocks: 1,
            pitch: 0,
        };
        let (packed, zeros) = (gemm.weights.elements(), gemm.zeros.elements());
        let ends = Ends { bias: gemm.bias.elements(), residual, activation, function };
        let operands = Operands { left, window, packed, zeros, skips: false, codes: Some(codes) };
        gemm.packing.run_with(gemm.packing.kernels, &operands, Some(&ends), grid);
    }
}

/// Bits of a place in a table of so many.
fn bits(numbers: usize) -> u32 {
    numbers.max(2).next_power_of_two().ilog2()
}

fn kernels(level: Level) -> &'static Kernels {
    choose!(level, &KERNELS)
}
