//! Products of bytes that were quantized for this run, with constant weights. Quantizing is a layer of its own.

use kinglet_kernels::u8s8_gemm::{DynamicGemm, Weights};
use kinglet_kernels::{Grid, Level};

use super::{Io, Layer, LowerError, Lowered, constant};
use crate::engine::graph::infer::Facts;
use crate::engine::graph::{Graph, Node};
use crate::engine::pool::Team;
use crate::tensor::DType;

pub(super) fn lower(zero: i8, graph: &Graph, node: &Node, level: Level) -> Result<Lowered, LowerError> {
    let weights = graph.constant(node.inputs[1]).ok_or(LowerError::Variable { what: "the weights" })?;
    let (&[depth, columns], DType::I8) = (&weights.shape()[..], weights.dtype()) else {
        return Err(LowerError::Weights(weights.shape().clone()));
    };
    let elements: Vec<i8> = weights.bytes().iter().map(|byte| byte.cast_signed()).collect();
    let gemm = DynamicGemm::pack(level, &Weights { elements: &elements, taps: 1, depth, columns }, zero);
    let bias = if node.inputs.len() > 4 { constant(graph, node, 4, "the bias")?.0.into_owned() } else { Vec::new() };
    let operands = [0, 2, 3].map(|at| node.inputs[at]).to_vec();
    Ok(Lowered { layer: Box::new(DynamicLinear { gemm, bias }), operands })
}

#[derive(Debug)]
struct DynamicLinear {
    gemm: DynamicGemm,
    /// One for each column, or none at all.
    bias: Vec<f32>,
}

impl Layer for DynamicLinear {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let [x, zero, scale] = [io.operands[0], io.operands[1], io.operands[2]];
        let columns = self.gemm.columns();
        let rows = io.output.fact.elements().checked_div(columns).unwrap_or(0);
        self.gemm.prepare(zero.bytes[0], scale.elements(), io.scratch);
        {
            let (room, grid) = (&*io.scratch, self.gemm.grid(io.output.elements(), rows));
            team.share(&|| self.gemm.run(x.bytes, room, &grid));
        }
        if !self.bias.is_empty() {
            let grid = Grid::new(io.output.elements::<f32>(), columns, [rows, columns], [ROWS_TOGETHER, columns]);
            team.share(&|| {
                while let Some(mut tile) = grid.take() {
                    let rows = tile.whole().chunks_exact_mut(columns);
                    rows.for_each(|row| row.iter_mut().zip(&self.bias).for_each(|(x, bias)| *x += bias));
                }
            });
        }
    }

    fn scratch(&self, _operands: &Facts<'_>, _threads: usize) -> usize {
        self.gemm.room_bytes()
    }

    fn bytes(&self) -> usize {
        self.gemm.bytes() + size_of_val(&self.bias[..])
    }

    fn kernel(&self, _made: DType) -> String {
        self.gemm.kernel()
    }
}

/// Rows that a bias is added to before the next are taken.
const ROWS_TOGETHER: usize = 16;
