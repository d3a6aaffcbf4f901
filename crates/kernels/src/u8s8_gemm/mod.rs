//! Rows of unsigned bytes times packed signed weights: linear layers and convolutions of quantized models. Sums are exact
//! integers of 32 bits; a scale for each column turns them into floats, or into bytes again, before they are written
//! (Jacob and others, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
//! 2018).
//!
//! The zero point of the bytes costs nothing at run time: what it adds to a sum is the same for all rows, because taps
//! outside the image see it too.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod computed;
mod dynamic;
mod generic;
mod order;
mod portable;
mod row;
mod sparse;

use std::ptr;

use bytemuck::Pod;

use crate::aligned::Aligned;
use crate::grid::{Grid, Tile};
use crate::isa::{Level, Set};
pub use crate::panels::Residual;
use crate::panels::{Panel, Panels, ROWS_MAX, Table};
use crate::sparse::PIXELS_MAX;
use crate::u8_functions::{Added, Sum};
use crate::vector::ToBytes;
use crate::window::Window;
pub use computed::{Matrix, Zeros};
pub use dynamic::DynamicGemm;
use generic::{Job, Plus, Tables};
pub use row::{Lines, Nonzero, SparseRow};
pub use sparse::SparseGemm;

/// Weights in the order `[tap][depth][column]`, dense.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    pub elements: &'a [i8],
    pub taps: usize,
    pub depth: usize,
    pub columns: usize,
}

/// What follows the sums.
#[derive(Clone, Copy, Debug)]
pub struct Requantize<'a> {
    /// Added to the sum of each column.
    pub bias: &'a [i32],
    /// What the sum of each column is multiplied with.
    pub scale: &'a [f32],
    pub finish: Finish,
    /// Bytes are the first operand of this sum.
    pub plus: Option<Sum>,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Products as `f32`.
    Floats,
    /// Products rounded to the nearest integer, the even one of two, plus `zero`, within bounds.
    Bytes { zero: u8, low: u8, high: u8 },
}

/// Weights laid out for the kernels of one instruction set, with what follows the product.
#[derive(Debug)]
pub struct Gemm {
    table: &'static Table<Job>,
    taps: usize,
    depth: usize,
    panels: Panels,
    weights: Aligned,
    /// Where kernels take groups in an order of their own, that of each panel.
    order: Aligned,
    ends: Ends,
}

/// What follows the sums of packed weights.
#[derive(Debug)]
struct Ends {
    /// One for each column and zeros up to a whole vector, with what the zero point adds taken off.
    bias: Aligned,
    scale: Aligned,
    /// What taps outside the image see.
    zeros: Aligned,
    finish: Finish,
    plus: Option<Added>,
    is_small: bool,
}

/// An element that a product can be written as.
pub trait Written: Pod + Send {
    /// Whether a product that ends so is written in this type.
    fn fits(finish: Finish) -> bool;
}

impl Written for f32 {
    fn fits(finish: Finish) -> bool {
        finish == Finish::Floats
    }
}

impl Written for u8 {
    fn fits(finish: Finish) -> bool {
        finish != Finish::Floats
    }
}

impl Gemm {
    /// The most taps of a window.
    pub const TAPS_MAX: usize = 64;

    /// The most products of a sum that no bytes can make overflow.
    pub const PRODUCTS_MAX: usize = (1 << 31) / (255 * 128) - 1;

    /// Packs weights into panels of `vectors` vectors; `None` takes the width that suits the number of columns. `zero` is
    /// the zero point of the bytes.
    ///
    /// # Panics
    /// When `weights`, `bias` or `scale` do not have the elements that the extents say, there are more than
    /// [`Self::TAPS_MAX`] taps, or no kernel is so wide.
    pub fn pack(level: Level, weights: &Weights<'_>, zero: u8, then: &Requantize<'_>, vectors: Option<usize>) -> Self {
        let Weights { elements, taps, depth, columns } = *weights;
        assert!(taps <= Self::TAPS_MAX, "a window has at most {} taps", Self::TAPS_MAX);
        let table = &tables(level).plain;
        let panels = table.panels(columns, vectors);
        let (padded, groups) = (panels.padded(), depth.div_ceil(4));
        let ordered =
            if tables(level).is_ordered { panels.firsts().count() * taps * (order::HEAD + groups) } else { 0 };
        let mut packed = Self {
            table,
            taps,
            depth,
            panels,
            weights: Aligned::zeroed(taps * groups * 4 * padded),
            order: Aligned::zeroed(ordered * size_of::<u32>()),
            ends: Ends::of(weights, zero, then, padded),
        };
        for first in panels.firsts() {
            packed.pack_panel(elements, first);
            if tables(level).is_ordered {
                packed.arrange_panel(first);
            }
        }
        packed
    }

