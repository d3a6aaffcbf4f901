//! Packed weights of either precision, and the images they are multiplied with.

use kinglet_kernels::f32_gemm::{Gemm, PairGemm, Residual, Weights};
use kinglet_kernels::{Activation, Aligned, Grid, LINE, Window};

use super::Lowering;
use crate::engine::Precision;
use crate::engine::pool::Team;

#[derive(Debug)]
pub(super) enum Dense {
    Floats(Gemm),
    Pairs(PairGemm),
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
        lowering.choose(operation, [taps, depth, columns], probe, widths, pack, |probe| {
            let (probe, channels, pixels) = (*probe, probe.pitch[2], probe.images * probe.size[0] * probe.size[1]);
            let (image, mut out) = (vec![0.5; pixels * channels], vec![0.0; probe.pixels() * columns]);
            let mut scratch = Aligned::default();
            move |dense: &Self| {
                if scratch.bytes() == 0 {
                    scratch = Aligned::zeroed(dense.scratch(pixels, channels));
                }
                let (image, window) = dense.image(&image, channels, &probe, scratch.elements_mut(), &mut Team::alone());
                dense.run(image, &window, None, &dense.grid(&mut out, columns, probe.pixels()));
            }
        })
    }

    /// Bytes of scratch for an image of so many pixels.
    pub(super) fn scratch(&self, pixels: usize, channels: usize) -> usize {
        match self {
            Self::Floats(_) => 0,
            Self::Pairs(gemm) => (pixels * gemm.rounded(channels) * size_of::<f32>()).next_multiple_of(LINE),
        }
    }

    /// The image and the window as `run` takes them.
    pub(super) fn image<'a>(
        &self,
        image: &'a [f32],
        channels: usize,
        window: &Window,
        scratch: &'a mut [u8],
        team: &mut Team,
    ) -> (&'a [f32], Window) {
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
            Self::Floats(_) => channels,
            Self::Pairs(gemm) => gemm.rounded(channels),
        }
    }

    pub(super) fn grid<'a>(&self, out: &'a mut [f32], pitch: usize, rows: usize) -> Grid<'a> {
        match self {
            Self::Floats(gemm) => gemm.grid(out, pitch, rows),
            Self::Pairs(gemm) => gemm.grid(out, pitch, rows),
        }
    }

    pub(super) fn run(&self, image: &[f32], window: &Window, residual: Option<Residual<'_>>, grid: &Grid<'_>) {
        match self {
            Self::Floats(gemm) => gemm.run(image, window, residual, grid),
            Self::Pairs(gemm) => gemm.run(image, window, residual, grid),
        }
    }

    pub(super) fn columns(&self) -> usize {
        match self {
            Self::Floats(gemm) => gemm.columns(),
            Self::Pairs(gemm) => gemm.columns(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Floats(gemm) => gemm.bytes(),
            Self::Pairs(gemm) => gemm.bytes(),
        }
    }

    pub(super) fn kernel(&self) -> String {
        match self {
            Self::Floats(gemm) => gemm.kernel(),
            Self::Pairs(gemm) => gemm.kernel(),
        }
    }
}
