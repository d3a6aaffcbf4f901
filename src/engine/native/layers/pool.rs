//! The greatest or the average element of windows.

use bytemuck::Pod;
use half::bf16;
use kinglet_kernels::pool::{self, Element};
use kinglet_kernels::{Level, Window};

use super::{ByLines, Halves, Io, conv};
use crate::engine::graph::Fact;
use crate::engine::graph::op::{Pool, PoolKind};
use crate::engine::pool::Team;
use crate::tensor::DType;

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

impl ByLines for Pooling {
    fn window(&self, x: &Fact) -> Option<Window> {
        conv::window(&self.pool.window, self.pool.ceil, x)
    }

    fn run_over(&self, window: &Window, io: &mut Io<'_>, team: &mut Team) {
        match io.operands[0].fact.dtype {
            DType::U8 => self.run_of::<u8>(window, io, team),
            DType::I8 => self.run_of::<i8>(window, io, team),
            DType::Bf16 => self.run_of::<bf16>(window, io, team),
            _ => self.run_of::<f32>(window, io, team),
        }
    }

    fn halves(&self, _x: &Fact) -> Halves {
        Halves::ALIKE
    }

    fn comes_apart(&self) -> bool {
        // An average that counts padding looks at the whole image for what lies behind it.
        !matches!(self.pool.kind, PoolKind::Average { count_padding: true })
    }

    fn kernel(&self, made: DType) -> String {
        let element = match made {
            DType::U8 => "u8",
            DType::I8 => "i8",
            DType::Bf16 => "bf16",
            _ => "f32",
        };
        format!("{element}_pool__{}", self.level)
    }
}

impl Pooling {
    fn run_of<E: Element + Pod + Send>(&self, window: &Window, io: &mut Io<'_>, team: &mut Team) {
        let x = io.operands[0];
        let channels = x.shape().last().copied().unwrap_or(0);
        let kind = match self.pool.kind {
            PoolKind::Max => pool::Pool::Max,
            PoolKind::Average { count_padding: false } => pool::Pool::Average { pad_after: None },
            PoolKind::Average { count_padding: true } => {
                let spatial = self.pool.window.output(window.size, self.pool.ceil);
                pool::Pool::Average { pad_after: spatial.map(|axes| axes.map(|axis| axis.after)) }
            }
        };
        let grid = pool::Pool::grid(io.output.elements(), window.pixels(), channels);
        team.share(&|| kind.run(self.level, x.elements::<E>(), window, &grid));
    }
}
