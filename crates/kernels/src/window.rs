//! Where the rows of a product lie in an image: the geometry of convolutions and pooling, in elements.

use std::ops::Range;
use std::ptr;

/// How output pixels see the pixels of a channels-last image. A plain matrix is an image of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub images: usize,
    /// Lines and pixels of a line.
    pub size: [usize; 2],
    /// Elements from an image to the next, from a line to the next, from a pixel to the next.
    pub pitch: [usize; 3],
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// Zeros before the first line, and before the first pixel of a line. Those behind follow from `out`.
    pub pad: [usize; 2],
    /// Output lines and pixels of a line.
    pub out: [usize; 2],
}

impl Window {
    /// Rows of a matrix, `pitch` elements apart.
    pub fn rows(count: usize, pitch: usize) -> Self {
        Self {
            images: 1,
            size: [1, count],
            pitch: [count * pitch, count * pitch, pitch],
            kernel: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            pad: [0, 0],
            out: [1, count],
        }
    }

    /// A dense image of so many channels, seen pixel by pixel; the other fields are the caller's to change.
    pub fn image(images: usize, size: [usize; 2], channels: usize) -> Self {
        let pitch = [size[0] * size[1] * channels, size[1] * channels, channels];
        Self { images, size, pitch, out: size, ..Self::rows(0, 0) }
    }

    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Output pixels of all images: the rows of the product.
    pub fn pixels(&self) -> usize {
        self.images * self.out[0] * self.out[1]
    }

    /// The elements that an image buffer must have for `depth` elements of every pixel to be readable; more than any has
    /// where they cannot be counted.
    pub fn reach(&self, depth: usize) -> usize {
        if self.images == 0 || self.size.contains(&0) {
            return 0;
        }
        let last = [self.images - 1, self.size[0] - 1, self.size[1] - 1];
        let far = |sum: usize, (at, pitch): (&usize, &usize)| sum.checked_add(at.checked_mul(*pitch)?);
        last.iter().zip(&self.pitch).try_fold(depth, far).unwrap_or(usize::MAX)
    }

    /// Image, line and pixel of an output row.
    pub fn place(&self, row: usize) -> Place {
        let (rest, x) = (row / self.out[1], row % self.out[1]);
        Place { image: rest / self.out[0], y: rest % self.out[0], x }
    }

    /// Where the taps of the output pixel begin: element offset of tap (0, 0), which may lie before the image.
    #[expect(clippy::cast_possible_wrap, reason = "extents of memory that exists fit")]
    pub(crate) fn origin(&self, place: Place) -> isize {
        let [y, x] = [place.y * self.stride[0], place.x * self.stride[1]];
        (place.image * self.pitch[0] + y * self.pitch[1] + x * self.pitch[2]) as isize
            - (self.pad[0] * self.pitch[1] + self.pad[1] * self.pitch[2]) as isize
    }

    /// Whether one tap lies in the image, and its offset from the pixel's origin.
    pub(crate) fn tap(&self, place: Place, tap: usize) -> Option<usize> {
        let tap = [tap / self.kernel[1], tap % self.kernel[1]];
        let inside = (0..2).all(|axis| {
            let at = [place.y, place.x][axis] * self.stride[axis] + tap[axis] * self.dilation[axis];
            at >= self.pad[axis] && at < self.pad[axis] + self.size[axis]
        });
        inside.then(|| self.tap_offset(tap[0] * self.kernel[1] + tap[1]))
    }

    /// Goes through output pixels from one row on.
    pub(crate) fn walk(&self, row: usize) -> Walk<'_> {
        let reach = (self.kernel[1] - 1) * self.dilation[1];
        let end = (self.pad[1] + self.size[1]).saturating_sub(reach).div_ceil(self.stride[1]).min(self.out[1]);
        let start = self.pad[1].div_ceil(self.stride[1]);
        Walk { window: self, across: start.min(end)..end, place: self.place(row) }
    }

    /// The taps that lie in the image, along each axis.
    pub(crate) fn inside(&self, place: Place) -> [Range<usize>; 2] {
        [self.inside_along(0, place.y), self.inside_along(1, place.x)]
    }

    fn inside_along(&self, axis: usize, at: usize) -> Range<usize> {
        // Divisions take long, and are rarely needed.
        let dilated = |extent: usize| match self.dilation[axis] {
            1 => extent,
            dilation => extent.div_ceil(dilation),
        };
        let first = at * self.stride[axis];
        let before = dilated(self.pad[axis].saturating_sub(first));
        let left = dilated((self.pad[axis] + self.size[axis]).saturating_sub(first));
        let end = left.min(self.kernel[axis]);
        before.min(end)..end
    }

    pub(crate) fn tap_offset(&self, tap: usize) -> usize {
        if tap == 0 {
            return 0;
        }
        (tap / self.kernel[1]) * self.dilation[0] * self.pitch[1]
            + (tap % self.kernel[1]) * self.dilation[1] * self.pitch[2]
    }
}

