//! The greatest or the average element of windows.

use kinglet_kernels::Level;
use kinglet_kernels::f32_pool;

use super::{Io, Layer, conv};
use crate::engine::graph::op::{Pool, PoolKind};
use crate::engine::pool::Team;

#[derive(Debug)]
pub(super) struct Pooling {
    pool: Pool,
    level: Level,
}

impl Pooling {
    pub(super) fn new(pool: &Pool, level: Level) -> Self {
        Self { pool: pool.clone(), level }
    }
}

impl Layer for Pooling {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let x = io.operands[0];
        let Some((window, channels)) = conv::window(&self.pool.window, self.pool.ceil, x.fact) else { return };
        let kind = match self.pool.kind {
            PoolKind::Max => f32_pool::Pool::Max,
            PoolKind::Average { count_padding: false } => f32_pool::Pool::Average { pad_after: None },
            PoolKind::Average { count_padding: true } => {
                let spatial = self.pool.window.output(window.size, self.pool.ceil);
                f32_pool::Pool::Average { pad_after: spatial.map(|axes| axes.map(|axis| axis.after)) }
            }
        };
        let grid = f32_pool::Pool::grid(io.output.elements(), window.pixels(), channels);
        team.share(&|| kind.run(self.level, x.elements(), &window, &grid));
    }

    fn kernel(&self) -> String {
        format!("f32_pool__{}", self.level)
    }
}
