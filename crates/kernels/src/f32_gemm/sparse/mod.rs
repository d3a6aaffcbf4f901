//! Products with weights of which most are zero, with the chains of [`Gemm`](super::Gemm), or of
//! [`PairGemm`](super::PairGemm), without the zeros: their results have the same bits where no element of the image is
//! infinite or no number.

pub(super) mod generic;

use half::bf16;

use super::generic::{Job, half};
use super::pairs::has_halves;
use super::rounding::Rounding;
use super::{Ends, PairGemm, Residual, Weights, Written};
use crate::activation::Activation;
use crate::aligned::Aligned;
use crate::grid::Grid;
use crate::isa::Level;
use crate::sparse::{self, BLOCKS, Fill, Image, Kernels, Matrix, Program, Room};
use crate::window::Window;
use generic::Planes;

/// The weights that are not zero, laid out for the kernels of one instruction set, with what follows the product.
#[derive(Debug)]
pub struct SparseGemm {
    level: Level,
    form: Form,
    program: Program,
    /// Elements of a tap of the image.
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
        // Zero has two forms.
        let elements = weights.taps_first();
        let words: Vec<u32> = elements.iter().map(|x| if *x == 0.0 { 0 } else { x.to_bits() }).collect();
        let words = (&words[..], weights.depth);
        Self::of(level, Form::Floats, weights, words, block).ended(bias, activation)
    }

    /// As `pack`, of weights rounded to bf16, for images that are: pairs of them where the instruction set multiplies pairs.
    ///
    /// # Panics
    /// As `pack`.
    pub fn pack_in_pairs(
        level: Level,
        weights: &Weights<'_>,
        bias: Option<&[f32]>,
        activation: Activation,
        block: usize,
    ) -> Self {
        let [taps, depth, columns] = weights.size();
        let (elements, each) = (weights.taps_first(), Rounding::of(level).elements(depth));
        let rows = if PairGemm::is_faster(level) { 2 } else { 1 };
        let mut words = vec![0; taps * each * columns];
        for (at, elements) in elements.chunks_exact(columns.max(1)).enumerate() {
            let (tap, row) = (at / depth, at % depth);
            let words = &mut words[(tap * each + row / rows) * columns..][..columns];
            // The first of a pair, and of a float that is rounded what is left, is the lower and the upper half.
            let shift = if rows == 1 || row % 2 == 1 { u16::BITS } else { 0 };
            for (word, &element) in words.iter_mut().zip(elements) {
                let half = if element == 0.0 { 0 } else { half(element) };
                *word |= u32::from(half) << shift;
            }
        }
        Self::of(level, Form::Pairs, weights, (&words, each), block).ended(bias, activation)
    }

    /// Of words of which so many lie in a tap.
    fn of(level: Level, form: Form, weights: &Weights<'_>, (words, depth): (&[u32], usize), block: usize) -> Self {
        let [taps, _, columns] = weights.size();
        let matrix = Matrix { words, rows: taps * depth, columns };
        let kernels = form.kernels(level);
        Self {
            level,
            form,
            program: Program::of(&matrix, kernels, block),
            depth,
            taps,
            bias: Aligned::zeroed(columns.next_multiple_of(kernels.lanes) * size_of::<f32>()),
            zeros: Aligned::zeroed(depth * size_of::<f32>()),
            activation: Activation::None,
        }
    }

    /// With what follows the product.
    fn ended(mut self, bias: Option<&[f32]>, activation: Activation) -> Self {
        assert!(bias.is_none_or(|bias| bias.len() == self.columns()), "there is a bias for each column");
        if let Some(bias) = bias {
            self.bias.elements_mut::<f32>()[..bias.len()].copy_from_slice(bias);
        }
        Self { activation, ..self }
    }

    /// How images are rounded for it, where they are.
    pub fn rounding(&self) -> Option<Rounding> {
        (self.form == Form::Pairs).then(|| Rounding::of(self.level))
    }

    /// As [`PairGemm::has_halves`].
    pub fn has_halves(&self) -> bool {
        self.form == Form::Pairs && has_halves(self.level, self.taps)
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
        self.kernels().lanes
    }

    /// What is left of the weights.
    pub fn fill(&self) -> Fill {
        self.program.fill()
    }

    /// As [`Gemm::kernel`](super::Gemm::kernel), with the columns of a block and the pixels of a panel.
    pub fn kernel(&self) -> String {
        let Kernels { name, .. } = self.kernels();
        let operand = if self.form == Form::Pairs { "bf16" } else { "f32" };
        format!("{operand}_sparse_{}x{}__{name}", self.program.block(), self.program.pixels())
    }

    /// Cuts an output into tiles that `run` works on, for so many threads.
    ///
    /// # Panics
    /// When `out` cannot hold `rows` rows `pitch` elements apart.
    pub fn grid<'a, E>(&self, out: &'a mut [E], pitch: usize, rows: usize, threads: usize) -> Grid<'a, E> {
        Grid::new(out, pitch, [rows, self.columns()], [self.program.pixels(), self.program.tile_columns(rows, threads)])
    }

    fn kernels(&self) -> &'static Kernels {
        self.form.kernels(self.level)
    }

    /// Computes tiles until none is left; any number of threads may do so at once.
    ///
    /// # Panics
    /// As [`Gemm::run`](super::Gemm::run).
    pub fn run(&self, left: &[f32], window: &Window, residual: Option<Residual<'_>>, grid: &Grid<'_>) {
        self.run_to(left, window, residual, grid);
    }

    /// As [`PairGemm::run_to_halves`].
    ///
    /// # Panics
    /// As `run`, or when results may not be bf16.
    pub fn run_to_halves(
        &self,
        left: &[f32],
        window: &Window,
        residual: Option<Residual<'_, bf16>>,
        grid: &Grid<'_, bf16>,
    ) {
        self.run_to(left, window, residual, grid);
    }

    fn run_to<E: Written>(&self, left: &[f32], window: &Window, residual: Option<Residual<'_, E>>, grid: &Grid<'_, E>) {
        let (pixels, end) = (window.pixels(), E::planes(self.level).expect("results may be of the type"));
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
            self.program.run(self.kernels(), &image, [row, rows], [column, columns], &mut room);
            let results = Job::results(tile.out, tile.pitch, columns, Some(ends.of(row, column, None)));
            let sums = Planes { sums: room.sums().cast(), pitch: self.program.pitch(rows), rows, results };
            generic::call_planes(end, &sums);
            if let Some(function) = function {
                E::follow(function, self.level, &mut tile);
            }
        }
    }
}

/// What words of the weights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Floats,
    /// Rounded to bf16.
    Pairs,
}

impl Form {
    fn kernels(self, level: Level) -> &'static Kernels {
        match self {
            Self::Floats => sparse::floats(level),
            Self::Pairs => sparse::pairs(level),
        }
    }
}
