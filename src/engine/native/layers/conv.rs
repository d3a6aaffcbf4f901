//! Convolutions: depthwise, grouped, and products over windows of a channels-last image.

use half::bf16;
use kinglet_kernels::f32_depthwise::{Depthwise, Filters};
use kinglet_kernels::f32_functions::Function;
use kinglet_kernels::f32_gemm::{Gemm, PairGemm, Residual, Weights};
use kinglet_kernels::f32_winograd::Winograd;
use kinglet_kernels::{Aligned, Fill, Grid, LINE, Level, Window};

use super::super::tuning::Probe;
use super::dense::{Dense, Float};
use super::low_bit::LowBit;
use super::merged::{self, comes_in_pairs, merges};
use super::sparse;
use super::{
    AllLines, ByLines, First, Halves, Io, Layer, LowerError, Lowered, Lowering, View, ViewMut, constant, with_residual,
};
use crate::engine::Precision;
use crate::engine::graph::infer::image;
use crate::engine::graph::op::{Conv, Spatial};
use crate::engine::graph::{Coded, Fact, Graph, Node};
use crate::engine::pool::Team;
use crate::tensor::{DType, Shape};

/// The layer of a convolution.
pub(super) fn lower(
    conv: &Conv,
    graph: &Graph,
    node: &Node,
    sample: Option<&Fact>,
    lowering: Lowering<'_>,
) -> Result<Lowered, LowerError> {
    let coded = graph.coded(node.inputs[1]);
    if conv.operands().any(|at| graph.constant(node.inputs[at]).is_none() && (at > 1 || coded.is_none())) {
        return Ok(Lowered {
            layer: Box::new(Computed { conv: conv.clone(), level: lowering.level }),
            operands: node.inputs.clone(),
        });
    }
    let (source, shape) = constant(graph, node, 1, "the weights")?;
    let bias = if conv.bias { Some(constant(graph, node, 2, "the bias")?.0) } else { None };
    let scale = if conv.scale { Some(constant(graph, node, conv.scale_at(), "the scale")?.0) } else { None };
    let filters = Given { source: &source, coded, shape: &shape, scale: scale.as_deref(), bias: bias.as_deref() };
    let layer = Convolution::pack(conv, &filters, sample, lowering)?;
    Ok(Lowered { layer: Box::new(AllLines(layer)), operands: with_residual(node, conv.residual) })
}

/// What a convolution is packed from.
struct Given<'a> {
    source: &'a [f32],
    /// The same where they are few bits each.
    coded: Option<&'a Coded>,
    shape: &'a Shape,
    /// What the weights of each channel are multiplied by.
    scale: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
}

impl Convolution {
    /// Without a sample of the output nothing is chosen that needs scratch.
    fn pack(conv: &Conv, given: &Given<'_>, sample: Option<&Fact>, lowering: Lowering<'_>) -> Result<Self, LowerError> {
        let level = lowering.level;
        let &Given { source, coded, shape, scale, bias } = given;
        let &[out, depth, ..] = &shape[..] else { return Err(LowerError::Weights(shape.clone())) };
        let spatial = conv.window.clone();
        let taps = spatial.kernel[0] * spatial.kernel[1];
        let is_one_each = [scale, bias].into_iter().flatten().all(|each| each.len() == out);
        if source.len() != out * depth * taps || !is_one_each {
            return Err(LowerError::Weights(shape.clone()));
        }
        let filters = || Weights::of_filters(source, [taps, depth, out]).scaled(scale);
        let (within, function) = conv.activation.split();
        let mut after = None;
        let runs = if conv.is_depthwise(shape) && taps <= Depthwise::TAPS_MAX {
            let weights = filters().taps_first();
            let filters = Filters { weights: &weights, taps, channels: out, bias };
            after = function;
            Runs::Depthwise(Depthwise::pack(level, &filters, within))
        } else if conv.groups == 1 && merges(&spatial, depth, MERGED_DEPTH_MAX) && sample.is_some() {
            let elements = filters().taps_first();
            let weights = Weights::new(&elements, [spatial.kernel[0], spatial.kernel[1] * depth, out]);
            let in_pairs = lowering.precision == Precision::Bf16 && comes_in_pairs(level, &spatial, shape[1]);
            Runs::Merged(match in_pairs {
                true => Dense::Pairs(PairGemm::pack(level, &weights, bias, conv.activation, None)),
                false => Dense::Floats(Gemm::pack(level, &weights, bias, conv.activation, None)),
            })
        } else if conv.groups == 1
            && !conv.exact
            && sample.is_some_and(|sample| transforms(&spatial, depth, sample, lowering))
        {
            return Ok(Self::transformed(conv, given, [taps, depth, out], sample, lowering));
        } else if let Some(low_bit) = coded.filter(|_| conv.groups == 1 && scale.is_none()).and_then(LowBit::of_filters)
        {
            let probe = probe(&spatial, sample, depth, taps * depth * out);
            Runs::Groups(vec![low_bit.pack(lowering, bias, conv.activation, probe.as_ref())])
        } else {
            let columns = out / conv.groups;
            // Rounded images have pairs of channels, which lie in one group.
            let is_exact = sample.is_none() || (conv.groups > 1 && !depth.is_multiple_of(2));
            let lowering = if is_exact { Lowering::plain(level) } else { lowering };
            let probe = probe(&spatial, sample, conv.groups * depth, taps * depth * columns);
            let group = |lowering, group: usize| {
                let range = group * columns..(group + 1) * columns;
                let source = &source[range.start * depth * taps..range.end * depth * taps];
                let scale = scale.map(|scale| &scale[range.clone()]);
                let weights = Weights::of_filters(source, [taps, depth, columns]).scaled(scale);
                let bias = bias.map(|bias| &bias[range]);
                Dense::pack(lowering, &weights, bias, conv.activation, probe.as_ref())
            };
            let mut groups: Vec<_> = (0..conv.groups).map(|at| group(lowering, at)).collect();
            // All meet the same image: where some were chosen for a rounded one and others not, none is.
            if groups.iter().any(|other| other.rounding() != groups[0].rounding()) {
                let exact = Lowering { precision: Precision::Exact, ..lowering };
                groups = (0..conv.groups).map(|at| group(exact, at)).collect();
            }
            Runs::Groups(groups)
        };
        Ok(Self { spatial, runs, after, level })
    }

