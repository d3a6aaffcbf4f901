//! Products of two computed operands.

use super::movement::broadcast_strides;
use super::{Io, Layer};
use crate::engine::pool::Team;
use crate::tensor::Shape;

#[derive(Debug)]
pub(super) struct MatMul;

impl Layer for MatMul {
    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        let [a, b] = [io.operands[0], io.operands[1]];
        let (rows, depth) = match a.shape()[..] {
            [depth] => (1, depth),
            [.., rows, depth] => (rows, depth),
            [] => return,
        };
        let columns = if b.shape().len() == 1 { 1 } else { b.shape().last().copied().unwrap_or(1) };
        let leading = |shape: &Shape| Shape::new(&shape[..shape.len().saturating_sub(2)]);
        let matrix_axes = [a, b].iter().filter(|operand| operand.shape().len() > 1).count();
        let batch = Shape::new(&io.output.fact.shape[..io.output.fact.shape.len() - matrix_axes]);
        let strides = [a, b].map(|operand| broadcast_strides(&leading(operand.shape()), &batch));
        let out: &mut [f32] = bytemuck::cast_slice_mut(io.output.bytes);
        for (at, out) in out.chunks_exact_mut((rows * columns).max(1)).enumerate() {
            let [a_at, b_at] = [0, 1].map(|of| offset(at, &batch, &strides[of]));
            let a = &a.elements::<f32>()[a_at * rows * depth..][..rows * depth];
            let b = &b.elements::<f32>()[b_at * depth * columns..][..depth * columns];
            product(a, b, depth, columns, out);
        }
    }
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

fn product(a: &[f32], b: &[f32], depth: usize, columns: usize, out: &mut [f32]) {
    out.fill(0.0);
    if depth == 0 || columns == 0 {
        return;
    }
    for (a, out) in a.chunks_exact(depth).zip(out.chunks_exact_mut(columns)) {
        for (&x, b) in a.iter().zip(b.chunks_exact(columns)) {
            out.iter_mut().zip(b).for_each(|(sum, &y)| *sum += x * y);
        }
    }
}
