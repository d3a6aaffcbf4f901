//! Attention, heads where the model has them.

use half::bf16;
use kinglet_kernels::f32_attention::{Attention as Kernel, Element, Order, Strided};
use kinglet_kernels::{Grid, LINE, Level};

use super::movement::broadcast_strides;
use super::{Halves, Io, Layer, View};
use crate::engine::graph::infer::{self, Facts};
use crate::engine::graph::op::Attention;
use crate::engine::pool::Team;
use crate::tensor::{DType, Shape};

#[derive(Debug)]
pub(super) struct Attend {
    pub(super) attention: Attention,
    pub(super) level: Level,
}

impl Layer for Attend {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        match io.output.fact.dtype {
            DType::Bf16 => self.run_of::<bf16>(io, team),
            _ => self.run_of::<f32>(io, team),
        }
    }

    fn scratch(&self, operands: &Facts<'_>, threads: usize) -> usize {
        let Ok(extents) = infer::heads(&self.attention, operands) else { return 0 };
        // In pairs it is less.
        let kernel = Kernel::<f32>::new(self.level, extents, self.attention.scale);
        (packed(&kernel) + threads * room(&kernel)) * size_of::<f32>()
    }

    fn halves(&self, operands: &Facts<'_>) -> Halves {
        // Queries and keys are read in pairs.
        let is_even = infer::heads(&self.attention, operands).is_ok_and(|extents| extents.depth.is_multiple_of(2));
        if is_even { Halves { alike: 2, ..Halves::ALIKE } } else { Halves::NONE }
    }

    fn kernel(&self, made: DType) -> String {
        let element = if made == DType::Bf16 { "bf16" } else { "f32" };
        format!("{element}_attention__{}", self.level)
    }
}

impl Attend {
    fn run_of<E: Element>(&self, io: &mut Io<'_>, team: &mut Team) {
        let facts: Facts<'_> = io.operands.iter().map(|operand| operand.fact).collect();
        // Inference has read the same extents.
        let Ok(extents) = infer::heads(&self.attention, &facts) else { return };
        let kernel = Kernel::<E>::new(self.level, extents, self.attention.scale);
        let scores = Shape::new(&[extents.batch, extents.heads, extents.queries, extents.keys]);
        let mask = io.operands.get(3).map(|mask| {
            let strides = broadcast_strides(mask.shape(), &scores);
            // Along the keys they lie beside each other, also where there is one.
            let [batch, head, query] = [0, 1, 2].map(|axis| strides[axis].unsigned_abs());
            Strided { elements: mask.elements(), strides: [batch, head, query, 1] }
        });
        let [queries, keys, values] = [0, 1, 2].map(|of| self.strided(of, &io.operands[of]));
        let order = if self.attention.heads_inside[3] { Order::HeadsInside } else { Order::HeadsOutside };
        let scratch: &mut [f32] = bytemuck::cast_slice_mut(io.scratch);
        let (packed, rooms) = scratch.split_at_mut(packed(&kernel));
        {
            let grid = kernel.packed_grid(packed);
            team.share(&|| kernel.pack(&keys, &values, &grid));
        }
        let grid = kernel.grid(io.output.elements(), order);
        let each = room(&kernel);
        let rooms = Grid::new(rooms, each, [team.size(), each], [1, each]);
        let packed = &*packed;
        team.share(&|| {
            if let Some(mut room) = rooms.take() {
                kernel.run(&queries, mask.as_ref(), packed, order, &grid, room.row(0));
            }
        });
    }

    fn strided<'a, E: Element>(&self, of: usize, operand: &View<'a>) -> Strided<'a, E> {
        let elements: &'a [E] = bytemuck::cast_slice(operand.bytes);
        let [_, a, b, width] = operand.shape()[..] else { return Strided { elements, strides: [0; 4] } };
        let strides = match self.attention.heads_inside[of] {
            true => [a * b * width, width, b * width, 1],
            false => [a * b * width, b * width, width, 1],
        };
        Strided { elements, strides }
    }
}

/// Elements in whole cache lines.
fn packed<E: Element>(kernel: &Kernel<E>) -> usize {
    kernel.packed_elements().next_multiple_of(LINE_ELEMENTS)
}

/// Elements in whole cache lines, and at least one.
fn room<E: Element>(kernel: &Kernel<E>) -> usize {
    kernel.room_elements().max(1).next_multiple_of(LINE_ELEMENTS)
}

const LINE_ELEMENTS: usize = LINE / size_of::<f32>();
