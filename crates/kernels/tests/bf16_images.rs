//! Images, residuals and results that lie in memory as bf16, against the oracle of rounded operands, at the levels that have
//! kernels for them.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use half::bf16;
use kinglet_kernels::f32_attention::{Attention, Extents, Order, Strided};
use kinglet_kernels::f32_depthwise::{Depthwise, Filters};
use kinglet_kernels::f32_functions::{
    Function, normalize, normalize_floats, normalize_halves, normalize_to_floats, rows_grid,
};
use kinglet_kernels::f32_gemm::{PairGemm, Residual, Weights};
use kinglet_kernels::f32_winograd::Winograd;
use kinglet_kernels::pool::Pool;
use kinglet_kernels::{Activation, Level, Window, reference};
use support::{assert_close, values};

fn levels() -> impl Iterator<Item = Level> {
    Level::all().filter(|&level| PairGemm::is_faster(level))
}

fn halves(elements: &[f32]) -> Vec<bf16> {
    elements.iter().copied().map(bf16::from_f32).collect()
}

fn floats(elements: &[bf16]) -> Vec<f32> {
    elements.iter().copied().map(f32::from).collect()
}

/// Two of them in the place of a float.
fn paired(elements: &[f32]) -> Vec<f32> {
    let bits = |x: f32| u32::from(bf16::from_f32(x).to_bits());
    elements.as_chunks().0.iter().map(|&[a, b]| f32::from_bits(bits(a) | bits(b) << 16)).collect()
}

/// Elements as rounding leaves them.
fn near(count: usize, seed: u64) -> Vec<f32> {
    floats(&halves(&values(count, seed)))
}

/// Within so many roundings to bf16, relative to the expected value or a share of the largest.
fn assert_near(got: &[bf16], expected: &[f32], roundings: f32, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
        let allowed = roundings / 256.0 * expected.abs().max(largest / 8.0).max(0.01);
        assert!((got.to_f32() - expected).abs() <= allowed, "{what}: at {at} expected {expected}, got {got}");
    }
}

/// Bounds are kept in registers, other activations see rounded sums.
fn roundings(activation: Activation) -> f32 {
    if matches!(activation, Activation::None | Activation::Clip { .. }) { 1.0 } else { 4.0 }
}

const UNTOUCHED: bf16 = bf16::from_bits(0x4242);

fn check_product(window: &Window, depth: usize, columns: usize, activation: Activation) {
    let (left, elements) = (near(window.reach(depth), 1), near(window.taps() * depth * columns, 2));
    let (bias, rows, pitch) = (values(columns, 3), window.pixels(), columns + 3);
    let added = near(rows * columns, 4);
    let of = |elements| Residual { elements, pitch: columns };
    let weights = Weights::new(&elements, [window.taps(), depth, columns]);
    let expected = reference::f32_gemm(&left, window, &weights, Some(&bias), Some(of(&added)), activation);
    let (image, added) = (paired(&left), halves(&added));
    let over_pairs = Window { pitch: window.pitch.map(|pitch| pitch / 2), ..*window };
    for level in levels() {
        for vectors in PairGemm::widths(level).map(Some).chain([None]) {
            let gemm = PairGemm::pack(level, &weights, Some(&bias), activation, vectors);
            assert!(gemm.has_halves());
            let mut out = vec![UNTOUCHED; rows * pitch];
            let residual = Residual { elements: &added[..], pitch: columns };
            gemm.run_to_halves(&image, &over_pairs, Some(residual), &gemm.grid(&mut out, pitch, rows));
            let got: Vec<bf16> = out.chunks(pitch).flat_map(|row| row[..columns].iter().copied()).collect();
            let told = format!("{level} {vectors:?} {window:?} {depth}x{columns} {activation:?}");
            assert_near(&got, &expected, roundings(activation), &told);
            assert!(out.chunks(pitch).all(|row| row[columns..].iter().all(|&x| x == UNTOUCHED)), "{told}");
        }
    }
}

#[test]
fn products_have_every_tail() {
    for rows in [0, 1, 2, 5, 13, 26] {
        for columns in [1, 7, 16, 17, 33, 64, 65] {
            for depth in [2, 8, 30] {
                check_product(&Window::rows(rows, depth), depth, columns, Activation::None);
            }
        }
    }
    for activation in [Activation::RELU, Activation::HardSwish, Activation::Function(Function::Gelu)] {
        check_product(&Window::rows(7, 12), 12, 37, activation);
    }
    let window = Window { kernel: [3, 3], pad: [1, 1], ..Window::image(2, [6, 7], 4) };
    check_product(&window, 4, 20, Activation::RELU);
}

