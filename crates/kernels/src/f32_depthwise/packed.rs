//! What all element types share: packing, tiles, and where taps are found.

use std::ops::Range;
use std::ptr;

use super::generic::{self, Beside, BesideKernel, Element, Job, Kernel, Pixels, Table};
use crate::aligned::{Aligned, LANES_MAX};
use crate::grid::{Grid, Tile};
use crate::isa::Level;
use crate::window::{Place, Window};

/// A filter for each channel, laid out for the kernels of one instruction set, and what becomes of sums. Images are of the
/// elements that this is for.
#[derive(Debug)]
pub(crate) struct Packed<F> {
    level: Level,
    taps: usize,
    channels: usize,
    /// `[tap][padded channels]`.
    weights: Aligned,
    bias: Aligned,
    /// What taps outside the image see.
    zeros: Aligned,
    /// The same as a number.
    outside: f32,
    /// Whether taps outside the image add nothing to a sum.
    skips: bool,
    finish: F,
}

impl<F> Packed<F> {
    /// Packs weights in the order `[tap][channel]`; taps outside the image see `zero`.
    pub(crate) fn new<E: Element<Finish = F> + PartialEq + Into<f32>>(
        level: Level,
        filters: &super::Filters<'_>,
        zero: E,
        finish: F,
    ) -> Self {
        let super::Filters { weights, taps, channels, bias } = *filters;
        assert!((1..=TAPS_MAX).contains(&taps), "a filter has 1 to {TAPS_MAX} taps");
        assert_eq!(weights.len(), taps * channels, "weights are [tap][channel]");
        assert!(bias.is_none_or(|bias| bias.len() == channels), "there is a bias for each channel");
        let padded = channels.next_multiple_of(LANES_MAX);
        let mut packed = Self {
            level,
            taps,
            channels,
            weights: Aligned::zeroed(taps * padded * size_of::<f32>()),
            bias: bias.map_or_else(|| Aligned::zeroed(channels * size_of::<f32>()), Aligned::of),
            zeros: Aligned::zeroed(padded * size_of::<E>()),
            outside: zero.into(),
            skips: zero == E::zeroed(),
            finish,
        };
        packed.zeros.elements_mut::<E>().fill(zero);
        if channels > 0 {
            let rows = packed.weights.elements_mut::<f32>().chunks_exact_mut(padded);
            for (to, from) in rows.zip(weights.chunks_exact(channels)) {
                to[..channels].copy_from_slice(from);
            }
        }
        packed
    }

