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
mod generic;
mod portable;

use std::ptr;

use crate::activation::Activation;
use crate::aligned::{Aligned, LINE};
use crate::grid::{Grid, Tile};
use crate::isa::{Level, choose};
pub use crate::panels::Weights;
use crate::panels::{Panels, ROWS_MAX, Table};
use crate::window::Window;
use generic::Job;

/// Weights laid out for the kernels of one instruction set, with what follows the product.
#[derive(Debug)]
pub struct Gemm {
    table: &'static Table<Job>,
    taps: usize,
    depth: usize,
    panels: Panels,
    weights: Aligned,
    /// One for each column and zeros up to a whole vector.
    bias: Aligned,
    /// What taps outside the image see.
    zeros: Aligned,
    activation: Activation,
}

/// Added to the product before the activation: a matrix of the output's size.
#[derive(Clone, Copy, Debug)]
pub struct Residual<'a> {
    pub elements: &'a [f32],
    pub pitch: usize,
}

impl Gemm {
    /// Packs weights into panels of `vectors` vectors; `None` takes the width that suits the number of columns.
    ///
    /// # Panics
    /// When `weights` or `bias` do not have the elements that the extents say, or no kernel is so wide.
    pub fn pack(
        level: Level,
        weights: &Weights<'_>,
        bias: Option<&[f32]>,
        activation: Activation,
        vectors: Option<usize>,
    ) -> Self {
        let Weights { elements, taps, depth, columns } = *weights;
        assert_eq!(elements.len(), taps * depth * columns, "weights are [tap][depth][column]");
        assert!(bias.is_none_or(|bias| bias.len() == columns), "there is a bias for each column");
        let table = table(level);
        let panels = table.panels(columns, vectors);
        let padded = panels.padded();
        let mut packed = Self {
            table,
            taps,
            depth,
            panels,
            weights: Aligned::zeroed(taps * depth * padded * size_of::<f32>()),
            bias: Aligned::zeroed(padded * size_of::<f32>()),
            zeros: Aligned::zeroed(depth * size_of::<f32>()),
            activation,
        };
        if let Some(bias) = bias {
            packed.bias.elements_mut::<f32>()[..columns].copy_from_slice(bias);
        }
        let rows = taps * depth;
        for first in panels.firsts() {
            let (panel, offset) = (panels.panel(first), packed.offset(first));
            let (width, taken) = (panel.vectors * table.lanes, panel.columns);
            let to = &mut packed.weights.elements_mut::<f32>()[offset..][..rows * width];
            for (to, from) in to.chunks_exact_mut(width).zip(elements.chunks_exact(columns)) {
                to[..taken].copy_from_slice(&from[first..first + taken]);
            }
        }
        packed
    }

    /// Panel widths that there are kernels for, in vectors.
    pub fn widths(level: Level) -> std::ops::RangeInclusive<usize> {
        1..=table(level).tiles.len()
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + self.bias.bytes() + self.zeros.bytes()
    }

    pub fn columns(&self) -> usize {
        self.panels.columns
    }

    /// The kernel that runs full tiles, named `<dtype>_<op>_<rows>x<columns>__<isa>`.
    pub fn kernel(&self) -> String {
        self.table.kernel("f32_gemm", &self.panels)
    }

