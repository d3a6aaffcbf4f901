//! Convolutions of few channels: a line of the kernel is one tap, because its elements lie beside each other in the image.

use bytemuck::Pod;
use kinglet_kernels::f32_gemm::PairGemm;
use kinglet_kernels::{Level, Window};

use super::View;
use crate::engine::graph::op::Spatial;

/// Whether a line of the kernel is one tap, for images of so many channels at most.
pub(super) fn merges(spatial: &Spatial, depth: usize, most: usize) -> bool {
    depth <= most && spatial.kernel[1] > 1 && spatial.dilation[1] == 1
}

/// The window of merged taps, and the pixels of a line with its zeros where lines have to be copied.
pub(super) fn merged(spatial: &Spatial, window: &Window, channels: usize) -> (Window, Option<usize>) {
    let columns = spatial.kernel[1];
    let needed = (window.out[1].saturating_sub(1)) * window.stride[1] + columns;
    let width = if window.pad[1] == 0 && needed <= window.size[1] { None } else { Some(needed) };
    let line = width.unwrap_or(window.size[1]);
    let merged = Window {
        size: [window.size[0], line + 1 - columns],
        pitch: [window.size[0] * line * channels, line * channels, channels],
        kernel: [window.kernel[0], 1],
        dilation: [window.dilation[0], 1],
        pad: [window.pad[0], 0],
        ..*window
    };
    (merged, width)
}

/// Copies lines of an image into lines of `width` pixels, `left` pixels of `zero` before them and some behind; what is
/// beyond the width no window sees.
pub(super) fn widen<T: Pod>(from: View<'_>, axes: usize, [left, width]: [usize; 2], zero: T, to: &mut [T]) {
    let channels = from.shape().last().copied().unwrap_or(0);
    let columns = from.shape().get(axes).copied().unwrap_or(0);
    let taken = columns.min(width.saturating_sub(left)) * channels;
    let lines = from.elements::<T>().chunks_exact((columns * channels).max(1));
    for (from, to) in lines.zip(to.chunks_exact_mut((width * channels).max(1))) {
        let (before, rest) = to.split_at_mut(left * channels);
        let (line, after) = rest.split_at_mut(taken);
        before.fill(zero);
        line.copy_from_slice(&from[..taken]);
        after.fill(zero);
    }
}

/// Whether the lines of a filter may be multiplied in pairs of bf16: where that is faster, and pixels of the output begin
/// with a pair.
pub(super) fn comes_in_pairs(level: Level, spatial: &Spatial, channels: usize) -> bool {
    PairGemm::is_faster(level) && (spatial.stride[1] * channels).is_multiple_of(2)
}

/// The window of merged taps over lines of pairs, and the halves of a line. A filter's line of an odd number of elements
/// sees one behind it, which meets a weight of zero.
pub(super) fn merged_pairs(window: &Window, channels: usize) -> (Window, usize) {
    let needed = (window.out[1].saturating_sub(1)) * window.stride[1] + window.kernel[1];
    let line = (needed * channels + 1).next_multiple_of(2);
    let merged = Window {
        size: [window.size[0], window.out[1].max(1)],
        pitch: [window.size[0] * line / 2, line / 2, window.stride[1] * channels / 2],
        kernel: [window.kernel[0], 1],
        stride: [window.stride[0], 1],
        dilation: [window.dilation[0], 1],
        pad: [window.pad[0], 0],
        ..*window
    };
    (merged, line)
}

/// As `widen`, in elements and not pixels, rounded to bf16.
pub(super) fn widen_rounded(gemm: &PairGemm, from: View<'_>, axes: usize, [left, width]: [usize; 2], to: &mut [f32]) {
    let columns: usize = from.shape().iter().skip(axes).product();
    let taken = columns.min(width.saturating_sub(left));
    let lines = from.elements::<f32>().chunks_exact(columns.max(1));
    for (from, to) in lines.zip(bytemuck::cast_slice_mut::<f32, u16>(to).chunks_exact_mut(width)) {
        to[..left].fill(0);
        gemm.round_line(&from[..taken], &mut to[left..left + taken]);
        to[left + taken..].fill(0);
    }
}
