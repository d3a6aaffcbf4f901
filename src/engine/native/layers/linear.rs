//! Products with constant weights.

use std::borrow::Cow;

use half::bf16;
use kinglet_kernels::f32_gemm::{Residual, Weights};
use kinglet_kernels::f32_sparse_row::SparseRow;
use kinglet_kernels::{Fill, Window};

use super::super::tuning::Probe;
use super::dense::{Dense, Float};
use super::low_bit::LowBit;
use super::sparse::zeros;
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
    let low_bit = graph.coded(node.inputs[1]).and_then(|coded| Some((LowBit::of_matrix(coded)?, coded.shape.clone())));
    let (elements, shape) = match &low_bit {
        Some((_, shape)) => (Cow::default(), shape.clone()),
        None => constant(graph, node, 1, "the weights")?,
    };
    let &[depth, columns] = &shape[..] else { return Err(LowerError::Weights(shape)) };
    let bias = if linear.bias { Some(constant(graph, node, 2, "the bias")?.0) } else { None };
    if bias.as_ref().is_some_and(|bias| bias.len() != columns) {
        return Err(LowerError::Weights(shape));
    }
    let weights = (!elements.is_empty() || depth * columns == 0).then(|| Weights::new(&elements, [1, depth, columns]));
    let probe = sample.map(|sample| Probe::rows(rows(sample), depth, columns));
    let (bias, probe) = (bias.as_deref(), probe.as_ref());
    let gemm = match (&low_bit, &weights) {
        (Some((low_bit, _)), _) => low_bit.pack(lowering, bias, linear.activation, probe),
        (None, Some(weights)) => Dense::pack(lowering, weights, bias, linear.activation, probe),
        (None, None) => return Err(LowerError::Weights(shape)),
    };
    // Packing is most of a load: it is tried where there are zeros enough to win anything.
    let is_exact = matches!(gemm, Dense::Floats(_) | Dense::Sparse(_)) && gemm.rounding().is_none();
    let row = weights.filter(|_| is_exact && zeros(&elements).is_some());
    let row = row.and_then(|weights| SparseRow::pack(lowering.level, &weights, bias, linear.activation));
    Ok(Lowered { layer: Box::new(Product { gemm, row }), operands: with_residual(node, linear.residual) })
}

/// Rows of a product that makes this, and of one for a batch of one.
pub(super) fn rows(made: &Fact) -> [usize; 2] {
    let Some((_, rows)) = made.shape.split_last() else { return [1, 1] };
    [rows.iter().product(), rows.iter().skip(1).product()]
}

#[derive(Debug)]
struct Product {
    gemm: Dense,
    /// For one row, where most weights are zeros; the results are the same.
    row: Option<SparseRow>,
}

impl Product {
    fn run_to<E: Float>(&self, window: &Window, io: &mut Io<'_>, team: &mut Team) {
        let pitch = self.gemm.columns();
        let residual = io.operands.get(1).map(View::elements::<E>).map(|elements| Residual { elements, pitch });
        let (left, window) = self.gemm.image(io.operands[0], window, io.scratch, team);
        let grid = self.gemm.grid(io.output.elements(), pitch, window.pixels(), team.size());
        team.share(&|| E::run_dense(&self.gemm, left, &window, residual, &grid));
    }
}

impl Layer for Product {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let x = io.operands[0];
        let depth = x.shape().last().copied().unwrap_or(0);
        let rows = x.shape()[..x.shape().len().saturating_sub(1)].iter().product();
        let window = Window::rows(rows, depth);
        let sparse = self.row.as_ref().filter(|sparse| rows == 1 && sparse.takes(x.elements()));
        match (io.output.fact.dtype, sparse) {
            (DType::F32, Some(sparse)) => {
                let residual = io.operands.get(1).map(View::elements);
                let grid = sparse.grid(io.output.elements());
                team.share(&|| sparse.run(x.elements(), residual, &grid));
            }
            (DType::Bf16, _) => self.run_to::<bf16>(&window, io, team),
            _ => self.run_to::<f32>(&window, io, team),
        }
    }

    fn halves(&self, operands: &Facts<'_>) -> Halves {
        self.gemm.halves(operands[0].shape.last().copied().unwrap_or(0))
    }

    fn scratch(&self, operands: &Facts<'_>, _threads: usize) -> usize {
        let Some((&depth, rows)) = operands[0].shape.split_last() else { return 0 };
        self.gemm.scratch(operands[0].dtype, rows.iter().product(), depth)
    }

    fn bytes(&self) -> usize {
        self.gemm.bytes() + self.row.as_ref().map_or(0, SparseRow::bytes)
    }

    fn fill(&self) -> Option<Fill> {
        self.gemm.fill()
    }

    fn kernel(&self, _made: DType) -> String {
        match &self.row {
            Some(sparse) => format!("{} and, for one row, {}", self.gemm.kernel(), sparse.kernel()),
            None => self.gemm.kernel(),
        }
    }
}
