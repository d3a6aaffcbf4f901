//! Products with weights of which most are zero, with the chains of [`Gemm`](super::Gemm) without the zeros: their results
//! have the same bits where no element of the image is infinite or no number.

pub(super) mod generic;

use super::generic::Job;
use super::{Ends, Residual, Weights, Written, portable};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::activation::Activation;
use crate::aligned::Aligned;
use crate::grid::Grid;
use crate::isa::{Level, choose};
use crate::sparse::{self, BLOCKS, Fill, Image, Matrix, Program, Room};
use crate::window::Window;
use generic::Planes;

/// The weights that are not zero, laid out for the kernels of one instruction set, with what follows the product.
#[derive(Debug)]
pub struct SparseGemm {
    level: Level,
    program: Program,
    depth: usize,
    taps: usize,
    bias: Aligned,
    /// What taps outside the image see.
    zeros: Aligned,
    activation: Activation,
}

impl SparseGemm {
    /// Packs weights in blocks of so many columns that meet the same rows.
    ///
    /// # Panics
    /// When `weights` or `bias` do not have the elements that the extents say, or there are no such blocks.
    pub fn pack(
        level: Level,
        weights: &Weights<'_>,
        bias: Option<&[f32]>,
        activation: Activation,
        block: usize,
    ) -> Self {
        let [taps, depth, columns] = weights.size();
        assert!(bias.is_none_or(|bias| bias.len() == columns), "there is a bias for each column");
        let kernels = sparse::floats(level);
        // Zero has two forms.
        let elements = weights.taps_first();
        let words: Vec<u32> = elements.iter().map(|x| if *x == 0.0 { 0 } else { x.to_bits() }).collect();
        let matrix = Matrix { words: &words, rows: taps * depth, columns };
        let mut packed = Self {
            level,
            program: Program::of(&matrix, kernels, block),
            depth,
            taps,
            bias: Aligned::zeroed(columns.next_multiple_of(kernels.lanes) * size_of::<f32>()),
            zeros: Aligned::zeroed(depth * size_of::<f32>()),
            activation,
        };
        if let Some(bias) = bias {
            packed.bias.elements_mut::<f32>()[..columns].copy_from_slice(bias);
        }
        packed
    }

    /// Columns of the blocks there are kernels for.
    pub fn blocks() -> [usize; BLOCKS.len()] {
        BLOCKS
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.program.bytes() + self.bias.bytes() + self.zeros.bytes()
    }

    pub fn columns(&self) -> usize {
        self.program.columns()
    }

    /// Columns of a block.
    pub fn block(&self) -> usize {
        self.program.block()
    }

    /// Pixels of a vector.
    pub fn lanes(&self) -> usize {
        sparse::floats(self.level).lanes
    }

    /// What is left of the weights.
    pub fn fill(&self) -> Fill {
        self.program.fill()
    }

    /// As [`Gemm::kernel`](super::Gemm::kernel), with the columns of a block and the pixels of a panel.
    pub fn kernel(&self) -> String {
        let name = sparse::floats(self.level).name;
        format!("f32_sparse_{}x{}__{name}", self.program.block(), self.program.pixels())
    }

    /// Cuts an output into tiles that `run` works on, for so many threads.
    ///
    /// # Panics
    /// When `out` cannot hold `rows` rows `pitch` elements apart.
    pub fn grid<'a, E>(&self, out: &'a mut [E], pitch: usize, rows: usize, threads: usize) -> Grid<'a, E> {
        Grid::new(out, pitch, [rows, self.columns()], [self.program.pixels(), self.program.tile_columns(rows, threads)])
    }

    /// Computes tiles until none is left; any number of threads may do so at once.
    ///
    /// # Panics
    /// As [`Gemm::run`](super::Gemm::run).
    pub fn run(&self, left: &[f32], window: &Window, residual: Option<Residual<'_>>, grid: &Grid<'_>) {
        let pixels = window.pixels();
        assert!(window.reach(self.depth) <= left.len(), "the window lies within the image");
        assert_eq!(window.taps(), self.taps, "the window has the taps of the weights");
        assert_eq!(grid.size(), [pixels, self.columns()], "the output is pixels by columns");
        if let Some(residual) = residual {
            residual.check([pixels, self.columns()]);
        }
        let (activation, function) = self.activation.split();
        let ends = Ends { bias: self.bias.elements(), residual, activation, function };
        let image = Image { elements: left, zeros: self.zeros.elements(), window, depth: self.depth };
        let mut room = Room::new();
        while let Some(mut tile) = grid.take() {
            let ([row, column], [rows, columns]) = (tile.first, tile.size);
            self.program.run(sparse::floats(self.level), &image, [row, rows], [column, columns], &mut room);
            let results = Job::results(tile.out, tile.pitch, columns, Some(ends.of(row, column, None)));
            let planes = Planes { sums: room.sums().cast(), pitch: self.program.pitch(rows), rows, results };
            generic::call_planes(*choose!(self.level, &PLANES), &planes);
            if let Some(function) = function {
                f32::follow(function, self.level, &mut tile);
            }
        }
    }
}
