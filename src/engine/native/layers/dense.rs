//! Packed weights of any precision, and the images they are multiplied with.

use std::ops::RangeInclusive;

use bytemuck::Pod;
use half::bf16;
use kinglet_kernels::f32_depthwise::Depthwise;
use kinglet_kernels::f32_gemm::{CodebookGemm, Gemm, IntegerGemm, PairGemm, Residual, Rounding, SparseGemm, Weights};
use kinglet_kernels::f32_winograd::Element;
use kinglet_kernels::{Activation, Aligned, Fill, Grid, LINE, Window};

use super::super::tuning::Probe;
use super::sparse::{self, Sparse};
use super::{First, Halves, Lowering, View};
use crate::engine::Precision;
use crate::engine::pool::Team;
use crate::tensor::DType;

#[derive(Debug)]
pub(super) enum Dense {
    Floats(Gemm),
    Pairs(PairGemm),
    Sparse(Box<Sparse>),
    /// Weights of few bits that mean any numbers.
    Numbers(CodebookGemm),
    /// Weights of few bits that mean integers, of rows alone.
    Integers(IntegerGemm),
}

/// What results lie in memory as, and images of other layers than products.
pub(super) trait Float: Pod + Send + Sync + Element {
    fn run_dense(
        dense: &Dense,
        image: &[f32],
        window: &Window,
        residual: Option<Residual<'_, Self>>,
        grid: &Grid<'_, Self>,
    );

    fn depthwise_grid<'a>(depthwise: &Depthwise, out: &'a mut [Self], pitch: usize, window: &Window) -> Grid<'a, Self>;

    fn run_depthwise(depthwise: &Depthwise, image: &[Self], window: &Window, grid: &Grid<'_, Self>);
}

impl Float for f32 {
    fn run_dense(dense: &Dense, image: &[Self], window: &Window, residual: Option<Residual<'_>>, grid: &Grid<'_>) {
        match dense.over(window.pixels()) {
            Dense::Floats(gemm) => gemm.run(image, window, residual, grid),
            Dense::Pairs(gemm) => gemm.run(image, window, residual, grid),
            Dense::Sparse(sparse) => sparse.gemm.run(image, window, residual, grid),
            Dense::Numbers(gemm) => gemm.run(image, window, residual, grid),
            Dense::Integers(gemm) => gemm.run(image, residual, grid),
        }
    }

    fn depthwise_grid<'a>(depthwise: &Depthwise, out: &'a mut [Self], pitch: usize, window: &Window) -> Grid<'a> {
        depthwise.grid(out, pitch, window)
    }

    fn run_depthwise(depthwise: &Depthwise, image: &[Self], window: &Window, grid: &Grid<'_>) {
        depthwise.run(image, window, grid);
    }
}

impl Float for bf16 {
    fn run_dense(
        dense: &Dense,
        image: &[f32],
        window: &Window,
        residual: Option<Residual<'_, Self>>,
        grid: &Grid<'_, Self>,
    ) {
        match dense.over(window.pixels()) {
            Dense::Pairs(gemm) => gemm.run_to_halves(image, window, residual, grid),
            Dense::Sparse(sparse) => sparse.gemm.run_to_halves(image, window, residual, grid),
            _ => unreachable!("products of floats say that they make floats"),
        }
    }

    fn depthwise_grid<'a>(depthwise: &Depthwise, out: &'a mut [Self], pitch: usize, window: &Window) -> Grid<'a, Self> {
        depthwise.grid_of_halves(out, pitch, window)
    }

    fn run_depthwise(depthwise: &Depthwise, image: &[Self], window: &Window, grid: &Grid<'_, Self>) {
        depthwise.run_halves(image, window, grid);
    }
}

/// Runs products over a made-up image of such a window.
fn timed(probe: Window, columns: usize) -> impl FnMut(&Dense) {
    let (channels, pixels) = (probe.pitch[2], probe.images * probe.size[0] * probe.size[1]);
    let (image, mut out) = (vec![0.5; pixels * channels], vec![0.0; probe.pixels() * columns]);
    let mut scratch = Aligned::default();
    move |dense: &Dense| {
        if scratch.bytes() == 0 {
            scratch = Aligned::zeroed(dense.scratch(DType::F32, pixels, channels));
        }
        let (image, window) = dense.rounded(&image, channels, &probe, scratch.elements_mut(), &mut Team::alone());
        f32::run_dense(dense, image, &window, None, &dense.grid(&mut out, columns, probe.pixels(), 1));
    }
}

