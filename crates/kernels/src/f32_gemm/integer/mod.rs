//! Products with weights of one to four bits that mean small integers, times a scale for each column or for each block of
//! its depth. Rows are rounded to integers of sixteen bits first, each block of a row in units of its own: the greatest
//! magnitude of a block becomes 32767, so an element is off by a 65534th of that at most. Sums of a block are exact, as they
//! are the same for all instruction sets; they are scaled and added in `f32`, in the order of blocks.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod generic;
mod portable;

use std::ops::RangeInclusive;

use super::generic::Kernels;
use super::{CodedWeights, Codes, Ends, Gemm, Operands, Packing};
use crate::activation::Activation;
use crate::aligned::Aligned;
use crate::grid::Grid;
use crate::isa::{Level, Set, choose};
use crate::panels::Residual;
use crate::window::Window;

/// What codes mean.
#[derive(Clone, Copy, Debug)]
pub struct Codebook<'a> {
    /// The integer of each code, at most [`IntegerGemm::NUMBERS_MAX`].
    pub table: &'a [i8],
    /// What integers are multiplied with, `[block][column]`.
    pub scales: &'a [f32],
    /// What is taken off integers before that, as `scales`, or nothing.
    pub zeros: &'a [f32],
    /// Rows of the weights that share scales; the last block may have fewer.
    pub block: usize,
}

/// As [`Gemm`], of rows that are rounded to integers, and codes.
#[derive(Debug)]
pub struct IntegerGemm {
    gemm: Gemm,
    kernels: &'static IntegerKernels,
    /// Of a code.
    bits: u32,
    depth: usize,
    /// Elements of a row in a block, and scales of a column.
    block: usize,
    blocks: usize,
    table: Aligned,
    /// `[panel][block][column of it]`.
    scales: Aligned,
    shifts: Aligned,
}

/// The kernels of an instruction set, by what scales there are.
#[derive(Debug)]
struct IntegerKernels {
    whole: Kernels,
    blocks: Kernels,
    shifted: Kernels,
    round: Round,
}

/// So many floats become a row, in blocks of so many, filled up to a multiple.
type Round = unsafe fn(&[f32], &mut [f32], usize, usize);

/// The kernels of an instruction set that has these functions, with so many rows by vectors.
macro_rules! kernels {
    ($isa:literal, $lanes:literal, $together:literal, $tile:ident, $row:ident; $($n:literal: $($m:literal)*);*) => {
        kernels!(@all Whole Blocks Shifted; $isa, $lanes, $together, $tile, $row; $($n: $($m)*);*)
    };
    (@all $whole:ident $blocks:ident $shifted:ident; $($rest:tt)*) => {
        IntegerKernels {
            whole: kernels!(@one $whole; $($rest)*),
            blocks: kernels!(@one $blocks; $($rest)*),
            shifted: kernels!(@one $shifted; $($rest)*),
            round,
        }
    };
    (@one $scales:ident; $isa:literal, $lanes:literal, $together:literal, $tile:ident, $row:ident;
        $($n:literal: $($m:literal)*);*) => {
        $crate::f32_gemm::generic::Kernels {
            operation: "s16_gemm",
            tiles: $crate::panels::Table {
                name: $isa,
                lanes: $lanes,
                tiles: &[$(&[$($tile::<$scales, $m, $n>),*]),*],
            },
            rows: &[$($row::<$scales, $together, $n>),*],
            together: $together,
            step: 1,
        }
    };
}
use kernels;

impl IntegerGemm {
    /// Numbers of a table.
    pub const NUMBERS_MAX: usize = 16;

    /// Whether weights of so many numbers and such blocks can be packed.
    pub fn fits(depth: usize, numbers: usize, block: usize) -> bool {
        numbers <= Self::NUMBERS_MAX && (block >= depth || row_block(depth, block, per_word(bits(numbers))).is_some())
    }

