//! Products of pairs of bf16 against the oracle of rounded operands, at every level this processor has.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use half::bf16;
use kinglet_kernels::f32_functions::Function;
use kinglet_kernels::f32_gemm::{Gemm, PairGemm, Residual, Rounding, SparseGemm, Weights};
use kinglet_kernels::{Activation, Level, Window, reference};
use support::{assert_close, values};

/// The nearest bf16, the even one of two.
fn rounded(x: f32) -> f32 {
    let (below, bits) = (x.to_bits() & 0xffff_0000, x.to_bits());
    let above = below + 0x1_0000;
    let (to_below, to_above) = (bits - below, above - bits);
    let is_below = to_below < to_above || (to_below == to_above && below & 0x1_0000 == 0);
    f32::from_bits(if is_below { below } else { above })
}

/// An image rounded for a product, and a window over it.
fn paired(rounding: Rounding, image: &[f32], window: &Window, channels: usize) -> (Vec<f32>, Window) {
    let each = rounding.elements(channels);
    let mut rounded = vec![7.0; image.len() / channels.max(1) * each];
    rounding.run(image, channels, &rounding.grid(&mut rounded, channels));
    (rounded, Window { pitch: Window::image(window.images, window.size, each).pitch, ..*window })
}

/// All levels and panel widths agree with the oracle, and touch nothing beside their output.
fn check(window: &Window, depth: usize, columns: usize, activation: Activation) {
    let left = values(window.reach(depth), 1);
    let elements = values(window.taps() * depth * columns, 2);
    let (bias, rows, pitch) = (values(columns, 3), window.pixels(), columns + 3);
    let residual = values(rows * columns, 4);
    let residual = Residual { elements: &residual, pitch: columns };
    let near = |elements: &[f32]| elements.iter().map(|&x| rounded(x)).collect::<Vec<_>>();
    let (near_left, near_elements) = (near(&left), near(&elements));
    let weights = |elements| Weights::new(elements, [window.taps(), depth, columns]);
    let expected =
        reference::f32_gemm(&near_left, window, &weights(&near_elements), Some(&bias), Some(residual), activation);
    for level in Level::all() {
        for vectors in PairGemm::widths(level).map(Some).chain([None]) {
            let gemm = PairGemm::pack(level, &weights(&elements), Some(&bias), activation, vectors);
            let (image, window) = paired(gemm.rounding(), &left, window, depth);
            let mut out = vec![7.0; rows * pitch];
            gemm.run(&image, &window, Some(residual), &gemm.grid(&mut out, pitch, rows));
            let got: Vec<f32> = out.chunks(pitch).flat_map(|row| row[..columns].iter().copied()).collect();
            let told = format!("{level} {vectors:?} {window:?} {depth}x{columns}");
            assert_close(&got, &expected, window.taps() * depth, &told);
            assert!(out.chunks(pitch).all(|row| row[columns..].iter().all(|&x| x == 7.0)), "{told}");
        }
    }
}

#[test]
fn every_tail_of_rows_columns_and_depth() {
    for rows in [0, 1, 2, 3, 5, 8, 13, 26] {
        for columns in [1, 7, 8, 9, 16, 17, 33, 48, 64, 65] {
            for depth in [1, 2, 3, 8, 31] {
                check(&Window::rows(rows, depth), depth, columns, Activation::None);
            }
        }
    }
}

#[test]
fn windows_of_every_kind() {
    for (kernel, stride, dilation, pad, out) in [
        ([3, 3], [1, 1], [1, 1], [1, 1], [6, 7]),
        ([3, 3], [2, 2], [1, 1], [1, 1], [3, 4]),
        ([3, 3], [1, 1], [2, 2], [2, 2], [6, 7]),
        ([5, 2], [1, 3], [1, 1], [2, 0], [6, 2]),
    ] {
        for depth in [4, 5] {
            let window = Window { kernel, stride, dilation, pad, out, ..Window::image(2, [6, 7], depth) };
            check(&window, depth, 20, Activation::RELU);
        }
    }
}

