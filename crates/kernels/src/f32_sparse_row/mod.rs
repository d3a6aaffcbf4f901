//! One row times weights that are mostly zeros. A row is cut into chunks that registers hold; for a group of columns, each
//! column has the weights that are not zero in a chunk, and their places in it, and as many zeros behind them as bring all
//! to the same number. So a step reads a few bytes and finds its elements of the row by a permutation, not in memory.
//!
//! A result is the chain that `f32_gemm` has, without the products that are zero: of numbers it is the same.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod generic;
mod portable;

use crate::activation::Activation;
use crate::aligned::Aligned;
use crate::f32_gemm::Weights;
use crate::grid::Grid;
use crate::isa::{Level, choose};
use generic::{Job, Kernels};

/// Weights without most of their zeros, with what follows the product.
#[derive(Debug)]
pub struct SparseRow {
    level: Level,
    depth: usize,
    columns: usize,
    groups: Vec<Group>,
    /// `[step][column of the group]`, of all chunks of all groups.
    values: Aligned,
    places: Aligned,
    bias: Aligned,
    activation: Activation,
}

/// Columns that go through the row together.
#[derive(Debug)]
struct Group {
    /// The first of its steps.
    first: usize,
    /// Of each chunk.
    steps: Vec<u8>,
}

impl SparseRow {
    /// Packs weights of one tap, if that takes less time than all of them take.
    ///
    /// # Panics
    /// When `weights` or `bias` do not have the elements that the extents say, or there are taps.
    pub fn pack(level: Level, weights: &Weights<'_>, bias: Option<&[f32]>, activation: Activation) -> Option<Self> {
        let packed = Self::pack_any(level, weights, bias, activation);
        (packed.share() <= kernels(level).share_max).then_some(packed)
    }

    /// Steps beside those that all weights would take.
    pub fn share(&self) -> f32 {
        let steps: usize = self.groups.iter().flat_map(|group| &group.steps).map(|&steps| usize::from(steps)).sum();
        steps as f32 / (self.groups.len() * self.depth).max(1) as f32
    }

    /// As `pack`, whatever that takes.
    ///
    /// # Panics
    /// As `pack`.
    pub fn pack_any(level: Level, weights: &Weights<'_>, bias: Option<&[f32]>, activation: Activation) -> Self {
        let [taps, depth, columns] = weights.size();
        assert_eq!(taps, 1, "weights are [depth][column]");
        let elements = weights.taps_first();
        assert!(bias.is_none_or(|bias| bias.len() == columns), "there is a bias for each column");
        let width = kernels(level).width;
        let (mut groups, mut values, mut places) = (Vec::new(), Vec::<f32>::new(), Vec::<u8>::new());
        for from in (0..columns).step_by(width) {
            let taken = width.min(columns - from);
            let mut group = Group { first: values.len() / width, steps: Vec::new() };
            for chunk in (0..depth).step_by(CHUNK) {
                let rows = CHUNK.min(depth - chunk);
                let row = |place: usize| &elements[(chunk + place) * columns + from..][..taken];
                let mut counts = vec![0u8; taken];
                for place in 0..rows {
                    counts.iter_mut().zip(row(place)).for_each(|(count, weight)| *count += u8::from(*weight != 0.0));
                }
                let steps = counts.iter().copied().max().unwrap_or(0);
                let begin = values.len();
                values.resize(begin + usize::from(steps) * width, 0.0);
                places.resize(values.len(), 0);
                counts.fill(0);
                for place in 0..rows {
                    for (column, (count, &weight)) in counts.iter_mut().zip(row(place)).enumerate() {
                        if weight != 0.0 {
                            let at = begin + usize::from(*count) * width + column;
                            (values[at], places[at]) = (weight, u8::try_from(place).unwrap_or(0));
                            *count += 1;
                        }
                    }
                }
                group.steps.push(steps);
            }
            groups.push(group);
        }
        let mut packed_bias = Aligned::zeroed(groups.len() * width * size_of::<f32>());
        if let Some(bias) = bias {
            packed_bias.elements_mut::<f32>()[..columns].copy_from_slice(bias);
        }
        let mut packed_places = Aligned::zeroed(places.len());
        packed_places.elements_mut::<u8>()[..places.len()].copy_from_slice(&places);
        let values = Aligned::of(&values);
        Self { level, depth, columns, groups, values, places: packed_places, bias: packed_bias, activation }
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.values.bytes() + self.places.bytes() + self.bias.bytes()
    }

    /// `f32_sparse_row__<isa>`.
    pub fn kernel(&self) -> String {
        format!("f32_sparse_row__{}", kernels(self.level).name)
    }

    /// Whether a row has the results that all products have: where it is all numbers.
    pub fn takes(&self, row: &[f32]) -> bool {
        row.iter().all(|x| x.is_finite())
    }

    /// Cuts an output into groups of columns.
    ///
    /// # Panics
    /// When `out` has not as many elements as there are columns.
    pub fn grid<'a>(&self, out: &'a mut [f32]) -> Grid<'a> {
        Grid::new(out, self.columns, [1, self.columns], [1, kernels(self.level).width])
    }

    /// Computes groups until none is left; any number of threads may do so at once.
    ///
    /// # Panics
    /// When the row or the residual has not the elements of the weights, or the output was cut otherwise than by `grid`.
    pub fn run(&self, row: &[f32], residual: Option<&[f32]>, grid: &Grid<'_>) {
        let kernels = kernels(self.level);
        assert_eq!((row.len(), grid.size()), (self.depth, [1, self.columns]), "a row meets all weights");
        assert!(residual.is_none_or(|residual| residual.len() == self.columns), "the residual is a row");
        let (activation, function) = self.activation.split();
        while let Some(mut tile) = grid.take() {
            let first = tile.first()[1];
            assert!(first.is_multiple_of(kernels.width), "a tile of the output is a group");
            let group = &self.groups[first / kernels.width];
            let begin = group.first * kernels.width;
            let job = Job {
                row,
                steps: &group.steps,
                values: &self.values.elements()[begin..],
                places: &self.places.elements()[begin..],
                bias: &self.bias.elements()[first..],
                residual: residual.map(|residual| &residual[first..]),
                activation,
                out: tile.row(0),
            };
            generic::call(kernels, job);
            if let Some(function) = function {
                function.over_tile(self.level, &mut tile);
            }
        }
    }
}

fn kernels(level: Level) -> &'static Kernels {
    choose!(level, &KERNELS)
}

/// Elements of a row that two registers of the widest kind hold.
const CHUNK: usize = 32;
