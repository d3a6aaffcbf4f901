//! A decoded image: bytes of grey, or of red, green and blue together, row by row.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pixels {
    pub(super) width: usize,
    pub(super) height: usize,
    /// 1 or 3.
    pub(super) channels: usize,
    pub(super) bytes: Vec<u8>,
}

impl Pixels {
    pub(super) fn row(&self, y: usize) -> &[u8] {
        let length = self.width * self.channels;
        &self.bytes[y * length..][..length]
    }

    /// Luma by ITU-R 601, as Pillow rounds it.
    pub(super) fn into_grey(self) -> Self {
        if self.channels == 1 {
            return self;
        }
        let (pixels, _) = self.bytes.as_chunks::<3>();
        let bytes = pixels.iter().map(|&pixel| luma(pixel)).collect();
        Self { channels: 1, bytes, ..self }
    }

    /// Turned and mirrored as EXIF's orientation, 1 to 8, says; other numbers say nothing.
    pub(super) fn oriented(self, orientation: u16) -> Self {
        let (width, height) = (self.width, self.height);
        let at: fn(usize, usize, [usize; 2]) -> [usize; 2] = match orientation {
            2 => |x, y, [w, _]| [w - 1 - x, y],
            3 => |x, y, [w, h]| [w - 1 - x, h - 1 - y],
            4 => |x, y, [_, h]| [x, h - 1 - y],
            5 => |x, y, _| [y, x],
            6 => |x, y, [_, h]| [y, h - 1 - x],
            7 => |x, y, [w, h]| [w - 1 - y, h - 1 - x],
            8 => |x, y, [w, _]| [w - 1 - y, x],
            _ => return self,
        };
        let [across, down] = if orientation >= 5 { [height, width] } else { [width, height] };
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for y in 0..down {
            for x in 0..across {
                let [from_x, from_y] = at(x, y, [width, height]);
                let start = (from_y * width + from_x) * self.channels;
                bytes.extend_from_slice(&self.bytes[start..start + self.channels]);
            }
        }
        Self { width: across, height: down, channels: self.channels, bytes }
    }
}

fn luma([red, green, blue]: [u8; 3]) -> u8 {
    let sum = 19_595 * u32::from(red) + 38_470 * u32::from(green) + 7_471 * u32::from(blue) + 0x8000;
    u8::try_from(sum >> 16).expect("the three factors are 1 together")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_turned() {
        // 1 2 3
        // 4 5 6
        let image = Pixels { width: 3, height: 2, channels: 1, bytes: vec![1, 2, 3, 4, 5, 6] };
        let check = |orientation: u16, width: usize, bytes: [u8; 6]| {
            let turned = image.clone().oriented(orientation);
            assert_eq!((turned.width, turned.bytes.as_slice()), (width, &bytes[..]), "{orientation}");
        };
        check(0, 3, [1, 2, 3, 4, 5, 6]);
        check(1, 3, [1, 2, 3, 4, 5, 6]);
        check(2, 3, [3, 2, 1, 6, 5, 4]);
        check(3, 3, [6, 5, 4, 3, 2, 1]);
        check(4, 3, [4, 5, 6, 1, 2, 3]);
        check(5, 2, [1, 4, 2, 5, 3, 6]);
        check(6, 2, [4, 1, 5, 2, 6, 3]);
        check(7, 2, [6, 3, 5, 2, 4, 1]);
        check(8, 2, [3, 6, 2, 5, 1, 4]);
        check(9, 3, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn grey_is_luma() {
        let image =
            Pixels { width: 4, height: 1, channels: 3, bytes: vec![255, 255, 255, 255, 0, 0, 0, 255, 0, 0, 0, 255] };
        assert_eq!(image.into_grey().bytes, [255, 76, 150, 29]);
    }
}