    /// The kernels for images of elements.
    pub(crate) fn table<E: Element<Finish = F>>(&self) -> &'static Table<E> {
        E::table(self.level)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.weights.bytes() + self.bias.bytes() + self.zeros.bytes()
    }

    /// Cuts the output of a window into tiles for `run`: some lines, and as many channels of them as stay in the nearest
    /// cache while a strip of pixels passes from line to line.
    ///
    /// # Panics
    /// When `out` cannot hold the pixels.
    pub(crate) fn grid<'a, E: Element>(&self, out: &'a mut [E], pitch: usize, window: &Window) -> Grid<'a, E> {
        let table = E::table(self.level);
        let strip = beside(table, window, window.out[1]).map_or(table.tiles.len(), |kernel| kernel.pixels);
        let seen = (strip - 1) * window.stride[1] + window.kernel[1];
        let near = NEAR_BYTES / ((seen * window.kernel[0] + strip) * size_of::<E>());
        let blocks = self.channels.div_ceil(near.max(LANES_MAX)).max(1);
        let channels = self.channels.div_ceil(blocks).next_multiple_of(LANES_MAX).clamp(1, self.channels.max(1));
        let line = window.out[1].max(1);
        let lines = (TILE_ELEMENTS / (line * channels)).max(LINES_MIN);
        Grid::new(out, pitch, [window.pixels(), self.channels], [lines * line, channels])
    }

    /// Computes tiles until none is left; any number of threads may do so at once.
    ///
    /// # Panics
    /// When the window reaches beyond `image`, the weights have other taps, or the output another size or was cut otherwise
    /// than by `grid`.
    pub(crate) fn run<E: Element<Finish = F>>(&self, image: &[E], window: &Window, grid: &Grid<'_, E>) {
        let table = self.table::<E>();
        assert!(window.reach(self.channels) <= image.len(), "the window lies within the image");
        assert_eq!(window.taps(), self.taps, "the window has the taps of the weights");
        assert_eq!(grid.size(), [window.pixels(), self.channels], "the output is pixels by channels");
        let mut taps = TapsFound { offsets: [0; TAPS_MAX], pointers: [ptr::null(); TAPS_MAX * generic::PIXELS_MAX] };
        taps.offsets.iter_mut().zip(0..self.taps).for_each(|(offset, tap)| *offset = window.tap_offset(tap));
        while let Some(tile) = grid.take() {
            let across = window.out[1];
            let is_whole = |rows: usize| rows.is_multiple_of(across);
            assert!(is_whole(tile.first[0]) && is_whole(tile.size[0]), "a tile of the output is of whole lines");
            let mut x = 0;
            while x < across {
                let kernel = beside(table, window, across - x);
                let pixels = kernel.map_or(table.tiles.len(), |kernel| kernel.pixels).min(across - x);
                for line in 0..tile.size[0] / across {
                    let place = Place { x, ..window.place(tile.first[0] + line * across) };
                    match kernel.and_then(|kernel| self.seen(image, window, place, kernel)) {
                        Some((kernel, found, lines)) => {
                            let first_tap = lines.start * window.kernel[1];
                            self.call(kernel, found, &tile, line * across + x, first_tap);
                        }
                        None => self.apart(image, window, &tile, line * across + x, pixels, &mut taps),
                    }
                }
                x += pixels;
            }
        }
    }

    /// What the pixels of a kernel see, from a place on, in which lines of taps; nothing where the kernel cannot tell.
    fn seen<E: Element<Finish = F>>(
        &self,
        image: &[E],
        window: &Window,
        place: Place,
        kernel: &BesideKernel<E>,
    ) -> Option<(Kernel<E>, Pixels<E>, Range<usize>)> {
        let lines = window.inside(place)[0].clone();
        // Lines of taps beyond the image change no sum, if what they see is nothing.
        if !self.skips && lines.len() < window.kernel[0] {
            return None;
        }
        let line = window.dilation[0] * window.pitch[1];
        let begin = place.x * window.stride[1];
        let seen = (kernel.pixels - 1) * kernel.stride + kernel.across;
        let before = window.pad[1].saturating_sub(begin);
        let end = (window.pad[1] + window.size[1]).saturating_sub(begin).min(seen);
        let half = kernel.across / 2;
        if before > half || end + half < seen {
            return None;
        }
        let first = image.as_ptr().wrapping_offset(window.origin(place)).wrapping_add(lines.start * line);
        let beside = Beside {
            first,
            step: window.pitch[2],
            line,
            lines: lines.len(),
            inside: [before, end],
            outside: self.outside,
        };
        let is_inner = [before, end] == [0, seen];
        Some((if is_inner { kernel.inner } else { kernel.edge }, Pixels::Beside(beside), lines))
    }

    /// Computes pixels of a line from a row of the tile on, whatever their taps are.
    fn apart<E: Element<Finish = F>>(
        &self,
        image: &[E],
        window: &Window,
        tile: &Tile<'_, E>,
        row: usize,
        pixels: usize,
        taps: &mut TapsFound<E>,
    ) {
        let kernels = self.table::<E>().tiles;
        let mut walk = window.walk(tile.first[0] + row);
        let mut done = 0;
        while done < pixels {
            let (inner, place, count) = (walk.inner(), walk.place(), kernels.len().min(pixels - done));
            let found = if inner.start <= place.x && place.x + count <= inner.end {
                let step = window.stride[1] * window.pitch[2];
                Pixels::Together { first: walk.origin(image), step, taps: taps.offsets.as_ptr() }
            } else {
                walk.find(image, self.zeros.elements(), count, 0..self.taps, 0, &mut taps.pointers);
                Pixels::Apart(taps.pointers.as_ptr())
            };
            self.call(kernels[count - 1], found, tile, row + done, 0);
            walk.advance(count);
            done += count;
        }
    }

    /// Runs a kernel for pixels of a line from a row of the tile on.
    fn call<E: Element<Finish = F>>(
        &self,
        kernel: Kernel<E>,
        pixels: Pixels<E>,
        tile: &Tile<'_, E>,
        row: usize,
        first_tap: usize,
    ) {
        let weights_pitch = self.channels.next_multiple_of(LANES_MAX);
        let job = Job {
            taps: self.taps,
            channels: [tile.first[1], tile.first[1] + tile.size[1]],
            pixels,
            weights: self.weights.elements::<f32>()[first_tap * weights_pitch..].as_ptr(),
            weights_pitch,
            bias: self.bias.elements::<f32>().as_ptr(),
            // Within the tile: `row` is less than its rows, and channels are those of the whole image.
            out: tile.out.wrapping_add(row * tile.pitch).wrapping_sub(tile.first[1]),
            out_pitch: tile.pitch,
            finish: &self.finish,
        };
        generic::call(kernel, &job);
    }
}

/// The kernels for pixels beside each other of a line that has so many left: those that divide it most evenly.
fn beside<E: Element>(table: &'static Table<E>, window: &Window, left: usize) -> Option<&'static BesideKernel<E>> {
    let fits = |kernel: &&BesideKernel<E>| {
        [kernel.across, kernel.stride] == [window.kernel[1], window.stride[1]] && window.dilation[1] == 1
    };
    let most = table.beside.iter().find(fits)?.pixels;
    let each = left.div_ceil(left.div_ceil(most).max(1));
    let mut fitting = table.beside.iter().filter(fits).filter(|kernel| kernel.pixels <= left);
    fitting.clone().rfind(|kernel| kernel.pixels >= each).or_else(|| fitting.next())
}

/// Where taps are: from an output pixel's first tap, and those of a block of pixels.
struct TapsFound<E> {
    offsets: [usize; TAPS_MAX],
    pointers: [*const E; TAPS_MAX * generic::PIXELS_MAX],
}

/// Room for the pointers of a block of pixels on the stack.
pub(super) const TAPS_MAX: usize = 128;

/// Elements of output in a tile, but for lines that are longer.
const TILE_ELEMENTS: usize = 16 << 10;

/// Lines of a tile at least: the next ones see most of what one has seen.
const LINES_MIN: usize = 8;

/// What a strip of pixels sees and becomes, in lines that meet one line of the output.
const NEAR_BYTES: usize = 24 << 10;