/// Longer than the parts that floats are summed in.
#[test]
fn sums_of_a_long_chain_are_rounded_once() {
    check_product(&Window::rows(3, 6000), 6000, 40, Activation::None);
    let window = Window { kernel: [3, 3], pad: [1, 1], ..Window::image(1, [5, 5], 512) };
    check_product(&window, 512, 64, Activation::None);
}

#[test]
fn an_image_of_halves_makes_floats_too() {
    let (window, left, elements) = (Window::rows(9, 24), near(9 * 24, 1), near(24 * 40, 2));
    let weights = Weights::new(&elements, [1, 24, 40]);
    let expected = reference::f32_gemm(&left, &window, &weights, None, None, Activation::None);
    for level in levels() {
        let gemm = PairGemm::pack(level, &weights, None, Activation::None, None);
        let mut out = vec![0.0; 9 * 40];
        gemm.run(&paired(&left), &Window::rows(9, 12), None, &gemm.grid(&mut out, 40, 9));
        assert_close(&out, &expected, 24, &level.to_string());
    }
}

#[test]
fn more_taps_than_a_call_sees_leave_floats() {
    for level in levels() {
        for (taps, expected) in [(64, true), (65, false)] {
            let elements = vec![0.0; taps];
            let weights = Weights::new(&elements, [taps, 1, 1]);
            assert_eq!(PairGemm::pack(level, &weights, None, Activation::None, None).has_halves(), expected);
        }
    }
}

fn windows(channels: usize) -> impl Iterator<Item = Window> {
    let kinds = [
        ([3, 3], [1, 1], [1, 1], [1, 1], [6, 7], [6, 7]),
        ([3, 3], [2, 2], [1, 1], [1, 1], [6, 7], [3, 4]),
        ([2, 5], [1, 1], [2, 1], [1, 2], [6, 7], [6, 7]),
        ([3, 3], [1, 1], [1, 1], [1, 1], [4, 31], [4, 31]),
        ([5, 5], [2, 2], [1, 1], [2, 2], [5, 29], [3, 15]),
    ];
    kinds.into_iter().map(move |(kernel, stride, dilation, pad, size, out)| Window {
        kernel,
        stride,
        dilation,
        pad,
        out,
        ..Window::image(2, size, channels)
    })
}

#[test]
fn channels_by_themselves() {
    for channels in [1, 7, 16, 17, 33, 96] {
        for (window, activation) in windows(channels).flat_map(|w| [(w, Activation::RELU), (w, Activation::HardSwish)])
        {
            let (image, weights) = (near(window.reach(channels), 1), values(window.taps() * channels, 2));
            let bias = values(channels, 3);
            let expected = reference::f32_depthwise(&image, &window, &weights, Some(&bias), activation);
            for level in levels() {
                let filters = Filters { weights: &weights, taps: window.taps(), channels, bias: Some(&bias) };
                let depthwise = Depthwise::pack(level, &filters, activation);
                let mut out = vec![UNTOUCHED; window.pixels() * channels];
                let grid = depthwise.grid_of_halves(&mut out, channels, &window);
                depthwise.run_halves(&halves(&image), &window, &grid);
                assert_near(&out, &expected, roundings(activation), &format!("{level} {channels} {window:?}"));
            }
        }
    }
}

#[test]
fn pools() {
    for (channels, pool) in [1, 7, 16, 17, 80]
        .into_iter()
        .flat_map(|channels| [Pool::Max, Pool::Average { pad_after: None }].map(|pool| (channels, pool)))
    {
        for window in windows(channels) {
            let image = near(window.reach(channels), 1);
            let expected = reference::f32_pool(&image, &window, channels, pool);
            for level in levels() {
                let mut out = vec![UNTOUCHED; window.pixels() * channels];
                pool.run(level, &halves(&image), &window, &Pool::grid(&mut out, window.pixels(), channels));
                assert_near(&out, &expected, 1.0, &format!("{level} {channels} {pool:?} {window:?}"));
            }
        }
    }
}