#[test]
fn elements_that_are_zero_add_nothing() {
    let columns = 300;
    for depth in [1, 2, 63, 64, 129, 1500] {
        for (zeros, weight) in [(700, 1.0), (1000, 1.0), (700, f32::INFINITY)] {
            let is_zero = |x: &f32| (x.to_bits() >> 8) % 1000 < zeros;
            let row: Vec<f32> = values(depth, 5).into_iter().map(|x| if is_zero(&x) { 0.0 } else { x }).collect();
            let mut elements = values(depth * columns, 6);
            elements[depth / 2 * columns] = weight;
            let (weights, together) = (Weights::new(&elements, [1, depth, columns]), row.repeat(2));
            for level in Level::all() {
                for vectors in PairGemm::widths(level) {
                    let gemm = PairGemm::pack(level, &weights, None, Activation::None, Some(vectors));
                    let run = |left: &[f32], rows| {
                        let (image, window) = paired(gemm.rounding(), left, &Window::rows(rows, depth), depth);
                        let mut out = vec![0.0; rows * columns];
                        gemm.run(&image, &window, None, &gemm.grid(&mut out, columns, rows));
                        out.truncate(columns);
                        out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                    };
                    assert_eq!(run(&row, 1), run(&together, 2), "{level} {vectors} {depth} {zeros} {weight}");
                }
            }
        }
    }
}

#[test]
fn chains_longer_than_the_cache_go_on() {
    check(&Window::rows(3, 9001), 9001, 40, Activation::HardSwish);
}

#[test]
fn floats_are_rounded_to_the_even_one_of_two() {
    let cases = [
        (1.0, 0x3f80),
        (f32::from_bits(0x3f80_8000), 0x3f80),
        (f32::from_bits(0x3f81_8000), 0x3f82),
        (f32::from_bits(0x3f80_8001), 0x3f81),
        (-0.0, 0x8000),
        (f32::MAX, 0x7f80),
        (f32::NEG_INFINITY, 0xff80),
        (f32::NAN, 0x7fc0),
        (f32::from_bits(0x7fff_ffff), 0x7fff),
        (f32::from_bits(0xff80_0001), 0xffc0),
    ];
    let floats: Vec<f32> = cases.iter().map(|case| case.0).collect();
    let expected: Vec<u16> = cases.iter().map(|case| case.1).collect();
    // A product with one is what was rounded, but for what is no number, of which zero times is none either.
    let weights = Weights::new(&[1.0], [1, 1, 1]);
    for level in Level::all() {
        let gemm = PairGemm::pack(level, &weights, None, Activation::None, None);
        let (image, window) = paired(gemm.rounding(), &floats, &Window::rows(floats.len(), 1), 1);
        let mut out = vec![0.0; floats.len()];
        gemm.run(&image, &window, None, &gemm.grid(&mut out, 1, floats.len()));
        for (out, expected) in out.iter().zip(&expected) {
            let expected = f32::from_bits(u32::from(*expected) << 16);
            assert!(*out == expected || (out.is_nan() && expected.is_nan()), "{level} {out} {expected}");
        }
    }
}

#[test]
fn weights_take_half_the_memory() {
    let elements = values(64 * 64, 1);
    let weights = Weights::new(&elements, [1, 64, 64]);
    for level in Level::all() {
        let whole = Gemm::pack(level, &weights, None, Activation::None, None).bytes();
        let pairs = PairGemm::pack(level, &weights, None, Activation::None, None).bytes();
        assert!(pairs * 2 < whole + 2048, "{level}: {pairs} bytes, {whole} as floats");
    }
}