    /// Cuts an output into tiles that `run` works on: panels of columns, and as many rows as keep their input in the
    /// second-level cache.
    ///
    /// # Panics
    /// When `out` cannot hold `rows` rows `pitch` elements apart.
    pub fn grid<'a>(&self, out: &'a mut [f32], pitch: usize, rows: usize) -> Grid<'a> {
        self.panels.grid(out, pitch, rows, self.depth * size_of::<f32>())
    }

    /// Computes tiles until none is left; any number of threads may do so at once.
    ///
    /// # Panics
    /// When the window reaches beyond `left`, the weights have other taps, the sizes of residual or output differ, or the
    /// output was cut otherwise than by `grid`.
    pub fn run(&self, left: &[f32], window: &Window, residual: Option<Residual<'_>>, grid: &Grid<'_>) {
        let pixels = window.pixels();
        assert!(window.reach(self.depth) <= left.len(), "the window lies within the image");
        assert_eq!(window.taps(), self.taps, "the window has the taps of the weights");
        assert_eq!(grid.size(), [pixels, self.columns()], "the output is pixels by columns");
        if let Some(Residual { elements, pitch }) = residual {
            let end = if pixels == 0 || self.columns() == 0 { 0 } else { (pixels - 1) * pitch + self.columns() };
            assert!(end <= elements.len(), "the residual is pixels by columns");
        }
        let mut pointers = [ptr::null(); POINTERS];
        while let Some(tile) = grid.take() {
            for part in self.parts() {
                self.run_part(left, window, residual, &tile, &part, &mut pointers);
            }
        }
    }

    /// One part of the chain, for all rows of a tile.
    fn run_part(
        &self,
        left: &[f32],
        window: &Window,
        residual: Option<Residual<'_>>,
        tile: &Tile<'_>,
        part: &Part,
        pointers: &mut [*const f32; POINTERS],
    ) {
        let [first_row, first_column] = tile.first;
        let panel = self.panels.of(tile);
        let tiles = self.table.tiles[panel.vectors - 1];
        let width = panel.vectors * self.table.lanes;
        let weights = &self.weights.elements::<f32>()[self.offset(first_column) + part.row * width..];
        let rows_of_weights = part.taps * part.depth;
        for row in (0..tile.size[0]).step_by(tiles.len()) {
            let rows = tiles.len().min(tile.size[0] - row);
            let taps = part.tap..part.tap + part.taps;
            window.find(left, self.zeros.elements(), [first_row + row, rows], taps, part.from, pointers);
            let residual = residual.map(|Residual { elements, pitch }| {
                (elements[(first_row + row) * pitch + first_column..].as_ptr(), pitch)
            });
            let job = Job {
                taps: part.taps,
                depth: part.depth,
                rows: pointers.as_ptr(),
                weights: weights.as_ptr(),
                // The part behind this one, a piece with each block of rows.
                next: weights
                    .as_ptr()
                    .wrapping_add(rows_of_weights * (width + row / tiles.len() * (LINE / size_of::<f32>()))),
                // Within the tile: `row` is less than its rows.
                out: tile.out.wrapping_add(row * tile.pitch),
                out_pitch: tile.pitch,
                columns: panel.columns,
                resume: part.row > 0,
                ends: part.is_last.then(|| generic::End {
                    bias: self.bias.elements::<f32>()[first_column..].as_ptr(),
                    residual,
                    activation: self.activation,
                }),
            };
            generic::call(tiles[rows - 1], &job);
        }
    }

    /// Parts of the chain whose weights stay in the second-level cache while the rows of a tile pass.
    fn parts(&self) -> impl Iterator<Item = Part> {
        let depth_max = (PART_ELEMENTS / self.panels.width()).max(1);
        let per_tap = self.depth.div_ceil(depth_max).max(1);
        let together = if per_tap > 1 { 1 } else { (depth_max / self.depth.max(1)).clamp(1, TAPS_MAX) };
        let groups = self.taps.div_ceil(together).max(1);
        (0..groups * per_tap).map(move |index| {
            let (tap, from) = (index / per_tap * together, index % per_tap * depth_max);
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

fn table(level: Level) -> &'static Table<Job> {
    choose!(level, &TABLE)
}

/// Elements of weights in a part: 256 KiB, a quarter of the second-level cache.
const PART_ELEMENTS: usize = 64 << 10;

/// The most taps of a part.
const TAPS_MAX: usize = 64;

/// Room for the pointers of a part.
const POINTERS: usize = TAPS_MAX * ROWS_MAX;