    /// As [`Gemm::pack`]; weights are places in the table.
    ///
    /// # Panics
    /// When `weights`, `bias` or what codes mean do not have the elements that the extents say, a code is beyond the table,
    /// they do not [fit](Self::fits), there are taps, or no kernel is so wide.
    pub fn pack(
        level: Level,
        weights: &CodedWeights<'_>,
        codebook: &Codebook<'_>,
        bias: Option<&[f32]>,
        activation: Activation,
        vectors: Option<usize>,
    ) -> Self {
        let CodedWeights { elements, taps, depth, columns } = *weights;
        let Codebook { table, scales, zeros, block } = *codebook;
        assert!(taps == 1 && Self::fits(depth, table.len(), block), "{taps} taps in blocks of {block} fit");
        let (bits, range) = (bits(table.len()), Range::of(table).filter(|_| has_even_kernels(level)));
        let kernels = kernels_of(level, range.is_some());
        let (per_word, is_whole) = (per_word(bits), block >= depth && zeros.is_empty());
        let of_rows = row_block(depth, block, per_word).unwrap_or(ROW_BLOCK_MAX);
        let steps = depth.div_ceil(per_word);
        let each = [steps, row_elements(depth, of_rows, per_word)];
        let of_scales = kernels.of(block >= depth, zeros.is_empty());
        let mut gemm = Gemm::unfilled(level, of_scales, ([taps, columns], each), bias, activation, vectors);
        let mut words = vec![0u32; steps * columns];
        for (k, from) in elements.chunks_exact(columns.max(1)).enumerate() {
            let to = &mut words[k / per_word * columns..][..columns];
            let place = k % per_word;
            // Every two are a pair, in both halves of a word.
            let shift = place % 2 * generic::HALF_BITS as usize + place / 2 * bits as usize;
            for (word, &code) in to.iter_mut().zip(from) {
                assert!(usize::from(code) < table.len(), "code {code} is one of {}", table.len());
                let code = range.as_ref().map_or(code, |range| range.code(table[usize::from(code)]));
                *word |= u32::from(code) << shift;
            }
        }
        gemm.packing.pack(bytemuck::cast_slice(&words), [columns, 1], gemm.weights.elements_mut());
        let given = depth.div_ceil(block.clamp(1, depth.max(1))).max(1);
        assert!(scales.len() == given * columns, "there is a scale for each of {given} blocks and {columns} columns");
        assert!(zeros.is_empty() || zeros.len() == scales.len(), "there are as many zeros as scales");
        // Every block of rows has scales of its own, where blocks have.
        let blocks = if is_whole { 1 } else { depth.div_ceil(of_rows).max(1) };
        let by_panel = |of: &dyn Fn(usize) -> f32| {
            let spread: Vec<f32> = (0..blocks * columns)
                .map(|at| of((at / columns * of_rows / block.max(1)).min(given - 1) * columns + at % columns))
                .collect();
            let mut packed = Aligned::zeroed(blocks * gemm.packing.panels.padded() * size_of::<f32>());
            Packing { depth: blocks, ..gemm.packing }.pack(&spread, [columns, 1], packed.elements_mut());
            packed
        };
        let packed = by_panel(&|at| scales[at]);
        let shifts = if zeros.is_empty() { Aligned::default() } else { by_panel(&|at| -zeros[at] * scales[at]) };
        // What a half has beyond its code does not count.
        let number = |at: usize| table.get(at % (1 << bits)).copied().unwrap_or_default().into();
        let mut table: [i16; 32] = std::array::from_fn(number);
        if let Some(Range { first, step }) = range {
            table[..3].copy_from_slice(&[first, step, (1 << bits) - 1]);
        }
        let table = Aligned::of(&table);
        Self { gemm, kernels, bits, depth, block: of_rows, blocks, table, scales: packed, shifts }
    }

    /// As [`Gemm::widths`].
    pub fn widths(level: Level) -> RangeInclusive<usize> {
        1..=kernels_of(level, false).whole.tiles.tiles.len()
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.gemm.bytes() + self.table.bytes() + self.scales.bytes() + self.shifts.bytes()
    }

    pub fn columns(&self) -> usize {
        self.gemm.columns()
    }

    /// As [`Gemm::kernel`], with the bits of a code.
    pub fn kernel(&self) -> String {
        let packing = &self.gemm.packing;
        packing.kernels.tiles.kernel(&format!("s16u{}_gemm", self.bits), &packing.panels)
    }

    /// Elements that a row takes when it was rounded.
    pub fn rounded(&self) -> usize {
        self.gemm.packing.row_elements
    }

