//! Packed weights of bytes, dense or without their zeros, for any rows and for one. All forms make the same bits.

use kinglet_kernels::u8s8_gemm::{Finish, Gemm, Lines, Requantize, Residual, SparseGemm, SparseRow, Weights, Written};
use kinglet_kernels::{Aligned, Fill, Grid, LeftOut, Window};

use super::super::tuning::Probe;
use super::Lowering;
use super::sparse::{self, Sparse};
use crate::engine::pool::Team;

#[derive(Debug)]
pub(super) enum Bytes {
    Dense(Box<Gemm>),
    Sparse(Box<Sparse<SparseGemm, Gemm>>),
}

impl Bytes {
    /// `probe` has windows like those that the product will run over.
    pub(super) fn pack(
        lowering: Lowering<'_>,
        weights: &Weights<'_>,
        zero: u8,
        then: &Requantize<'_>,
        probe: Option<&Probe>,
    ) -> Self {
        let (level, finish) = (lowering.level, then.finish);
        let Weights { elements, taps, depth, columns } = *weights;
        let widths = Gemm::widths(level);
        let zeros = sparse::zeros(elements).filter(|_| SparseGemm::takes(depth));
        let dense = |vectors| Gemm::pack(level, weights, zero, then, vectors);
        let sparse = |block| {
            let gemm = SparseGemm::pack(level, weights, zero, then, block);
            let few = sparse::few(gemm.fill(), block, gemm.lanes())?;
            let few = probe.is_none_or(|probe| probe.pixels_min < few).then(|| (few, dense(None)));
            Some(Self::Sparse(Box::new(Sparse { gemm, few })))
        };
        let pack = |candidate: Option<usize>| match candidate {
            Some(candidate) if candidate > *widths.end() => sparse(SparseGemm::blocks()[candidate - widths.end() - 1]),
            vectors => Some(Self::Dense(Box::new(dense(vectors)))),
        };
        let added = then.plus.is_some();
        let run = |window: &Window| timed(*window, [depth, columns], finish, added);
        let size = [taps, depth, columns];
        let Some(zeros) = zeros else {
            let chosen = lowering.choose("u8s8_gemm", size, probe.map(|probe| &probe.window), &widths, &pack, run);
            return chosen.unwrap_or_else(|| Self::Dense(Box::new(dense(None))));
        };
        let operation = format!("u8s8_gemm {zeros} % zeros");
        let candidates = 1..=widths.end() + SparseGemm::blocks().len();
        let chosen = lowering.choose(&operation, size, probe.map(|probe| &probe.longer), &candidates, &pack, run);
        let by_rule = || sparse::by_rule(zeros, SparseGemm::blocks(), sparse);
        chosen.or_else(by_rule).unwrap_or_else(|| Self::Dense(Box::new(dense(None))))
    }

    pub(super) fn run<T: Written>(
        &self,
        image: &[u8],
        window: &Window,
        residual: Option<Residual<'_, u8>>,
        grid: &Grid<'_, T>,
    ) {
        match self {
            Self::Dense(gemm) => gemm.run(image, window, residual, grid),
            Self::Sparse(sparse) => match sparse.few(window.pixels()) {
                Some(gemm) => gemm.run(image, window, residual, grid),
                None => sparse.gemm.run(image, window, residual, grid),
            },
        }
    }

    /// For so many threads.
    pub(super) fn grid<'a, T>(&self, out: &'a mut [T], pitch: usize, rows: usize, threads: usize) -> Grid<'a, T> {
        match self {
            Self::Dense(gemm) => gemm.grid(out, pitch, rows),
            Self::Sparse(sparse) => match sparse.few(rows) {
                Some(gemm) => gemm.grid(out, pitch, rows),
                None => sparse.gemm.grid(out, pitch, rows, threads),
            },
        }
    }

    pub(super) fn columns(&self) -> usize {
        match self {
            Self::Dense(gemm) => gemm.columns(),
            Self::Sparse(sparse) => sparse.gemm.columns(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Dense(gemm) => gemm.bytes(),
            Self::Sparse(sparse) => sparse.gemm.bytes() + sparse.few.as_ref().map_or(0, |(_, gemm)| gemm.bytes()),
        }
    }

    pub(super) fn fill(&self) -> Option<Fill> {
        match self {
            Self::Dense(_) => None,
            Self::Sparse(sparse) => Some(sparse.gemm.fill()),
        }
    }

    pub(super) fn kernel(&self) -> String {
        match self {
            Self::Dense(gemm) => gemm.kernel(),
            Self::Sparse(sparse) => sparse.gemm.kernel(),
        }
    }
}

/// What one row is multiplied with, where that is faster than what any rows are.
#[derive(Debug)]
pub(super) enum OneRow {
    Sparse(SparseRow),
    /// Where many elements of the row are zero.
    Lines(Lines),
}

