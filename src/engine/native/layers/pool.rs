//! The greatest or the average element of windows.

use bytemuck::Pod;
use kinglet_kernels::f32_pool;
use kinglet_kernels::{Level, Window};

use super::{ByLines, Io, conv};
use crate::engine::graph::Fact;
use crate::engine::graph::op::{Pool, PoolKind, Spatial};
use crate::engine::pool::Team;
use crate::tensor::DType;

#[derive(Debug)]
pub(super) struct Pooling {
    pool: Pool,
    level: Level,
    /// Where it is known before the run.
    dtype: Option<DType>,
}

impl Pooling {
    pub(super) fn new(pool: &Pool, level: Level, dtype: Option<DType>) -> Self {
        Self { pool: pool.clone(), level, dtype }
    }
}

impl ByLines for Pooling {
    fn window(&self, x: &Fact) -> Option<Window> {
        conv::window(&self.pool.window, self.pool.ceil, x)
    }

    fn run_over(&self, window: &Window, io: &mut Io<'_>, team: &mut Team) {
        let x = io.operands[0];
        let channels = x.shape().last().copied().unwrap_or(0);
        match x.fact.dtype {
            DType::U8 => return greatest(&self.pool.window, window, channels, u8::MIN, io),
            DType::I8 => return greatest(&self.pool.window, window, channels, i8::MIN, io),
            _ => {}
        }
        let kind = match self.pool.kind {
            PoolKind::Max => f32_pool::Pool::Max,
            PoolKind::Average { count_padding: false } => f32_pool::Pool::Average { pad_after: None },
            PoolKind::Average { count_padding: true } => {
                let spatial = self.pool.window.output(window.size, self.pool.ceil);
                f32_pool::Pool::Average { pad_after: spatial.map(|axes| axes.map(|axis| axis.after)) }
            }
        };
        let grid = f32_pool::Pool::grid(io.output.elements(), window.pixels(), channels);
        team.share(&|| kind.run(self.level, x.elements(), window, &grid));
    }

    fn comes_apart(&self) -> bool {
        // An average that counts padding looks at the whole image for what lies behind it.
        !matches!(self.pool.kind, PoolKind::Average { count_padding: true })
    }

    fn kernel(&self) -> String {
        if self.dtype.is_none_or(|dtype| dtype == DType::F32) {
            format!("f32_pool__{}", self.level)
        } else {
            "plain".into()
        }
    }
}

/// The greatest integers of windows, a tap for a whole line of the output at a time.
fn greatest<T: Pod + Ord>(spatial: &Spatial, window: &Window, channels: usize, least: T, io: &mut Io<'_>) {
    let image = io.operands[0].elements::<T>();
    let [stride, dilation, pad] = [window.stride, window.dilation, window.pad];
    let lines = io.output.elements::<T>().chunks_exact_mut((window.out[1] * channels).max(1));
    for (at, out) in lines.enumerate() {
        out.fill(least);
        let place = window.place(at * window.out[1]);
        for line in 0..spatial.kernel[0] {
            let y = (place.y * stride[0] + line * dilation[0]).wrapping_sub(pad[0]);
            if y >= window.size[0] {
                continue;
            }
            let from = &image[place.image * window.pitch[0] + y * window.pitch[1]..][..window.pitch[1]];
            for column in 0..spatial.kernel[1] {
                let pixels = out.chunks_exact_mut(channels.max(1)).enumerate();
                for (x, out) in pixels {
                    let x = (x * stride[1] + column * dilation[1]).wrapping_sub(pad[1]);
                    let Some(from) = from.get(x.wrapping_mul(channels)..).filter(|_| x < window.size[1]) else {
                        continue;
                    };
                    out.iter_mut().zip(from).for_each(|(out, from)| *out = (*out).max(*from));
                }
            }
        }
    }
}
