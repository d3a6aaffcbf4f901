//! Products with weights of which most are zero, whatever a word of them is: the image's pixels lie along the lanes of
//! vectors, and each weight that is not zero meets all of them. Columns of weights that share their rows go together.
//!
//! An image is channels-last; the words that some pixels bring to some rows of the weights are laid out row by row in a
//! panel that stays in the nearest cache, where all columns find them. Sums go on from one panel to the next, in order, so
//! that each is one chain over taps and depth without the zeros.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod generic;
mod portable;
mod program;

use std::mem::MaybeUninit;
use std::ptr;

use crate::aligned::LANES_MAX;
use crate::isa::{Level, Set, choose};
use crate::window::Window;
use generic::{Job, Turn};
pub use program::Fill;
use program::TOGETHER;
pub(crate) use program::{Matrix, Program};

/// The kernels of an instruction set for one kind of word.
#[derive(Debug)]
pub(crate) struct Kernels {
    pub(crate) name: &'static str,
    pub(crate) lanes: usize,
    products: Products,
    turn: unsafe fn(&Turn),
}

/// Kernels by the columns of a block as in `BLOCKS`.
#[derive(Debug)]
struct Products {
    /// Blocks that take their steps by turns.
    turns: [usize; BLOCKS.len()],
    /// By vectors less one.
    kernels: [&'static [unsafe fn(&Job)]; BLOCKS.len()],
}

/// Kernels of a function for each block, with so many blocks by turns, and each number of vectors.
macro_rules! products {
    ($function:ident, $turns:expr) => {
        crate::sparse::Products {
            turns: $turns,
            kernels: [
                &[
                    $function::<1, { $turns[0] }, 1>,
                    $function::<1, { $turns[0] }, 2>,
                    $function::<1, { $turns[0] }, 3>,
                    $function::<1, { $turns[0] }, 4>,
                ],
                &[
                    $function::<2, { $turns[1] }, 1>,
                    $function::<2, { $turns[1] }, 2>,
                    $function::<2, { $turns[1] }, 3>,
                    $function::<2, { $turns[1] }, 4>,
                ],
                &[
                    $function::<4, { $turns[2] }, 1>,
                    $function::<4, { $turns[2] }, 2>,
                    $function::<4, { $turns[2] }, 3>,
                    $function::<4, { $turns[2] }, 4>,
                ],
            ],
        }
    };
}
use products;

/// Columns of a block.
pub(crate) const BLOCKS: [usize; 3] = [1, 2, 4];

/// Words that are floats.
pub(crate) fn floats(level: Level) -> &'static Kernels {
    choose!(level, &FLOATS)
}

/// Words that are two bf16 where the instruction set multiplies pairs, else floats.
pub(crate) fn pairs(level: Level) -> &'static Kernels {
    match level.set() {
        #[cfg(target_arch = "x86_64")]
        Set::Avx512Bf16 => &avx512::PAIRS,
        _ => floats(level),
    }
}

/// Words that are four bytes, unsigned ones of the image and signed ones of the weights.
pub(crate) fn bytes(level: Level) -> &'static Kernels {
    match level.set() {
        #[cfg(target_arch = "x86_64")]
        Set::Avx512Bf16 | Set::Avx512Vnni => &avx512::BYTES,
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 | Set::Avx2 => &avx2::BYTES,
        _ => &portable::BYTES,
    }
}

/// An image whose pixels are words, and how the output sees it.
pub(crate) struct Image<'a, T> {
    pub(crate) elements: &'a [T],
    /// What taps outside the image see.
    pub(crate) zeros: &'a [T],
    pub(crate) window: &'a Window,
    /// Words of a tap.
    pub(crate) depth: usize,
}

/// What one thread works in. To clear it would take as long as small products.
#[repr(C, align(64))]
pub(crate) struct Room {
    panel: [MaybeUninit<u32>; PANEL_MAX / size_of::<u32>()],
    /// With those of columns that blocks lack behind them.
    sums: [MaybeUninit<u32>; SUMS + PIXELS_MAX],
}

impl Room {
    pub(crate) const fn new() -> Self {
        Self { panel: [MaybeUninit::uninit(); _], sums: [MaybeUninit::uninit(); _] }
    }

    /// The sums of each column, `Program::pitch` apart.
    pub(crate) fn sums(&self) -> *const u32 {
        self.sums.as_ptr().cast()
    }
}

impl Program {
    /// The sums of some pixels with some columns, from the first of those that go together on.
    ///
    /// # Panics
    /// When there are more than fit the room, or columns do not begin so.
    pub(crate) fn run<T>(
        &self,
        kernels: &Kernels,
        image: &Image<'_, T>,
        [pixel, pixels]: [usize; 2],
        [column, columns]: [usize; 2],
        room: &mut Room,
    ) {
        assert!((1..=self.pixels()).contains(&pixels) && columns <= SUMS / self.pixels(), "sums fit the room");
        let vectors = pixels.div_ceil(kernels.lanes);
        let kernel = kernels.products.kernels[self.block_at()][vectors - 1];
        // What follows sums takes whole vectors of columns.
        let behind = columns.next_multiple_of(LANES_MAX).min(SUMS / self.pitch(pixels));
        room.sums[columns * self.pitch(pixels)..behind * self.pitch(pixels)].fill(MaybeUninit::new(0));
        for panel in 0..self.panels() {
            self.lay_out(kernels, image, [pixel, pixels], panel * self.panel_rows(), room);
            for together in (0..columns).step_by(TOGETHER) {
                let part = self.part(column + together, panel);
                let job = Job {
                    code: self.code()[part.code..].as_ptr(),
                    turns: part.turns,
                    panel: room.panel.as_ptr().cast(),
                    sums: room.sums[together * self.pitch(pixels)..].as_mut_ptr().cast(),
                    resume: panel > 0,
                };
                generic::call(kernel, &job);
            }
        }
    }

    /// Lays out what pixels bring to the rows of a panel.
    fn lay_out<T>(
        &self,
        kernels: &Kernels,
        image: &Image<'_, T>,
        [pixel, pixels]: [usize; 2],
        first: usize,
        room: &mut Room,
    ) {
        let (walk, pitch) = (image.window.walk(pixel), self.pitch(pixels));
        let each = size_of::<u32>() / size_of::<T>();
        let end = (first + self.panel_rows()).min(self.rows());
        let mut places = [ptr::null::<T>(); PIXELS_MAX];
        let mut row = first;
        while row < end {
            let (tap, word) = (row / image.depth, row % image.depth);
            let words = (image.depth - word).min(end - row);
            walk.find(image.elements, image.zeros, pixels, tap..tap + 1, word * each, &mut places[..pixels]);
            // Lanes without a pixel see what the last one has.
            let last = places[pixels - 1];
            places[pixels..].fill(last);
            for first_lane in (0..pixels).step_by(kernels.lanes) {
                let to = room.panel[(row - first) * pitch + first_lane..].as_mut_ptr().cast();
                let pixels = places[first_lane..].as_ptr().cast();
                generic::call(kernels.turn, &Turn { pixels, words, to, pitch });
            }
            row += words;
        }
    }
}

/// Vectors of pixels that a weight meets.
const VECTORS: usize = 4;
pub(crate) const PIXELS_MAX: usize = VECTORS * LANES_MAX;

/// Bytes of a panel at most. Offsets in it have 16 bits.
const PANEL_MAX: usize = 52 << 10;

/// Words of sums: 128 KiB.
const SUMS: usize = 32 << 10;
