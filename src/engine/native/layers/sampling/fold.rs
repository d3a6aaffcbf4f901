//! Blocks put together to images: what falls on a pixel is summed.

use super::super::Io;
use crate::engine::graph::infer::{self, Facts, FoldedAxis};
use crate::engine::graph::op::Fold;

pub(super) fn run(fold: &Fold, io: &mut Io<'_>) {
    let facts: Facts<'_> = io.operands.iter().map(|operand| operand.fact).collect();
    // Inference has read the same extents.
    let Ok(folded) = infer::folded(fold, &facts) else { return };
    let x = io.operands[0].elements::<f32>();
    let out = io.output.elements::<f32>();
    out.fill(0.0);
    let product = |of: fn(&FoldedAxis) -> usize| folded.axes.iter().map(of).product::<usize>();
    let (size, taps, count) = (product(|axis| axis.extent), product(|axis| axis.block), product(|axis| axis.count));
    for (row, columns) in x.chunks_exact(count.max(1)).enumerate() {
        let (plane, tap) = (row / taps, row % taps);
        let out = &mut out[plane * size..][..size];
        for (column, x) in columns.iter().enumerate() {
            if let Some(place) = place(&folded.axes, tap, column) {
                out[place] += x;
            }
        }
    }
}

/// Where an element of a block falls, if that is in the image.
fn place(axes: &[FoldedAxis], tap: usize, column: usize) -> Option<usize> {
    let (mut tap, mut column, mut place, mut pitch) = (tap, column, 0, 1);
    for axis in axes.iter().rev() {
        let at = column % axis.count * axis.stride + tap % axis.block * axis.dilation;
        let at = at.checked_sub(axis.before).filter(|at| *at < axis.extent)?;
        place += at * pitch;
        (tap, column, pitch) = (tap / axis.block, column / axis.count, pitch * axis.extent);
    }
    Some(place)
}
