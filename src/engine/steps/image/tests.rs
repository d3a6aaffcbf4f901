//! Pictures against Pillow and OpenCV (`tests/fixtures/steps/make.py`), and files that were made to harm.

use proptest::prelude::*;

use super::super::testing::{Fixture, step};
use super::*;
use crate::engine::EngineError;
use crate::engine::testing::{answer, bytes_of, execute, values};

fn limits() -> StepLimits {
    StepLimits::new(&crate::engine::LoadOptions::default())
}

fn files_of(files: &[&[u8]]) -> Tensor {
    Tensor::from_elements(Shape::new(&[files.len()]), files.iter().copied()).unwrap()
}

fn source(fixture: &Fixture) -> Pixels {
    let [height, width, channels] = fixture.shape("source")[..] else { panic!("an image has three axes") };
    Pixels { width, height, channels, bytes: fixture.bytes("source") }
}

/// What a step makes of pixels.
fn of_pixels(settings: &str, pixels: &Pixels) -> Tensor {
    let plan = step(&format!("image = {{ source = \"pixels\", {settings} }}")).unwrap();
    let input = bytes_of(DType::U8, &[1, pixels.height, pixels.width, 3], pixels.bytes.clone());
    answer(plan, vec![input]).unwrap().remove(0)
}

fn refused(files: &[&[u8]]) -> String {
    let plan = step("image = { width = 4, height = 4 }").unwrap();
    match answer(plan, vec![files_of(files)]) {
        Err(EngineError::InvalidContents(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn furthest(got: &[u8], expected: &[u8]) -> u8 {
    assert_eq!(got.len(), expected.len());
    got.iter().zip(expected).map(|(got, expected)| got.abs_diff(*expected)).max().unwrap_or(0)
}

#[test]
fn files_are_decoded_as_pillow_does() {
    let fixture = Fixture::read();
    let names = fixture.names("file/");
    assert_eq!(names.len(), 26);
    for name in names {
        let pixels = decode::decoded(&fixture.bytes(&format!("file/{name}")), false, &limits()).unwrap();
        let rgb: Vec<u8> = match pixels.channels {
            1 => pixels.bytes.iter().flat_map(|&grey| [grey; 3]).collect(),
            _ => pixels.bytes.clone(),
        };
        let most = match name.as_str() {
            png if png.starts_with("png") => 0,
            "jpeg_grey" | "jpeg_grey_progressive" | "jpeg_rgb" | "jpeg_cmyk" => 1,
            full if full.starts_with("jpeg_444") => 3,
            // Decoders differ where colours of fewer pixels are spread over more.
            _ => 12,
        };
        let far = furthest(&rgb, &fixture.bytes(&format!("decoded/{name}")));
        assert!(far <= most, "{name}: {far}");
    }
}

#[test]
fn images_are_turned_where_that_is_asked_for() {
    let fixture = Fixture::read();
    for name in fixture.names("turned/") {
        let file = fixture.bytes(&format!("file/{name}"));
        let expected = fixture.bytes(&format!("turned/{name}"));
        let far = |oriented| furthest(&decode::decoded(&file, oriented, &limits()).unwrap().bytes, &expected);
        assert!(far(true) <= if name.starts_with("png") { 0 } else { 12 }, "{name}: {}", far(true));
        assert!(far(false) > 50, "{name}");
    }
}

#[test]
fn resizing_is_pillows_to_the_bit_and_opencvs_within_one() {
    let fixture = Fixture::read();
    let source = source(&fixture);
    let names = fixture.names("resized/");
    assert_eq!(names.len(), 49);
    for name in names {
        let [family, filter, size] = name.split('/').collect::<Vec<_>>()[..] else { panic!("{name}") };
        let (width, height) = size.split_once('x').unwrap();
        let settings = format!(
            "width = {width}, height = {height}, resize = \"{filter}\", like = \"{family}\", datatype = \"UINT8\", layout = \"NHWC\""
        );
        let far = furthest(of_pixels(&settings, &source).bytes(), &fixture.bytes(&format!("resized/{name}")));
        assert!(far <= u8::from(family == "opencv"), "{name}: {far}");
    }
}

#[test]
fn images_are_fitted_as_others_do_it() {
    let fixture = Fixture::read();
    let source = source(&fixture);
    let tall = source.clone().oriented(5);
    let check = |name: &str, pixels: &Pixels, within: f32, settings: &str| {
        let got = of_pixels(settings, pixels);
        let shape: Vec<usize> = fixture.shape(&format!("fitted/{name}"));
        assert_eq!(got.shape()[1..], shape, "{name}");
        let expected = fixture.floats(&format!("fitted/{name}"));
        let got =
            if got.dtype() == DType::F32 { values(&got) } else { got.bytes().iter().copied().map(f32::from).collect() };
        let far = got.iter().zip(&expected).map(|(got, expected)| (got - expected).abs()).fold(0.0, f32::max);
        assert!(far <= within, "{name}: {far}");
    };
    let torch = "width = 14, height = 12, fit = \"crop\", resize_to = 18, white = 1.0, mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225]";
    check("crop", &source, 1e-6, torch);
    check("crop_tall", &tall, 1e-6, torch);
    let letterbox = "width = 16, height = 16, fit = \"pad\", padding = [114.0], like = \"opencv\", white = 1.0";
    check("letterbox", &source, 1.01 / 255.0, letterbox);
    check("letterbox_tall", &tall, 1.01 / 255.0, letterbox);
    let pad =
        "width = 16, height = 17, fit = \"pad\", padding = [1.0, 2.0, 3.0], datatype = \"UINT8\", layout = \"NHWC\"";
    check("pad", &source, 0.0, pad);
    let line = |width: &str| {
        format!(
            "{width}, height = 12, fit = \"height\", like = \"opencv\", colour = \"BGR\", padding = [127.5], white = 1.0, mean = [0.5], std = [0.5]"
        )
    };
    check("line", &source, 2.01 / 255.0, &line("width = 24"));
    check("line_squeezed", &source, 2.01 / 255.0, &line("width = 9"));
    check("line_free", &source, 2.01 / 255.0, &line("width_min = 10, width_max = 40"));
    let middle = "width = 14, height = 14, fit = \"crop\", resize_to = [16, 16], colour = \"BGR\", mean = [104.0, 117.0, 123.0], layout = \"NHWC\"";
    check("middle_bgr", &source, 0.0, middle);
    check("grey", &source, 0.0, "width = 8, height = 6, colour = \"grey\", resize = \"bicubic\", datatype = \"UINT8\"");
}

#[test]
fn every_image_is_a_row_and_the_broken_one_is_named() {
    let fixture = Fixture::read();
    let (png, jpeg) = (fixture.bytes("file/png_rgb"), fixture.bytes("file/jpeg_grey"));
    let settings = "image = { width = 5, height = 7 }";
    let plan = step(settings).unwrap();
    assert_eq!(plan.merging(), &Merging::Rows);
    let alone = |file: &[u8]| answer(step(settings).unwrap(), vec![files_of(&[file])]).unwrap().remove(0);
    let entries = vec![vec![files_of(&[&png, &jpeg])], vec![files_of(&[])], vec![files_of(&[&jpeg])]];
    let shares = execute(plan, entries, true).1.unwrap().shares;
    assert_eq!(shares[0][0].split_rows(&[1, 1]), [alone(&png), alone(&jpeg)]);
    assert_eq!(&shares[1][0].shape()[..], [0, 3, 7, 5]);
    assert_eq!(shares[2][0], alone(&jpeg), "grey is the same in all channels");
    assert_eq!(refused(&[&png, b"GIF89a"]), "image 1: expected a JPEG or PNG file");
}

#[test]
fn a_width_that_follows_is_one_for_all() {
    let fixture = Fixture::read();
    let settings = "image = { height = 11, fit = \"height\", width_max = 90 }";
    let plan = step(settings).unwrap();
    assert!(matches!(plan.merging(), Merging::Alone { .. }));
    let (wide, turned) = (fixture.bytes("file/png_rgb"), fixture.bytes("file/png_turned"));
    let got = answer(plan, vec![files_of(&[&wide, &wide])]).unwrap();
    assert_eq!(&got[0].shape()[..], [2, 3, 11, 19]);
    let plan = step("image = { height = 11, fit = \"height\", width_max = 90, orientation = true }").unwrap();
    let error = answer(plan, vec![files_of(&[&wide, &turned])]).unwrap_err().to_string();
    assert!(error.ends_with("expected images that become equally wide in one request, got 19 and 6"), "{error}");
}

#[test]
fn limits_hold() {
    let fixture = Fixture::read();
    let check = |limits: &StepLimits, name: &str, reason: &str| {
        assert_eq!(decode::decoded(&fixture.bytes(&format!("file/{name}")), false, limits).unwrap_err(), reason);
    };
    let length = fixture.bytes("file/png_rgb").len();
    check(
        &StepLimits { image_bytes_max: length - 1, ..limits() },
        "png_rgb",
        &format!("expected at most {} bytes, got {length}", length - 1),
    );
    for name in ["png_rgb", "jpeg_grey"] {
        check(&StepLimits { image_pixels_max: 208, ..limits() }, name, "expected at most 208 pixels, got 19x11");
        assert!(
            decode::decoded(
                &fixture.bytes(&format!("file/{name}")),
                false,
                &StepLimits { image_pixels_max: 209, ..limits() }
            )
            .is_ok()
        );
    }
    // A progressive file with scans that do nothing.
    let file = fixture.bytes("file/jpeg_grey_progressive");
    let mut many = file[..file.len() - 2].to_vec();
    let scan = many.array_windows().rposition(|marker| *marker == [0xff, 0xda]).unwrap();
    let scan = many[scan..].to_vec();
    (0..200).for_each(|_| many.extend_from_slice(&scan));
    many.extend_from_slice(&[0xff, 0xd9]);
    let refused = decode::decoded(&many, false, &StepLimits { image_pixels_max: 1000, ..limits() }).unwrap_err();
    assert!(refused.starts_with("expected a JPEG of fewer scans, got 2"), "{refused}");
    let plan = super::super::plan(
        &toml::from_str("image = { width = 5, height = 7 }").unwrap(),
        std::path::Path::new("."),
        &crate::engine::LoadOptions { arena_bytes_max: 5 * 7 * 3 * 4 * 2, ..Default::default() },
    );
    let png = fixture.bytes("file/png_rgb");
    let refused = answer(plan.unwrap(), vec![files_of(&[&png, &png, &png])]).unwrap_err().to_string();
    assert!(refused.ends_with("the outputs of 3 rows need 1260 bytes, the limit is 840"), "{refused}");
}

#[test]
fn headers_that_lie_are_refused_by_what_they_say() {
    let fixture = Fixture::read();
    let mut jpeg = fixture.bytes("file/jpeg_420_baseline");
    let frame = jpeg.array_windows().position(|marker| *marker == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
    assert_eq!(refused(&[&jpeg]), "image 0: expected at most 32000000 pixels, got 65535x65535");
    for side in [5, 7] {
        let mut jpeg = fixture.bytes("file/jpeg_420_baseline");
        jpeg[frame + side..frame + side + 2].copy_from_slice(&[0; 2]);
        assert!(refused(&[&jpeg]).starts_with("image 0: expected "));
    }
    let header = |width: u32, height: u32| {
        let mut png = fixture.bytes("file/png_rgb");
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        let mut crc = flate2::Crc::new();
        crc.update(&png[12..29]);
        png[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        png
    };
    assert_eq!(refused(&[&header(65535, 65535)]), "image 0: expected at most 32000000 pixels, got 65535x65535");
    assert_eq!(
        refused(&[&header(u32::MAX >> 1, u32::MAX >> 1)]),
        "image 0: expected at most 32000000 pixels, got 2147483647x2147483647"
    );
    for png in [header(0, 7), header(7, 0), header(19, 12), header(1 << 24, 1)] {
        assert_eq!(refused(&[&png]), "image 0: expected a whole PNG, it is broken or cut short");
    }
}

#[test]
fn files_that_are_cut_short_are_refused() {
    let fixture = Fixture::read();
    for name in ["png_rgb", "png_palette_transparent", "jpeg_420_baseline", "jpeg_422_progressive", "jpeg_cmyk"] {
        let file = fixture.bytes(&format!("file/{name}"));
        // The checksum of a PNG's empty last chunk is not looked at.
        let needed = if name.starts_with("png") { file.len() - 4 } else { file.len() };
        for length in 0..needed {
            assert!(decode::decoded(&file[..length], false, &limits()).is_err(), "{name} {length} of {}", file.len());
        }
    }
}

#[test]
fn settings_that_cannot_be_followed_are_refused() {
    let check = |settings: &str, reason: &str| {
        let refused = step(&format!("image = {{ {settings} }}")).unwrap_err().to_string();
        assert_eq!(refused, format!("invalid step: image expects {reason}"));
    };
    check("width = 0, height = 4", "width of 1 to 32768, got 0");
    check("width = 4, height = 40000", "height of 1 to 32768, got 40000");
    check("width = 32768, height = 32768", "at most 32000000 pixels, got 1073741824");
    check("height = 4", "a width, or fit = \"height\" and width_max");
    check("height = 4, fit = \"height\"", "a width, or fit = \"height\" and width_max");
    check("height = 4, fit = \"height\", width_min = 9, width_max = 8", "a width_min of at most width_max");
    check("width = 4, height = 4, fit = \"crop\"", "resize_to with fit = \"crop\"");
    check("width = 4, height = 4, fit = \"crop\", resize_to = 3", "resize_to of at least width and height, got 3");
    check(
        "width = 4, height = 4, fit = \"crop\", resize_to = [3, 9]",
        "resize_to of at least width and height, got [3, 9]",
    );
    check("width = 4, height = 4, resize_to = 9", "no resize_to with this fit");
    check("width = 4, height = 4, padding = [1.0]", "no padding with this fit");
    check("width = 4, height = 4, position = \"start\"", "no position with this fit");
    check("width = 4, height = 4, width_max = 9", "no width_min and width_max with this fit");
    check("width = 4, height = 4, source = \"pixels\", orientation = true", "no orientation of pixels with this fit");
    check(
        "width = 4, height = 4, resize = \"lanczos\", like = \"opencv\"",
        "nearest, bilinear or bicubic as OpenCV has them, got lanczos",
    );
    check("width = 4, height = 4, mean = [1.0, 2.0]", "a mean for all channels or 3 of them, got 2");
    check("width = 4, height = 4, std = [0.0]", "numbers as std, and none of std that is 0");
    check("width = 4, height = 4, white = nan", "a number as white");
    check("width = 4, height = 4, datatype = \"UINT8\", mean = [1.0]", "no white, mean and std with UINT8");
}

/// Changes bytes and asks for nothing but an answer.
fn changed(name: &str, flips: &[(prop::sample::Index, u8)], cut: prop::sample::Index) {
    let mut file = Fixture::read().bytes(&format!("file/{name}"));
    for (place, bits) in flips {
        let place = place.index(file.len());
        file[place] ^= bits;
    }
    file.truncate(cut.index(file.len()) + 1);
    let limits = StepLimits { image_pixels_max: 1 << 16, ..limits() };
    if let Ok(pixels) = decode::decoded(&file, true, &limits) {
        assert_eq!(pixels.bytes.len(), pixels.width * pixels.height * pixels.channels);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..3usize) {
        let mut file = [&b""[..], b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"][kind].to_vec();
        file.extend(bytes);
        prop_assert!(decode::decoded(&file, true, &limits()).is_err());
    }

    #[test]
    fn changed_files_do_no_harm(
        name in prop::sample::select(vec!["png_palette_4", "png_rgba_16", "jpeg_420_baseline", "jpeg_422_progressive", "jpeg_cmyk", "jpeg_turned"]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut: prop::sample::Index,
    ) {
        changed(name, &flips, cut);
    }

    #[test]
    fn images_of_any_shape_are_fitted(
        [width, height] in prop::array::uniform2(1usize..60),
        [across, down] in prop::array::uniform2(1usize..60),
        fit in prop::sample::select(vec!["stretch", "crop", "pad", "height"]),
        filter in prop::sample::select(vec!["nearest", "bilinear", "bicubic", "lanczos"]),
        level: u8,
    ) {
        let side = across.max(down);
        let more = if fit == "crop" { format!(", resize_to = {side}") } else { String::new() };
        let family = if filter == "lanczos" || side % 2 == 0 { "pillow" } else { "opencv" };
        let settings = format!(
            "width = {across}, height = {down}, fit = \"{fit}\", resize = \"{filter}\", like = \"{family}\", datatype = \"UINT8\"{more}"
        );
        let pixels = Pixels { width, height, channels: 3, bytes: vec![level; width * height * 3] };
        let got = of_pixels(&settings, &pixels);
        // What has one colour keeps it; padding is black.
        let padded = matches!(fit, "pad" | "height");
        prop_assert!(got.bytes().iter().all(|&byte| byte == level || (padded && byte == 0)), "{settings}");
    }
}
