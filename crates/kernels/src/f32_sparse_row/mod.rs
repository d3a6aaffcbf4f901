//! One row times weights that are mostly zeros, wherever they are or in whole blocks. Columns go together in groups.
//!
//! Where zeros are anywhere, a row is cut into chunks that registers hold; each column of a group has the weights that are not
//! zero in a chunk, and their places in it, and as many zeros behind them as bring all to the same number. So a step reads a
//! few bytes and finds its elements of the row by a permutation, not in memory. Where they are those of blocks, of one row of
//! the weights by as many columns as a vector has lanes, every vector of a group has the blocks that are left, and where the
//! element of the row is that they meet.
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
    left: Left,
    bias: Aligned,
    activation: Activation,
}

/// Which zeros are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// Those of whole blocks, as wide as a vector has lanes.
    Blocks,
    /// Those anywhere.
    Anywhere,
}

/// Columns that go through the row together.
#[derive(Debug)]
struct Group {
    /// The first of its steps.
    first: usize,
    /// Of each chunk, or of all of the row.
    steps: Vec<usize>,
}

/// Where the elements of the row are that weights meet.
#[derive(Debug)]
enum Left {
    /// `[step][vector of the group]`.
    Blocks(Vec<u32>),
    /// `[step][column of the group]`, in a chunk.
    Places(Aligned),
}

impl SparseRow {
    /// Packs weights of one tap as what takes less time, if that is less than all of them take.
    ///
    /// # Panics
    /// When `weights` or `bias` do not have the elements that the extents say, or there are taps.
    pub fn pack(level: Level, weights: &Weights<'_>, bias: Option<&[f32]>, activation: Activation) -> Option<Self> {
        let pack = |left_out, share_max: f32| {
            let packed = Self::pack_any(level, weights, bias, activation, left_out)?;
            let time = packed.share() / share_max;
            (time <= 1.0).then_some((time, packed))
        };
        let blocks = pack(LeftOut::Blocks, BLOCKS_SHARE_MAX);
        let anywhere = pack(LeftOut::Anywhere, ANYWHERE_SHARE_MAX);
        blocks.into_iter().chain(anywhere).min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, packed)| packed)
    }

    /// Steps beside those that all weights would take.
    pub fn share(&self) -> f32 {
        let steps: usize = self.groups.iter().flat_map(|group| &group.steps).sum();
        steps as f32 / (self.groups.len() * self.depth).max(1) as f32
    }

    /// As `pack`, whatever that takes, if there are kernels for such zeros: those anywhere are left out where a permutation finds
    /// elements of a row.
    ///
    /// # Panics
    /// As `pack`.
    pub fn pack_any(
        level: Level,
        weights: &Weights<'_>,
        bias: Option<&[f32]>,
        activation: Activation,
        left_out: LeftOut,
    ) -> Option<Self> {
        let [taps, depth, columns] = weights.size();
        assert_eq!(taps, 1, "weights are [depth][column]");
        assert!(bias.is_none_or(|bias| bias.len() == columns), "there is a bias for each column");
        let kernels = kernels(level);
        if left_out == LeftOut::Anywhere && kernels.places.is_none() {
            return None;
        }
        let elements = weights.taps_first();
        let (groups, values, left) = match left_out {
            LeftOut::Blocks => blocks(&elements, [depth, columns], kernels),
            LeftOut::Anywhere => places(&elements, [depth, columns], kernels),
        };
        let mut packed_bias = Aligned::zeroed(groups.len() * kernels.width * size_of::<f32>());
        if let Some(bias) = bias {
            packed_bias.elements_mut::<f32>()[..columns].copy_from_slice(bias);
        }
        let values = Aligned::of(&values);
        Some(Self { level, depth, columns, groups, values, left, bias: packed_bias, activation })
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        let left = match &self.left {
            Left::Blocks(offsets) => size_of_val(&offsets[..]),
            Left::Places(places) => places.bytes(),
        };
        self.values.bytes() + left + self.bias.bytes()
    }

    /// `f32_sparse_row__<isa>`, with the columns of a block where zeros are those of blocks.
    pub fn kernel(&self) -> String {
        let Kernels { name, lanes, .. } = kernels(self.level);
        match &self.left {
            Left::Blocks(_) => format!("f32_sparse_row_{lanes}x1__{name}"),
            Left::Places(_) => format!("f32_sparse_row__{name}"),
        }
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
                values: &self.values.elements()[begin..],
                bias: &self.bias.elements()[first..],
                residual: residual.map(|residual| &residual[first..]),
                activation,
                out: tile.row(0),
            };
            match &self.left {
                Left::Blocks(offsets) => {
                    let (vectors, steps) = (kernels.width / kernels.lanes, group.steps.iter().sum::<usize>());
                    let offsets = &offsets[group.first * vectors..][..steps * vectors];
                    generic::call_blocks(kernels, job, offsets);
                }
                Left::Places(places) => {
                    generic::call_places(kernels, job, &group.steps, &places.elements()[begin..]);
                }
            }
            if let Some(function) = function {
                function.over_tile(self.level, &mut tile);
            }
        }
    }
}

