//! One row of which many elements are zero, as they are behind ReLU: each line of the weights is what an element of the
//! row meets, and lines that would meet zeros are not read. Four lines become words of weights in registers.

use super::generic::{self, Kernels, LinesJob, VECTORS, WORD};
use super::{Ends, Requantize, Weights, Written, ends, group, kernels};
use crate::aligned::Aligned;
use crate::grid::Grid;
use crate::isa::Level;

/// Weights line by line, with what follows the product.
#[derive(Debug)]
pub struct Lines {
    kernels: &'static Kernels,
    depth: usize,
    columns: usize,
    /// `[panel][line][column of it]`.
    weights: Aligned,
    ends: Ends,
}

/// The elements of a row that are not zero, by fours, the last filled with zeros.
#[derive(Debug)]
pub struct Nonzero<'a> {
    lines: &'a [u32],
    bytes: &'a [u8],
}

impl Lines {
    /// # Panics
    /// When `weights`, `bias` or `scale` do not have the elements that the extents say, there are taps, or something is added
    /// to the bytes.
    pub fn pack(level: Level, weights: &Weights<'_>, zero: u8, then: &Requantize<'_>) -> Self {
        let (kernels, Weights { elements, depth, columns, .. }) = (kernels(level), *weights);
        let ends = ends(weights, zero, then, kernels);
        let (group, mut packed) = (VECTORS * kernels.lanes, Aligned::zeroed(0));
        if columns > 0 {
            packed = Aligned::zeroed(depth * columns.next_multiple_of(group));
            let to = packed.elements_mut::<i8>();
            for first in (0..columns).step_by(GROUPS * group) {
                let width = (columns - first).next_multiple_of(group).min(GROUPS * group);
                let places: Vec<usize> = (0..width).step_by(WORD).map(|column| place(column, kernels.lanes)).collect();
                let lines = to[first * depth..].chunks_exact_mut(width).zip(elements.chunks_exact(columns));
                for (to, from) in lines {
                    for (four, &place) in from[first..columns.min(first + width)].chunks(WORD).zip(&places) {
                        to[place..][..four.len()].copy_from_slice(four);
                    }
                }
            }
        }
        Self { kernels, depth, columns, weights: packed, ends }
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + self.ends.bytes()
    }

    /// `u8s8_lines__<isa>`.
    pub fn kernel(&self) -> String {
        format!("u8s8_lines__{}", self.kernels.name)
    }

    /// Bytes of the room that `nonzero` needs.
    pub fn room_bytes(&self) -> usize {
        self.depth.next_multiple_of(WORD) * (size_of::<u32>() + 1)
    }

    /// Finds the elements of a row that are not zero, if they are so few that the product takes less time than one with all.
    ///
    /// # Panics
    /// When the row has not the elements of the weights, or the room fewer than `room_bytes` or begins within a word.
    pub fn nonzero<'a>(&self, row: &[u8], room: &'a mut [u8]) -> Option<Nonzero<'a>> {
        let few = row.iter().filter(|&&byte| byte != 0).count();
        (few as f32 <= self.kernels.lines_share_max * self.depth as f32).then(|| self.any_nonzero(row, room))
    }

    /// As `nonzero`, however many there are.
    ///
    /// # Panics
    /// As `nonzero`.
    pub fn any_nonzero<'a>(&self, row: &[u8], room: &'a mut [u8]) -> Nonzero<'a> {
        assert_eq!(row.len(), self.depth, "a row meets all weights");
        let (lines, bytes) =
            room[..self.room_bytes()].split_at_mut(self.depth.next_multiple_of(WORD) * size_of::<u32>());
        let lines: &mut [u32] = bytemuck::cast_slice_mut(lines);
        let mut count = 0;
        for (line, eight) in (0u32..).step_by(8).zip(row.chunks(8)) {
            let mut word = [0; 8];
            word[..eight.len()].copy_from_slice(eight);
            let word = u64::from_le_bytes(word);
            let mut left = (((word & LOW) + LOW) | word) & !LOW;
            while left != 0 {
                let byte = left.trailing_zeros() / 8;
                (lines[count], bytes[count]) = (line + byte, (word >> (8 * byte)).to_le_bytes()[0]);
                left &= left - 1;
                count += 1;
            }
        }
        let whole = count.next_multiple_of(WORD);
        lines[count..whole].fill(0);
        bytes[count..whole].fill(0);
        Nonzero { lines: &lines[..whole], bytes: &bytes[..whole] }
    }

    /// Cuts an output into panels.
    ///
    /// # Panics
    /// When `out` has fewer elements than there are columns.
    pub fn grid<'a, T>(&self, out: &'a mut [T]) -> Grid<'a, T> {
        Grid::new(out, self.columns, [1, self.columns], [1, GROUPS * VECTORS * self.kernels.lanes])
    }

    /// Computes panels until none is left; any number of threads may do so at once.
    ///
    /// # Panics
    /// When the row has other elements than there are lines, the product is written in another type, or the output was cut
    /// otherwise than by `grid`.
    pub fn run<T: Written>(&self, row: &Nonzero<'_>, grid: &Grid<'_, T>) {
        assert_eq!(grid.size(), [1, self.columns], "the output is a row of all columns");
        assert!(row.lines.iter().all(|&line| (line as usize) < self.depth), "there is a line for each element");
        assert!(T::fits(self.ends.finish), "the output is of the type that products end in");
        let width = VECTORS * self.kernels.lanes;
        while let Some(tile) = grid.take() {
            group(&tile, GROUPS * width);
            let groups = tile.size[1].div_ceil(width);
            let weights = &self.weights.elements()[tile.first[1] * self.depth..][..groups * width * self.depth];
            let (lines, bytes, results) = (row.lines, row.bytes, self.ends.results(&tile, None));
            let are_far = self.weights.bytes() > NEAR_BYTES;
            generic::call_lines(self.kernels, &LinesJob { lines, bytes, groups, are_far, weights, results });
        }
    }
}

/// Where a column of a panel and the three behind it stand in a line, so that bytes of four lines become vectors of columns
/// in order by being interleaved within parts of sixteen bytes.
fn place(column: usize, lanes: usize) -> usize {
    let (group, column) = (column / (VECTORS * lanes), column % (VECTORS * lanes));
    let (vector, lane) = (column / lanes, column % lanes);
    group * VECTORS * lanes + lane / WORD * VECTORS * WORD + vector * WORD + lane % WORD
}

/// Groups of a panel, at most.
pub(super) const GROUPS: usize = 2;

/// Weights that caches keep from one row to the next; more of them come from memory in large models.
const NEAR_BYTES: usize = 2 << 20;

/// Of each byte all bits but the highest.
const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