/// Output pixels one after another: what is the same for many of them is found once.
#[derive(Clone, Debug)]
pub(crate) struct Walk<'a> {
    window: &'a Window,
    across: Range<usize>,
    place: Place,
}

impl<'a> Walk<'a> {
    /// Where it is.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Where the taps of this pixel begin, which may lie before the image.
    pub(crate) fn origin<T>(&self, image: &[T]) -> *const T {
        image.as_ptr().wrapping_offset(self.window.origin(self.place))
    }

    /// So many pixels on.
    pub(crate) fn advance(&mut self, pixels: usize) {
        let [lines, columns] = self.window.out;
        self.place.x += pixels;
        while self.place.x >= columns {
            self.place.x -= columns;
            self.place.y += 1;
            if self.place.y == lines {
                self.place.y = 0;
                self.place.image += 1;
            }
        }
    }

    /// The pixels of this line all of whose taps lie in the image.
    pub(crate) fn inner(&self) -> Range<usize> {
        if self.is_whole() { self.across.clone() } else { 0..0 }
    }

    /// Whether all lines of taps lie in the image.
    pub(crate) fn is_whole(&self) -> bool {
        let Window { kernel, stride, dilation, pad, size, .. } = self.window;
        let first = self.place.y * stride[0];
        first >= pad[0] && first + (kernel[0] - 1) * dilation[0] < pad[0] + size[0]
    }

    /// As `find`, of blocks of so many pixels, in the order `[block][tap][pixel]`; goes on behind them.
    pub(crate) fn find_blocks<T>(
        &mut self,
        image: &[T],
        zeros: &[T],
        [blocks, pixels]: [usize; 2],
        taps: &Range<usize>,
        from: usize,
        pointers: &mut [*const T],
    ) {
        // Blocks of one tap are like one.
        let found = if taps.len() == 1 { blocks * pixels } else { pixels };
        let pointers = &mut pointers[..blocks * taps.len() * pixels];
        for pointers in pointers.chunks_exact_mut(taps.len() * found) {
            self.find(image, zeros, found, taps.clone(), from, pointers);
            self.advance(found);
        }
    }

    /// Writes where each of so many pixels from here on finds each of some taps, from element `from` on, in the order
    /// `[tap][pixel]`. Taps outside the image find `zeros`.
    pub(crate) fn find<T>(
        &self,
        image: &[T],
        zeros: &[T],
        pixels: usize,
        taps: Range<usize>,
        from: usize,
        pointers: &mut [*const T],
    ) {
        let step = self.window.stride[1] * self.window.pitch[2];
        let mut walk = self.clone();
        if taps.len() == 1 {
            let offset = self.window.tap_offset(taps.start) + from;
            walk.each_line(pixels, |walk, of_line| {
                let first = walk.origin(image).wrapping_add(offset);
                let found = pointers[of_line.clone()].iter_mut().enumerate();
                found.for_each(|(x, pointer)| *pointer = first.wrapping_add(x * step));
                walk.hide(zeros, of_line, &taps, pixels, pointers);
            });
            return;
        }
        let mut origins = [ptr::null(); FOUND_TOGETHER];
        let mut found = 0;
        while found < pixels {
            let count = (pixels - found).min(FOUND_TOGETHER);
            let pointers = &mut pointers[found..];
            let mut ahead = walk.clone();
            ahead.each_line(count, |walk, of_line| {
                let first = walk.origin(image).wrapping_add(from);
                let origins = origins[of_line].iter_mut().enumerate();
                origins.for_each(|(x, origin)| *origin = first.wrapping_add(x * step));
            });
            // Loops of a known length take half the time.
            match (count, count == pixels) {
                (6, true) => self.spread::<T, 6>(&origins, taps.clone(), pointers),
                (8, true) => self.spread::<T, 8>(&origins, taps.clone(), pointers),
                (12, true) => self.spread::<T, 12>(&origins, taps.clone(), pointers),
                _ => self.spread_any(&origins[..count], taps.clone(), pixels, pointers),
            }
            walk.each_line(count, |walk, of_line| walk.hide(zeros, of_line, &taps, pixels, pointers));
            found += count;
        }
    }

    /// Goes on, and tells each line that it comes by, as pixels from the first on.
    fn each_line(&mut self, pixels: usize, mut tell: impl FnMut(&Self, Range<usize>)) {
        let mut found = 0;
        while found < pixels {
            let line = (self.window.out[1] - self.place.x).min(pixels - found);
            tell(self, found..found + line);
            found += line;
            self.advance(line);
        }
    }