    fn pack_panel(&mut self, elements: &[i8], first: usize) {
        let (Panel { columns, vectors }, offset) = (self.panels.panel(first), self.offset(first));
        let (width, groups, pitch) = (vectors * self.table.lanes, self.depth.div_ceil(4), self.columns());
        let to = &mut self.weights.elements_mut::<i8>()[offset..];
        for tap in 0..self.taps {
            for k in 0..self.depth {
                let from = &elements[(tap * self.depth + k) * pitch + first..][..columns];
                let group = &mut to[(tap * groups + k / 4) * width * 4..][..width * 4];
                for (four, &weight) in group.chunks_exact_mut(4).zip(from) {
                    four[k % 4] = weight;
                }
            }
        }
    }

    /// Puts the groups of a panel in the order that its kernels take them in.
    fn arrange_panel(&mut self, first: usize) {
        let (offset, groups) = (self.offset(first), self.depth.div_ceil(4));
        let size = self.panels.panel(first).vectors * self.table.lanes * 4;
        let weights = &mut self.weights.elements_mut::<i8>()[offset..];
        let order =
            &mut self.order.elements_mut::<u32>()[self.panels.nth(first) * self.taps * (order::HEAD + groups)..];
        for tap in 0..self.taps {
            let (weights, order) =
                (&mut weights[tap * groups * size..][..groups * size], &mut order[tap * (order::HEAD + groups)..]);
            order::arrange(weights, size, self.depth.is_multiple_of(4), &mut order[..order::HEAD + groups]);
        }
    }

    /// Panel widths that there are kernels for, in vectors.
    pub fn widths(level: Level) -> std::ops::RangeInclusive<usize> {
        1..=tables(level).plain.tiles.len()
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + self.order.bytes() + self.ends.bytes()
    }

    pub fn columns(&self) -> usize {
        self.panels.columns
    }

    /// The kernel that runs full tiles, named `<dtype>_<op>_<rows>x<columns>__<isa>`.
    pub fn kernel(&self) -> String {
        self.table.kernel("u8s8_gemm", &self.panels)
    }

    /// Cuts an output into tiles that `run` works on: panels of columns, and as many rows as keep their input in the
    /// second-level cache.
    ///
    /// # Panics
    /// When `out` cannot hold `rows` rows `pitch` elements apart.
    pub fn grid<'a, T>(&self, out: &'a mut [T], pitch: usize, rows: usize) -> Grid<'a, T> {
        self.panels.grid(out, pitch, rows, [self.depth, self.taps * self.depth.next_multiple_of(4)])
    }

    /// Computes tiles until none is left; any number of threads may do so at once. A depth that is no multiple of four is
    /// read faster where three bytes of `left` lie behind the window.
    ///
    /// # Panics
    /// When the window reaches beyond `left`, the weights have other taps, the product is written in another type, there is
    /// a residual where nothing is added or none where something is, or the output was cut otherwise than by `grid`.
    pub fn run<T: Written>(
        &self,
        left: &[u8],
        window: &Window,
        residual: Option<Residual<'_, u8>>,
        grid: &Grid<'_, T>,
    ) {
        let ends = &self.ends;
        let packed = Packed {
            table: self.table,
            taps: self.taps,
            depth: self.depth,
            panels: &self.panels,
            weights: self.weights.elements(),
            order: self.order.elements(),
            bias: ends.bias.elements(),
            scale: ends.scale.elements(),
            zeros: ends.zeros.elements(),
            row_factor: 0,
            finish: ends.finish,
            plus: ends.plus(residual),
            is_small: ends.is_small(),
        };
        packed.run(left, window, grid);
    }

    /// Where the packed weights of the panel that begins at a column begin.
    fn offset(&self, first: usize) -> usize {
        first * self.taps * self.depth.div_ceil(4) * 4
    }
}

