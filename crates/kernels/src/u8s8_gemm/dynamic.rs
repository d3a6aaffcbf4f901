//! Weights that are packed once, for bytes whose scale and zero point are known when they meet.

use super::{Finish, Gemm, Packed, Requantize, Weights, tables};
use crate::aligned::LINE;
use crate::grid::Grid;
use crate::isa::Level;
use crate::window::Window;

/// Weights of a matrix laid out for the kernels of one instruction set.
#[derive(Debug)]
pub struct DynamicGemm {
    /// Packed for a zero point of one: its bias is what each step of a zero point takes off the sums.
    gemm: Gemm,
    /// The zero point of the weights.
    zero: i8,
}

impl DynamicGemm {
    /// # Panics
    /// When taps are not one, or `weights` do not have the elements that the extents say.
    pub fn pack(level: Level, weights: &Weights<'_>, zero: i8) -> Self {
        assert_eq!(weights.taps, 1, "weights are a matrix");
        let (bias, scale) = (vec![0; weights.columns], vec![1.0; weights.columns]);
        let then = Requantize { bias: &bias, scale: &scale, finish: Finish::Floats, plus: None };
        let mut gemm = Gemm::pack(level, weights, 1, &then, None);
        if zero != 0 {
            gemm.table = &tables(level).by_row;
        }
        Self { gemm, zero }
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.gemm.bytes()
    }

    pub fn columns(&self) -> usize {
        self.gemm.columns()
    }

    /// As [`Gemm::kernel`].
    pub fn kernel(&self) -> String {
        self.gemm.kernel()
    }

    /// Bytes of the room that a run needs.
    pub fn room_bytes(&self) -> usize {
        self.room().into_iter().sum()
    }

    /// Bytes for the biases, and for the scales.
    fn room(&self) -> [usize; 2] {
        let whole = (self.gemm.panels.padded() * size_of::<i32>()).next_multiple_of(LINE);
        [whole, whole]
    }

    /// Fills the room for bytes of a zero point. Sums are multiplied with one scale, or one for each column.
    ///
    /// # Panics
    /// When the room has fewer than `room_bytes`, begins within a word, or there is another number of scales.
    pub fn prepare(&self, zero: u8, scales: &[f32], room: &mut [u8]) {
        assert!([1, self.columns()].contains(&scales.len()), "one scale, or one for each column");
        let (biases, factors) = room[..self.room_bytes()].split_at_mut(self.room()[0]);
        let (biases, factors): (&mut [i32], &mut [f32]) =
            (bytemuck::cast_slice_mut(biases), bytemuck::cast_slice_mut(factors));
        let depth = i32::try_from(self.gemm.depth).unwrap_or(i32::MAX);
        let zero = i32::from(zero);
        let both = zero.wrapping_mul(depth).wrapping_mul(self.zero.into());
        let taken = self.gemm.ends.bias.elements::<i32>();
        biases.iter_mut().zip(taken).for_each(|(bias, taken)| *bias = zero.wrapping_mul(*taken).wrapping_add(both));
        match *scales {
            [scale] => factors.fill(scale),
            _ => factors[..scales.len()].copy_from_slice(scales),
        }
    }

    /// As [`Gemm::grid`].
    ///
    /// # Panics
    /// When `out` cannot hold the rows.
    pub fn grid<'a>(&self, out: &'a mut [f32], rows: usize) -> Grid<'a> {
        self.gemm.grid(out, self.columns(), rows)
    }

    /// The scaled products of rows, one behind the other, with the weights, tile by tile until none is left. The room is
    /// one that `prepare` has filled.
    ///
    /// # Panics
    /// When the rows reach beyond `left`, the room has fewer than `room_bytes` or begins within a word, or the output was
    /// cut otherwise than by `grid`.
    pub fn run(&self, left: &[u8], room: &[u8], grid: &Grid<'_>) {
        let (biases, factors) = room[..self.room_bytes()].split_at(self.room()[0]);
        let packed = Packed {
            table: self.gemm.table,
            taps: 1,
            depth: self.gemm.depth,
            panels: &self.gemm.panels,
            weights: self.gemm.weights.elements(),
            bias: bytemuck::cast_slice(biases),
            scale: bytemuck::cast_slice(factors),
            // No tap of rows lies outside them.
            zeros: &[],
            order: self.gemm.order.elements(),
            row_factor: -i32::from(self.zero),
            finish: Finish::Floats,
            plus: None,
            is_small: false,
        };
        packed.run(left, &Window::rows(grid.size()[0], self.gemm.depth), grid);
    }
}