    /// By transformed tiles, or as a product without zeros where there are enough of them.
    fn transformed(
        conv: &Conv,
        given: &Given<'_>,
        size: [usize; 3],
        sample: Option<&Fact>,
        lowering: Lowering<'_>,
    ) -> Self {
        let ([taps, depth, columns], level) = (size, lowering.level);
        let &Given { source, scale, bias, .. } = given;
        let weights = Weights::of_filters(source, size).scaled(scale);
        let (within, function) = conv.activation.split();
        let of = |runs, after| Self { spatial: conv.window.clone(), runs, after, level };
        let tiles = || of(Runs::Winograd(Winograd::pack(level, &weights, bias, within)), function);
        let Some(zeros) = sparse::zeros(source) else { return tiles() };
        let probe = probe(&conv.window, sample, depth, taps * depth * columns);
        // Packed before the choice between both: it may be chosen itself.
        let product = Dense::pack(lowering, &weights, bias, conv.activation, probe.as_ref());
        let product = of(Runs::Groups(vec![product]), None);
        let operation = format!("f32_winograd {zeros} % zeros");
        let window = probe.as_ref().map(|probe| &probe.longer);
        let chosen = lowering.choose(&operation, size, window, &(1..=2), &|candidate| candidate, |window| {
            let mut run = timed(*window, depth, columns);
            let (tiles, product) = (tiles(), &product);
            move |candidate: &usize| if *candidate == 1 { run(&tiles) } else { run(product) }
        });
        let is_product = chosen.map_or(zeros >= sparse::FASTER_THAN_TRANSFORMED, |chosen| chosen == 2);
        if is_product { product } else { tiles() }
    }
}

/// Runs convolutions over a made-up image of such a window.
fn timed(window: Window, depth: usize, columns: usize) -> impl FnMut(&Convolution) {
    let fact =
        |size: [usize; 2], channels| Fact::new(DType::F32, [1, size[0], size[1], channels].into_iter().collect());
    let (x, made) = (fact(window.size, depth), fact(window.out, columns));
    let [taken, given] = [&x, &made].map(|fact| fact.bytes().unwrap_or(0));
    let (image, mut out, mut scratch) = (Aligned::zeroed(taken), Aligned::zeroed(given), Aligned::default());
    move |conv: &Convolution| {
        let needed = conv.scratch_over(&window, &x, 1);
        if scratch.bytes() < needed {
            scratch = Aligned::zeroed(needed);
        }
        // Lines are whole: what is cut into images would find a part of one behind them.
        let operands = [View { fact: &x, bytes: &image.elements()[..taken] }].into_iter().collect();
        let output = ViewMut { fact: &made, bytes: &mut out.elements_mut()[..given] };
        conv.run_over(&window, &mut Io { operands, output, scratch: scratch.elements_mut() }, &mut Team::alone());
    }
}

/// A convolution whose weights are packed when they are there.
#[derive(Debug)]
struct Computed {
    conv: Conv,
    level: Level,
}

