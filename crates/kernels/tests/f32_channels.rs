//! Depthwise convolutions and pooling against the oracle, at every level this processor has.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use kinglet_kernels::f32_depthwise::{Depthwise, Filters};
use kinglet_kernels::pool::Pool;
use kinglet_kernels::u8s8_depthwise::{ByteDepthwise, ByteFilters};
use kinglet_kernels::u8s8_gemm::Finish;
use kinglet_kernels::{Activation, Level, Window, reference};
use support::{assert_close, values};

const CHANNELS: [usize; 13] = [0, 1, 7, 8, 9, 15, 16, 17, 32, 33, 48, 71, 128];

fn windows() -> Vec<Window> {
    let kinds = [
        ([3, 3], [1, 1], [1, 1], [1, 1], [6, 7]),
        ([3, 3], [2, 2], [1, 1], [1, 1], [3, 4]),
        ([3, 3], [1, 2], [2, 3], [2, 1], [6, 2]),
        ([2, 5], [2, 1], [1, 1], [0, 2], [3, 7]),
        ([6, 7], [1, 1], [1, 1], [0, 0], [1, 1]),
        // Two lines more than the padding reaches, as a rounded-up extent has them.
        ([3, 3], [3, 3], [1, 1], [0, 0], [2, 3]),
        // Lines of many pixels beside each other.
        ([3, 3], [1, 1], [2, 1], [2, 1], [3, 31]),
        ([2, 5], [2, 1], [1, 1], [0, 0], [2, 27]),
        ([3, 5], [1, 2], [1, 1], [1, 2], [4, 16]),
        ([3, 3], [1, 2], [1, 1], [1, 1], [4, 35]),
        ([3, 5], [1, 1], [1, 1], [1, 2], [4, 70]),
    ];
    let window = |(kernel, stride, dilation, pad, out): ([usize; 2], _, _, _, [usize; 2])| Window {
        size: [if out[1] > 7 { 4 } else { 6 }, [7, 31, 70][usize::from(out[1] > 7) + usize::from(out[1] > 31)]],
        kernel,
        stride,
        dilation,
        pad,
        out,
        ..Window::rows(0, 0)
    };
    kinds.into_iter().map(window).collect()
}

fn with_channels(window: &Window, channels: usize) -> Window {
    let image = Window::image(2, window.size, channels);
    Window { images: 2, pitch: image.pitch, ..*window }
}

#[test]
fn depthwise() {
    for (channels, window) in CHANNELS.into_iter().flat_map(|c| windows().into_iter().map(move |w| (c, w))) {
        let window = with_channels(&window, channels);
        let image = values(window.reach(channels), 1);
        let weights = values(window.taps() * channels, 2);
        let bias = values(channels, 3);
        for (bias, activation) in
            [(None, Activation::None), (Some(&bias[..]), Activation::RELU), (None, Activation::HardSwish)]
        {
            let expected = match channels {
                0 => Vec::new(),
                _ => reference::f32_depthwise(&image, &window, &weights, bias, activation),
            };
            for level in Level::all() {
                let filters = Filters { weights: &weights, taps: window.taps(), channels, bias };
                let depthwise = Depthwise::pack(level, &filters, activation);
                let mut out = vec![0.0; window.pixels() * channels];
                depthwise.run(&image, &window, &depthwise.grid(&mut out, channels, &window));
                assert_close(&out, &expected, window.taps(), &format!("{level} {channels} {window:?}"));
            }
        }
    }
}