impl Dense {
    /// `probe` has windows like those that the product will run over.
    pub(super) fn pack(
        lowering: Lowering<'_>,
        weights: &Weights<'_>,
        bias: Option<&[f32]>,
        activation: Activation,
        probe: Option<&Probe>,
    ) -> Self {
        let (level, exact) = (lowering.level, lowering.precision == Precision::Exact);
        let [taps, depth, columns] = weights.size();
        let (operation, widths) =
            if exact { ("f32_gemm", Gemm::widths(level)) } else { ("bf16_gemm", PairGemm::widths(level)) };
        let zeros = sparse::zeros(weights.elements());
        let pixels_min = probe.map_or(1, |probe| probe.pixels_min);
        let dense = |is_exact, vectors| match is_exact {
            true => Self::Floats(Gemm::pack(level, weights, bias, activation, vectors)),
            false => Self::Pairs(PairGemm::pack(level, weights, bias, activation, vectors)),
        };
        let sparse = |is_exact: bool, block| {
            let pack = if is_exact { SparseGemm::pack } else { SparseGemm::pack_in_pairs };
            let gemm = pack(level, weights, bias, activation, block);
            let few = sparse::few(gemm.fill(), block, gemm.lanes())?;
            let few = (pixels_min < few).then(|| (few, dense(is_exact, None)));
            Some(Self::Sparse(Box::new(Sparse { gemm, few })))
        };
        let size = [taps, depth, columns];
        let Some(zeros) = zeros else {
            return Self::chosen(lowering, operation, size, probe, &widths, |vectors| dense(exact, vectors));
        };
        // Behind dense panels come blocks, of floats and then, where those may be, of rounded ones.
        let blocks = SparseGemm::blocks();
        let pack = |candidate: Option<usize>| match candidate {
            Some(candidate) if candidate > *widths.end() => {
                let at = candidate - widths.end() - 1;
                sparse(at < blocks.len(), blocks[at % blocks.len()])
            }
            vectors => Some(dense(exact, vectors)),
        };
        let operation = format!("{operation} {zeros} % zeros");
        let kinds = if exact { 1 } else { 2 };
        let candidates = 1..=widths.end() + kinds * blocks.len();
        let window = probe.map(|probe| &probe.longer);
        let chosen = lowering.choose(&operation, size, window, &candidates, &pack, |window| timed(*window, columns));
        let by_rule = || sparse::by_rule(zeros, blocks, |block| sparse(true, block));
        chosen.or_else(by_rule).unwrap_or_else(|| dense(exact, None))
    }

    /// Packed with panels of the width that runs fastest.
    pub(super) fn chosen(
        lowering: Lowering<'_>,
        operation: &str,
        size: [usize; 3],
        probe: Option<&Probe>,
        widths: &RangeInclusive<usize>,
        pack: impl Fn(Option<usize>) -> Self,
    ) -> Self {
        let (window, tried) = (probe.map(|probe| &probe.window), |vectors| Some(pack(vectors)));
        let chosen = lowering.choose(operation, size, window, widths, &tried, |window| timed(*window, size[2]));
        chosen.unwrap_or_else(|| pack(None))
    }

    /// What makes outputs of so many pixels.
    fn over(&self, pixels: usize) -> &Self {
        match self {
            Self::Sparse(sparse) => sparse.few(pixels).unwrap_or(self),
            _ => self,
        }
    }

    /// How images are rounded for it, where they are.
    pub(super) fn rounding(&self) -> Option<Rounding> {
        match self {
            Self::Pairs(gemm) => Some(gemm.rounding()),
            Self::Sparse(sparse) => sparse.gemm.rounding(),
            Self::Floats(_) | Self::Numbers(_) | Self::Integers(_) => None,
        }
    }

    /// Bytes of scratch for an image of so many pixels that lie in memory as this type.
    pub(super) fn scratch(&self, dtype: DType, pixels: usize, channels: usize) -> usize {
        let each = match (self, self.rounding()) {
            (Self::Integers(gemm), _) => gemm.rounded(),
            (_, Some(rounding)) if dtype != DType::Bf16 => rounding.elements(channels),
            _ => return 0,
        };
        (pixels * each * size_of::<f32>()).next_multiple_of(LINE)
    }

