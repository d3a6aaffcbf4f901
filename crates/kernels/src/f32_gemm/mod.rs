//! Rows of activations times packed weights, in `f32`: linear layers, products over tokens, and convolutions, whose
//! rows are gathered from the image while they are read (implicit GEMM; Dukhan, "The Indirect Convolution Algorithm",
//! 2019). Bias, a residual and an activation are applied before a result leaves the registers.
//!
//! Each result is one chain of multiply-adds over taps and depth in order, whatever the tile it falls in: it does not
//! depend on other rows, on the number of threads, or, where multiply-adds are fused, on the instruction set.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod codebook;
mod generic;
mod integer;
mod pairs;
mod portable;
mod rounding;
mod sparse;
mod weights;

use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;

use crate::activation::Activation;
use crate::aligned::Aligned;
use crate::f32_functions::Function;
use crate::grid::{Grid, Tile};
use crate::isa::{Level, choose};
pub use crate::panels::Residual;
use crate::panels::{Panels, ROWS_MAX};
use crate::window::Window;
pub use codebook::{CodebookGemm, CodedWeights};
use generic::{Codes, Job, Kernels};
pub use integer::{Codebook, IntegerGemm};
pub use pairs::PairGemm;
pub use rounding::Rounding;
pub use sparse::SparseGemm;
use sparse::generic::Planes;
pub use weights::Weights;

/// Weights laid out for the kernels of one instruction set, with what follows the product.
#[derive(Debug)]
pub struct Gemm {
    packing: Packing,
    weights: Aligned,
    /// One for each column and zeros up to a whole vector.
    bias: Aligned,
    /// What taps outside the image see.
    zeros: Aligned,
    /// Whether weights are numbers, so that their products with zero are zero; looked at when it is asked first, as what
    /// `are_finite` takes them for.
    is_finite: OnceLock<bool>,
    form: [u32; 2],
    activation: Activation,
}

/// How weights of some extents lie for the kernels of one instruction set. The memory is the caller's, so that a product
/// of two computed operands can pack one of them when it runs.
#[derive(Clone, Copy, Debug)]
pub struct Packing {
    level: Level,
    kernels: &'static Kernels,
    taps: usize,
    /// Steps of every tap.
    depth: usize,
    /// Elements of a row, or of a tap of it.
    row_elements: usize,
    panels: Panels,
}

/// What a product is made of.
struct Operands<'a> {
    left: &'a [f32],
    window: &'a Window,
    packed: &'a [f32],
    /// What taps outside the image see.
    zeros: &'a [f32],
    /// Whether a row skips weights that would meet its zeros.
    skips: bool,
    /// What weights mean that are codes.
    codes: Option<Codes>,
}

/// What follows the last sum of a product.
struct Ends<'a, E = f32> {
    /// One for each column and zeros up to a whole vector.
    bias: &'a [f32],
    residual: Option<Residual<'a, E>>,
    /// What is done to sums while they are in registers, and what to results.
    activation: Activation,
    function: Option<Function>,
}

impl<E: Copy> Ends<'_, E> {
    /// For the results from a row and a column on. Where results of one row are seen as rows of `width` columns, bias and
    /// residual go on from one to the next.
    fn of(&self, row: usize, column: usize, width: Option<usize>) -> generic::End<E> {
        generic::End {
            bias: self.bias[column..].as_ptr(),
            bias_pitch: width.unwrap_or(0),
            residual: self.residual.map(|Residual { elements, pitch }| {
                (elements[row * pitch + column..].as_ptr(), width.unwrap_or(pitch))
            }),
            activation: self.activation,
        }
    }
}

