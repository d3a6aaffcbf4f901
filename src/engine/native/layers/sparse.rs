//! Products with weights of which most are zero: those that leave the zeros out, and dense ones for outputs of few pixels,
//! which would leave lanes empty. Both make the same bits of finite numbers.

use kinglet_kernels::Fill;
use kinglet_kernels::f32_gemm::SparseGemm;

use super::dense::Dense;

/// Weights without zeros, and all of them.
#[derive(Debug)]
pub(super) struct Sparse<S = SparseGemm, D = Dense> {
    pub(super) gemm: S,
    /// For outputs of fewer pixels than so many, where there are such.
    pub(super) few: Option<(usize, D)>,
}

/// How many of a hundred weights are zero, where that is enough to leave them out. Dense ones are told by a few of them.
pub(super) fn zeros<T: Copy + Default + PartialEq>(weights: &[T]) -> Option<usize> {
    let share = |every: usize| {
        let looked_at = weights.iter().step_by(every);
        let count = looked_at.len().max(1);
        100 * looked_at.filter(|&&weight| weight == T::default()).count() / count
    };
    // An odd number of steps meets all rows and columns.
    let some = share((weights.len() / LOOKED_AT) | 1);
    let all = if some >= CONSIDERED / 2 { share(1) } else { some };
    (all >= CONSIDERED).then_some(all)
}

/// What a rule of thumb has for weights with so many zeros in a hundred, where it believes that zeros are worth leaving out:
/// the largest of some blocks that most of is weights.
pub(super) fn by_rule<T>(
    zeros: usize,
    blocks: impl IntoIterator<Item = usize, IntoIter: DoubleEndedIterator>,
    pack: impl Fn(usize) -> Option<T>,
) -> Option<T> {
    let mut packed = blocks.into_iter().rev().filter_map(|block| Some((block, pack(block)?)));
    packed.next().filter(|(block, _)| *block > 1 || zeros >= BELIEVED).map(|(_, packed)| packed)
}

/// Of how many pixels on an output is better made without zeros; nothing where blocks hold too many. So many pixels as
/// lanes take as long as one, at about half of the speed of dense products.
pub(super) fn few(Fill { all, multiplied, nonzero }: Fill, block: usize, lanes: usize) -> Option<usize> {
    let is_filled = block == 1 || 100 * nonzero >= FILLED_MIN * multiplied;
    is_filled.then(|| (2 * multiplied * lanes).div_ceil(all.max(1)))
}

impl<S, D> Sparse<S, D> {
    /// What makes outputs of so many pixels, where it is not the one without zeros.
    pub(super) fn few(&self, pixels: usize) -> Option<&D> {
        self.few.as_ref().filter(|(few, _)| pixels < *few).map(|(_, gemm)| gemm)
    }
}

/// Zeros in a hundred weights from which on products without them are tried: less were never faster.
const CONSIDERED: usize = 40;

/// Weights that are looked at before all are.
const LOOKED_AT: usize = 2048;

/// Those from which on they are taken to be faster.
const BELIEVED: usize = 75;

/// Those from which on they are taken to be faster than transformed tiles.
pub(super) const FASTER_THAN_TRANSFORMED: usize = 88;

/// The least weights in a hundred of blocks that are tried.
const FILLED_MIN: usize = 55;
