//! Products with weights of which most are zero: those that leave the zeros out, and dense ones for outputs of few pixels,
//! which would leave lanes empty. Both make the same bits of finite numbers.

use kinglet_kernels::f32_gemm::{Gemm, Residual, SparseGemm, Weights};
use kinglet_kernels::{Activation, Fill, Grid, Level, Window};

/// Weights without zeros, and all of them.
#[derive(Debug)]
pub(super) struct Sparse<S = SparseGemm, D = Gemm> {
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

impl Sparse {
    /// With blocks of so many columns, if most of what they hold are weights. `pixels_min` is the least of an output.
    pub(super) fn pack(
        level: Level,
        weights: &Weights<'_>,
        bias: Option<&[f32]>,
        activation: Activation,
        block: usize,
        pixels_min: usize,
    ) -> Option<Self> {
        let gemm = SparseGemm::pack(level, weights, bias, activation, block);
        let few = few(gemm.fill(), block, gemm.lanes())?;
        let dense = || Gemm::pack(level, weights, bias, activation, None);
        let few = (pixels_min < few).then(|| (few, dense()));
        Some(Self { gemm, few })
    }

    pub(super) fn run(&self, image: &[f32], window: &Window, residual: Option<Residual<'_>>, grid: &Grid<'_>) {
        match self.few(window.pixels()) {
            Some(gemm) => gemm.run(image, window, residual, grid),
            None => self.gemm.run(image, window, residual, grid),
        }
    }

    pub(super) fn grid<'a, E>(&self, out: &'a mut [E], pitch: usize, rows: usize, threads: usize) -> Grid<'a, E> {
        match self.few(rows) {
            Some(gemm) => gemm.grid(out, pitch, rows),
            None => self.gemm.grid(out, pitch, rows, threads),
        }
    }

    pub(super) fn columns(&self) -> usize {
        self.gemm.columns()
    }

    pub(super) fn bytes(&self) -> usize {
        self.gemm.bytes() + self.few.as_ref().map_or(0, |(_, gemm)| gemm.bytes())
    }

    pub(super) fn fill(&self) -> Fill {
        self.gemm.fill()
    }

    pub(super) fn kernel(&self) -> String {
        self.gemm.kernel()
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