impl Ends {
    /// For columns that are filled up to so many.
    fn of(weights: &Weights<'_>, zero: u8, then: &Requantize<'_>, padded: usize) -> Self {
        let Weights { elements, taps, depth, columns } = *weights;
        assert_eq!(elements.len(), taps * depth * columns, "weights are [tap][depth][column]");
        assert!(then.bias.len() == columns && then.scale.len() == columns, "each column has a bias and a scale");
        assert!(then.plus.is_none() || then.finish != Finish::Floats, "bytes are added to bytes");
        let mut ends = Self {
            bias: Aligned::zeroed(padded * size_of::<i32>()),
            scale: Aligned::zeroed(padded * size_of::<f32>()),
            zeros: Aligned::zeroed(depth),
            finish: then.finish,
            plus: then.plus.map(|plus| plus.added()),
            is_small: then.scale.iter().all(|scale| scale.abs() < 1.0),
        };
        ends.zeros.elements_mut::<u8>().fill(zero);
        ends.scale.elements_mut::<f32>()[..columns].copy_from_slice(then.scale);
        let sums = ends.bias.elements_mut::<i32>();
        sums[..columns].copy_from_slice(then.bias);
        for row in elements.chunks_exact(columns.max(1)) {
            for (sum, &weight) in sums.iter_mut().zip(row) {
                *sum = sum.wrapping_sub(i32::from(zero) * i32::from(weight));
            }
        }
        ends
    }

    fn bytes(&self) -> usize {
        self.bias.bytes() + self.scale.bytes() + self.zeros.bytes()
    }

    /// What bytes are added to.
    ///
    /// # Panics
    /// When there is a residual where nothing is added, or none where something is.
    fn plus<'a>(&self, residual: Option<Residual<'a, u8>>) -> Option<(Added, Residual<'a, u8>)> {
        assert_eq!(residual.is_some(), self.plus.is_some(), "there is a residual where something is added");
        self.plus.zip(residual)
    }

    /// Whether products and sums surely stay within the integers of 32 bits.
    fn is_small(&self) -> bool {
        self.is_small && self.plus.is_none_or(|plus| plus.is_small())
    }

    /// What becomes of the sums of a tile: a job without a product.
    fn results<T>(&self, tile: &Tile<'_, T>, plus: Option<Plus>) -> Job {
        Job {
            taps: 0,
            depth: 0,
            blocks: 1,
            rows: ptr::null(),
            panels: 1,
            weights: ptr::null(),
            order: ptr::null(),
            next: ptr::null(),
            next_step: 0,
            next_pitch: 0,
            next_block: 0,
            out: tile.out.cast(),
            out_pitch: tile.pitch * size_of::<T>(),
            columns: tile.size[1],
            bias: self.bias.elements()[tile.first[1]..].as_ptr(),
            row_bias: NO_ROW_BIAS.as_ptr(),
            scale: self.scale.elements()[tile.first[1]..].as_ptr(),
            bytes: self.finish.bytes(),
            plus,
            is_small: self.is_small(),
        }
    }
}

impl Finish {
    /// How products become bytes, where they do.
    fn bytes(self) -> Option<ToBytes> {
        match self {
            Self::Floats => None,
            Self::Bytes { zero, low, high } => Some(ToBytes::within(zero, [low, high])),
        }
    }
}

/// What the right side of a product was packed to.
struct Packed<'a> {
    table: &'static Table<Job>,
    taps: usize,
    depth: usize,
    panels: &'a Panels,
    weights: &'a [i8],
    order: &'a [u32],
    bias: &'a [i32],
    scale: &'a [f32],
    zeros: &'a [u8],
    /// What the sum of a row's bytes is multiplied with and added to each of its sums, by a table that does so.
    row_factor: i32,
    finish: Finish,
    /// What bytes are added to.
    plus: Option<(Added, Residual<'a, u8>)>,
    /// Whether products and sums surely stay within the integers of 32 bits.
    is_small: bool,
}

