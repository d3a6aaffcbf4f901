//! Transposed convolutions: every pixel times all taps at once, each product to its place.

use kinglet_kernels::f32_gemm::{Gemm, Weights};
use kinglet_kernels::{Activation, Grid, Level, Window};

use super::elementwise::activate;
use super::{Io, Layer, LowerError, Lowered, View, constant};
use crate::engine::graph::infer::{Facts, image};
use crate::engine::graph::op::{ConvTranspose, Padding, Spatial};
use crate::engine::graph::{Graph, Node};
use crate::engine::pool::Team;
use crate::tensor::{DType, Shape};

pub(super) fn lower(conv: &ConvTranspose, graph: &Graph, node: &Node, level: Level) -> Result<Lowered, LowerError> {
    if node.inputs[1..].iter().any(|&input| graph.constant(input).is_none()) {
        return Ok(Lowered { layer: Box::new(Computed { conv: conv.clone(), level }), operands: node.inputs.clone() });
    }
    let (source, shape) = constant(graph, node, 1, "the weights")?;
    let bias = if conv.bias { Some(constant(graph, node, 2, "the bias")?.0) } else { None };
    if let Some(tiled) = Tiled::pack(conv, &source, &shape, bias.as_deref(), level) {
        return Ok(Lowered { layer: Box::new(tiled), operands: vec![node.inputs[0]] });
    }
    let spread = Spread::pack(conv, &source, &shape, bias.as_deref(), level);
    let spread = spread.ok_or(LowerError::Weights(shape))?;
    Ok(Lowered { layer: Box::new(spread), operands: vec![node.inputs[0]] })
}

/// Taps that do not overlap: products of a line with a line of taps are a line of the output.
#[derive(Debug)]
struct Tiled {
    window: Spatial,
    /// Of each line of taps.
    lines: Vec<Gemm>,
}

impl Tiled {
    /// As [`Spread::pack`]; nothing where taps overlap, too.
    fn pack(conv: &ConvTranspose, source: &[f32], shape: &Shape, bias: Option<&[f32]>, level: Level) -> Option<Self> {
        let window = &conv.window;
        let all = Padding::Given { before: [0, 0], after: [0, 0] };
        let is_whole = window.padding == all && conv.extra == [0, 0] && conv.to.is_none() && window.dilation == [1, 1];
        let [taps, across] = [window.kernel[0] * window.kernel[1], window.kernel[1]];
        let &[depth, out, ..] = &shape[..] else { return None };
        let fits = source.len() == depth * out * taps && bias.is_none_or(|bias| bias.len() == out);
        if !is_whole || window.stride != window.kernel || conv.groups != 1 || !fits {
            return None;
        }
        let bias = bias.map(|bias| bias.repeat(across));
        let line = |line: usize| {
            let of = |k: usize, tap: usize| (0..out).map(move |column| (k * out + column) * taps + line * across + tap);
            let elements: Vec<f32> =
                (0..depth).flat_map(|k| (0..across).flat_map(move |tap| of(k, tap))).map(|at| source[at]).collect();
            let weights = Weights::new(&elements, [1, depth, across * out]);
            Gemm::pack(level, &weights, bias.as_deref(), conv.activation, None)
        };
        Some(Self { window: window.clone(), lines: (0..window.kernel[0]).map(line).collect() })
    }
}

impl Layer for Tiled {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let x = io.operands[0];
        let Ok([images, height, pixels, channels]) = image(&self.window, x.shape()) else { return };
        let (x, pitch) = (x.elements::<f32>(), pixels * self.lines.first().map_or(0, Gemm::columns));
        let together = self.lines.len();
        let grid =
            Grid::new(io.output.elements(), pitch, [images * height * together, pitch], [together, pitch.max(1)]);
        team.share(&|| {
            while let Some(mut tile) = grid.take() {
                let line = tile.first()[0] / together;
                let left = &x[line * pixels * channels..][..pixels * channels];
                for (at, gemm) in self.lines.iter().enumerate() {
                    let grid = gemm.grid(tile.row(at), gemm.columns(), pixels);
                    gemm.run(left, &Window::rows(pixels, channels), None, &grid);
                }
            }
        });
    }

    fn bytes(&self) -> usize {
        self.lines.iter().map(Gemm::bytes).sum()
    }

    fn kernel(&self, _made: DType) -> String {
        self.lines.first().map(Gemm::kernel).unwrap_or_default()
    }
}

/// Taps that overlap: products with all of them are added where they belong.
#[derive(Debug)]
struct Spread {
    conv: ConvTranspose,
    /// Of each group of channels.
    groups: Vec<Gemm>,
    bias: Vec<f32>,
}

