//! Products of two computed operands: the right one is packed when they meet.

use kinglet_kernels::Level;
use kinglet_kernels::f32_gemm::Packing;

use super::movement::broadcast_strides;
use super::{Io, Layer};
use crate::engine::graph::infer::Facts;
use crate::engine::pool::Team;
use crate::tensor::Shape;

#[derive(Debug)]
pub(super) struct MatMul(pub(super) Level);

impl Layer for MatMul {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let [a, b] = [io.operands[0], io.operands[1]];
        let [rows, depth, columns] = extents(a.shape(), b.shape());
        let out_shape = &io.output.fact.shape;
        let leading = |shape: &Shape| Shape::new(&shape[..shape.len().saturating_sub(2)]);
        let matrix_axes = [a, b].iter().filter(|operand| operand.shape().len() > 1).count();
        let batch = Shape::new(&out_shape[..out_shape.len() - matrix_axes]);
        let strides = [a, b].map(|operand| broadcast_strides(&leading(operand.shape()), &batch));
        let out: &mut [f32] = bytemuck::cast_slice_mut(io.output.bytes);
        if rows * columns == 0 {
            return;
        }
        let packing = Packing::matrix(self.0, depth, columns);
        let packed: &mut [f32] = bytemuck::cast_slice_mut(io.scratch);
        // Products with one right side follow each other, and share what is packed of it.
        let mut held = None;
        for (at, out) in out.chunks_exact_mut(rows * columns).enumerate() {
            let [a_at, b_at] = [0, 1].map(|of| offset(at, &batch, &strides[of]));
            let a = &a.elements::<f32>()[a_at * rows * depth..][..rows * depth];
            let b = &b.elements::<f32>()[b_at * depth * columns..][..depth * columns];
            if held != Some(b_at) {
                packing.pack(b, [columns, 1], packed);
                held = Some(b_at);
            }
            let grid = packing.grid(out, columns, rows);
            let packed = &*packed;
            team.share(&|| packing.run(a, depth, packed, &grid));
        }
    }

    fn scratch(&self, operands: &Facts<'_>, _threads: usize) -> usize {
        let [_, depth, columns] = extents(&operands[0].shape, &operands[1].shape);
        Packing::matrix(self.0, depth, columns).elements() * size_of::<f32>()
    }

    fn kernel(&self) -> String {
        format!("f32_gemm_packed__{}", self.0)
    }
}

/// Rows, depth and columns of the matrices.
fn extents(a: &Shape, b: &Shape) -> [usize; 3] {
    let (rows, depth) = match a[..] {
        [] => (0, 0),
        [depth] => (1, depth),
        [.., rows, depth] => (rows, depth),
    };
    let columns = if b.len() == 1 { 1 } else { b.last().copied().unwrap_or(0) };
    [rows, depth, columns]
}

/// Which matrix of an operand belongs to a matrix of the output.
fn offset(index: usize, batch: &Shape, strides: &[isize]) -> usize {
    let mut rest = index;
    let mut offset = 0;
    for (&extent, stride) in batch.iter().zip(strides).rev() {
        offset += rest % extent * stride.unsigned_abs();
        rest /= extent;
    }
    offset
}
