//! What the manifest says of an image step, and the check that it can be done.

use serde::Deserialize;

use super::super::{StepLimits, wrong};
use crate::engine::EngineError;

/// How a file becomes a network's input. Defaults: Pillow's bilinear filter, to exactly this size, RGB, FP32, channels
/// first, pixels from 0 to 255.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ImageSettings {
    pub height: usize,
    /// Absent where it follows from the image: with `fit = "height"` alone.
    pub width: Option<usize>,
    #[serde(default)]
    pub source: Source,
    #[serde(default)]
    pub fit: Fit,
    /// What `fit = "crop"` resizes to first.
    pub resize_to: Option<ResizeTo>,
    /// Bounds of a width that follows from the image.
    pub width_min: Option<usize>,
    pub width_max: Option<usize>,
    #[serde(default)]
    pub resize: Filter,
    #[serde(default)]
    pub like: Family,
    /// What is beside the image, for each channel of the output, from 0 to 255.
    pub padding: Option<Vec<f32>>,
    #[serde(default)]
    pub position: Position,
    #[serde(default)]
    pub colour: Colour,
    #[serde(default)]
    pub layout: Layout,
    #[serde(default)]
    pub datatype: Datatype,
    /// What 255 becomes before the mean is taken off.
    pub white: Option<f32>,
    pub mean: Option<Vec<f32>>,
    pub std: Option<Vec<f32>>,
    /// Whether the image is turned as its EXIF orientation says.
    #[serde(default)]
    pub orientation: bool,
}

/// What a client sends.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Files, JPEG or PNG.
    #[default]
    Files,
    /// Bytes of RGB, [height, width, 3].
    Pixels,
}

/// How an image comes to the size that is asked for.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Resized to it, whatever becomes of its shape.
    #[default]
    Stretch,
    /// Resized to `resize_to`, and its middle taken.
    Crop,
    /// Resized to fit into it, and padded.
    Pad,
    /// Resized to the height, and padded at its right; squeezed where it is too wide.
    Height,
}

/// An extent of the shorter side, or width and height.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum ResizeTo {
    Shorter(usize),
    Exactly([usize; 2]),
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    Nearest,
    #[default]
    Bilinear,
    Bicubic,
    Lanczos,
}

/// Whose resizing a network was trained with.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `Image.resize`: a filter is widened where the image becomes smaller.
    #[default]
    Pillow,
    /// `cv2.resize`: it is not.
    OpenCv,
}

