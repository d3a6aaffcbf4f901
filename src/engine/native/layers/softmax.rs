//! Softmax and its logarithm along one axis, as ONNX has them from opset 13 on.

use kinglet_kernels::{Level, f32_functions};

use super::{Io, Layer};
use crate::engine::graph::infer;
use crate::engine::pool::Team;
use crate::tensor::DType;

#[derive(Debug)]
pub(super) struct Softmax {
    pub(super) axis: isize,
    pub(super) log: bool,
    pub(super) level: Level,
}

impl Layer for Softmax {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let x = io.operands[0];
        let Ok(axis) = infer::axis(self.axis, x.shape()) else { return };
        let (count, inner) = (x.shape()[axis], x.shape()[axis + 1..].iter().product::<usize>());
        if inner == 1 && !self.log && count > 0 {
            let rows = x.fact.elements() / count;
            let grid = f32_functions::rows_grid(io.output.elements(), rows, count);
            return team.share(&|| f32_functions::softmax(self.level, x.elements(), &grid));
        }
        let block = (count * inner).max(1);
        let from: &[f32] = bytemuck::cast_slice(x.bytes);
        let to: &mut [f32] = bytemuck::cast_slice_mut(io.output.bytes);
        for (from, to) in from.chunks_exact(block).zip(to.chunks_exact_mut(block)) {
            for lane in 0..inner {
                let line = || from[lane..].iter().step_by(inner);
                let greatest = line().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f32 = line().map(|x| (x - greatest).exp()).sum();
                for (to, x) in to[lane..].iter_mut().step_by(inner).zip(line()) {
                    *to = if self.log { x - greatest - sum.ln() } else { (x - greatest).exp() / sum };
                }
            }
        }
    }

    fn kernel(&self, _made: DType) -> String {
        if self.log { "plain".into() } else { format!("f32_functions__{}", self.level) }
    }
}
