//! Functions of single elements that are more than a few instructions, and of rows (softmax, normalisation), in `f32`.
//!
//! The exponential is that of Cephes (Moshier, 1989): a polynomial of the remainder after powers of two.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod generic;
mod portable;

use half::bf16;

use crate::grid::{Grid, Tile};
use crate::isa::{Level, choose, halves};
use generic::Table;

/// A function of one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Exp,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `x / (1 + exp(-x))`.
    Silu,
    Tanh,
    /// The error function, within 3e-7.
    Erf,
    /// `x / 2 * (1 + erf(x / sqrt(2)))`.
    Gelu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))`.
    GeluTanh,
}

impl Function {
    pub const ALL: [Self; 7] =
        [Self::Exp, Self::Sigmoid, Self::Silu, Self::Tanh, Self::Erf, Self::Gelu, Self::GeluTanh];

    /// Computes tiles of one row until none is left.
    ///
    /// # Panics
    /// When the output is not one row with an element for each of `from`.
    pub fn run(self, level: Level, from: &[f32], grid: &Grid<'_>) {
        assert!(grid.size() == [1, from.len()], "the output is a row of as many elements");
        while let Some(mut tile) = grid.take() {
            let first = tile.first()[1];
            let to = tile.row(0);
            generic::call_map(table(level), self, &from[first..first + to.len()], to);
        }
    }

    /// Computes tiles in place until none is left.
    pub fn over(self, level: Level, grid: &Grid<'_>) {
        while let Some(mut tile) = grid.take() {
            self.over_tile(level, &mut tile);
        }
    }

    pub(crate) fn over_tile(self, level: Level, tile: &mut Tile<'_>) {
        generic::call_map_over(table(level).map, self, tile);
    }

    /// As `over_tile`, of elements that are bf16.
    ///
    /// # Panics
    /// When the instruction set does not multiply them.
    pub(crate) fn over_halves(self, level: Level, tile: &mut Tile<'_, bf16>) {
        generic::call_map_over(halves!(level, HALVES).map, self, tile);
    }

    /// Of one element, as the portable kernel has it.
    pub fn apply(self, x: f32) -> f32 {
        let mut result = [0.0];
        generic::call_map(&portable::TABLE, self, &[x], &mut result);
        result[0]
    }

    /// Cuts a row of elements into tiles for `run`.
    pub fn grid(out: &mut [f32]) -> Grid<'_> {
        let count = out.len();
        Grid::new(out, count, [1, count], [1, TILE_ELEMENTS])
    }
}

/// Two elements made one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
}

/// What is combined, in order.
#[derive(Clone, Copy, Debug)]
pub enum Operands<'a, T = f32> {
    /// As many elements as results, of both.
    Each([&'a [T]; 2]),
    /// Of one, with one element of the other.
    WithOne(&'a [T], T),
    OneWith(T, &'a [T]),
    /// Of one, with a row of the other again and again.
    WithRow(&'a [T], &'a [T]),
    RowWith(&'a [T], &'a [T]),
}

impl Arithmetic {
    pub const ALL: [Self; 4] = [Self::Add, Self::Sub, Self::Mul, Self::Div];

    /// # Panics
    /// When an operand of many elements has not as many as `to`, or a row not one of its divisors.
    pub fn run(self, level: Level, operands: Operands<'_>, to: &mut [f32]) {
        generic::call_combine(table(level), self, operands, to);
    }
}

/// Softmax of each row, until no tile is left.
///
/// # Panics
/// When the output has not the elements of `from`, or its tiles are not whole rows.
pub fn softmax(level: Level, from: &[f32], grid: &Grid<'_>) {
    for_rows(from, grid, |from, to| generic::call_softmax(table(level), Some(from), 1.0, None, to));
}

/// A row of scores made the softmax of `scale * score + mask`.
pub(crate) fn softmax_of_scores(level: Level, scale: f32, mask: Option<&[f32]>, row: &mut [f32]) {
    generic::call_softmax(table(level), None, scale, mask, row);
}

/// As `softmax_of_scores`, with results that are bf16, two in the place of a score; a zero follows an odd number of them.
///
/// # Panics
/// When the instruction set does not multiply them, or the mask has not an element for each score.
pub(crate) fn softmax_of_scores_to_halves(level: Level, scale: f32, mask: Option<&[f32]>, row: &mut [f32]) {
    generic::call_softmax_to_halves(halves!(level, HALVES), scale, mask, row);
}

/// Each row with its mean taken off and divided by its standard deviation, times `scale` plus `shift` (Ba, Kiros and
/// Hinton, "Layer Normalization", 2016); `epsilon` is added to the variance. Until no tile is left.
///
/// # Panics
/// When the output has not the elements of `from`, its tiles are not whole rows, or scales and shifts are not as many as
/// a row's elements.
pub fn normalize(level: Level, from: &[f32], factors: [&[f32]; 2], epsilon: f32, grid: &Grid<'_>) {
    for_rows(from, grid, |from, to| generic::call_normalize(table(level).normalize, from, factors, epsilon, to));
}

/// As `normalize`, of rows of bf16.
///
/// # Panics
/// As `normalize`, or when the instruction set does not multiply them.
pub fn normalize_halves(level: Level, from: &[bf16], factors: [&[f32]; 2], epsilon: f32, grid: &Grid<'_, bf16>) {
    let normalize = halves!(level, HALVES).normalize;
    for_rows(from, grid, |from, to| generic::call_normalize(normalize, from, factors, epsilon, to));
}

/// As `normalize_halves`, of rows of floats.
///
/// # Panics
/// As `normalize_halves`.
pub fn normalize_floats(level: Level, from: &[f32], factors: [&[f32]; 2], epsilon: f32, grid: &Grid<'_, bf16>) {
    let normalize = halves!(level, HALVES).normalize_floats;
    for_rows(from, grid, |from, to| generic::call_normalize(normalize, from, factors, epsilon, to));
}

/// As `normalize_halves`, to rows of floats.
///
/// # Panics
/// As `normalize_halves`.
pub fn normalize_to_floats(level: Level, from: &[bf16], factors: [&[f32]; 2], epsilon: f32, grid: &Grid<'_>) {
    let normalize = halves!(level, HALVES).normalize_to_floats;
    for_rows(from, grid, |from, to| generic::call_normalize(normalize, from, factors, epsilon, to));
}

/// Cuts rows into tiles for functions of rows.
///
/// # Panics
/// When `out` cannot hold the rows.
pub fn rows_grid<E>(out: &mut [E], rows: usize, width: usize) -> Grid<'_, E> {
    Grid::new(out, width, [rows, width], [(TILE_ELEMENTS / width.max(1)).max(1), width.max(1)])
}

/// Every row of the output with that of the input, until no tile is left.
fn for_rows<I, O>(from: &[I], grid: &Grid<'_, O>, run: impl Fn(&[I], &mut [O])) {
    let [rows, width] = grid.size();
    assert_eq!(rows * width, from.len(), "the output has as many elements");
    while let Some(mut tile) = grid.take() {
        assert_eq!(tile.size()[1], width, "a tile is whole rows");
        for row in 0..tile.size()[0] {
            let first = (tile.first()[0] + row) * width;
            run(&from[first..first + width], tile.row(row));
        }
    }
}

fn table(level: Level) -> &'static Table {
    choose!(level, &TABLE)
}

/// Elements of a tile: 16 KiB.
const TILE_ELEMENTS: usize = 4 << 10;