impl OneRow {
    /// Beside what any rows are multiplied with, if there is anything to win.
    pub(super) fn pack(
        lowering: Lowering<'_>,
        weights: &Weights<'_>,
        zero: u8,
        then: &Requantize<'_>,
        any: &Bytes,
    ) -> Option<Self> {
        let (level, Weights { depth, columns, .. }) = (lowering.level, *weights);
        let sparse = |left_out| {
            SparseRow::pack(level, weights, zero, then, left_out).filter(|packed| packed.share() <= SHARE_MAX)
        };
        let chosen = sparse::zeros(weights.elements).and_then(|zeros| {
            let pack = |candidate: Option<usize>| match candidate {
                Some(2) => sparse(LeftOut::Blocks).map(Some),
                Some(3) => sparse(LeftOut::Anywhere).map(Some),
                _ => Some(None),
            };
            let (operation, window) = (format!("u8s8_row {zeros} % zeros"), Window::rows(1, depth));
            let run = |window: &Window| {
                let mut run_any = timed(*window, [depth, columns], then.finish, false);
                let (row, mut out) = (vec![3u8; depth], Aligned::zeroed(columns * size_of::<f32>()));
                move |sparse: &Option<SparseRow>| match (sparse, then.finish) {
                    (None, _) => run_any(any),
                    (Some(sparse), Finish::Floats) => {
                        sparse.run(&row, &sparse.grid(&mut out.elements_mut::<f32>()[..columns]));
                    }
                    (Some(sparse), Finish::Bytes { .. }) => {
                        sparse.run(&row, &sparse.grid(&mut out.elements_mut::<u8>()[..columns]));
                    }
                }
            };
            let by_rule = || {
                let packed = [LeftOut::Blocks, LeftOut::Anywhere].into_iter().filter_map(sparse);
                packed.min_by(|a, b| a.share().total_cmp(&b.share()))
            };
            let chosen = lowering.choose(&operation, [1, depth, columns], Some(&window), &(1..=3), &pack, run);
            chosen.unwrap_or_else(by_rule)
        });
        // Bytes whose zero point is zero are those of ReLU, mostly.
        let has_zeros = zero == 0 && depth.min(columns) >= LINES_MIN;
        let lines = || has_zeros.then(|| Self::Lines(Lines::pack(level, weights, zero, then)));
        chosen.map(Self::Sparse).or_else(lines)
    }

    /// Whether the row was one for this.
    pub(super) fn run<T: Written>(&self, row: &[u8], scratch: &mut [u8], out: &mut [T], team: &mut Team) -> bool {
        match self {
            Self::Sparse(sparse) => {
                let grid = sparse.grid(out);
                team.share(&|| sparse.run(row, &grid));
                true
            }
            Self::Lines(lines) => {
                let Some(nonzero) = lines.nonzero(row, scratch) else { return false };
                let grid = lines.grid(out);
                team.share(&|| lines.run(&nonzero, &grid));
                true
            }
        }
    }

    /// Bytes of scratch.
    pub(super) fn scratch(&self) -> usize {
        match self {
            Self::Sparse(_) => 0,
            Self::Lines(lines) => lines.room_bytes(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Sparse(sparse) => sparse.bytes(),
            Self::Lines(lines) => lines.bytes(),
        }
    }

    pub(super) fn kernel(&self) -> String {
        match self {
            Self::Sparse(sparse) => sparse.kernel(),
            Self::Lines(lines) => lines.kernel(),
        }
    }
}

/// Runs products of `[depth, columns]` over a made-up image of such a window.
fn timed(probe: Window, [depth, columns]: [usize; 2], finish: Finish, added: bool) -> impl FnMut(&Bytes) {
    let pixels = probe.pixels();
    let (image, mut out) = (vec![3u8; probe.reach(depth)], Aligned::zeroed(pixels * columns * size_of::<f32>()));
    let other = added.then(|| vec![3u8; pixels * columns]);
    move |bytes: &Bytes| match finish {
        Finish::Floats => {
            let grid = bytes.grid(out.elements_mut::<f32>(), columns, pixels, 1);
            bytes.run(&image, &probe, None, &grid);
        }
        Finish::Bytes { .. } => {
            let residual = other.as_deref().map(|elements| Residual { elements, pitch: columns });
            bytes.run(&image, &probe, residual, &bytes.grid(out.elements_mut::<u8>(), columns, pixels, 1));
        }
    }
}

/// With more bytes beside those of all weights a row without zeros was never faster.
const SHARE_MAX: f32 = 0.6;

/// Smaller weights are read sooner than it is found which of them a row needs.
const LINES_MIN: usize = 64;
