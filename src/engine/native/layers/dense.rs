//! Packed weights of any precision, and the images they are multiplied with.

use std::ops::RangeInclusive;

use bytemuck::Pod;
use half::bf16;
use kinglet_kernels::f32_depthwise::Depthwise;
use kinglet_kernels::f32_gemm::{CodebookGemm, Gemm, IntegerGemm, PairGemm, Residual, Weights};
use kinglet_kernels::f32_winograd::Element;
use kinglet_kernels::{Activation, Aligned, Grid, LINE, Window};

use super::{First, Halves, Lowering, View};
use crate::engine::Precision;
use crate::engine::pool::Team;
use crate::tensor::DType;

#[derive(Debug)]
pub(super) enum Dense {
    Floats(Gemm),
    Pairs(PairGemm),
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
        match dense {
            Dense::Floats(gemm) => gemm.run(image, window, residual, grid),
            Dense::Pairs(gemm) => gemm.run(image, window, residual, grid),
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
        match dense {
            Dense::Pairs(gemm) => gemm.run_to_halves(image, window, residual, grid),
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

impl Dense {
    /// `probe` is a window like those that the product will run over.
    pub(super) fn pack(
        lowering: Lowering<'_>,
        weights: &Weights<'_>,
        bias: Option<&[f32]>,
        activation: Activation,
        probe: Option<&Window>,
    ) -> Self {
        let (level, exact) = (lowering.level, lowering.precision == Precision::Exact);
        let Weights { taps, depth, columns, .. } = *weights;
        let (operation, widths) =
            if exact { ("f32_gemm", Gemm::widths(level)) } else { ("bf16_gemm", PairGemm::widths(level)) };
        let pack = |vectors| {
            if exact {
                Self::Floats(Gemm::pack(level, weights, bias, activation, vectors))
            } else {
                Self::Pairs(PairGemm::pack(level, weights, bias, activation, vectors))
            }
        };
        Self::chosen(lowering, operation, [taps, depth, columns], probe, widths, pack)
    }

    /// Packed with panels of the width that runs fastest.
    pub(super) fn chosen(
        lowering: Lowering<'_>,
        operation: &str,
        size: [usize; 3],
        probe: Option<&Window>,
        widths: RangeInclusive<usize>,
        pack: impl Fn(Option<usize>) -> Self,
    ) -> Self {
        let [.., columns] = size;
        lowering.choose(operation, size, probe, widths, pack, |probe| {
            let (probe, channels, pixels) = (*probe, probe.pitch[2], probe.images * probe.size[0] * probe.size[1]);
            let (image, mut out) = (vec![0.5; pixels * channels], vec![0.0; probe.pixels() * columns]);
            let mut scratch = Aligned::default();
            move |dense: &Self| {
                if scratch.bytes() == 0 {
                    scratch = Aligned::zeroed(dense.scratch(DType::F32, pixels, channels));
                }
                let (image, window) =
                    dense.rounded(&image, channels, &probe, scratch.elements_mut(), &mut Team::alone());
                f32::run_dense(dense, image, &window, None, &dense.grid(&mut out, columns, probe.pixels()));
            }
        })
    }

    /// Bytes of scratch for an image of so many pixels that lie in memory as this type.
    pub(super) fn scratch(&self, dtype: DType, pixels: usize, channels: usize) -> usize {
        match self {
            Self::Pairs(gemm) if dtype != DType::Bf16 => {
                (pixels * gemm.rounded(channels) * size_of::<f32>()).next_multiple_of(LINE)
            }
            Self::Integers(gemm) => (pixels * gemm.rounded() * size_of::<f32>()).next_multiple_of(LINE),
            Self::Floats(_) | Self::Pairs(_) | Self::Numbers(_) => 0,
        }
    }

    /// What an image may lie in, and results, for pixels of so many channels.
    pub(super) fn halves(&self, channels: usize) -> Halves {
        match self {
            Self::Floats(_) | Self::Numbers(_) | Self::Integers(_) => Halves::NONE,
            // Behind the image comes a residual.
            Self::Pairs(gemm) => Halves {
                alike: 1,
                first: if channels.is_multiple_of(2) { First::Either } else { First::Floats },
                output: gemm.has_halves(),
            },
        }
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
        let Self::Pairs(gemm) = self else { return (image, *window) };
        let (each, pixels) = (gemm.rounded(channels), image.len() / channels.max(1));
        let rounded: &mut [f32] = &mut bytemuck::cast_slice_mut(scratch)[..pixels * each];
        {
            let grid = gemm.rounded_grid(rounded, channels);
            team.share(&|| gemm.round(image, channels, &grid));
        }
        let pitch = window.pitch.map(|pitch| pitch / channels.max(1) * each);
        (rounded, Window { pitch, ..*window })
    }

    /// Elements of an image that so many channels of a pixel take.
    pub(super) fn elements(&self, channels: usize) -> usize {
        match self {
            Self::Floats(_) | Self::Numbers(_) | Self::Integers(_) => channels,
            Self::Pairs(gemm) => gemm.rounded(channels),
        }
    }

    pub(super) fn grid<'a, E: Float>(&self, out: &'a mut [E], pitch: usize, rows: usize) -> Grid<'a, E> {
        match self {
            Self::Floats(gemm) => gemm.grid(out, pitch, rows),
            Self::Pairs(gemm) => gemm.grid(out, pitch, rows),
            Self::Numbers(gemm) => gemm.grid(out, pitch, rows),
            Self::Integers(gemm) => gemm.grid(out, pitch, rows),
        }
    }

    pub(super) fn columns(&self) -> usize {
        match self {
            Self::Floats(gemm) => gemm.columns(),
            Self::Pairs(gemm) => gemm.columns(),
            Self::Numbers(gemm) => gemm.columns(),
            Self::Integers(gemm) => gemm.columns(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Floats(gemm) => gemm.bytes(),
            Self::Pairs(gemm) => gemm.bytes(),
            Self::Numbers(gemm) => gemm.bytes(),
            Self::Integers(gemm) => gemm.bytes(),
        }
    }

    pub(super) fn kernel(&self) -> String {
        match self {
            Self::Floats(gemm) => gemm.kernel(),
            Self::Pairs(gemm) => gemm.kernel(),
            Self::Numbers(gemm) => gemm.kernel(),
            Self::Integers(gemm) => gemm.kernel(),
        }
    }
}