/// Groups, values, and where the row's elements are.
type Packed = (Vec<Group>, Vec<f32>, Left);

fn blocks(elements: &[f32], [depth, columns]: [usize; 2], kernels: &Kernels) -> Packed {
    let &Kernels { width, lanes, .. } = kernels;
    let row = |k: usize, from: usize| &elements[k * columns + from..k * columns + columns.min(from + lanes)];
    let (mut groups, mut values, mut offsets) = (Vec::new(), Vec::new(), Vec::new());
    for first in (0..columns).step_by(width) {
        let firsts = || (first..first + width).step_by(lanes).map(|from| columns.min(from));
        let is_met = |k: &usize, from| row(*k, from).iter().any(|&weight| weight != 0.0);
        let met: Vec<Vec<usize>> = firsts().map(|from| (0..depth).filter(|k| is_met(k, from)).collect()).collect();
        let steps = met.iter().map(Vec::len).max().unwrap_or(0);
        groups.push(Group { first: values.len() / width, steps: vec![steps] });
        for step in 0..steps {
            for (met, from) in met.iter().zip(firsts()) {
                let weights = met.get(step).map_or(&[][..], |&k| row(k, from));
                values.extend(weights);
                values.resize(values.len() + lanes - weights.len(), 0.0);
                offsets.push(u32::try_from(met.get(step).copied().unwrap_or(0)).expect("rows are short"));
            }
        }
    }
    (groups, values, Left::Blocks(offsets))
}

fn places(elements: &[f32], [depth, columns]: [usize; 2], kernels: &Kernels) -> Packed {
    let width = kernels.width;
    let (mut groups, mut values, mut places) = (Vec::new(), Vec::<f32>::new(), Vec::<u8>::new());
    for from in (0..columns).step_by(width) {
        let taken = width.min(columns - from);
        let mut group = Group { first: values.len() / width, steps: Vec::new() };
        for chunk in (0..depth).step_by(CHUNK) {
            let rows = CHUNK.min(depth - chunk);
            let row = |place: usize| &elements[(chunk + place) * columns + from..][..taken];
            let mut counts = vec![0; taken];
            for place in 0..rows {
                counts.iter_mut().zip(row(place)).for_each(|(count, weight)| *count += usize::from(*weight != 0.0));
            }
            let steps = counts.iter().copied().max().unwrap_or(0);
            let begin = values.len();
            values.resize(begin + steps * width, 0.0);
            places.resize(values.len(), 0);
            counts.fill(0);
            for place in 0..rows {
                for (column, (count, &weight)) in counts.iter_mut().zip(row(place)).enumerate() {
                    if weight != 0.0 {
                        let at = begin + *count * width + column;
                        (values[at], places[at]) = (weight, u8::try_from(place).unwrap_or(0));
                        *count += 1;
                    }
                }
            }
            group.steps.push(steps);
        }
        groups.push(group);
    }
    let mut packed = Aligned::zeroed(places.len());
    packed.elements_mut::<u8>()[..places.len()].copy_from_slice(&places);
    (groups, values, Left::Places(packed))
}

fn kernels(level: Level) -> &'static Kernels {
    choose!(level, &KERNELS)
}

/// Elements of a row that two registers of the widest kind hold.
const CHUNK: usize = 32;

/// Steps of blocks beside those of all weights with which they take as long as all products do.
const BLOCKS_SHARE_MAX: f32 = 0.75;

/// As `BLOCKS_SHARE_MAX`, of steps by places.
const ANYWHERE_SHARE_MAX: f32 = 0.65;
