//! Products with constant weights.

use half::bf16;
use kinglet_kernels::Window;
use kinglet_kernels::f32_gemm::{Residual, Weights};

use super::super::tuning::Probe;
use super::dense::{Dense, Float};
use super::{Halves, Io, Layer, LowerError, Lowered, Lowering, View, constant, with_residual};
use crate::engine::graph::infer::Facts;
use crate::engine::graph::op::Linear;
use crate::engine::graph::{Fact, Graph, Node};
use crate::engine::pool::Team;
use crate::tensor::DType;

pub(super) fn lower(
    linear: &Linear,
    graph: &Graph,
    node: &Node,
    sample: Option<&Fact>,
    lowering: Lowering<'_>,
) -> Result<Lowered, LowerError> {
    let (elements, shape) = constant(graph, node, 1, "the weights")?;
    let &[depth, columns] = &shape[..] else { return Err(LowerError::Weights(shape)) };
    let bias = if linear.bias { Some(constant(graph, node, 2, "the bias")?.0) } else { None };
    if bias.as_ref().is_some_and(|bias| bias.len() != columns) {
        return Err(LowerError::Weights(shape));
    }
    let weights = Weights::new(&elements, [1, depth, columns]);
    let probe = sample.map(|sample| Probe::rows(rows(sample), depth, columns));
    let gemm = Dense::pack(lowering, &weights, bias.as_deref(), linear.activation, probe.as_ref());
    Ok(Lowered { layer: Box::new(Product(gemm)), operands: with_residual(node, linear.residual) })
}

/// Rows of a product that makes this, and of one for a batch of one.
pub(super) fn rows(made: &Fact) -> [usize; 2] {
    let Some((_, rows)) = made.shape.split_last() else { return [1, 1] };
    [rows.iter().product(), rows.iter().skip(1).product()]
}

#[derive(Debug)]
struct Product(Dense);

impl Product {
    fn run_to<E: Float>(&self, window: &Window, io: &mut Io<'_>, team: &mut Team) {
        let pitch = self.0.columns();
        let residual = io.operands.get(1).map(View::elements::<E>).map(|elements| Residual { elements, pitch });
        let (left, window) = self.0.image(io.operands[0], window, io.scratch, team);
        let grid = self.0.grid(io.output.elements(), pitch, window.pixels(), team.size());
        team.share(&|| E::run_dense(&self.0, left, &window, residual, &grid));
    }
}

impl Layer for Product {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let x = io.operands[0];
        let depth = x.shape().last().copied().unwrap_or(0);
        let rows = x.shape()[..x.shape().len().saturating_sub(1)].iter().product();
        let window = Window::rows(rows, depth);
        match io.output.fact.dtype {
            DType::Bf16 => self.run_to::<bf16>(&window, io, team),
            _ => self.run_to::<f32>(&window, io, team),
        }
    }

    fn halves(&self, operands: &Facts<'_>) -> Halves {
        self.0.halves(operands[0].shape.last().copied().unwrap_or(0))
    }

    fn scratch(&self, operands: &Facts<'_>, _threads: usize) -> usize {
        let Some((&depth, rows)) = operands[0].shape.split_last() else { return 0 };
        self.0.scratch(operands[0].dtype, rows.iter().product(), depth)
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }

    fn kernel(&self, _made: DType) -> String {
        self.0.kernel()
    }
}
