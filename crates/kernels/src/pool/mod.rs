//! The greatest or the average element of a window, channel by channel; lanes are channels. Of bytes the greatest alone.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod generic;
mod portable;

use crate::grid::Grid;
use crate::isa::Level;
use crate::window::{Place, Window};
use generic::Job;
pub use generic::{Element, PerLevel};

/// What becomes of the elements of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// NaN is passed over where another element follows or precedes it, as it happens.
    Max,
    /// Their sum over the number of taps in the image or, where zeros around it count, in the image and `pad_after`
    /// lines and pixels behind it and the window's own before it.
    Average { pad_after: Option<[usize; 2]> },
}

impl Pool {
    /// Computes tiles of an output of pixels by channels until none is left.
    ///
    /// # Panics
    /// When the window reaches beyond `image`, the output has not one row for each pixel, or elements have no averages.
    pub fn run<E: Element>(self, level: Level, image: &[E], window: &Window, grid: &Grid<'_, E>) {
        assert!(self == Self::Max || E::HAS_AVERAGES, "bytes have no averages");
        let [pixels, channels] = grid.size();
        assert!(window.reach(channels) <= image.len(), "the window lies within the image");
        assert_eq!(pixels, window.pixels(), "the output has a row for each pixel");
        let kernel = E::kernel(level);
        while let Some(tile) = grid.take() {
            let mut walk = window.walk(tile.first[0]);
            let mut row = 0;
            while row < tile.size[0] {
                let place = walk.place();
                // Those of a line that see no tap outside are alike.
                let inner = walk.inner();
                let alike = if inner.start <= place.x { inner.end.saturating_sub(place.x) } else { 0 };
                let pixels = alike.clamp(1, tile.size[0] - row);
                walk.advance(pixels);
                let [lines, columns] = window.inside(place);
                let first = lines.start * window.kernel[1] + columns.start;
                let start = window.tap(place, first).and_then(|tap| window.origin(place).checked_add_unsigned(tap));
                let job = Job {
                    image: start
                        .and_then(|start| image.get(usize::try_from(start).ok()?..))
                        .unwrap_or_default()
                        .as_ptr(),
                    taps: [lines.len(), columns.len()],
                    pitch: [window.dilation[0] * window.pitch[1], window.dilation[1] * window.pitch[2]],
                    first: tile.first[1],
                    channels: tile.size[1],
                    pixels,
                    step: [window.stride[1] * window.pitch[2], tile.pitch],
                    // Within the tile: `row` is less than its rows.
                    out: tile.out.wrapping_add(row * tile.pitch),
                    scale: self.scale(window, place, lines.len() * columns.len()),
                };
                generic::call(kernel, &job);
                row += pixels;
            }
        }
    }

    /// Cuts an output into tiles for `run`.
    ///
    /// # Panics
    /// When `out` cannot hold the pixels.
    pub fn grid<E>(out: &mut [E], pixels: usize, channels: usize) -> Grid<'_, E> {
        let rows = (TILE_ELEMENTS / channels.max(1)).max(1);
        Grid::new(out, channels, [pixels, channels], [rows, channels.max(1)])
    }

    /// What the sum of a window is multiplied with; nothing for the greatest element.
    fn scale(self, window: &Window, place: Place, inside: usize) -> Option<f32> {
        let Self::Average { pad_after } = self else { return None };
        let counted = pad_after.map_or(inside, |after| {
            let padded = Window {
                size: [0, 1].map(|axis| window.pad[axis] + window.size[axis] + after[axis]),
                pad: [0, 0],
                ..*window
            };
            padded.inside(place).map(|taps| taps.len()).into_iter().product()
        });
        Some(1.0 / counted as f32)
    }
}

/// Elements of output in a tile: 16 KiB of floats.
const TILE_ELEMENTS: usize = 4 << 10;