impl Gemm {
    /// Packs weights into panels of `vectors` vectors; `None` takes the width that suits the number of columns.
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
        let [taps, depth, columns] = weights.size();
        let size = ([taps, columns], [depth; 2]);
        let mut packed = Self::unfilled(level, kernels(level), size, bias, activation, vectors);
        packed.packing.lay_out(weights, packed.weights.elements_mut());
        packed
    }

    /// With zeros for weights, of so many taps and columns, and so many steps and elements of a row for each tap.
    fn unfilled(
        level: Level,
        kernels: &'static Kernels,
        ([taps, columns], [steps, row_elements]): ([usize; 2], [usize; 2]),
        bias: Option<&[f32]>,
        activation: Activation,
        vectors: Option<usize>,
    ) -> Self {
        assert!(bias.is_none_or(|bias| bias.len() == columns), "there is a bias for each column");
        let panels = kernels.tiles.panels(columns, vectors);
        let packing = Packing { level, kernels, taps, depth: steps, row_elements, panels };
        let mut packed = Self {
            packing,
            weights: Aligned::zeroed(packing.elements() * size_of::<f32>()),
            bias: Aligned::zeroed(panels.padded() * size_of::<f32>()),
            zeros: Aligned::zeroed(row_elements * size_of::<f32>()),
            is_finite: OnceLock::new(),
            form: FLOAT,
            activation,
        };
        if let Some(bias) = bias {
            packed.bias.elements_mut::<f32>()[..columns].copy_from_slice(bias);
        }
        packed
    }

    /// Panel widths that there are kernels for, in vectors.
    pub fn widths(level: Level) -> std::ops::RangeInclusive<usize> {
        1..=kernels(level).tiles.tiles.len()
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + self.bias.bytes() + self.zeros.bytes()
    }

    pub fn columns(&self) -> usize {
        self.packing.columns()
    }

    /// The kernel that runs full tiles, named `<dtype>_<op>_<rows>x<columns>__<isa>`.
    pub fn kernel(&self) -> String {
        self.packing.kernel()
    }

    /// Cuts an output into tiles that `run` works on: panels of columns, and as many rows as keep their input in the
    /// second-level cache.
    ///
    /// # Panics
    /// When `out` cannot hold `rows` rows `pitch` elements apart.
    pub fn grid<'a, E>(&self, out: &'a mut [E], pitch: usize, rows: usize) -> Grid<'a, E> {
        self.packing.grid(out, pitch, rows)
    }

    /// Computes tiles until none is left; any number of threads may do so at once.
    ///
    /// # Panics
    /// When the window reaches beyond `left`, the weights have other taps, the sizes of residual or output differ, or the
    /// output was cut otherwise than by `grid`.
    pub fn run(&self, left: &[f32], window: &Window, residual: Option<Residual<'_>>, grid: &Grid<'_>) {
        self.run_to(self.packing.kernels, left, window, residual, grid);
    }

    /// As `run`, with results as these kernels store them.
    fn run_to<E: Written>(
        &self,
        kernels: &Kernels<E>,
        left: &[f32],
        window: &Window,
        residual: Option<Residual<'_, E>>,
        grid: &Grid<'_, E>,
    ) {
        let (activation, function) = self.activation.split();
        let ends = Ends { bias: self.bias.elements(), residual, activation, function };
        let (packed, zeros) = (self.weights.elements(), self.zeros.elements());
        let skips = window.pixels() == 1 && self.is_finite();
        let operands = Operands { left, window, packed, zeros, skips, codes: None };
        self.packing.run_with(kernels, &operands, Some(&ends), grid);
    }

    fn is_finite(&self) -> bool {
        *self.is_finite.get_or_init(|| are_finite(self.weights.elements(), self.form))
    }
}

impl Packing {
    /// For a product with a matrix of `depth` rows and so many columns.
    pub fn matrix(level: Level, depth: usize, columns: usize) -> Self {
        let kernels = kernels(level);
        let panels = kernels.tiles.panels(columns, None);
        Self { level, kernels, taps: 1, depth, row_elements: depth, panels }
    }

    /// Elements that the packed weights take.
    pub fn elements(&self) -> usize {
        self.taps * self.depth * self.panels.padded()
    }

    pub fn columns(&self) -> usize {
        self.panels.columns
    }

    /// Columns of whole panels that so many share out evenly.
    pub(crate) fn columns_of(&self, count: usize) -> usize {
        let panels = self.columns().div_ceil(self.panels.width()).max(1);
        panels.div_ceil(count) * self.panels.width()
    }

    /// The product with some columns, of whole panels, and where their packed weights lie.
    pub(crate) fn part(&self, columns: Range<usize>) -> (Self, Range<usize>) {
        let part = Self { panels: self.panels.part(&columns), ..*self };
        let first = self.offset(columns.start);
        (part, first..first + part.elements())
    }

    /// As [`Gemm::kernel`].
    pub fn kernel(&self) -> String {
        self.kernels.tiles.kernel(self.kernels.operation, &self.panels)
    }