    /// Adds where taps lie to where `N` pixels begin.
    fn spread<T, const N: usize>(&self, origins: &[*const T], taps: Range<usize>, pointers: &mut [*const T]) {
        let Some(origins) = origins.first_chunk::<N>() else { return };
        let (found, _) = pointers[..taps.len() * N].as_chunks_mut::<N>();
        self.each_tap(taps, |at, _, offset| {
            found[at].iter_mut().zip(origins).for_each(|(pointer, origin)| *pointer = origin.wrapping_add(offset));
        });
    }

    /// As `spread`, of some of so many pixels.
    fn spread_any<T>(&self, origins: &[*const T], taps: Range<usize>, pixels: usize, pointers: &mut [*const T]) {
        self.each_tap(taps, |at, _, offset| {
            let found = &mut pointers[at * pixels..][..origins.len()];
            found.iter_mut().zip(origins).for_each(|(pointer, origin)| *pointer = origin.wrapping_add(offset));
        });
    }

    /// Tells the number of each tap among those asked for, its line and column, and its offset from a pixel's origin.
    fn each_tap(&self, taps: Range<usize>, mut tell: impl FnMut(usize, [usize; 2], usize)) {
        let Window { kernel, dilation, pitch, .. } = *self.window;
        let mut tap = [taps.start / kernel[1], taps.start % kernel[1]];
        for at in 0..taps.len() {
            tell(at, tap, tap[0] * dilation[0] * pitch[1] + tap[1] * dilation[1] * pitch[2]);
            tap[1] += 1;
            if tap[1] == kernel[1] {
                tap = [tap[0] + 1, 0];
            }
        }
    }

    /// Puts zeros where pixels of this line see taps outside the image, of pixels from here on.
    fn hide<T>(
        &self,
        zeros: &[T],
        of_line: Range<usize>,
        taps: &Range<usize>,
        pixels: usize,
        pointers: &mut [*const T],
    ) {
        let (place, inner) = (self.place, self.inner());
        if inner.start <= place.x && place.x + of_line.len() <= inner.end {
            return;
        }
        for (x, pixel) in (place.x..).zip(of_line) {
            if inner.contains(&x) {
                continue;
            }
            let [lines, columns] = self.window.inside(Place { x, ..place });
            self.each_tap(taps.clone(), |at, [line, column], _| {
                if !(lines.contains(&line) && columns.contains(&column)) {
                    pointers[at * pixels + pixel] = zeros.as_ptr();
                }
            });
        }
    }
}

/// An output pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub image: usize,
    pub y: usize,
    pub x: usize,
}

/// Pixels whose taps are found together: no tile has more rows.
const FOUND_TOGETHER: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_outside_are_told() {
        let window = Window { kernel: [3, 3], pad: [1, 1], ..Window::image(2, [4, 5], 7) };
        assert_eq!((window.pixels(), window.taps(), window.reach(7)), (40, 9, 280));
        let corner = window.place(0);
        assert_eq!((window.walk(0).inner(), window.walk(5).inner()), (0..0, 1..4));
        assert_eq!(window.tap(corner, 0), None);
        assert_eq!(window.tap(corner, 4), Some(42));
        assert_eq!(window.origin(corner), -42);
        let inner = window.place(20 + 5 + 1);
        assert_eq!(inner, Place { image: 1, y: 1, x: 1 });
        assert_eq!(window.origin(inner), 140);
    }

    #[test]
    fn a_walk_finds_what_each_pixel_sees() {
        let window = Window {
            kernel: [3, 2],
            stride: [2, 1],
            dilation: [1, 2],
            pad: [1, 1],
            out: [2, 4],
            ..Window::image(2, [3, 4], 5)
        };
        let (image, zeros) = (vec![0u8; window.reach(5)], [0u8; 5]);
        let mut walk = window.walk(0);
        for row in 0..window.pixels() {
            assert_eq!(walk.place(), window.place(row));
            for (taps, pixels) in [(0..6, 1), (1..4, window.pixels() - row), (3..6, 3.min(window.pixels() - row))] {
                let mut found = vec![ptr::null(); taps.len() * pixels];
                walk.find(&image, &zeros, pixels, taps.clone(), 2, &mut found);
                for (at, found) in found.into_iter().enumerate() {
                    let place = window.place(row + at % pixels);
                    let seen = window
                        .tap(place, taps.start + at / pixels)
                        .map(|tap| image.as_ptr().wrapping_offset(window.origin(place)).wrapping_add(tap + 2));
                    assert_eq!(found, seen.unwrap_or(zeros.as_ptr()), "{place:?}");
                }
            }
            walk.advance(1);
        }
    }
}
