//! The image step: files of pictures become what a network takes.

mod decode;
mod exif;
mod fit;
mod pixels;
mod resample;
mod settings;
#[cfg(test)]
mod tests;
mod values;

use super::{Built, Step, StepLimits, batch_axis, in_rows};
use crate::engine::{BatchInput, Cores, Dim, EngineError, Merging, TensorSpec};
use crate::tensor::{DType, Shape, Tensor};
use pixels::Pixels;
pub use settings::{Colour, Datatype, Family, Filter, Fit, ImageSettings, Layout, Position, ResizeTo, Source};
use values::Values;

#[derive(Debug)]
struct Image {
    settings: ImageSettings,
    limits: StepLimits,
    values: Values,
}

pub(super) fn build(settings: &ImageSettings, limits: &StepLimits) -> Result<Built, EngineError> {
    settings.check(limits)?;
    let image = match settings.source {
        Source::Files => TensorSpec { name: "image".into(), dtype: DType::Bytes, dims: vec![batch_axis()] },
        Source::Pixels => {
            let side = |name: &str| Dim::Free(Some(name.into()));
            TensorSpec {
                name: "image".into(),
                dtype: DType::U8,
                dims: vec![batch_axis(), side("height"), side("width"), Dim::Fixed(3)],
            }
        }
    };
    let (channels, height) = (Dim::Fixed(settings.channels()), Dim::Fixed(settings.height));
    let width = settings.width.map_or_else(|| Dim::Free(None), Dim::Fixed);
    let dims = match settings.layout {
        Layout::ChannelsFirst => vec![batch_axis(), channels, height, width],
        Layout::ChannelsLast => vec![batch_axis(), height, width, channels],
    };
    let merging = match settings.width {
        Some(_) => Merging::Rows,
        None => Merging::Alone { operator: "image".into(), reason: "the width follows from the image".into() },
    };
    let values = Values::new(settings);
    let memory_bytes = values.bytes() as u64;
    let step = Image { settings: settings.clone(), limits: limits.clone(), values };
    let pixels = TensorSpec { name: "pixels".into(), dtype: step.dtype(), dims };
    Ok(Built { name: "image", inputs: vec![image], outputs: vec![pixels], merging, memory_bytes, step: Box::new(step) })
}

impl Step for Image {
    fn run(&self, inputs: &[BatchInput], cores: &Cores) -> Result<Vec<Tensor>, EngineError> {
        let input = &inputs[0];
        let made = match self.settings.source {
            Source::Files => {
                let files = super::elements(input);
                self.check_room(files.len())?;
                in_rows(files.len(), cores, &|row| {
                    let pixels = decode::decoded(files[row], self.settings.orientation, &self.limits);
                    self.made(pixels.map_err(|reason| format!("image {row}: {reason}"))?)
                })?
            }
            Source::Pixels => {
                let [height, width] = [input.shape[1], input.shape[2]];
                let whole = input.to_tensor();
                if width * height == 0 {
                    return Err(EngineError::InvalidShape(format!(
                        "expected at least one pixel, got {width}x{height}"
                    )));
                }
                self.check_room(input.shape.rows())?;
                in_rows(input.shape.rows(), cores, &|row| {
                    let length = width * height * 3;
                    let bytes = whole.bytes()[row * length..][..length].to_vec();
                    self.made(Pixels { width, height, channels: 3, bytes })
                })?
            }
        };
        self.stacked(made)
    }
}

/// One image's part of the output, and its width.
type Made = (usize, Vec<u8>);

impl Image {
    fn dtype(&self) -> DType {
        if self.settings.datatype == Datatype::F32 { DType::F32 } else { DType::U8 }
    }

    fn made(&self, pixels: Pixels) -> Result<Made, String> {
        let pixels = if self.settings.colour == Colour::Grey { pixels.into_grey() } else { pixels };
        let placed = fit::placed(pixels.width, pixels.height, &self.settings);
        let resized = resample::resized(&pixels, placed.across, placed.down, self.settings.resampler());
        Ok((placed.width, self.values.of(&resized, &placed)))
    }

    /// Outputs of so many images must not take more than a run may.
    fn check_room(&self, images: usize) -> Result<(), EngineError> {
        let width = self.settings.width.or(self.settings.width_max).unwrap_or(1);
        let elements = self.settings.height * width * self.settings.channels();
        self.limits.check_run(images, elements * self.dtype().size().unwrap_or(1))
    }

    fn stacked(&self, mut made: Vec<Made>) -> Result<Vec<Tensor>, EngineError> {
        let width = made.first().map_or(self.settings.width.unwrap_or(0), |(width, _)| *width);
        if let Some((other, _)) = made.iter().find(|(other, _)| *other != width) {
            let reason = format!("expected images that become equally wide in one request, got {width} and {other}");
            return Err(EngineError::InvalidContents(reason));
        }
        let (channels, height) = (self.settings.channels(), self.settings.height);
        let shape = match self.settings.layout {
            Layout::ChannelsFirst => Shape::new(&[made.len(), channels, height, width]),
            Layout::ChannelsLast => Shape::new(&[made.len(), height, width, channels]),
        };
        let bytes = match made.len() {
            1 => made.remove(0).1,
            _ => made.iter().map(|(_, bytes)| bytes.as_slice()).collect::<Vec<_>>().concat(),
        };
        Ok(vec![super::tensor(self.dtype(), shape, bytes)])
    }
}