    /// As [`Gemm::grid`].
    ///
    /// # Panics
    /// When `out` cannot hold `rows` rows `pitch` elements apart.
    pub fn grid<'a, E>(&self, out: &'a mut [E], pitch: usize, rows: usize) -> Grid<'a, E> {
        self.cut(out, pitch, rows, rows)
    }

    /// As `grid`, for one thread.
    pub(crate) fn grid_of_one<'a>(&self, out: &'a mut [f32], pitch: usize, rows: usize) -> Grid<'a> {
        self.cut(out, pitch, rows, usize::MAX)
    }

    /// Into tiles as an output of `shared` rows has them.
    fn cut<'a, E>(&self, out: &'a mut [E], pitch: usize, rows: usize, shared: usize) -> Grid<'a, E> {
        let tile = if rows == 1 { [1, self.kernels.together * self.panels.width()] } else { self.tile(shared) };
        Grid::new(out, pitch, [rows, self.columns()], tile)
    }

    /// Rows and columns of a full tile of an output of so many rows.
    pub(crate) fn tile(&self, rows: usize) -> [usize; 2] {
        let read = [self.row_elements, self.taps * self.depth];
        self.panels.tile(read.map(|elements| elements * size_of::<f32>()), rows)
    }

    /// Lays out weights whose elements are so far apart from one row to the next, and from one column to the next.
    ///
    /// # Panics
    /// When `from` or `to` is too short.
    pub fn pack(&self, from: &[f32], strides: [usize; 2], to: &mut [f32]) {
        self.lay_out(&Weights::matrix(from, [self.taps * self.depth, self.columns()], strides), to);
    }

    /// Lays out weights of these extents.
    fn lay_out(&self, weights: &Weights<'_>, to: &mut [f32]) {
        for first in self.panels.firsts() {
            let panel = self.panels.panel(first);
            let width = panel.vectors * self.kernels.tiles.lanes;
            let to = &mut to[self.offset(first)..][..self.taps * self.depth * width];
            weights.lay_out(first, panel.columns, width, to);
        }
    }

    /// The product of rows, `pitch` elements apart, with packed weights, and nothing else, tile by tile until none is
    /// left. The output has as many rows.
    ///
    /// # Panics
    /// When the rows reach beyond `left`, `packed` is too short, or the output was cut otherwise than by `grid`.
    pub fn run(&self, left: &[f32], pitch: usize, packed: &[f32], grid: &Grid<'_>) {
        // No tap of rows lies outside them.
        let window = Window::rows(grid.size()[0], pitch);
        let operands = Operands { left, window: &window, packed, zeros: &[], skips: false, codes: None };
        self.run_with(self.kernels, &operands, None, grid);
    }

    fn run_with<E: Written>(
        &self,
        kernels: &Kernels<E>,
        operands: &Operands<'_>,
        ends: Option<&Ends<'_, E>>,
        grid: &Grid<'_, E>,
    ) {
        let Operands { left, window, packed, .. } = *operands;
        let pixels = window.pixels();
        assert!(window.reach(self.row_elements) <= left.len(), "the window lies within the image");
        assert_eq!(window.taps(), self.taps, "the window has the taps of the weights");
        assert!(packed.len() >= self.elements(), "weights are packed");
        assert_eq!(grid.size(), [pixels, self.columns()], "the output is pixels by columns");
        if let Some(residual) = ends.and_then(|ends| ends.residual) {
            residual.check([pixels, self.columns()]);
        }
        let mut pointers = [ptr::null(); POINTERS];
        while let Some(mut tile) = grid.take() {
            self.panels.check(&tile);
            for part in self.parts(E::IS_RESUMED && operands.codes.is_none()) {
                self.run_part(kernels, operands, ends, &mut tile, &part, &mut pointers);
            }
        }
    }

    /// One part of the chain, for a tile: a few rows with all of its panels before the next rows.
    fn run_part<E: Written>(
        &self,
        kernels: &Kernels<E>,
        operands: &Operands<'_>,
        ends: Option<&Ends<'_, E>>,
        tile: &mut Tile<'_, E>,
        part: &Part,
        pointers: &mut [*const f32; POINTERS],
    ) {
        let Operands { left, window, packed, zeros, skips, codes } = *operands;
        let (width, ends) = (self.panels.width(), ends.filter(|_| part.is_last));
        let from = part.from * self.kernels.step;
        // One row with all panels of the tile, or rows with one panel after the other.
        let together = tile.size == [1, self.kernels.together * width];
        let blocks = tile.size[0].div_ceil(self.panels.rows);
        let share = width.div_ceil(blocks);
        let mut walk = window.walk(tile.first[0]);
        let mut block = 0;
        while block < blocks {
            let row = block * self.panels.rows;
            let rows = self.panels.rows.min(tile.size[0] - row);
            // As many whole blocks as there is room for pointers, or the rest.
            let count = ((tile.size[0] - row) / rows).clamp(1, POINTERS / (part.taps * rows));
            let taps = part.tap..part.tap + part.taps;
            walk.find_blocks(left, zeros, [count, rows], &taps, from, pointers);
            let mut column = 0;
            while column < tile.size[1] {
                let first = tile.first[1] + column;
                let all = self.panels.together(first, tile.size[1] - column);
                let lanes = all.vectors * self.kernels.tiles.lanes;
                let weights = packed[self.offset(first) + part.row * lanes..].as_ptr();
                let job = Job {
                    taps: part.taps,
                    depth: part.depth,
                    blocks: count,
                    rows: pointers.as_ptr(),
                    panels: if together { 1 } else { all.panels },
                    weights,
                    weights_pitch: self.offset(width),
                    next: weights.wrapping_add(part.taps * part.depth * (lanes + block * share)),
                    next_step: share,
                    next_pitch: self.offset(width),
                    next_block: part.taps * part.depth * share,
                    // Within the tile: rows and columns are its own.
                    out: tile.out.wrapping_add(row * tile.pitch + column),
                    out_pitch: if together { width } else { tile.pitch },
                    columns: if together { width } else { all.columns },
                    resume: part.row > 0,
                    skips,
                    codes: codes.map(|codes| codes.of(first, width)),
                    ends: ends.map(|ends| ends.of(tile.first[0] + row, first, together.then_some(width))),
                };
                let kernel = match together {
                    true => kernels.rows[all.vectors - 1],
                    false => kernels.tiles.tiles[all.vectors - 1][rows - 1],
                };
                generic::call(kernel, &job);
                column += all.columns;
            }
            if let Some(function) = ends.and_then(|ends| ends.function) {
                E::follow(function, self.level, &mut tile.rows(row..row + rows * count));
            }
            block += count;
        }
    }

    /// Parts of the chain whose weights stay in the second-level cache while the rows of a tile pass, or the whole chain
    /// where sums are not to be resumed.
    fn parts(&self, are_resumed: bool) -> impl Iterator<Item = Part> {
        let depth_max = if are_resumed { (PART_ELEMENTS / self.panels.width()).max(1) } else { usize::MAX };
        let per_tap = self.depth.div_ceil(depth_max).max(1);
        let together = if per_tap > 1 { 1 } else { (depth_max / self.depth.max(1)).clamp(1, TAPS_MAX) };
        let groups = self.taps.div_ceil(together).max(1);
        (0..groups * per_tap).map(move |index| {
            let (tap, from) = (index / per_tap * together, (index % per_tap).saturating_mul(depth_max));
            Part {
                tap,
                taps: together.min(self.taps - tap),
                from,
                depth: depth_max.min(self.depth - from),
                row: tap * self.depth + from,
                is_last: index + 1 == groups * per_tap,
            }
        })
    }

    /// Where a weight is packed, and how many columns lie beside each other from there on.
    pub(crate) fn place(&self, row: usize, column: usize) -> (usize, usize) {
        let first = column - column % self.panels.width();
        let panel = self.panels.panel(first);
        let row = row * panel.vectors * self.kernels.tiles.lanes;
        (self.offset(first) + row + column - first, first + panel.columns - column)
    }

    /// Where the packed weights of the panel that begins at a column begin.
    fn offset(&self, first: usize) -> usize {
        first * self.taps * self.depth
    }
}

