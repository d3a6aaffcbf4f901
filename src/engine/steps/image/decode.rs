//! Files of images, which anybody may have sent: what they need is known from their headers before any of it is taken.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use png::{ColorType, Transformations};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::super::StepLimits;
use super::exif;
use super::pixels::Pixels;

/// Why a file is not taken, as its sender is told.
type Refused = String;

/// Pixels of a file, turned as its EXIF says where that is asked for.
pub(super) fn decoded(file: &[u8], oriented: bool, limits: &StepLimits) -> Result<Pixels, Refused> {
    if file.len() > limits.image_bytes_max {
        return Err(format!("expected at most {} bytes, got {}", limits.image_bytes_max, file.len()));
    }
    let decode = match file {
        [0xff, 0xd8, ..] => jpeg,
        [0x89, b'P', b'N', b'G', ..] => png,
        _ => return Err("expected a JPEG or PNG file".into()),
    };
    // Decoders are others' code and files are strangers': a panic is that file's.
    let (pixels, orientation) =
        catch_unwind(AssertUnwindSafe(|| decode(file, limits))).unwrap_or_else(|_| Err("the file is broken".into()))?;
    Ok(if oriented { pixels.oriented(orientation) } else { pixels })
}

fn jpeg(file: &[u8], limits: &StepLimits) -> Result<(Pixels, u16), Refused> {
    let broken = "expected a whole JPEG, it is broken or cut short";
    let sides = usize::from(u16::MAX);
    let options = DecoderOptions::default().set_strict_mode(true).set_max_width(sides).set_max_height(sides);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    // Without its end the decoder makes up what is missing of the last rows.
    let last = |marker: [u8; 2]| file.array_windows().rposition(|found| *found == marker);
    if last(END) < last(SCAN) {
        return Err(broken.into());
    }
    decoder.decode_headers().map_err(|_| broken)?;
    let (width, height) = decoder.dimensions().ok_or(broken)?;
    check_pixels(width, height, limits)?;
    let scans = scans(file);
    if scans.saturating_mul(width * height) > limits.image_pixels_max.saturating_mul(SCANS_OF_THE_LARGEST) {
        return Err(format!("expected a JPEG of fewer scans, got {scans}"));
    }
    let space = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => ColorSpace::Luma,
        _ => ColorSpace::RGB,
    };
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let bytes = decoder.decode().map_err(|_| broken)?;
    let channels = if space == ColorSpace::Luma { 1 } else { 3 };
    let orientation = decoder.exif().map_or(1, |exif| exif::orientation(exif));
    whole(Pixels { width, height, channels, bytes }, orientation).ok_or_else(|| broken.into())
}

fn png(file: &[u8], limits: &StepLimits) -> Result<(Pixels, u16), Refused> {
    let broken = "expected a whole PNG, it is broken or cut short";
    let mut decoder = png::Decoder::new(Cursor::new(file));
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    // They may inflate to far more than they are.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(|_| broken)?;
    let [width, height] = [header.width, header.height].map(|side| side as usize);
    check_pixels(width, height, limits)?;
    let mut reader = decoder.read_info().map_err(|_| broken)?;
    let mut bytes = vec![0; reader.output_buffer_size().ok_or(broken)?];
    let frame = reader.next_frame(&mut bytes).map_err(|_| broken)?;
    let (channels, bytes) = match frame.color_type {
        ColorType::Grayscale => (1, bytes),
        ColorType::GrayscaleAlpha => (1, without_alpha::<2, 1>(&bytes)),
        ColorType::Rgb => (3, bytes),
        ColorType::Rgba => (3, without_alpha::<4, 3>(&bytes)),
        ColorType::Indexed => return Err(broken.into()),
    };
    let orientation = reader.info().exif_metadata.as_ref().map_or(1, |exif| exif::orientation(exif));
    whole(Pixels { width, height, channels, bytes }, orientation).ok_or_else(|| broken.into())
}

/// What a decoder gave back, where that is as many bytes as its header said.
fn whole(pixels: Pixels, orientation: u16) -> Option<(Pixels, u16)> {
    (pixels.bytes.len() == pixels.width * pixels.height * pixels.channels).then_some((pixels, orientation))
}

fn check_pixels(width: usize, height: usize, limits: &StepLimits) -> Result<(), Refused> {
    if width == 0 || height == 0 {
        return Err(format!("expected at least one pixel, got {width}x{height}"));
    }
    let most = limits.image_pixels_max;
    if width.saturating_mul(height) > most {
        return Err(format!("expected at most {most} pixels, got {width}x{height}"));
    }
    Ok(())
}

/// How often a decoder goes over the image, at most: a scan begins with these two bytes. Thousands of empty ones fit
/// into a small file.
fn scans(file: &[u8]) -> usize {
    file.array_windows().filter(|marker| **marker == SCAN).count()
}

/// Alpha is left out and not blended, as Pillow's conversion has it.
fn without_alpha<const FROM: usize, const TO: usize>(bytes: &[u8]) -> Vec<u8> {
    bytes.as_chunks::<FROM>().0.iter().flat_map(|pixel| pixel[..TO].iter().copied()).collect()
}

/// Of a JPEG: what begins a scan, and what ends the file.
const SCAN: [u8; 2] = [0xff, 0xda];
const END: [u8; 2] = [0xff, 0xd9];

/// Progressive files have ten; smaller images may have more.
const SCANS_OF_THE_LARGEST: usize = 16;
