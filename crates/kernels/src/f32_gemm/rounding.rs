//! Images rounded to bf16 for products of pairs: two in the place of a float where the instruction set multiplies pairs, else
//! floats.

use super::generic;
use super::pairs::pair_kernels;
use crate::grid::Grid;
use crate::isa::Level;

/// How images are rounded for the products of pairs of an instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounding(Level);

impl Rounding {
    pub(super) fn of(level: Level) -> Self {
        Self(level)
    }

    /// Elements that a pixel of `channels` floats takes in an image that was rounded.
    pub fn elements(self, channels: usize) -> usize {
        channels.div_ceil(2) * pair_kernels(self.0).products.step
    }

    /// A rounded image, to be filled tile by tile.
    ///
    /// # Panics
    /// When `to` has not the elements of whole pixels.
    pub fn grid(self, to: &mut [f32], channels: usize) -> Grid<'_> {
        let each = self.elements(channels).max(1);
        assert!(to.len().is_multiple_of(each), "a rounded image has whole pixels");
        let rows = to.len() / each;
        Grid::new(to, each, [rows, each], [(TOGETHER / each).max(1), each])
    }

    /// Rounds pixels of `channels` floats, each to the nearest bf16 (the even one of two), tile by tile until none is left.
    /// What that leaves is for products of the same instruction set alone.
    ///
    /// # Panics
    /// When there are fewer floats than the pixels of the grid have.
    pub fn run(self, from: &[f32], channels: usize, grid: &Grid<'_>) {
        let (kernels, each) = (pair_kernels(self.0), self.elements(channels));
        while let Some(mut tile) = grid.take() {
            let (first, rows) = (tile.first()[0], tile.size()[0]);
            let from = &from[first * channels..][..rows * channels];
            let to = tile.whole();
            if channels.is_multiple_of(2) {
                generic::call_round(kernels, from, to);
                continue;
            }
            for (from, to) in from.chunks_exact(channels).zip(to.chunks_exact_mut(each)) {
                to[each - 1] = 0.0;
                generic::call_round(kernels, from, to);
            }
        }
    }

    /// Rounds elements to as many bf16 beside each other.
    ///
    /// # Panics
    /// When there are not as many, or the instruction set does not multiply pairs.
    pub fn line(self, from: &[f32], to: &mut [u16]) {
        generic::call_round_halves(pair_kernels(self.0), from, to);
    }
}

/// Elements that one thread rounds at a time.
const TOGETHER: usize = 16 << 10;
