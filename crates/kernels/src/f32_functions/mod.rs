//! Functions of single elements that are more than a few instructions, and softmax over rows, in `f32`.
//!
//! The exponential is that of Cephes (Moshier, 1989): a polynomial of the remainder after powers of two.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod generic;
mod portable;

use crate::grid::Grid;
use crate::isa::{Level, choose};
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
    /// The error function: Abramowitz and Stegun 7.1.26, within 1e-6.
    Erf,
    /// `x / 2 * (1 + erf(x / sqrt(2)))`.
    Gelu,
}

impl Function {
    pub const ALL: [Self; 6] = [Self::Exp, Self::Sigmoid, Self::Silu, Self::Tanh, Self::Erf, Self::Gelu];

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

    /// Cuts a row of elements into tiles for `run`.
    pub fn grid(out: &mut [f32]) -> Grid<'_> {
        let count = out.len();
        Grid::new(out, count, [1, count], [1, TILE_ELEMENTS])
    }
}

/// Softmax of each row, until no tile is left.
///
/// # Panics
/// When the output has not the elements of `from`, or its tiles are not whole rows.
pub fn softmax(level: Level, from: &[f32], grid: &Grid<'_>) {
    let [rows, width] = grid.size();
    assert_eq!(rows * width, from.len(), "the output has as many elements");
    while let Some(mut tile) = grid.take() {
        assert_eq!(tile.size()[1], width, "a tile is whole rows");
        for row in 0..tile.size()[0] {
            let first = (tile.first()[0] + row) * width;
            generic::call_softmax(table(level), &from[first..first + width], tile.row(row));
        }
    }
}

/// Cuts rows into tiles for `softmax`.
///
/// # Panics
/// When `out` cannot hold the rows.
pub fn softmax_grid(out: &mut [f32], rows: usize, width: usize) -> Grid<'_> {
    Grid::new(out, width, [rows, width], [(TILE_ELEMENTS / width.max(1)).max(1), width.max(1)])
}

fn table(level: Level) -> &'static Table {
    choose!(level, &TABLE)
}

/// Elements of a tile: 16 KiB.
const TILE_ELEMENTS: usize = 4 << 10;