impl Spread {
    /// From weights `[depth][out][tap]`; nothing where they have other extents.
    fn pack(conv: &ConvTranspose, source: &[f32], shape: &Shape, bias: Option<&[f32]>, level: Level) -> Option<Self> {
        let taps = conv.window.kernel[0] * conv.window.kernel[1];
        let &[all, out, ..] = &shape[..] else { return None };
        let bias = bias.map_or_else(|| vec![0.0; out * conv.groups], <[f32]>::to_vec);
        if source.len() != all * out * taps || bias.len() != out * conv.groups || !all.is_multiple_of(conv.groups) {
            return None;
        }
        let depth = all / conv.groups;
        // Columns are those of all taps.
        let of = |k: usize, tap: usize| (0..out).map(move |column| (k * out + column) * taps + tap);
        let group = |group: usize| {
            let rows = group * depth..(group + 1) * depth;
            let elements: Vec<f32> =
                rows.flat_map(|k| (0..taps).flat_map(move |tap| of(k, tap))).map(|at| source[at]).collect();
            let weights = Weights::new(&elements, [1, depth, taps * out]);
            Gemm::pack(level, &weights, None, Activation::None, None)
        };
        Some(Self { conv: conv.clone(), groups: (0..conv.groups).map(group).collect(), bias })
    }

    /// Adds the products of a group's taps to the pixels that they belong to.
    fn spread(&self, io: &mut Io<'_>, group: usize) {
        let Self { conv, groups, bias } = self;
        let window = &conv.window;
        let [Ok([_, lines, columns, _]), Ok([_, lines_out, columns_out, channels])] =
            [io.operands[0].shape(), &io.output.fact.shape].map(|shape| image(window, shape))
        else {
            return;
        };
        let Some(off) = conv.output([lines, columns]) else { return };
        let own = bias.len() / groups.len();
        let width = groups[group].columns();
        let products: &[f32] = bytemuck::cast_slice(io.scratch);
        let out: &mut [f32] = bytemuck::cast_slice_mut(io.output.bytes);
        // Pixels whose tap lies within the output.
        let within = |tap: usize, axis: usize, extent: usize| {
            let (stride, before) = (window.stride[axis].max(1), off[axis].before);
            let from = |place: usize| place.saturating_sub(tap * window.dilation[axis]).div_ceil(stride);
            from(before)..from(extent + before)
        };
        for (row, products) in products.chunks_exact((columns * width).max(1)).enumerate() {
            let (image, y) = (row / lines, row % lines);
            let taps = (0..window.kernel[0]).flat_map(|y| (0..window.kernel[1]).map(move |x| [y, x]));
            for (tap, [tap_y, tap_x]) in taps.enumerate() {
                if !within(tap_y, 0, lines_out).contains(&y) {
                    continue;
                }
                let line = y * window.stride[0] + tap_y * window.dilation[0] - off[0].before;
                let out = &mut out[(image * lines_out + line) * columns_out * channels..][..columns_out * channels];
                let pixels = within(tap_x, 1, columns_out);
                for x in pixels.start..pixels.end.min(columns) {
                    let column = x * window.stride[1] + tap_x * window.dilation[1] - off[1].before;
                    let sums = &mut out[column * channels + group * own..][..own];
                    let product = &products[x * width + tap * own..][..own];
                    sums.iter_mut().zip(product).for_each(|(sum, product)| *sum += product);
                }
            }
        }
    }
}

impl Layer for Spread {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let x = io.operands[0];
        let channels = x.shape().last().copied().unwrap_or(0);
        let pixels = x.fact.elements().checked_div(channels).unwrap_or(0);
        let out: &mut [f32] = bytemuck::cast_slice_mut(io.output.bytes);
        out.chunks_exact_mut(self.bias.len().max(1)).for_each(|pixel| pixel.copy_from_slice(&self.bias));
        let depth = channels / self.groups.len();
        for (at, gemm) in self.groups.iter().enumerate() {
            {
                let products: &mut [f32] = bytemuck::cast_slice_mut(io.scratch);
                let grid = gemm.grid(products, gemm.columns(), pixels);
                let left = x.elements::<f32>().get(at * depth..).unwrap_or_default();
                team.share(&|| gemm.run(left, &Window::rows(pixels, channels), None, &grid));
            }
            self.spread(io, at);
        }
        activate(io.output.elements(), self.conv.activation);
    }

    fn scratch(&self, operands: &Facts<'_>, _threads: usize) -> usize {
        let columns = self.groups.first().map_or(0, Gemm::columns);
        let pixels = operands[0].elements() / operands[0].shape.last().copied().unwrap_or(1).max(1);
        pixels * columns * size_of::<f32>()
    }

    fn bytes(&self) -> usize {
        self.groups.iter().map(Gemm::bytes).sum()
    }

    fn kernel(&self, _made: DType) -> String {
        self.groups.first().map(Gemm::kernel).unwrap_or_default()
    }
}

/// Packed when the weights are there.
#[derive(Debug)]
struct Computed {
    conv: ConvTranspose,
    level: Level,
}

impl Layer for Computed {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let weights = io.operands[1];
        let bias = io.operands.get(2).map(View::elements::<f32>);
        // Inference has compared the extents.
        let spread = Spread::pack(&self.conv, weights.elements(), weights.shape(), bias, self.level);
        if let Some(spread) = spread {
            spread.run(io, team);
        }
    }

    fn scratch(&self, operands: &Facts<'_>, _threads: usize) -> usize {
        let pixels = operands[0].elements() / operands[0].shape.last().copied().unwrap_or(1).max(1);
        let columns = operands[1].elements() / operands[1].shape.first().copied().unwrap_or(1).max(1);
        pixels * columns * size_of::<f32>()
    }

    fn kernel(&self, _made: DType) -> String {
        format!("f32_gemm_packed__{}", self.level)
    }
}
