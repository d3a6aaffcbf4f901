//! One row of bytes times packed weights: without the weights that are zero ([`SparseRow`]), or by the elements of the row
//! that are not ([`Lines`]). Sums and what follows them are those of [`Gemm`](super::Gemm), bit for bit.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod generic;
mod lines;
mod portable;

use std::array;

use super::{Ends, Requantize, Weights, Written};
use crate::aligned::Aligned;
use crate::f32_sparse_row::LeftOut;
use crate::grid::{Grid, Tile};
use crate::isa::{Level, Set};
use generic::{BlocksJob, CHUNK, Kernels, PlacesJob, VECTORS, WORD};
pub use lines::{Lines, Nonzero};

/// Weights without most of their zeros, with what follows the product.
#[derive(Debug)]
pub struct SparseRow {
    kernels: &'static Kernels,
    depth: usize,
    columns: usize,
    /// The first step of each group of columns, and where the last ends.
    groups: Vec<usize>,
    /// `[step][lane][4]`.
    weights: Aligned,
    left: Left,
    ends: Ends,
}

/// Where the row's elements are that weights meet.
#[derive(Debug)]
enum Left {
    /// The first of each step of a block.
    Blocks(Vec<u32>),
    /// `[step][lane][4]`, within a chunk of the row; and the steps of each chunk, `[group][vector][chunk]`.
    Places(Aligned, Vec<u8>),
}

impl SparseRow {
    /// Packs weights of one tap, if there are kernels for such zeros: those of blocks of four weights that follow each other
    /// along the depth, if it is whole blocks, and those anywhere where a permutation finds bytes of a row. `zero` is the zero
    /// point of the bytes.
    ///
    /// # Panics
    /// When `weights`, `bias` or `scale` do not have the elements that the extents say, there are taps, or something is added
    /// to the bytes.
    pub fn pack(
        level: Level,
        weights: &Weights<'_>,
        zero: u8,
        then: &Requantize<'_>,
        left_out: LeftOut,
    ) -> Option<Self> {
        let Weights { depth, columns, .. } = *weights;
        let kernels = kernels(level);
        let packed = match left_out {
            LeftOut::Blocks => depth.is_multiple_of(WORD).then(|| blocks(weights, kernels.lanes))?,
            LeftOut::Anywhere => kernels.places.map(|_| places(weights, kernels.lanes))?,
        };
        let ends = ends(weights, zero, then, kernels);
        let (groups, weights, left) = packed;
        let weights = Aligned::of(&weights);
        Some(Self { kernels, depth, columns, groups, weights, left, ends })
    }

    /// Bytes that a row reads beside those that all weights have.
    pub fn share(&self) -> f32 {
        let all = self.depth * self.columns.next_multiple_of(self.kernels.lanes);
        (self.bytes() - self.ends.bytes()) as f32 / all.max(1) as f32
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        let left = match &self.left {
            Left::Blocks(offsets) => size_of_val(&offsets[..]),
            Left::Places(places, steps) => places.bytes() + steps.len(),
        };
        self.weights.bytes() + left + self.ends.bytes()
    }

    /// `u8s8_sparse_row__<isa>`, with the columns and the depth of a block where zeros are those of blocks.
    pub fn kernel(&self) -> String {
        let Kernels { name, lanes, .. } = self.kernels;
        match &self.left {
            Left::Blocks(_) => format!("u8s8_sparse_row_{lanes}x{WORD}__{name}"),
            Left::Places(..) => format!("u8s8_sparse_row__{name}"),
        }
    }

    /// Cuts an output into groups of columns.
    ///
    /// # Panics
    /// When `out` has fewer elements than there are columns.
    pub fn grid<'a, T>(&self, out: &'a mut [T]) -> Grid<'a, T> {
        Grid::new(out, self.columns, [1, self.columns], [1, VECTORS * self.kernels.lanes])
    }

    /// Computes groups until none is left; any number of threads may do so at once.
    ///
    /// # Panics
    /// When the row has not the elements of the weights, the product is written in another type, or the output was cut
    /// otherwise than by `grid`.
    pub fn run<T: Written>(&self, row: &[u8], grid: &Grid<'_, T>) {
        assert_eq!((row.len(), grid.size()), (self.depth, [1, self.columns]), "a row meets all weights");
        assert!(T::fits(self.ends.finish), "the output is of the type that products end in");
        let chunks = self.depth.div_ceil(CHUNK);
        while let Some(tile) = grid.take() {
            let group = group(&tile, VECTORS * self.kernels.lanes);
            let (first, end) = (self.groups[group], self.groups[group + 1]);
            let each = self.kernels.lanes * WORD;
            let weights = &self.weights.elements()[first * each..end * each];
            let results = self.ends.results(&tile, None);
            match &self.left {
                Left::Blocks(offsets) => {
                    let offsets = &offsets[first..end];
                    generic::call_blocks(self.kernels, &BlocksJob { row, offsets, weights, results });
                }
                Left::Places(places, steps) => {
                    let places = &places.elements()[first * each..end * each];
                    let steps = &steps[group * VECTORS * chunks..][..VECTORS * chunks];
                    generic::call_places(self.kernels, &PlacesJob { row, steps, places, weights, results });
                }
            }
        }
    }
}

