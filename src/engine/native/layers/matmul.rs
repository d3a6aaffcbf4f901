//! Products of two computed operands: the right one is packed when they meet.

use kinglet_kernels::Level;
use kinglet_kernels::f32_gemm::Packing;
use kinglet_kernels::u8s8_gemm::{Finish, Matrix, Written};

use super::movement::broadcast_strides;
use super::{Io, Layer};
use crate::engine::graph::infer::Facts;
use crate::engine::graph::op::QuantizedMatMul as Product;
use crate::engine::pool::Team;
use crate::tensor::{DType, Shape};

#[derive(Debug)]
pub(super) struct MatMul(pub(super) Level);

impl Layer for MatMul {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let [a, b] = [io.operands[0], io.operands[1]];
        let ([rows, depth, columns], pairs) = meetings(io);
        let packing = Packing::matrix(self.0, depth, columns);
        let packed: &mut [f32] = bytemuck::cast_slice_mut(io.scratch);
        let out: &mut [f32] = bytemuck::cast_slice_mut(io.output.bytes);
        let mut held = None;
        for (out, [left, right]) in out.chunks_exact_mut((rows * columns).max(1)).zip(pairs) {
            if held.replace(right) != Some(right) {
                packing.pack(&b.elements()[right..][..depth * columns], [columns, 1], packed);
            }
            let left = &a.elements()[left..][..rows * depth];
            let grid = packing.grid(out, columns, rows);
            let packed = &*packed;
            team.share(&|| packing.run(left, depth, packed, &grid));
        }
    }

    fn scratch(&self, operands: &Facts<'_>, _threads: usize) -> usize {
        let [_, depth, columns] = extents(&operands[0].shape, &operands[1].shape);
        Packing::matrix(self.0, depth, columns).elements() * size_of::<f32>()
    }

    fn kernel(&self, _made: DType) -> String {
        format!("f32_gemm_packed__{}", self.0)
    }
}

/// Of bytes.
#[derive(Debug)]
pub(super) struct QuantizedMatMul {
    pub(super) product: Product,
    pub(super) level: Level,
}

impl QuantizedMatMul {
    fn run_as<T: Written>(&self, io: &mut Io<'_>, team: &mut Team) {
        let Product { zeros, scale, finish } = self.product;
        let [a, b] = [io.operands[0], io.operands[1]];
        let ([rows, depth, columns], pairs) = meetings(io);
        let matrix = Matrix::new(self.level, depth, columns);
        let out: &mut [T] = bytemuck::cast_slice_mut(io.output.bytes);
        let mut held = None;
        for (out, [left, right]) in out.chunks_exact_mut((rows * columns).max(1)).zip(pairs) {
            if held.replace(right) != Some(right) {
                matrix.pack(&b.bytes[right..][..depth * columns], zeros, scale, io.scratch);
            }
            let left = &a.bytes[left..][..rows * depth];
            let grid = matrix.grid(out, columns, rows);
            let packed = &*io.scratch;
            team.share(&|| matrix.run(left, depth, packed, zeros, finish, &grid));
        }
    }
}

impl Layer for QuantizedMatMul {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        match self.product.finish {
            Finish::Floats => self.run_as::<f32>(io, team),
            Finish::Bytes { .. } => self.run_as::<u8>(io, team),
        }
    }

    fn scratch(&self, operands: &Facts<'_>, _threads: usize) -> usize {
        let [_, depth, columns] = extents(&operands[0].shape, &operands[1].shape);
        Matrix::new(self.level, depth, columns).bytes()
    }

    fn kernel(&self, _made: DType) -> String {
        Matrix::kernel(self.level)
    }
}

/// Rows, depth and columns of the matrices, and where those of each product begin in their operands. Products with one
/// right side follow each other, and share what is packed of it.
pub(super) fn meetings(io: &Io<'_>) -> ([usize; 3], impl Iterator<Item = [usize; 2]> + use<>) {
    let shapes = [io.operands[0], io.operands[1]].map(|operand| operand.shape().clone());
    let [rows, depth, columns] = extents(&shapes[0], &shapes[1]);
    let out_shape = &io.output.fact.shape;
    let matrix_axes = shapes.iter().filter(|shape| shape.len() > 1).count();
    let batch = Shape::new(&out_shape[..out_shape.len() - matrix_axes]);
    let leading = |shape: &Shape| Shape::new(&shape[..shape.len().saturating_sub(2)]);
    let strides = shapes.map(|shape| broadcast_strides(&leading(&shape), &batch));
    let count = batch.iter().product();
    let places = (0..count).map(move |at| {
        let [left, right] = [0, 1].map(|of| offset(at, &batch, &strides[of]));
        [left * rows * depth, right * depth * columns]
    });
    ([rows, depth, columns], places)
}

/// Rows, depth and columns of the matrices.
pub(super) fn extents(a: &Shape, b: &Shape) -> [usize; 3] {
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