#[test]
fn transformed_tiles() {
    for (depth, columns) in [(5, 7), (16, 33)] {
        let window = Window { kernel: [3, 3], pad: [1, 1], ..Window::image(2, [7, 9], depth) };
        let (left, elements) = (near(window.reach(depth), 1), values(9 * depth * columns, 2));
        let weights = Weights::new(&elements, [9, depth, columns]);
        let added = near(window.pixels() * columns, 4);
        let residual = Residual { elements: &added[..], pitch: columns };
        let expected = reference::f32_gemm(&left, &window, &weights, None, Some(residual), Activation::RELU);
        for level in levels() {
            let winograd = Winograd::pack(level, &weights, None, Activation::RELU);
            let tasks = winograd.tasks(&window, 1);
            let mut scratch = vec![f32::NAN; winograd.scratch(&window, tasks)];
            let mut out = vec![UNTOUCHED; window.pixels() * columns];
            let (left, added) = (halves(&left), halves(&added));
            let residual = Residual { elements: &added[..], pitch: columns };
            let grid = winograd.grid(&mut out, &window, Winograd::images_of_grid(&window, tasks), tasks);
            winograd.run(&left, &window, Some(residual), 0, &grid, &mut scratch);
            assert_near(&out, &expected, 2.0, &format!("{level} {depth}x{columns}"));
        }
    }
}

#[test]
fn attention() {
    for (size, is_masked) in [[1, 1, 1, 1, 2, 1], [2, 3, 7, 5, 4, 6], [1, 2, 65, 33, 32, 32], [2, 2, 70, 128, 18, 64]]
        .into_iter()
        .flat_map(|size| [(size, false), (size, true)])
    {
        let [batch, heads, queries, keys, depth, width] = size;
        let extents = Extents { batch, heads, queries, keys, depth, width };
        let strides = |tokens, each| [heads * tokens * each, each, heads * each, 1];
        let all_strides = [strides(queries, depth), strides(keys, depth), strides(keys, width)];
        let counts = [queries * depth, keys * depth, keys * width].map(|each| batch * heads * each);
        let elements = [0, 1, 2].map(|of| near(counts[of], of as u64 + 1));
        let [q, k, v] = [0, 1, 2].map(|of| Strided { elements: &elements[of], strides: all_strides[of] });
        let mask = values(keys, 9);
        let mask = is_masked.then_some(Strided { elements: &mask, strides: [0, 0, 0, 1] });
        let in_halves = elements.clone().map(|elements| halves(&elements));
        let [in_q, in_k, in_v] = [0, 1, 2].map(|of| Strided { elements: &in_halves[of], strides: all_strides[of] });
        let expected = reference::f32_attention(extents, 0.3, [&q, &k, &v], mask.as_ref());
        for level in levels() {
            let attention = Attention::<bf16>::new(level, extents, 0.3);
            let mut packed = vec![f32::NAN; attention.packed_elements()];
            attention.pack(&in_k, &in_v, &attention.packed_grid(&mut packed));
            let (mut out, mut room) = (vec![UNTOUCHED; expected.len()], vec![f32::NAN; attention.room_elements()]);
            let grid = attention.grid(&mut out, Order::HeadsOutside);
            attention.run(&in_q, mask.as_ref(), &packed, Order::HeadsOutside, &grid, &mut room);
            // Values that cancel each other were multiplied with rounded weights.
            assert_near(&out, &expected, 8.0, &format!("{level} {extents:?}"));
        }
    }
}

#[test]
fn rows_are_normalised_from_and_to_halves() {
    for (rows, width) in [(1, 1), (3, 7), (2, 16), (5, 33), (4, 384)] {
        let (from, scale, shift) = (near(rows * width, 1), values(width, 2), values(width, 3));
        for level in levels() {
            let factors = [&scale[..], &shift[..]];
            let mut expected = vec![0.0; rows * width];
            normalize(level, &from, factors, 1e-5, &rows_grid(&mut expected, rows, width));
            let told = format!("{level} {rows}x{width}");
            let (mut out, mut floats_out) = (vec![UNTOUCHED; rows * width], vec![0.0; rows * width]);
            normalize_to_floats(level, &halves(&from), factors, 1e-5, &rows_grid(&mut floats_out, rows, width));
            assert_eq!(floats_out, expected, "{told}");
            normalize_floats(level, &from, factors, 1e-5, &rows_grid(&mut out, rows, width));
            assert_near(&out, &expected, 1.0, &told);
            out.fill(UNTOUCHED);
            normalize_halves(level, &halves(&from), factors, 1e-5, &rows_grid(&mut out, rows, width));
            assert_near(&out, &expected, 1.0, &told);
        }
    }
}
