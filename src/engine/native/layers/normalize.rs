//! Layer normalisation.

use kinglet_kernels::{Level, f32_functions};

use super::{Io, Layer};
use crate::engine::pool::Team;

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
        let grid = f32_functions::rows_grid(io.output.elements(), rows, width);
        let factors = [scale.elements(), shift.elements()];
        team.share(&|| f32_functions::normalize(self.level, x.elements(), factors, self.epsilon, &grid));
    }

    fn kernel(&self) -> String {
        format!("f32_functions__{}", self.level)
    }
}