impl Layer for Computed {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let [x, weights] = [io.operands[0], io.operands[1]];
        let bias = io.operands.get(2).filter(|_| self.conv.bias).map(View::elements::<f32>);
        let given = Given { source: weights.elements(), coded: None, shape: weights.shape(), scale: None, bias };
        // Inference has compared the extents.
        let Ok(packed) = Convolution::pack(&self.conv, &given, None, Lowering::plain(self.level)) else { return };
        let residual = io.operands.last().copied().filter(|_| self.conv.residual);
        let operands = [Some(x), residual].into_iter().flatten().collect();
        let output = ViewMut { fact: io.output.fact, bytes: io.output.bytes };
        AllLines(packed).run(&mut Io { operands, output, scratch: io.scratch }, team);
    }

    fn kernel(&self, _made: DType) -> String {
        format!("f32_gemm_packed__{}", self.level)
    }
}

#[derive(Debug)]
struct Convolution {
    spatial: Spatial,
    runs: Runs,
    /// What the kernel does not apply itself.
    after: Option<Function>,
    level: Level,
}

#[derive(Debug)]
enum Runs {
    Depthwise(Depthwise),
    /// Few channels: a line of the kernel is one tap, because its elements lie beside each other in the image. Lines are
    /// copied between zeros first.
    Merged(Dense),
    Winograd(Winograd),
    Groups(Vec<Dense>),
}

impl ByLines for Convolution {
    fn window(&self, x: &Fact) -> Option<Window> {
        window(&self.spatial, false, x)
    }

    fn run_over(&self, window: &Window, io: &mut Io<'_>, team: &mut Team) {
        match io.output.fact.dtype {
            DType::Bf16 => self.run_to::<bf16>(window, io, team),
            _ => self.run_to::<f32>(window, io, team),
        }
        if let Some(function) = self.after {
            let grid = Function::grid(io.output.elements());
            team.share(&|| function.over(self.level, &grid));
        }
    }

    fn halves(&self, x: &Fact) -> Halves {
        let channels = x.shape.last().copied().unwrap_or(0);
        match &self.runs {
            _ if self.after.is_some() => Halves::NONE,
            Runs::Depthwise(_) | Runs::Winograd(_) => Halves { alike: 1, ..Halves::ALIKE },
            // Lines are rounded while they are copied.
            Runs::Merged(gemm) => Halves { first: First::Floats, ..gemm.halves(channels) },
            Runs::Groups(groups) => {
                groups.first().map_or(Halves::NONE, |first| first.halves(channels / groups.len().max(1)))
            }
        }
    }

    fn scratch_over(&self, window: &Window, x: &Fact, threads: usize) -> usize {
        match &self.runs {
            Runs::Merged(gemm) => merged::scratch(gemm, &self.spatial, window, x.shape.last().copied().unwrap_or(0)),
            // One thread alone has the largest tasks.
            Runs::Winograd(winograd) => {
                threads * winograd.scratch(window, winograd.tasks(window, 1)) * size_of::<f32>() + LINE
            }
            Runs::Groups(groups) => {
                let channels = x.shape.last().copied().unwrap_or(0);
                let pixels = window.images * window.size[0] * window.size[1];
                groups.first().map_or(0, |first| first.scratch(x.dtype, pixels, channels))
            }
            Runs::Depthwise(_) => 0,
        }
    }

    fn comes_apart(&self) -> bool {
        // Transformed tiles lie over lines of their own.
        !matches!(self.runs, Runs::Winograd(_))
    }

    fn bytes(&self) -> usize {
        match &self.runs {
            Runs::Depthwise(depthwise) => depthwise.bytes(),
            Runs::Merged(gemm) => gemm.bytes(),
            Runs::Winograd(winograd) => winograd.bytes(),
            Runs::Groups(groups) => groups.iter().map(Dense::bytes).sum(),
        }
    }

    fn fill(&self) -> Option<Fill> {
        match &self.runs {
            Runs::Groups(groups) => groups.iter().filter_map(Dense::fill).reduce(Fill::with),
            _ => None,
        }
    }

    fn kernel(&self, _made: DType) -> String {
        match &self.runs {
            Runs::Depthwise(depthwise) => depthwise.kernel(),
            Runs::Merged(gemm) => gemm.kernel(),
            Runs::Winograd(winograd) => winograd.kernel(),
            Runs::Groups(groups) => groups.first().map(Dense::kernel).unwrap_or_default(),
        }
    }
}