/// Some taps with all their depth, or one tap with some of it.
struct Part {
    tap: usize,
    taps: usize,
    from: usize,
    depth: usize,
    /// The row of the weights it begins at.
    row: usize,
    is_last: bool,
}

/// What results are stored as.
trait Written: Copy {
    /// Whether sums go on from what is stored.
    const IS_RESUMED: bool;

    /// What follows once results are stored.
    fn follow(function: Function, level: Level, tile: &mut Tile<'_, Self>);

    /// What ends sums that lie column by column, where there is such a kernel.
    fn planes(level: Level) -> Option<unsafe fn(&Planes<Self>)>;
}

impl Written for f32 {
    const IS_RESUMED: bool = true;

    fn follow(function: Function, level: Level, tile: &mut Tile<'_, Self>) {
        function.over_tile(level, tile);
    }

    fn planes(level: Level) -> Option<unsafe fn(&Planes<Self>)> {
        Some(*choose!(level, &PLANES))
    }
}

/// Whether all weights are finite, which have these bits but for their sign, and add up to it where an exponent is the
/// greatest.
fn are_finite(packed: &[f32], [magnitude, unit]: [u32; 2]) -> bool {
    let signs = packed.iter().fold(0, |signs, weight| signs | ((weight.to_bits() & magnitude) + unit));
    signs & !magnitude == 0
}

fn kernels(level: Level) -> &'static Kernels {
    choose!(level, &KERNELS)
}

/// All bits of a float but its sign, and one of its exponent.
const FLOAT: [u32; 2] = [0x7fff_ffff, 0x0080_0000];

/// Elements of weights in a part: 256 KiB, a quarter of the second-level cache.
const PART_ELEMENTS: usize = 64 << 10;

/// The most taps of a part.
const TAPS_MAX: usize = 64;

/// Room for the pointers of a part.
const POINTERS: usize = TAPS_MAX * ROWS_MAX;
