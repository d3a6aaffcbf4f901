//! Products of bytes with weights of which most are zero: those of [`Gemm`](super::Gemm), bit for bit. Four weights that
//! follow each other along the depth are one word, which is left out where all of them are zero.

use super::generic::{self, Planes, Plus};
use super::{Ends, Requantize, Residual, Weights, Written, tables};
use crate::grid::Grid;
use crate::isa::Level;
use crate::sparse::{self, BLOCKS, Fill, Image, Matrix, Program, Room};
use crate::window::Window;

/// The weights that are not zero, laid out for the kernels of one instruction set, with what follows the product.
#[derive(Debug)]
pub struct SparseGemm {
    level: Level,
    program: Program,
    taps: usize,
    depth: usize,
    ends: Ends,
}

impl SparseGemm {
    /// Whether a depth has whole words.
    pub fn takes(depth: usize) -> bool {
        depth.is_multiple_of(WORD)
    }

    /// Packs weights in blocks of so many columns that meet the same words. `zero` is the zero point of the bytes.
    ///
    /// # Panics
    /// When `weights`, `bias` or `scale` do not have the elements that the extents say, the depth has no whole words, or
    /// there are no such blocks.
    pub fn pack(level: Level, weights: &Weights<'_>, zero: u8, then: &Requantize<'_>, block: usize) -> Self {
        let Weights { elements, taps, depth, columns } = *weights;
        assert!(Self::takes(depth), "{depth} weights are whole words");
        let kernels = sparse::bytes(level);
        let ends = Ends::of(weights, zero, then, columns.next_multiple_of(kernels.lanes));
        let mut words = vec![0; elements.len() / WORD];
        for (row, elements) in elements.chunks_exact(columns.max(1)).enumerate() {
            let words = &mut words[row / WORD * columns..][..columns];
            for (word, element) in words.iter_mut().zip(elements) {
                *word |= u32::from(element.cast_unsigned()) << (row % WORD * 8);
            }
        }
        let matrix = Matrix { words: &words, rows: taps * depth / WORD, columns };
        Self { level, program: Program::of(&matrix, kernels, block), taps, depth, ends }
    }

    /// Columns of the blocks there are kernels for.
    pub fn blocks() -> [usize; BLOCKS.len()] {
        BLOCKS
    }

    /// Columns of a block.
    pub fn block(&self) -> usize {
        self.program.block()
    }

    /// Pixels of a vector.
    pub fn lanes(&self) -> usize {
        sparse::bytes(self.level).lanes
    }

    /// What is left of the words of the weights.
    pub fn fill(&self) -> Fill {
        self.program.fill()
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.program.bytes() + self.ends.bytes()
    }

    pub fn columns(&self) -> usize {
        self.program.columns()
    }

    /// As [`Gemm::kernel`](super::Gemm::kernel), with the columns of a block, the depth of a word, and the pixels of a panel.
    pub fn kernel(&self) -> String {
        let name = sparse::bytes(self.level).name;
        format!("u8s8_sparse_{}x{WORD}x{}__{name}", self.program.block(), self.program.pixels())
    }

    /// Cuts an output into tiles that `run` works on, for so many threads.
    ///
    /// # Panics
    /// When `out` cannot hold `rows` rows `pitch` elements apart.
    pub fn grid<'a, T>(&self, out: &'a mut [T], pitch: usize, rows: usize, threads: usize) -> Grid<'a, T> {
        let tile = [self.program.pixels(), self.program.tile_columns(rows, threads)];
        Grid::new(out, pitch, [rows, self.columns()], tile)
    }

    /// Computes tiles until none is left; any number of threads may do so at once.
    ///
    /// # Panics
    /// As [`Gemm::run`](super::Gemm::run).
    pub fn run<T: Written>(
        &self,
        left: &[u8],
        window: &Window,
        residual: Option<Residual<'_, u8>>,
        grid: &Grid<'_, T>,
    ) {
        assert!(window.reach(self.depth) <= left.len(), "the window lies within the image");
        assert_eq!(window.taps(), self.taps, "the window has the taps of the weights");
        assert_eq!(grid.size(), [window.pixels(), self.columns()], "the output is pixels by columns");
        assert!(T::fits(self.ends.finish), "the output is of the type that products end in");
        let plus = self.ends.plus(residual);
        if let Some((_, residual)) = &plus {
            residual.check(grid.size());
        }
        let image = Image { elements: left, zeros: self.ends.zeros.elements(), window, depth: self.depth / WORD };
        let mut room = Room::new();
        while let Some(tile) = grid.take() {
            let ([row, column], [rows, columns]) = (tile.first, tile.size);
            self.program.run(sparse::bytes(self.level), &image, [row, rows], [column, columns], &mut room);
            let plus = plus.map(|(added, Residual { elements, pitch })| {
                let other = elements[row * pitch + column..].as_ptr();
                Plus { added, other, pitch }
            });
            let results = self.ends.results(&tile, plus);
            let planes = Planes { sums: room.sums().cast(), pitch: self.program.pitch(rows), rows, results };
            generic::call_planes(tables(self.level).planes, &planes);
        }
    }
}

/// Bytes of a word.
const WORD: usize = size_of::<u32>();