#[test]
fn lines_of_halves_have_every_tail() {
    for level in Level::all().filter(|&level| PairGemm::is_faster(level)) {
        let weights = Weights::new(&[1.0, 2.0], [1, 2, 1]);
        let gemm = PairGemm::pack(level, &weights, None, Activation::None, None);
        for (count, first) in (0..34).flat_map(|count| [(count, 0), (count, 1)]) {
            let from = values(count, 5);
            let mut to = vec![7u16; first + count + 2];
            gemm.rounding().line(&from, &mut to[first..first + count]);
            let halves = from.iter().map(|&x| u16::try_from(rounded(x).to_bits() >> 16).unwrap());
            assert!(to[first..first + count].iter().copied().eq(halves), "{level} {count}");
            assert!(to[..first].iter().chain(&to[first + count..]).all(|&half| half == 7), "{level} {count}");
        }
    }
}

/// Products without zeros have the bits of dense ones.
fn check_sparse(window: &Window, depth: usize, columns: usize, one_in: u32, activation: Activation) {
    let left = values(window.reach(depth), 1);
    let kept = |x: f32| if (x.to_bits() >> 8).is_multiple_of(one_in) { x } else { 0.0 };
    let elements: Vec<f32> = values(window.taps() * depth * columns, 2).into_iter().map(kept).collect();
    let weights = Weights::new(&elements, [window.taps(), depth, columns]);
    let (bias, rows, pitch) = (values(columns, 3), window.pixels(), columns + 3);
    let residual = values(rows * columns, 4);
    let residual = Residual { elements: &residual, pitch: columns };
    for level in Level::all() {
        let dense = PairGemm::pack(level, &weights, Some(&bias), activation, None);
        let (image, window) = paired(dense.rounding(), &left, window, depth);
        let mut expected = vec![7.0; rows * pitch];
        dense.run(&image, &window, Some(residual), &dense.grid(&mut expected, pitch, rows));
        for block in SparseGemm::blocks() {
            let gemm = SparseGemm::pack_in_pairs(level, &weights, Some(&bias), activation, block);
            assert_eq!(gemm.rounding(), Some(dense.rounding()));
            let mut out = vec![7.0; rows * pitch];
            gemm.run(&image, &window, Some(residual), &gemm.grid(&mut out, pitch, rows, 1));
            let told = format!("{level} {block} {window:?} {depth}x{columns} {one_in}");
            assert!(out == expected, "{told}: {out:?} {expected:?}");
            assert_eq!(gemm.has_halves(), dense.has_halves(), "{told}");
            if !gemm.has_halves() {
                continue;
            }
            let added: Vec<bf16> = residual.elements.iter().map(|&x| bf16::from_f32(x)).collect();
            let added = Residual { elements: &added[..], pitch: columns };
            let (mut out, mut expected) = (vec![bf16::ONE; rows * pitch], vec![bf16::ONE; rows * pitch]);
            dense.run_to_halves(&image, &window, Some(added), &dense.grid(&mut expected, pitch, rows));
            gemm.run_to_halves(&image, &window, Some(added), &gemm.grid(&mut out, pitch, rows, 1));
            assert!(out == expected, "{told}: {out:?} {expected:?}");
        }
    }
}

#[test]
fn products_without_zeros_have_every_tail() {
    for rows in [0, 1, 5, 15, 16, 17, 33, 64, 70] {
        for columns in [1, 3, 16, 17, 33, 65] {
            for depth in [0, 1, 2, 3, 8, 31] {
                check_sparse(&Window::rows(rows, depth), depth, columns, 4, Activation::None);
            }
        }
    }
    for one_in in [1, 20, 1_000_003] {
        check_sparse(&Window::rows(40, 700), 700, 70, one_in, Activation::Function(Function::Gelu));
    }
}

#[test]
fn windows_of_products_without_zeros() {
    for depth in [4, 5] {
        let window = Window { kernel: [3, 3], pad: [1, 1], ..Window::image(2, [6, 7], depth) };
        check_sparse(&Window { out: [6, 7], ..window }, depth, 20, 5, Activation::RELU);
        check_sparse(&Window { stride: [2, 2], out: [3, 4], ..window }, depth, 20, 5, Activation::HardSwish);
    }
}
