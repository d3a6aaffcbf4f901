//! Products of operands that are rounded to bf16. Weights lie in pairs that take the place of one `f32`: half the memory, and
//! with AVX-512 BF16, where rows are pairs too, half the instructions. Other instruction sets take rows of rounded floats.
//! Sums are `f32`, and so is what follows them.

use half::bf16;

use super::generic::{self, PairKernels};
use super::rounding::Rounding;
use super::sparse::generic::Planes;
use super::{Gemm, Operands, Packing, Residual, TAPS_MAX, Weights, Written, portable};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::activation::Activation;
use crate::f32_functions::Function;
use crate::grid::{Grid, Tile};
#[cfg(target_arch = "x86_64")]
use crate::isa::Set;
use crate::isa::{Level, choose};
use crate::window::Window;

impl Packing {
    /// For a product of rows of pairs with a matrix of `depth` rows of bf16, of which two lie in the place of a float.
    ///
    /// # Panics
    /// When the instruction set does not multiply pairs.
    pub(crate) fn pairs(level: Level, depth: usize, columns: usize) -> Self {
        let kernels = &pair_kernels(level).products;
        assert_eq!(kernels.step, 1, "pairs are multiplied");
        let (pairs, panels) = (depth.div_ceil(2), kernels.tiles.panels(columns, None));
        Self { level, kernels, taps: 1, depth: pairs, row_elements: pairs, panels }
    }

    /// As `pack`, of rows that lie so far apart: every two become one of pairs, the last with zeros if it has no other.
    ///
    /// # Panics
    /// When `from` or `to` is too short.
    pub(crate) fn pack_in_pairs(&self, from: &[bf16], pitch: usize, rows: usize, to: &mut [f32]) {
        for first in self.panels.firsts() {
            let panel = self.panels.panel(first);
            let width = panel.vectors * self.kernels.tiles.lanes;
            let to = &mut to[self.offset(first)..][..self.depth * width];
            for (pair, to) in to.chunks_exact_mut(width).enumerate() {
                let (taken, filled) = to.split_at_mut(panel.columns);
                let row = |row: usize| &from[row * pitch + first..][..panel.columns];
                if 2 * pair + 1 < rows {
                    let both = row(2 * pair).iter().zip(row(2 * pair + 1));
                    taken.iter_mut().zip(both).for_each(|(to, (&lower, &upper))| *to = pair_of(lower, upper));
                } else {
                    let lower = row(2 * pair).iter();
                    taken.iter_mut().zip(lower).for_each(|(to, &lower)| *to = pair_of(lower, bf16::ZERO));
                }
                filled.fill(0.0);
            }
        }
    }

    /// Lays out weights rounded to bf16: every two rows of a tap become one of pairs, the last with zeros if it has no other.
    fn lay_out_in_pairs(&self, weights: &Weights<'_>, to: &mut [f32]) {
        let (mut rows, depth) = (Vec::new(), weights.depth);
        for first in self.panels.firsts() {
            let panel = self.panels.panel(first);
            let width = panel.vectors * self.kernels.tiles.lanes;
            rows.resize(weights.taps * depth * width, 0.0);
            weights.lay_out(first, panel.columns, width, &mut rows);
            let to = &mut to[self.offset(first)..][..self.taps * self.depth * width];
            let taps = rows.chunks_exact((depth * width).max(1)).zip(to.chunks_exact_mut((self.depth * width).max(1)));
            for (pair, to) in taps.flat_map(|(tap, to)| tap.chunks(2 * width).zip(to.chunks_exact_mut(width))) {
                let (lower, upper) = pair.split_at(width);
                let upper = upper.iter().copied().chain(std::iter::repeat(0.0));
                for ((to, &lower), upper) in to.iter_mut().zip(lower).zip(upper) {
                    *to = f32::from_bits(u32::from(generic::half(upper)) << 16 | u32::from(generic::half(lower)));
                }
            }
        }
    }

    /// As `run`, of rows of pairs, with results rounded to bf16.
    ///
    /// # Panics
    /// As `run`.
    pub(crate) fn run_to_halves(&self, left: &[f32], pitch: usize, packed: &[f32], grid: &Grid<'_, bf16>) {
        let kernels = pair_kernels(self.level).to_halves.as_ref().expect("pairs are multiplied");
        let window = Window::rows(grid.size()[0], pitch);
        let operands = Operands { left, window: &window, packed, zeros: &[], skips: false, codes: None };
        self.run_with(kernels, &operands, None, grid);
    }
}

