//! Floats to bytes, bytes to floats, functions of bytes by table, the sum of two tensors of bytes, each with its scale and
//! zero point, and planes of bytes brought together.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod generic;
mod portable;

use crate::grid::Grid;
use crate::isa::{Level, choose};
use crate::vector::ToBytes;
pub(crate) use generic::Added;
use generic::Table;

/// What a byte means: `(byte - zero) * scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    pub scale: f32,
    pub zero: u8,
}

/// The sum of two tensors of bytes, as bytes within bounds. It is computed in units of the output's scale, so that a sum
/// halfway between two bytes may become either.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sum {
    pub of: [Scale; 2],
    pub to: Scale,
    pub bounds: [u8; 2],
}

impl Sum {
    /// In the numbers that kernels take.
    pub(crate) fn added(&self) -> Added {
        let Self { of, to, bounds } = *self;
        let ratios = of.map(|of| of.scale / to.scale);
        let shift = -(ratios[0] * f32::from(of[0].zero) + ratios[1] * f32::from(of[1].zero));
        Added { ratios, shift, bytes: ToBytes::within(to.zero, bounds) }
    }
}

/// Quotients by the scale, rounded to the nearest integer, the even one of two, plus the zero point, within a byte.
///
/// # Panics
/// When the output is not one row with an element for each of `from`.
pub fn quantize(level: Level, from: &[f32], to: Scale, grid: &Grid<'_, u8>) {
    assert!(grid.size() == [1, from.len()], "the output is a row of as many elements");
    while let Some(mut tile) = grid.take() {
        let first = tile.first()[1];
        let out = tile.row(0);
        generic::call_quantize(table(level), &from[first..first + out.len()], to, out);
    }
}

/// What bytes mean.
///
/// # Panics
/// When the output is not one row with an element for each of `from`.
pub fn dequantize(level: Level, from: &[u8], of: Scale, grid: &Grid<'_>) {
    assert!(grid.size() == [1, from.len()], "the output is a row of as many elements");
    while let Some(mut tile) = grid.take() {
        let first = tile.first()[1];
        let out = tile.row(0);
        generic::call_dequantize(table(level), &from[first..first + out.len()], of, out);
    }
}

/// The sum of what two operands mean.
///
/// # Panics
/// When the output is not one row with an element for each of either operand.
pub fn add(level: Level, from: [&[u8]; 2], sum: &Sum, grid: &Grid<'_, u8>) {
    let added = sum.added();
    assert!(from.iter().all(|from| grid.size() == [1, from.len()]), "the output is a row of as many elements");
    while let Some(mut tile) = grid.take() {
        let first = tile.first()[1];
        let out = tile.row(0);
        let [a, b] = [&from[0][first..first + out.len()], &from[1][first..first + out.len()]];
        generic::call_add(table(level), [a, b], &added, out);
    }
}

/// For every byte what a table has for it.
///
/// # Panics
/// When the output is not one row with an element for each of `from`.
pub fn look_up(table: &[u8; 256], from: &[u8], grid: &Grid<'_, u8>) {
    assert!(grid.size() == [1, from.len()], "the output is a row of as many elements");
    while let Some(mut tile) = grid.take() {
        let first = tile.first()[1];
        let out = tile.row(0);
        out.iter_mut().zip(&from[first..]).for_each(|(out, from)| *out = table[usize::from(*from)]);
    }
}

/// Elements of three planes by turns.
///
/// # Panics
/// When planes do not have a third of the output each.
pub fn interleave(level: Level, planes: [&[u8]; 3], out: &mut [u8]) {
    generic::call_interleave(table(level), planes, out);
}

/// Cuts a row of elements into tiles for these functions.
pub fn grid<T>(out: &mut [T]) -> Grid<'_, T> {
    let count = out.len();
    Grid::new(out, count, [1, count], [1, TILE_ELEMENTS])
}

fn table(level: Level) -> &'static Table {
    choose!(level, &TABLE)
}

const TILE_ELEMENTS: usize = 8 << 10;
