//! Where the rows of a product lie in an image: the geometry of convolutions and pooling, in elements.

use std::ops::Range;

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

    /// Writes where each of `rows` (the first and how many) finds each of some taps, from element `from` on, in the
    /// order `[tap][row]`. Taps outside the image find `zeros`.
    pub(crate) fn find<T>(
        &self,
        image: &[T],
        zeros: &[T],
        rows: [usize; 2],
        taps: Range<usize>,
        from: usize,
        pointers: &mut [*const T],
    ) {
        let mut row = 0;
        while row < rows[1] {
            let place = self.place(rows[0] + row);
            let line = (self.out[1] - place.x).min(rows[1] - row);
            let origin = image.as_ptr().wrapping_offset(self.origin(place)).wrapping_add(from);
            let inner = self.inner(place.y);
            let step = self.stride[1] * self.pitch[2];
            for (at, tap) in taps.clone().enumerate() {
                let offset = self.tap_offset(tap);
                let found = &mut pointers[at * rows[1] + row..][..line];
                for (x, pointer) in found.iter_mut().enumerate() {
                    let pixel = Place { x: place.x + x, ..place };
                    let is_seen = inner.contains(&pixel.x) || self.tap(pixel, tap).is_some();
                    *pointer = if is_seen { origin.wrapping_add(x * step + offset) } else { zeros.as_ptr() };
                }
            }
            row += line;
        }
    }

    /// The pixels of an output line all of whose taps lie in the image.
    pub(crate) fn inner(&self, y: usize) -> Range<usize> {
        let reach = |axis: usize| (self.kernel[axis] - 1) * self.dilation[axis];
        let first = y * self.stride[0];
        if first < self.pad[0] || first + reach(0) >= self.pad[0] + self.size[0] {
            return 0..0;
        }
        let end = (self.pad[1] + self.size[1]).saturating_sub(reach(1)).div_ceil(self.stride[1]).min(self.out[1]);
        let start = self.pad[1].div_ceil(self.stride[1]);
        start.min(end)..end
    }

    /// The taps that lie in the image, along each axis.
    pub(crate) fn inside(&self, place: Place) -> [Range<usize>; 2] {
        [0, 1].map(|axis| {
            let first = [place.y, place.x][axis] * self.stride[axis];
            let before = self.pad[axis].saturating_sub(first).div_ceil(self.dilation[axis]);
            let left = (self.pad[axis] + self.size[axis]).saturating_sub(first).div_ceil(self.dilation[axis]);
            let end = left.min(self.kernel[axis]);
            before.min(end)..end
        })
    }

    pub(crate) fn tap_offset(&self, tap: usize) -> usize {
        (tap / self.kernel[1]) * self.dilation[0] * self.pitch[1]
            + (tap % self.kernel[1]) * self.dilation[1] * self.pitch[2]
    }
}

/// An output pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub image: usize,
    pub y: usize,
    pub x: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_outside_are_told() {
        let window = Window { kernel: [3, 3], pad: [1, 1], ..Window::image(2, [4, 5], 7) };
        assert_eq!((window.pixels(), window.taps(), window.reach(7)), (40, 9, 280));
        let corner = window.place(0);
        assert_eq!((window.inner(0), window.inner(1)), (0..0, 1..4));
        assert_eq!(window.tap(corner, 0), None);
        assert_eq!(window.tap(corner, 4), Some(42));
        assert_eq!(window.origin(corner), -42);
        let inner = window.place(20 + 5 + 1);
        assert_eq!(inner, Place { image: 1, y: 1, x: 1 });
        assert_eq!(window.origin(inner), 140);
    }
}