    /// What an image may lie in, and results, for pixels of so many channels.
    pub(super) fn halves(&self, channels: usize) -> Halves {
        let output = match self {
            Self::Pairs(gemm) => gemm.has_halves(),
            Self::Sparse(sparse) => sparse.gemm.has_halves(),
            Self::Floats(_) | Self::Numbers(_) | Self::Integers(_) => false,
        };
        let first = if channels.is_multiple_of(2) { First::Either } else { First::Floats };
        // Behind the image comes a residual.
        self.rounding().map_or(Halves::NONE, |_| Halves { alike: 1, first, output })
    }

    /// The image and the window as `run` takes them.
    pub(super) fn image<'a>(
        &self,
        image: View<'a>,
        window: &Window,
        scratch: &'a mut [u8],
        team: &mut Team,
    ) -> (&'a [f32], Window) {
        if image.fact.dtype == DType::Bf16 {
            return (
                bytemuck::cast_slice(image.bytes),
                Window { pitch: window.pitch.map(|pitch| pitch / 2), ..*window },
            );
        }
        let channels = image.shape().last().copied().unwrap_or(0);
        self.rounded(bytemuck::cast_slice(image.bytes), channels, window, scratch, team)
    }

    /// As `image`, of floats.
    fn rounded<'a>(
        &self,
        image: &'a [f32],
        channels: usize,
        window: &Window,
        scratch: &'a mut [u8],
        team: &mut Team,
    ) -> (&'a [f32], Window) {
        if let Self::Integers(gemm) = self {
            let rounded: &mut [f32] = &mut bytemuck::cast_slice_mut(scratch)[..window.pixels() * gemm.rounded()];
            {
                let grid = gemm.rounded_grid(rounded);
                team.share(&|| gemm.round(image, &grid));
            }
            return (rounded, *window);
        }
        let Some(rounding) = self.rounding() else { return (image, *window) };
        let (each, pixels) = (rounding.elements(channels), image.len() / channels.max(1));
        let rounded: &mut [f32] = &mut bytemuck::cast_slice_mut(scratch)[..pixels * each];
        {
            let grid = rounding.grid(rounded, channels);
            team.share(&|| rounding.run(image, channels, &grid));
        }
        let pitch = window.pitch.map(|pitch| pitch / channels.max(1) * each);
        (rounded, Window { pitch, ..*window })
    }

    /// Elements of an image that so many channels of a pixel take.
    pub(super) fn elements(&self, channels: usize) -> usize {
        self.rounding().map_or(channels, |rounding| rounding.elements(channels))
    }

    /// For so many threads.
    pub(super) fn grid<'a, E: Float>(
        &self,
        out: &'a mut [E],
        pitch: usize,
        rows: usize,
        threads: usize,
    ) -> Grid<'a, E> {
        match self.over(rows) {
            Self::Floats(gemm) => gemm.grid(out, pitch, rows),
            Self::Pairs(gemm) => gemm.grid(out, pitch, rows),
            Self::Sparse(sparse) => sparse.gemm.grid(out, pitch, rows, threads),
            Self::Numbers(gemm) => gemm.grid(out, pitch, rows),
            Self::Integers(gemm) => gemm.grid(out, pitch, rows),
        }
    }

    pub(super) fn columns(&self) -> usize {
        match self {
            Self::Floats(gemm) => gemm.columns(),
            Self::Pairs(gemm) => gemm.columns(),
            Self::Sparse(sparse) => sparse.gemm.columns(),
            Self::Numbers(gemm) => gemm.columns(),
            Self::Integers(gemm) => gemm.columns(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Floats(gemm) => gemm.bytes(),
            Self::Pairs(gemm) => gemm.bytes(),
            Self::Sparse(sparse) => sparse.gemm.bytes() + sparse.few.as_ref().map_or(0, |(_, dense)| dense.bytes()),
            Self::Numbers(gemm) => gemm.bytes(),
            Self::Integers(gemm) => gemm.bytes(),
        }
    }

    pub(super) fn fill(&self) -> Option<Fill> {
        match self {
            Self::Sparse(sparse) => Some(sparse.gemm.fill()),
            _ => None,
        }
    }

    pub(super) fn kernel(&self) -> String {
        match self {
            Self::Floats(gemm) => gemm.kernel(),
            Self::Pairs(gemm) => gemm.kernel(),
            Self::Sparse(sparse) => sparse.gemm.kernel(),
            Self::Numbers(gemm) => gemm.kernel(),
            Self::Integers(gemm) => gemm.kernel(),
        }
    }
}
