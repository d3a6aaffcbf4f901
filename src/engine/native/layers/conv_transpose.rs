//! Transposed convolutions: every pixel times all taps at once, then each product to its place.

use kinglet_kernels::f32_gemm::{Gemm, Weights};
use kinglet_kernels::{Activation, Level, Window};

use super::{Io, Layer, LowerError, Lowered, constant};
use crate::engine::graph::infer::Facts;
use crate::engine::graph::op::ConvTranspose;
use crate::engine::graph::{Graph, Node};
use crate::engine::pool::Team;

pub(super) fn lower(conv: &ConvTranspose, graph: &Graph, node: &Node, level: Level) -> Result<Lowered, LowerError> {
    let (source, shape) = constant(graph, node, 1, "the weights")?;
    let bias = if conv.bias { Some(constant(graph, node, 2, "the bias")?.0) } else { None };
    let taps = conv.kernel[0] * conv.kernel[1];
    let &[depth, out, ..] = &shape[..] else { return Err(LowerError::Weights(shape)) };
    if source.len() != depth * out * taps || bias.as_ref().is_some_and(|bias| bias.len() != out) {
        return Err(LowerError::Weights(shape));
    }
    // From `[depth][out][tap]`: columns are those of all taps.
    let of = |k: usize, tap: usize| (0..out).map(move |column| (k * out + column) * taps + tap);
    let elements: Vec<f32> =
        (0..depth).flat_map(|k| (0..taps).flat_map(move |tap| of(k, tap))).map(|at| source[at]).collect();
    let weights = Weights { elements: &elements, taps: 1, depth, columns: taps * out };
    let gemm = Gemm::pack(level, &weights, None, Activation::None, None);
    let bias = bias.unwrap_or_else(|| vec![0.0; out]);
    Ok(Lowered { layer: Box::new(Spread { conv: conv.clone(), gemm, bias }), operands: vec![node.inputs[0]] })
}

#[derive(Debug)]
struct Spread {
    conv: ConvTranspose,
    gemm: Gemm,
    bias: Vec<f32>,
}

impl Layer for Spread {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let Self { conv, gemm, bias } = self;
        let x = io.operands[0];
        let plane = |shape: &[usize]| match *shape {
            [images, columns, channels] => [images, 1, columns, channels],
            [images, lines, columns, channels] => [images, lines, columns, channels],
            _ => [0; 4],
        };
        let [images, lines, columns, depth] = plane(x.shape());
        let [_, lines_out, columns_out, channels] = plane(&io.output.fact.shape);
        let pixels = images * lines * columns;
        let products: &mut [f32] = bytemuck::cast_slice_mut(io.scratch);
        {
            let grid = gemm.grid(products, gemm.columns(), pixels);
            team.share(&|| gemm.run(x.elements(), &Window::rows(pixels, depth), None, &grid));
        }
        let out: &mut [f32] = bytemuck::cast_slice_mut(io.output.bytes);
        out.chunks_exact_mut(channels.max(1)).for_each(|pixel| pixel.copy_from_slice(bias));
        let place = |at: usize, tap: usize, axis: usize, extent: usize| {
            let place = at * conv.stride[axis] + tap * conv.dilation[axis];
            place.checked_sub(conv.before[axis]).filter(|place| *place < extent)
        };
        for (pixel, products) in products.chunks_exact(gemm.columns().max(1)).take(pixels).enumerate() {
            let (image, y, x) = (pixel / (lines * columns), pixel / columns % lines, pixel % columns);
            for (tap, product) in products.chunks_exact(channels.max(1)).enumerate() {
                let line = place(y, tap / conv.kernel[1], 0, lines_out);
                let column = place(x, tap % conv.kernel[1], 1, columns_out);
                if let (Some(line), Some(column)) = (line, column) {
                    let at = ((image * lines_out + line) * columns_out + column) * channels;
                    out[at..at + channels].iter_mut().zip(product).for_each(|(sum, product)| *sum += product);
                }
            }
        }
    }

    fn scratch(&self, operands: &Facts<'_>, _threads: usize) -> usize {
        let pixels = operands[0].elements() / operands[0].shape.last().copied().unwrap_or(1).max(1);
        pixels * self.gemm.columns() * size_of::<f32>()
    }

    fn bytes(&self) -> usize {
        self.gemm.bytes()
    }

    fn kernel(&self) -> String {
        self.gemm.kernel()
    }
}
