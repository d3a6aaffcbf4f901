//! Products with constant weights.

use kinglet_kernels::Window;
use kinglet_kernels::f32_gemm::{Residual, Weights};

use super::super::tuning::probe_rows;
use super::dense::Dense;
use super::{Io, Layer, LowerError, Lowered, Lowering, View, constant, with_residual};
use crate::engine::graph::infer::Facts;
use crate::engine::graph::op::Linear;
use crate::engine::graph::{Fact, Graph, Node};
use crate::engine::pool::Team;

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
    let weights = Weights { elements: &elements, taps: 1, depth, columns };
    let probe = sample.map(|sample| probe_rows(sample.elements() / columns.max(1), depth, columns));
    let gemm = Dense::pack(lowering, &weights, bias.as_deref(), linear.activation, probe.as_ref());
    Ok(Lowered { layer: Box::new(Product(gemm)), operands: with_residual(node, linear.residual) })
}

#[derive(Debug)]
struct Product(Dense);

impl Layer for Product {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let x = io.operands[0];
        let (depth, pitch) = (x.shape().last().copied().unwrap_or(0), self.0.columns());
        let rows = x.shape()[..x.shape().len().saturating_sub(1)].iter().product();
        let residual = io.operands.get(1).map(View::elements::<f32>).map(|elements| Residual { elements, pitch });
        let window = Window::rows(rows, depth);
        let (left, window) = self.0.image(x.elements(), depth, &window, io.scratch, team);
        let grid = self.0.grid(io.output.elements(), pitch, rows);
        team.share(&|| self.0.run(left, &window, residual, &grid));
    }

    fn scratch(&self, operands: &Facts<'_>, _threads: usize) -> usize {
        let Some((&depth, rows)) = operands[0].shape.split_last() else { return 0 };
        self.0.scratch(rows.iter().product(), depth)
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }

    fn kernel(&self) -> String {
        self.0.kernel()
    }
}