/// Two bf16 in the place of a float.
fn pair_of(lower: bf16, upper: bf16) -> f32 {
    f32::from_bits(u32::from(upper.to_bits()) << 16 | u32::from(lower.to_bits()))
}

/// Weights rounded to bf16 and laid out for the kernels of one instruction set, with what follows the product.
#[derive(Debug)]
pub struct PairGemm(Gemm);

impl PairGemm {
    /// As [`Gemm::pack`].
    ///
    /// # Panics
    /// When there is not a bias for each column, or no kernel is so wide.
    pub fn pack(
        level: Level,
        weights: &Weights<'_>,
        bias: Option<&[f32]>,
        activation: Activation,
        vectors: Option<usize>,
    ) -> Self {
        let (kernels, [taps, depth, columns]) = (&pair_kernels(level).products, weights.size());
        let size = ([taps, columns], [depth.div_ceil(2), Rounding::of(level).elements(depth)]);
        let mut packed = Gemm::unfilled(level, kernels, size, bias, activation, vectors);
        packed.form = PAIR;
        packed.packing.lay_out_in_pairs(weights, packed.weights.elements_mut());
        Self(packed)
    }

    /// How images are rounded for it.
    pub fn rounding(&self) -> Rounding {
        Rounding::of(self.0.packing.level)
    }

    /// Whether results may be bf16: where pairs are multiplied, and one call sees all taps.
    pub fn has_halves(&self) -> bool {
        has_halves(self.0.packing.level, self.0.packing.taps)
    }

    /// As `run`, with residual and results rounded to bf16. A function that is the activation is applied to rounded sums.
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
        let kernels = pair_kernels(self.0.packing.level).to_halves.as_ref().filter(|_| self.has_halves());
        self.0.run_to(kernels.expect("results may be bf16"), left, window, residual, grid);
    }

    /// Whether this instruction set multiplies pairs, twice as many as floats.
    pub fn is_faster(level: Level) -> bool {
        pair_kernels(level).products.step == 1
    }

    /// As [`Gemm::widths`].
    pub fn widths(level: Level) -> std::ops::RangeInclusive<usize> {
        1..=pair_kernels(level).products.tiles.tiles.len()
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    pub fn columns(&self) -> usize {
        self.0.columns()
    }

    /// As [`Gemm::kernel`].
    pub fn kernel(&self) -> String {
        self.0.kernel()
    }

    /// As [`Gemm::grid`].
    ///
    /// # Panics
    /// When `out` cannot hold `rows` rows `pitch` elements apart.
    pub fn grid<'a, E>(&self, out: &'a mut [E], pitch: usize, rows: usize) -> Grid<'a, E> {
        self.0.grid(out, pitch, rows)
    }

    /// As [`Gemm::run`], of a rounded image, whose elements the window counts.
    ///
    /// # Panics
    /// When the window reaches beyond `left`, the weights have other taps, the sizes of residual or output differ, or the
    /// output was cut otherwise than by `grid`.
    pub fn run(&self, left: &[f32], window: &Window, residual: Option<Residual<'_>>, grid: &Grid<'_>) {
        self.0.run(left, window, residual, grid);
    }
}

impl Written for bf16 {
    const IS_RESUMED: bool = false;

    fn follow(function: Function, level: Level, tile: &mut Tile<'_, Self>) {
        function.over_halves(level, tile);
    }

    fn planes(level: Level) -> Option<unsafe fn(&Planes<Self>)> {
        #[cfg(target_arch = "x86_64")]
        if level.set() >= Set::Avx512Bf16 {
            return Some(avx512::PLANES_TO_HALVES);
        }
        let _ = level;
        None
    }
}

/// Whether products with so many taps may have results that are bf16.
pub(super) fn has_halves(level: Level, taps: usize) -> bool {
    pair_kernels(level).to_halves.is_some() && taps <= TAPS_MAX
}

pub(super) fn pair_kernels(level: Level) -> &'static PairKernels {
    #[cfg(target_arch = "x86_64")]
    if level.set() >= Set::Avx512Bf16 {
        return &avx512::FUSED_PAIRS;
    }
    choose!(level, &PAIRS)
}

/// As `FLOAT`, of both bf16.
const PAIR: [u32; 2] = [0x7fff_7fff, 0x0080_0080];