/// The first step of each group and the end, weights, and where the row's elements are.
type Packed = (Vec<usize>, Vec<i8>, Left);

/// Vectors of columns of a group go by steps of their own, all as many as the one with most.
fn blocks(weights: &Weights<'_>, lanes: usize) -> Packed {
    let Weights { elements, depth, columns, .. } = *weights;
    let row = |k: usize, from: usize| &elements[k * columns + from..k * columns + columns.min(from + lanes)];
    let (mut groups, mut packed, mut offsets) = (vec![0], Vec::new(), Vec::new());
    for first in (0..columns).step_by(VECTORS * lanes) {
        let firsts: [usize; VECTORS] = array::from_fn(|vector| columns.min(first + vector * lanes));
        let is_met =
            |word: &usize, from| (word * WORD..(word + 1) * WORD).any(|k| row(k, from).iter().any(|&w| w != 0));
        let words = firsts.map(|from| (0..depth / WORD).filter(|word| is_met(word, from)).collect::<Vec<_>>());
        let steps = words.iter().map(Vec::len).max().unwrap_or(0);
        for step in 0..steps {
            for (words, &from) in words.iter().zip(&firsts) {
                let begin = packed.len();
                packed.resize(begin + lanes * WORD, 0);
                let word = words.get(step).copied();
                offsets.push(u32::try_from(word.unwrap_or(0) * WORD).expect("rows are short"));
                for (k, word) in (0..WORD).zip(word.into_iter().cycle()) {
                    let to = packed[begin + k..].iter_mut().step_by(WORD);
                    to.zip(row(word * WORD + k, from)).for_each(|(to, weight)| *to = *weight);
                }
            }
        }
        groups.push(offsets.len());
    }
    (groups, packed, Left::Blocks(offsets))
}

/// A column takes four of its weights in a step; all of a vector as many steps as the one with most.
fn places(weights: &Weights<'_>, lanes: usize) -> Packed {
    let Weights { elements, depth, columns, .. } = *weights;
    let (mut groups, mut packed, mut places, mut steps) = (vec![0], Vec::new(), Vec::<u8>::new(), Vec::new());
    for first in (0..columns).step_by(VECTORS * lanes) {
        for from in (0..VECTORS).map(|vector| columns.min(first + vector * lanes)) {
            let taken = lanes.min(columns - from);
            for chunk in (0..depth).step_by(CHUNK) {
                let rows = CHUNK.min(depth - chunk);
                let row = |place: usize| &elements[(chunk + place) * columns + from..][..taken];
                let mut counts = vec![0; taken];
                let count = |counts: &mut Vec<usize>, place: usize| {
                    counts.iter_mut().zip(row(place)).for_each(|(count, &weight)| *count += usize::from(weight != 0));
                };
                (0..rows).for_each(|place| count(&mut counts, place));
                let most = counts.iter().copied().max().unwrap_or(0).div_ceil(WORD);
                let begin = packed.len();
                packed.resize(begin + most * lanes * WORD, 0);
                places.resize(packed.len(), 0);
                counts.fill(0);
                for place in 0..rows {
                    let nonzero = row(place).iter().enumerate().filter(|(_, weight)| **weight != 0);
                    for (lane, &weight) in nonzero {
                        let nth = counts[lane];
                        let at = begin + (nth / WORD * lanes + lane) * WORD + nth % WORD;
                        (packed[at], places[at]) = (weight, u8::try_from(place).unwrap_or(0));
                        counts[lane] += 1;
                    }
                }
                steps.push(u8::try_from(most).expect("chunks have few rows"));
            }
        }
        groups.push(packed.len() / (lanes * WORD));
    }
    (groups, packed, Left::Places(Aligned::of(&places), steps))
}

/// What follows the sums of whole groups of columns.
fn ends(weights: &Weights<'_>, zero: u8, then: &Requantize<'_>, kernels: &Kernels) -> Ends {
    assert!(weights.taps == 1 && then.plus.is_none(), "weights are [depth][column], and nothing is added to bytes");
    Ends::of(weights, zero, then, weights.columns.next_multiple_of(VECTORS * kernels.lanes))
}

/// Which group of so many columns a tile is.
fn group<T>(tile: &Tile<'_, T>, columns: usize) -> usize {
    let first = tile.first[1];
    assert!(first.is_multiple_of(columns) && tile.size[1] <= columns, "a tile of the output is a group");
    first / columns
}

fn kernels(level: Level) -> &'static Kernels {
    match level.set() {
        #[cfg(target_arch = "x86_64")]
        Set::Avx512Bf16 => &avx512::VBMI_KERNELS,
        #[cfg(target_arch = "x86_64")]
        Set::Avx512Vnni => &avx512::KERNELS,
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 | Set::Avx2 => &avx2::KERNELS,
        _ => &portable::KERNELS,
    }
}
