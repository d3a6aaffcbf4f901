//! Products with constant weights.

use kinglet_kernels::f32_gemm::{Gemm, Residual, Weights};
use kinglet_kernels::{Level, Window};

use super::{Io, Layer, LowerError, Lowered, View, constant};
use crate::engine::graph::op::Linear;
use crate::engine::graph::{Graph, Node};
use crate::engine::pool::Team;

pub(super) fn lower(linear: &Linear, graph: &Graph, node: &Node, level: Level) -> Result<Lowered, LowerError> {
    let (elements, shape) = constant(graph, node, 1, "the weights")?;
    let &[depth, columns] = &shape[..] else { return Err(LowerError::Weights(shape)) };
    let bias = if linear.bias { Some(constant(graph, node, 2, "the bias")?.0) } else { None };
    if bias.as_ref().is_some_and(|bias| bias.len() != columns) {
        return Err(LowerError::Weights(shape));
    }
    let weights = Weights { elements: &elements, taps: 1, depth, columns };
    let gemm = Gemm::pack(level, &weights, bias.as_deref(), linear.activation, None);
    let operands = [Some(node.inputs[0]), linear.residual.then(|| node.inputs.last().copied()).flatten()];
    Ok(Lowered { layer: Box::new(Product(gemm)), operands: operands.into_iter().flatten().collect() })
}

#[derive(Debug)]
struct Product(Gemm);

impl Layer for Product {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let x = io.operands[0];
        let (depth, pitch) = (x.shape().last().copied().unwrap_or(0), self.0.columns());
        let rows = x.shape()[..x.shape().len().saturating_sub(1)].iter().product();
        let residual = io.operands.get(1).map(View::elements::<f32>).map(|elements| Residual { elements, pitch });
        let window = Window::rows(rows, depth);
        let grid = self.0.grid(io.output.elements(), pitch, rows);
        team.share(&|| self.0.run(x.elements(), &window, residual, &grid));
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }

    fn kernel(&self) -> String {
        self.0.kernel()
    }
}
