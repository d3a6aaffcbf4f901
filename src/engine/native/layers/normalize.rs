//! Layer normalisation.

use kinglet_kernels::{Level, f32_functions};

use super::{First, Halves, Io, Layer};
use crate::engine::graph::infer::Facts;
use crate::engine::pool::Team;
use crate::tensor::DType;

#[derive(Debug)]
pub(super) struct Normalize {
    pub(super) epsilon: f32,
    pub(super) level: Level,
}

impl Layer for Normalize {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let [x, scale, shift] = [io.operands[0], io.operands[1], io.operands[2]];
        let width = x.shape().last().copied().unwrap_or(0);
        let rows = x.fact.elements().checked_div(width).unwrap_or(0);
        let factors = [scale.elements(), shift.elements()];
        let (level, epsilon) = (self.level, self.epsilon);
        // Each grid is of what the output lies in.
        macro_rules! by {
            ($normalize:ident) => {{
                let grid = f32_functions::rows_grid(io.output.elements(), rows, width);
                team.share(&|| f32_functions::$normalize(level, x.elements(), factors, epsilon, &grid));
            }};
        }
        match [x.fact.dtype, io.output.fact.dtype] {
            [DType::Bf16, DType::Bf16] => by!(normalize_halves),
            [_, DType::Bf16] => by!(normalize_floats),
            [DType::Bf16, _] => by!(normalize_to_floats),
            _ => by!(normalize),
        }
    }

    fn halves(&self, _operands: &Facts<'_>) -> Halves {
        Halves { first: First::Either, alike: 0, output: true }
    }

    fn kernel(&self, _made: DType) -> String {
        format!("f32_functions__{}", self.level)
    }
}