#[test]
fn depthwise_of_bytes() {
    let cases = CHANNELS.into_iter().flat_map(|c| windows().into_iter().map(move |w| (c, w)));
    for ((channels, window), zero) in cases.flat_map(|case| [(case, 113u8), (case, 0)]) {
        let (window, factor) = (with_channels(&window, channels), 0.0078125);
        let image: Vec<u8> = (0..window.reach(channels)).map(|at| (at * 37 % 256).to_le_bytes()[0]).collect();
        let weights: Vec<i8> =
            (0..window.taps() * channels).map(|at| (at * 101 % 256).to_le_bytes()[0].cast_signed()).collect();
        let bias: Vec<i32> = (0..channels).map(|at| i32::try_from(at).unwrap() * 100 - 700).collect();
        let [in_floats, bias_in_floats]: [Vec<f32>; 2] =
            [weights.iter().copied().map(f32::from).collect(), bias.iter().map(|&bias| bias as f32).collect()];
        let meant: Vec<f32> = image.iter().map(|&byte| f32::from(byte) - f32::from(zero)).collect();
        let sums = match channels {
            0 => Vec::new(),
            _ => reference::f32_depthwise(&meant, &window, &in_floats, Some(&bias_in_floats), Activation::None),
        };
        for level in Level::all() {
            let scale = vec![factor; channels];
            let filters = ByteFilters {
                weights: &weights,
                kernel: window.kernel,
                across: [window.stride[1], window.dilation[1]],
                channels,
                bias: &bias,
                scale: &scale,
            };
            let finish = Finish::Bytes { zero: 100, low: 100, high: 250 };
            let depthwise = ByteDepthwise::pack(level, &filters, zero, finish);
            let mut out = vec![0; window.pixels() * channels];
            depthwise.run(&image, &window, &depthwise.grid(&mut out, channels, &window));
            let expected = sums.iter().map(|sum| ((sum * factor).round_ties_even() + 100.0).clamp(100.0, 250.0));
            assert!(out.iter().map(|&byte| f32::from(byte)).eq(expected), "{level} {channels} {zero} {window:?}");
        }
    }
}

#[test]
fn pooling() {
    let pools = [Pool::Max, Pool::Average { pad_after: None }, Pool::Average { pad_after: Some([1, 0]) }];
    for (channels, window) in CHANNELS.into_iter().flat_map(|c| windows().into_iter().map(move |w| (c, w))) {
        let window = with_channels(&window, channels);
        let image = values(window.reach(channels), 1);
        for pool in pools {
            let expected = reference::f32_pool(&image, &window, channels, pool);
            for level in Level::all() {
                let mut out = vec![0.0; window.pixels() * channels];
                pool.run(level, &image, &window, &Pool::grid(&mut out, window.pixels(), channels));
                assert_close(&out, &expected, window.taps(), &format!("{level} {pool:?} {channels} {window:?}"));
            }
        }
    }
}

#[test]
fn pooling_of_bytes() {
    for (channels, window) in CHANNELS.into_iter().flat_map(|c| windows().into_iter().map(move |w| (c, w))) {
        let window = with_channels(&window, channels);
        let image: Vec<u8> = (0..window.reach(channels)).map(|at| (at * 37 % 256).to_le_bytes()[0]).collect();
        let signed: Vec<i8> = image.iter().map(|byte| byte.cast_signed()).collect();
        let greatest = |image: Vec<f32>, least: f32| {
            let found = reference::f32_pool(&image, &window, channels, Pool::Max);
            found.into_iter().map(|x| x.max(least)).collect::<Vec<f32>>()
        };
        let expected = greatest(image.iter().copied().map(f32::from).collect(), 0.0);
        let expected_signed = greatest(signed.iter().copied().map(f32::from).collect(), -128.0);
        for level in Level::all() {
            let (mut out, mut out_signed) = (vec![7u8; expected.len()], vec![7i8; expected.len()]);
            Pool::Max.run(level, &image, &window, &Pool::grid(&mut out, window.pixels(), channels));
            Pool::Max.run(level, &signed, &window, &Pool::grid(&mut out_signed, window.pixels(), channels));
            assert!(
                out.iter().map(|&byte| f32::from(byte)).eq(expected.iter().copied()),
                "{level} {channels} {window:?}"
            );
            assert!(out_signed.iter().map(|&byte| f32::from(byte)).eq(expected_signed.iter().copied()), "{level}");
        }
    }
}
