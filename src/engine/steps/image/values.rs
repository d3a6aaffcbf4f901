//! From bytes of pixels to the numbers a network takes, in its order of channels and axes.

use super::fit::Placed;
use super::pixels::Pixels;
use super::settings::{Colour, Datatype, ImageSettings, Layout};

/// What each byte becomes in each channel of the output: a table, because there are but 256 of them.
#[derive(Debug)]
pub(super) struct Values {
    /// Of each channel: the channel of the image, and what bytes become.
    channels: Vec<(usize, Box<[[u8; 4]; 256]>)>,
    /// What is beside the image, of each channel.
    padding: Vec<[u8; 4]>,
    /// Bytes of an element; of four, the first ones are taken.
    size: usize,
    layout: Layout,
}

impl Values {
    pub(super) fn new(settings: &ImageSettings) -> Self {
        let count = settings.channels();
        let of = |list: &Option<Vec<f32>>, channel: usize, otherwise: f32| match list.as_deref() {
            Some([all]) => *all,
            Some(list) => list[channel],
            None => otherwise,
        };
        let (floats, white) = (settings.datatype == Datatype::F32, settings.white.unwrap_or(255.0));
        let element = |channel: usize, pixel: f32| -> [u8; 4] {
            if !floats {
                return [whole(pixel), 0, 0, 0];
            }
            // In the order in which it is computed where networks are trained, for the same last bits.
            let value = if white.to_bits() == 255f32.to_bits() { pixel } else { pixel / 255.0 * white };
            ((value - of(&settings.mean, channel, 0.0)) / of(&settings.std, channel, 1.0)).to_le_bytes()
        };
        let channels = (0..count).map(|channel| {
            let source = if settings.colour == Colour::Bgr { 2 - channel } else { channel };
            let mut table = Box::new([[0; 4]; 256]);
            for (byte, place) in (0..=u8::MAX).zip(table.iter_mut()) {
                *place = element(channel, f32::from(byte));
            }
            (source, table)
        });
        let padding = (0..count).map(|channel| element(channel, of(&settings.padding, channel, 0.0)));
        Self {
            channels: channels.collect(),
            padding: padding.collect(),
            size: if floats { 4 } else { 1 },
            layout: settings.layout,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.channels.len() * size_of::<[[u8; 4]; 256]>()
    }

    /// The output of one image.
    pub(super) fn of(&self, pixels: &Pixels, placed: &Placed) -> Vec<u8> {
        match self.size {
            1 => self.laid_out::<1>(pixels, placed),
            _ => self.laid_out::<4>(pixels, placed),
        }
    }

    fn laid_out<const SIZE: usize>(&self, pixels: &Pixels, placed: &Placed) -> Vec<u8> {
        let area = placed.width * placed.height;
        let mut out = vec![0; area * self.channels.len() * SIZE];
        let (elements, _) = out.as_chunks_mut::<SIZE>();
        let last = self.layout == Layout::ChannelsLast;
        let step = if last { self.channels.len() } else { 1 };
        for (channel, (source, table)) in self.channels.iter().enumerate() {
            let first = if last { channel } else { channel * area };
            let padding: [u8; SIZE] = front(self.padding[channel]);
            // What has one channel is grey: the same in all.
            let source = if pixels.channels == 1 { 0 } else { *source };
            for y in 0..placed.height {
                let row = elements[first + y * placed.width * step..].iter_mut().step_by(step).take(placed.width);
                if !(placed.at[1]..placed.at[1] + pixels.height).contains(&y) {
                    row.for_each(|element| *element = padding);
                    continue;
                }
                let image = pixels.row(y - placed.at[1]).iter().skip(source).step_by(pixels.channels);
                let image = image.map(|&byte| front(table[usize::from(byte)]));
                let beside = std::iter::repeat(padding);
                let values = beside.clone().take(placed.at[0]).chain(image).chain(beside);
                row.zip(values).for_each(|(element, value)| *element = value);
            }
        }
        out
    }
}

fn front<const SIZE: usize>(bytes: [u8; 4]) -> [u8; SIZE] {
    std::array::from_fn(|place| bytes[place])
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats end at the type's bounds")]
fn whole(pixel: f32) -> u8 {
    pixel.round() as u8
}