impl Convolution {
    fn run_to<E: Float>(&self, window: &Window, io: &mut Io<'_>, team: &mut Team) {
        let x = io.operands[0];
        let channels = x.shape().last().copied().unwrap_or(0);
        let residual = io.operands.get(1).map(View::elements::<E>);
        let out = io.output.elements::<E>();
        match &self.runs {
            Runs::Depthwise(depthwise) => {
                let grid = E::depthwise_grid(depthwise, out, channels, window);
                team.share(&|| E::run_depthwise(depthwise, x.elements(), window, &grid));
            }
            Runs::Merged(gemm) => {
                let (image, window) = merged::image(gemm, &self.spatial, x, window, io.scratch, team);
                let pitch = gemm.columns();
                let residual = residual.map(|elements| Residual { elements, pitch });
                let grid = gemm.grid(out, pitch, window.pixels(), team.size());
                team.share(&|| E::run_dense(gemm, image, &window, residual, &grid));
            }
            Runs::Winograd(winograd) => {
                let pitch = winograd.columns();
                let residual = residual.map(|elements| Residual { elements, pitch });
                let tasks = winograd.tasks(window, team.size());
                let images = Winograd::images_of_grid(window, tasks);
                let each = winograd.scratch(window, tasks).max(1);
                let rooms: &mut [f32] = bytemuck::cast_slice_mut(io.scratch);
                let pixels = (images * window.out[0] * window.out[1] * pitch).max(1);
                for (at, out) in out.chunks_mut(pixels).enumerate() {
                    let grid = winograd.grid(out, window, images, tasks);
                    // A room of scratch for each thread; one that finds none leaves its tiles to the others.
                    let threads = team.size().min(rooms.len() / each);
                    let rooms = Grid::new(rooms, each, [threads, each], [1, each]);
                    team.share(&|| {
                        if let Some(mut room) = rooms.take() {
                            winograd.run(x.elements(), window, residual, at * images, &grid, room.row(0));
                        }
                    });
                }
            }
            Runs::Groups(groups) => {
                let pitch = groups.iter().map(Dense::columns).sum();
                let depth = channels / groups.len().max(1);
                let Some(first) = groups.first() else { return };
                let (image, window) = first.image(x, window, io.scratch, team);
                for (at, gemm) in groups.iter().enumerate() {
                    let columns = at * gemm.columns();
                    let image = image.get(at * gemm.elements(depth)..).unwrap_or_default();
                    let residual =
                        residual.map(|all| Residual { elements: all.get(columns..).unwrap_or_default(), pitch });
                    let out = out.get_mut(columns..).unwrap_or_default();
                    let grid = gemm.grid(out, pitch, window.pixels(), team.size());
                    team.share(&|| E::run_dense(gemm, image, &window, residual, &grid));
                }
            }
        }
    }
}

/// Windows like those that a convolution will run over.
pub(super) fn probe(spatial: &Spatial, sample: Option<&Fact>, channels: usize, macs: usize) -> Option<Probe> {
    let (_, out) = sample?.shape.split_last()?;
    let &[.., lines, columns] = out else { return None };
    let lines = if spatial.axes == 2 { lines } else { 1 };
    Some(Probe::image(spatial, [lines, columns], channels, macs))
}

/// How a layer's windows lie over an image. Inference has checked that they fit.
pub(super) fn window(spatial: &Spatial, ceil: bool, x: &Fact) -> Option<Window> {
    let [images, lines, columns, channels] = image(spatial, &x.shape).ok()?;
    let [y, across] = spatial.output([lines, columns], ceil)?;
    Some(Window {
        kernel: spatial.kernel,
        stride: spatial.stride,
        dilation: spatial.dilation,
        pad: [y.before, across.before],
        out: [y.out, across.out],
        ..Window::image(images, [lines, columns], channels)
    })
}

/// Whether transformed tiles save more multiply-adds than they cost: not where few tiles share large weights, nor where
/// few channels share a transformation. Pairs of bf16 are multiplied twice as fast, from an eighth of the memory.
fn transforms(spatial: &Spatial, depth: usize, sample: &Fact, lowering: Lowering<'_>) -> bool {
    let shape = (spatial.axes, spatial.kernel, spatial.stride, spatial.dilation);
    let [.., lines, columns, out] = sample.shape[..] else { return false };
    shape == (2, [3, 3], [1, 1], [1, 1])
        && depth.min(out) >= TRANSFORMED_CHANNELS_MIN
        && lines * columns >= TRANSFORMED_PIXELS_MIN
        && (lowering.precision == Precision::Exact
            || !PairGemm::is_faster(lowering.level)
            || depth * out <= TRANSFORMED_WEIGHTS_MAX)
}

const TRANSFORMED_CHANNELS_MIN: usize = 16;
const TRANSFORMED_PIXELS_MIN: usize = 128;

/// Of a tap, beside pairs: nine taps become 36, which shall stay in caches (measured: 2.4 MB do, 9.4 MB do not).
const TRANSFORMED_WEIGHTS_MAX: usize = 128 * 256;

/// With more channels a tap fills a few vectors by itself.
const MERGED_DEPTH_MAX: usize = 4;
