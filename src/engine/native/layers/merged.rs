//! Convolutions of few channels: a line of the kernel is one tap, because its elements lie beside each other in the image.

use bytemuck::Pod;
use kinglet_kernels::f32_gemm::PairGemm;
use kinglet_kernels::{Grid, Level, Window};

use super::View;
use super::dense::Dense;
use crate::engine::graph::op::Spatial;
use crate::engine::pool::Team;

/// Whether a line of the kernel is one tap, for images of so many channels at most.
pub(super) fn merges(spatial: &Spatial, depth: usize, most: usize) -> bool {
    depth <= most && spatial.kernel[1] > 1 && spatial.dilation[1] == 1
}

/// The window of merged taps, and whether it is over copied lines, between zeros.
pub(super) fn merged(spatial: &Spatial, window: &Window, channels: usize) -> (Window, bool) {
    let columns = spatial.kernel[1];
    let needed = (window.out[1].saturating_sub(1)) * window.stride[1] + columns;
    let is_copied = window.pad[1] > 0 || needed > window.size[1];
    let line = if is_copied { needed } else { window.size[1] };
    let merged = Window {
        size: [window.size[0], line + 1 - columns],
        pitch: [window.size[0] * line * channels, line * channels, channels],
        kernel: [window.kernel[0], 1],
        dilation: [window.dilation[0], 1],
        pad: [window.pad[0], 0],
        ..*window
    };
    (merged, is_copied)
}

/// The window of merged taps over lines of pairs, whose elements take half a float. A filter's line of an odd number of
/// elements sees one behind it, which meets a weight of zero.
fn merged_pairs(window: &Window, channels: usize) -> Window {
    let needed = (window.out[1].saturating_sub(1)) * window.stride[1] + window.kernel[1];
    let line = (needed * channels + 1).div_ceil(2);
    Window {
        size: [window.size[0], window.out[1].max(1)],
        pitch: [window.size[0] * line, line, window.stride[1] * channels / 2],
        kernel: [window.kernel[0], 1],
        stride: [window.stride[0], 1],
        dilation: [window.dilation[0], 1],
        pad: [window.pad[0], 0],
        ..*window
    }
}

/// Whether the lines of a filter may be multiplied in pairs of bf16: where that is faster, and pixels of the output begin
/// with a pair.
pub(super) fn comes_in_pairs(level: Level, spatial: &Spatial, channels: usize) -> bool {
    PairGemm::is_faster(level) && (spatial.stride[1] * channels).is_multiple_of(2)
}

/// As `merged`, for weights of either precision.
fn merged_for(weights: &Dense, spatial: &Spatial, window: &Window, channels: usize) -> (Window, bool) {
    match weights {
        Dense::Pairs(_) => (merged_pairs(window, channels), true),
        _ => merged(spatial, window, channels),
    }
}

/// Bytes of scratch for `image`.
pub(super) fn scratch(weights: &Dense, spatial: &Spatial, window: &Window, channels: usize) -> usize {
    let (merged, is_copied) = merged_for(weights, spatial, window, channels);
    if is_copied { merged.images * merged.pitch[0] * size_of::<f32>() } else { 0 }
}

/// The image and the window as products with merged weights take them.
pub(super) fn image<'a>(
    weights: &Dense,
    spatial: &Spatial,
    x: View<'a>,
    window: &Window,
    scratch: &'a mut [u8],
    team: &mut Team,
) -> (&'a [f32], Window) {
    let channels = x.shape().last().copied().unwrap_or(0);
    let (merged, is_copied) = merged_for(weights, spatial, window, channels);
    if !is_copied {
        return (bytemuck::cast_slice(x.bytes), merged);
    }
    let lines: &mut [f32] = &mut bytemuck::cast_slice_mut(scratch)[..merged.images * merged.pitch[0]];
    let (left, line) = (window.pad[1] * channels, merged.pitch[1]);
    match weights {
        Dense::Pairs(gemm) => {
            let halves = bytemuck::cast_slice_mut(lines);
            widen(x, spatial.axes, [left, line * 2], 0, halves, |to, from| gemm.rounding().line(from, to), team);
        }
        _ => widen(x, spatial.axes, [left, line], 0.0, lines, <[f32]>::copy_from_slice, team),
    }
    (lines, merged)
}

/// Puts each line of an image into one of `line` elements, `left` elements of `zero` before it and some behind; what is
/// beyond no window sees.
pub(super) fn widen<T: Pod + Sync, U: Copy + Send + Sync>(
    from: View<'_>,
    axes: usize,
    [left, line]: [usize; 2],
    zero: U,
    to: &mut [U],
    put: impl Fn(&mut [U], &[T]) + Sync,
    team: &mut Team,
) {
    let (elements, columns): (&[T], usize) = (from.elements(), from.shape().iter().skip(axes).product());
    let end = left + columns.min(line.saturating_sub(left));
    let lines = to.len() / line.max(1);
    let tile = [(LINES_TILE / (line * size_of::<U>()).max(1)).max(1), line.max(1)];
    let grid = Grid::new(to, line, [lines, line], tile);
    team.share(&|| {
        while let Some(mut tile) = grid.take() {
            let first = tile.first()[0];
            for row in 0..tile.size()[0] {
                let to = tile.row(row);
                to[..left].fill(zero);
                // A line may have no elements: zeros are all that is seen of it.
                put(&mut to[left..end], &elements[(first + row) * columns..][..end - left]);
                to[end..].fill(zero);
            }
        }
    });
}

/// Bytes that one core copies at a time.
const LINES_TILE: usize = 16 << 10;
