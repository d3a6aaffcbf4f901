//! Products of two computed matrices of bytes: the right one is packed, as signed bytes, when they meet.

use super::{Finish, Packed, Written, tables};
use crate::aligned::LINE;
use crate::grid::Grid;
use crate::isa::Level;
use crate::panels::{Panel, Panels, Table};
use crate::window::Window;

/// How a matrix of unsigned bytes lies for the kernels of one instruction set. The memory is the caller's.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    table: &'static Table<super::Job>,
    depth: usize,
    panels: Panels,
}

/// The zero points of both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zeros {
    pub left: u8,
    pub right: u8,
}

impl Matrix {
    /// The most rows with which no bytes can make a sum overflow.
    pub const DEPTH_MAX: usize = (1 << 31) / (255 * 255) - 1;

    /// Of `depth` rows and so many columns.
    pub fn new(level: Level, depth: usize, columns: usize) -> Self {
        let table = &tables(level).computed;
        Self { table, depth, panels: table.panels(columns, None) }
    }

    /// As [`super::Gemm::kernel`].
    pub fn kernel(level: Level) -> String {
        format!("u8u8_gemm_packed__{}", tables(level).computed.name)
    }

    /// Bytes that a packed matrix takes, from the beginning of a cache line on.
    pub fn bytes(&self) -> usize {
        let [bias, scale] = self.parts();
        scale + (scale - bias)
    }

    /// Where bias and scale begin, behind the weights.
    fn parts(&self) -> [usize; 2] {
        let (padded, groups) = (self.panels.padded(), self.depth.div_ceil(4));
        let bias = (groups * 4 * padded).next_multiple_of(LINE);
        [bias, bias + (padded * size_of::<i32>()).next_multiple_of(LINE)]
    }

    /// Lays out a matrix whose rows lie behind each other, for left sides with a zero point; products are multiplied with
    /// `scale`.
    ///
    /// # Panics
    /// When `from` has not the elements of the matrix, or `to` is too short or begins within a word.
    pub fn pack(&self, from: &[u8], zeros: Zeros, scale: f32, to: &mut [u8]) {
        let (depth, columns, lanes) = (self.depth, self.panels.columns, self.table.lanes);
        assert_eq!(from.len(), depth * columns, "a matrix of {depth} rows and {columns} columns");
        let [bias_at, scale_at] = self.parts();
        let (weights, rest) = to[..self.bytes()].split_at_mut(bias_at);
        let (bias, scales) = rest.split_at_mut(scale_at - bias_at);
        let (bias, scales): (&mut [i32], &mut [f32]) =
            (bytemuck::cast_slice_mut(bias), bytemuck::cast_slice_mut(scales));
        scales.fill(scale);
        // With signed bytes the zero point is as much lower.
        let right = i32::from(zeros.right) - SIGNED;
        let whole = i32::try_from(depth).unwrap_or(i32::MAX).wrapping_mul(right);
        bias.fill(0);
        for first in self.panels.firsts() {
            let Panel { columns: taken, vectors } = self.panels.panel(first);
            let width = vectors * lanes;
            let (bias, groups) = (&mut bias[first..first + taken], depth.div_ceil(4));
            let weights = &mut weights[first * groups * 4..][..groups * 4 * width];
            for (group, to) in weights.chunks_exact_mut(width * 4).enumerate() {
                let row = |k: usize| &from[(group * 4 + k) * columns + first..][..taken];
                let (taken, filled) = to.split_at_mut(taken * 4);
                filled.fill(0);
                if group * 4 + 4 <= depth {
                    let [a, b, c, d] = [row(0), row(1), row(2), row(3)];
                    for ((((four, a), b), c), d) in taken.chunks_exact_mut(4).zip(a).zip(b).zip(c).zip(d) {
                        four.copy_from_slice(&[a ^ 0x80, b ^ 0x80, c ^ 0x80, d ^ 0x80]);
                    }
                } else {
                    taken.fill(0);
                    for k in 0..depth % 4 {
                        taken.chunks_exact_mut(4).zip(row(k)).for_each(|(four, byte)| four[k] = byte ^ 0x80);
                    }
                }
                // The zero point of probabilities is zero.
                if zeros.left != 0 {
                    for k in 0..(depth - group * 4).min(4) {
                        bias.iter_mut().zip(row(k)).for_each(|(sum, &byte)| *sum += i32::from(byte));
                    }
                }
            }
            if zeros.left != 0 {
                let left = i32::from(zeros.left);
                let signed = SIGNED.wrapping_mul(i32::try_from(depth).unwrap_or(i32::MAX));
                bias.iter_mut().for_each(|sum| *sum = left.wrapping_mul(whole + signed - *sum));
            }
        }
    }

    /// An output cut for `run`.
    ///
    /// # Panics
    /// When `out` cannot hold `rows` rows `pitch` elements apart.
    pub fn grid<'a, T>(&self, out: &'a mut [T], pitch: usize, rows: usize) -> Grid<'a, T> {
        self.panels.grid(out, pitch, rows, [self.depth, self.depth.next_multiple_of(4)])
    }

    /// Products of rows, `pitch` bytes apart, with a packed matrix of these zero points, tile by tile until none is left.
    ///
    /// # Panics
    /// When rows reach beyond `left`, `packed` is too short or begins within a word, the product is written in another
    /// type, or the output was cut otherwise than by `grid`.
    pub fn run<T: Written>(
        &self,
        left: &[u8],
        pitch: usize,
        packed: &[u8],
        zeros: Zeros,
        finish: Finish,
        grid: &Grid<'_, T>,
    ) {
        let [bias, scale] = self.parts();
        let packed = Packed {
            table: self.table,
            taps: 1,
            depth: self.depth,
            panels: &self.panels,
            weights: bytemuck::cast_slice(&packed[..bias]),
            bias: bytemuck::cast_slice(&packed[bias..scale]),
            scale: bytemuck::cast_slice(&packed[scale..self.bytes()]),
            // No tap of rows lies outside them.
            zeros: &[],
            order: &[],
            row_factor: SIGNED - i32::from(zeros.right),
            finish,
            plus: None,
            is_small: false,
        };
        packed.run(left, &Window::rows(grid.size()[0], pitch), grid);
    }
}

/// How far a byte is above its signed form.
const SIGNED: i32 = 128;