    /// Rounded rows, to be filled tile by tile.
    ///
    /// # Panics
    /// When `to` has not the elements of whole rows.
    pub fn rounded_grid<'a>(&self, to: &'a mut [f32]) -> Grid<'a> {
        let each = self.rounded().max(1);
        assert!(to.len().is_multiple_of(each), "there are whole rounded rows");
        let rows = to.len() / each;
        Grid::new(to, each, [rows, each], [(ROUNDED_TOGETHER / each).max(1), each])
    }

    /// Rounds rows, tile by tile until none is left.
    ///
    /// # Panics
    /// When there are fewer floats than the rows of the grid have.
    pub fn round(&self, from: &[f32], grid: &Grid<'_>) {
        let step = per_word(self.bits);
        while let Some(mut tile) = grid.take() {
            let (first, rows) = (tile.first()[0], tile.size()[0]);
            let from = &from[first * self.depth..][..rows * self.depth];
            for (row, from) in from.chunks_exact(self.depth.max(1)).enumerate() {
                generic::call_round(self.kernels.round, from, tile.row(row), [self.block, step]);
            }
        }
    }

    /// As [`Gemm::grid`].
    ///
    /// # Panics
    /// When `out` cannot hold `rows` rows `pitch` elements apart.
    pub fn grid<'a, E>(&self, out: &'a mut [E], pitch: usize, rows: usize) -> Grid<'a, E> {
        self.gemm.grid(out, pitch, rows)
    }

    /// As [`Gemm::run`], of rounded rows.
    ///
    /// # Panics
    /// When there are fewer rows, the sizes of residual or output differ, or the output was cut otherwise than by `grid`.
    pub fn run(&self, rounded: &[f32], residual: Option<Residual<'_>>, grid: &Grid<'_>) {
        let (gemm, (activation, function)) = (&self.gemm, self.gemm.activation.split());
        let codes = Codes {
            bits: self.bits,
            depth: self.depth,
            block: self.block / per_word(self.bits),
            table: self.table.elements().as_ptr(),
            scales: self.scales.elements().as_ptr(),
            shifts: self.shifts.elements().as_ptr(),
            blocks: self.blocks,
            pitch: 0,
        };
        let window = Window::rows(grid.size()[0], self.rounded());
        let ends = Ends { bias: gemm.bias.elements(), residual, activation, function };
        let (packed, zeros) = (gemm.weights.elements(), gemm.zeros.elements());
        let operands = Operands { left: rounded, window: &window, packed, zeros, skips: false, codes: Some(codes) };
        gemm.packing.run_with(gemm.packing.kernels, &operands, Some(&ends), grid);
    }
}

impl IntegerKernels {
    fn of(&self, is_whole: bool, has_no_zeros: bool) -> &Kernels {
        match (has_no_zeros, is_whole) {
            (false, _) => &self.shifted,
            (true, true) => &self.whole,
            (true, false) => &self.blocks,
        }
    }
}

/// Integers at even distances.
struct Range {
    first: i16,
    step: i16,
}

impl Range {
    /// Of a table whose codes go as far, in the order of numbers.
    fn of(table: &[i8]) -> Option<Self> {
        let (least, most) = (i16::from(*table.iter().min()?), i16::from(*table.iter().max()?));
        let steps = || table.iter().map(|&number| i16::from(number) - least);
        let step = steps().fold(0, divisor).max(1);
        let is_short = (most - least) / step < 1 << bits(table.len());
        is_short.then_some(Self { first: least, step })
    }

    fn code(&self, number: i8) -> u8 {
        u8::try_from((i16::from(number) - self.first) / self.step).unwrap_or(0)
    }
}

/// The greatest of two numbers.
fn divisor(a: i16, b: i16) -> i16 {
    if b == 0 { a } else { divisor(b, a % b) }
}

/// Whether codes of integers at even distances are multiplied as they are, which is faster than looking them up.
fn has_even_kernels(level: Level) -> bool {
    level.set() == Set::Avx2
}

fn kernels_of(level: Level, is_even: bool) -> &'static IntegerKernels {
    match level.set() {
        #[cfg(target_arch = "x86_64")]
        Set::Avx512Vnni | Set::Avx512Bf16 => &avx512::VNNI_KERNELS,
        #[cfg(target_arch = "x86_64")]
        Set::Avx2 if is_even => &avx2::EVEN_KERNELS,
        _ => choose!(level, &KERNELS),
    }
}

/// Bits of a code, as many as halves of a word can be cut into.
fn bits(numbers: usize) -> u32 {
    numbers.max(2).next_power_of_two().ilog2().next_power_of_two()
}

/// Codes of a word.
fn per_word(bits: u32) -> usize {
    (u32::BITS / bits) as usize
}

/// Elements of a row that are rounded together: a part of a block of weights that is whole words.
fn row_block(depth: usize, block: usize, per_word: usize) -> Option<usize> {
    if block >= depth {
        return Some(ROW_BLOCK_MAX);
    }
    let part = |parts: usize| (block.is_multiple_of(parts)).then_some(block / parts);
    let parts = block.div_ceil(ROW_BLOCK_MAX).max(1)..=block / per_word;
    parts.filter_map(part).find(|part| part.is_multiple_of(per_word))
}

/// Pairs, and what stands behind those of each block.
fn row_elements(depth: usize, block: usize, per_word: usize) -> usize {
    depth.next_multiple_of(per_word) / 2 + 2 * depth.div_ceil(block)
}

/// Products of 127 with 32767 that 31 bits have room for are twice as many.
const ROW_BLOCK_MAX: usize = 256;

/// Elements that one thread rounds at a time.
const ROUNDED_TOGETHER: usize = 16 << 10;