/// Where an image lies between what pads it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    #[default]
    Centre,
    /// At the top, at the left.
    Start,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum Colour {
    #[default]
    #[serde(rename = "RGB")]
    Rgb,
    #[serde(rename = "BGR")]
    Bgr,
    #[serde(rename = "grey")]
    Grey,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum Layout {
    #[default]
    #[serde(rename = "NCHW")]
    ChannelsFirst,
    #[serde(rename = "NHWC")]
    ChannelsLast,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum Datatype {
    #[default]
    #[serde(rename = "FP32")]
    F32,
    #[serde(rename = "UINT8")]
    U8,
}

/// How pixels are made of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resampler {
    pub(super) filter: Filter,
    /// Whether the filter covers all that a pixel stands for.
    pub(super) widened: bool,
}

impl ImageSettings {
    pub(super) fn channels(&self) -> usize {
        if self.colour == Colour::Grey { 1 } else { 3 }
    }

    pub(super) fn resampler(&self) -> Resampler {
        Resampler { filter: self.resize, widened: self.like == Family::Pillow }
    }

    /// # Errors
    /// When settings contradict each other or a limit; the error says what was expected.
    pub(super) fn check(&self, limits: &StepLimits) -> Result<(), EngineError> {
        self.check_extents(limits)?;
        self.check_fit()?;
        self.check_numbers()?;
        match (self.like, self.resize) {
            (Family::OpenCv, Filter::Lanczos) => {
                Err(wrong("image", "nearest, bilinear or bicubic as OpenCV has them, got lanczos"))
            }
            _ => Ok(()),
        }
    }

    fn check_extents(&self, limits: &StepLimits) -> Result<(), EngineError> {
        let sides = match self.resize_to {
            None => [None; 2],
            Some(ResizeTo::Shorter(side)) => [Some(side); 2],
            Some(ResizeTo::Exactly(sides)) => sides.map(Some),
        };
        let named = [
            ("height", Some(self.height)),
            ("width", self.width),
            ("width_min", self.width_min),
            ("width_max", self.width_max),
            ("resize_to", sides[0]),
            ("resize_to", sides[1]),
        ];
        let beyond =
            named.into_iter().find(|(_, extent)| extent.is_some_and(|extent| !(1..=EXTENT_MAX).contains(&extent)));
        if let Some((name, Some(got))) = beyond {
            return Err(wrong("image", &format!("{name} of 1 to {EXTENT_MAX}, got {got}")));
        }
        let widest = self.width.or(self.width_max).unwrap_or(1);
        let (pixels, most) = (self.height * widest, limits.image_pixels_max);
        if pixels > most {
            return Err(wrong("image", &format!("at most {most} pixels, got {pixels}")));
        }
        Ok(())
    }

    fn check_fit(&self) -> Result<(), EngineError> {
        let has = |present: bool, allowed: bool, what: &str| match (present, allowed) {
            (true, false) => Err(wrong("image", &format!("no {what} with this fit"))),
            _ => Ok(()),
        };
        let follows = self.fit == Fit::Height && self.width.is_none();
        has(self.resize_to.is_some(), self.fit == Fit::Crop, "resize_to")?;
        has(self.padding.is_some(), matches!(self.fit, Fit::Pad | Fit::Height), "padding")?;
        has(self.position == Position::Start, self.fit == Fit::Pad, "position")?;
        has(self.width_min.is_some() || self.width_max.is_some(), follows, "width_min and width_max")?;
        has(self.orientation, self.source == Source::Files, "orientation of pixels")?;
        if self.width.is_none() && (!follows || self.width_max.is_none()) {
            return Err(wrong("image", "a width, or fit = \"height\" and width_max"));
        }
        if self.width_min > self.width_max {
            return Err(wrong("image", "a width_min of at most width_max"));
        }
        let least = [self.width.unwrap_or(0), self.height];
        match (self.fit, self.resize_to) {
            (Fit::Crop, None) => Err(wrong("image", "resize_to with fit = \"crop\"")),
            (Fit::Crop, Some(ResizeTo::Shorter(side))) if least.iter().any(|&least| side < least) => {
                Err(wrong("image", &format!("resize_to of at least width and height, got {side}")))
            }
            (Fit::Crop, Some(ResizeTo::Exactly([across, down]))) if across < least[0] || down < least[1] => {
                Err(wrong("image", &format!("resize_to of at least width and height, got [{across}, {down}]")))
            }
            _ => Ok(()),
        }
    }

    fn check_numbers(&self) -> Result<(), EngineError> {
        let channels = self.channels();
        for (name, list) in [("mean", &self.mean), ("std", &self.std), ("padding", &self.padding)] {
            let Some(list) = list else { continue };
            if list.len() != 1 && list.len() != channels {
                let got = list.len();
                return Err(wrong("image", &format!("a {name} for all channels or {channels} of them, got {got}")));
            }
            if list.iter().any(|number| !number.is_finite() || (name == "std" && *number == 0.0)) {
                return Err(wrong("image", &format!("numbers as {name}, and none of std that is 0")));
            }
        }
        if self.white.is_some_and(|white| !white.is_finite()) {
            return Err(wrong("image", "a number as white"));
        }
        let scaled = self.white.is_some() || self.mean.is_some() || self.std.is_some();
        if self.datatype == Datatype::U8 && scaled {
            return Err(wrong("image", "no white, mean and std with UINT8"));
        }
        Ok(())
    }
}

/// Of a side; larger ones are no network's input, and products of two stay within 32 bits.
const EXTENT_MAX: usize = 1 << 15;