impl Packed<'_> {
    fn run<T: Written>(&self, left: &[u8], window: &Window, grid: &Grid<'_, T>) {
        assert!(window.reach(self.depth) <= left.len(), "the window lies within the image");
        assert_eq!(window.taps(), self.taps, "the window has the taps of the weights");
        assert_eq!(grid.size(), [window.pixels(), self.panels.columns], "the output is pixels by columns");
        assert!(T::fits(self.finish), "the output is of the type that products end in");
        if let Some((_, residual)) = &self.plus {
            residual.check(grid.size());
        }
        let mut pointers = [ptr::null(); Gemm::TAPS_MAX * ROWS_MAX];
        // Groups may be read whole where memory goes on behind the last: what is read too much meets weights of zero.
        let whole = self.depth.next_multiple_of(4);
        let depth = if window.reach(whole) <= left.len() { whole } else { self.depth };
        while let Some(tile) = grid.take() {
            self.run_tile(left, window, depth, &tile, &mut pointers);
        }
    }

    fn run_tile<T: Written>(
        &self,
        left: &[u8],
        window: &Window,
        depth: usize,
        tile: &Tile<'_, T>,
        pointers: &mut [*const u8; Gemm::TAPS_MAX * ROWS_MAX],
    ) {
        self.panels.check(tile);
        let groups = self.taps * self.depth.div_ceil(4);
        let blocks = tile.size[0].div_ceil(self.panels.rows);
        let share = (self.panels.width() * 4).div_ceil(blocks);
        let bytes = self.finish.bytes();
        let mut row_bias = [0; ROWS_TOGETHER];
        let mut walk = window.walk(tile.first[0]);
        let mut block = 0;
        while block < blocks {
            let row = block * self.panels.rows;
            let rows = self.panels.rows.min(tile.size[0] - row);
            // As many whole blocks as there is room for, or the rest.
            let fit = (pointers.len() / (self.taps * rows)).min(ROWS_TOGETHER / rows);
            let count = ((tile.size[0] - row) / rows).clamp(1, fit);
            walk.find_blocks(left, self.zeros, [count, rows], &(0..self.taps), 0, pointers);
            if self.row_factor != 0 {
                // Products of two matrices are windows of one line.
                let line = |row: usize| &left[(tile.first[0] + row) * window.pitch[2]..][..self.depth];
                row_bias.iter_mut().zip(row..row + rows * count).for_each(|(bias, row)| {
                    *bias = self.row_factor.wrapping_mul(line(row).iter().map(|&byte| i32::from(byte)).sum());
                });
            }
            let mut column = 0;
            while column < tile.size[1] {
                let first = tile.first[1] + column;
                let all = self.panels.together(first, tile.size[1] - column);
                let weights = self.weights[first * groups * 4..].as_ptr();
                let bytes_of_panel = groups * all.vectors * self.table.lanes * 4;
                let order = self.panels.nth(first) * (self.taps * order::HEAD + groups);
                let job = Job {
                    taps: self.taps,
                    depth,
                    blocks: count,
                    rows: pointers.as_ptr(),
                    panels: all.panels,
                    weights,
                    order: self.order.as_ptr().wrapping_add(order),
                    next: weights.wrapping_add(bytes_of_panel + groups * block * share),
                    next_step: share,
                    next_pitch: bytes_of_panel,
                    next_block: groups * share,
                    // Within the tile: rows and columns are its own.
                    out: tile.out.wrapping_add(row * tile.pitch + column).cast(),
                    out_pitch: tile.pitch * size_of::<T>(),
                    columns: all.columns,
                    bias: self.bias[first..].as_ptr(),
                    row_bias: row_bias.as_ptr(),
                    scale: self.scale[first..].as_ptr(),
                    bytes,
                    plus: self.plus.map(|(added, Residual { elements, pitch })| Plus {
                        added,
                        other: elements[(tile.first[0] + row) * pitch + first..].as_ptr(),
                        pitch,
                    }),
                    is_small: self.is_small,
                };
                generic::call(self.table.tiles[all.vectors - 1][rows - 1], &job);
                column += all.columns;
            }
            block += count;
        }
    }
}

/// Rows of the blocks that one call of a kernel takes.
const ROWS_TOGETHER: usize = 8 * ROWS_MAX;

/// Nothing is added to the sums of the rows of a tile without a product.
static NO_ROW_BIAS: [i32; PIXELS_MAX] = [0; PIXELS_MAX];

fn tables(level: Level) -> &'static Tables {
    match level.set() {
        #[cfg(target_arch = "x86_64")]
        Set::Avx512Bf16 | Set::Avx512Vnni => &avx512::TABLES,
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 | Set::Avx2 => &avx2::TABLES,
        _ => &portable::TABLES,
    }
}
