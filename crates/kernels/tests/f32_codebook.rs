//! Products with weights of few bits against the oracle of the numbers they mean, at every level this processor has: rows
//! of floats with any table, and rows rounded to integers with tables of integers.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use kinglet_kernels::f32_functions::Function;
use kinglet_kernels::f32_gemm::{Codebook, CodebookGemm, CodedWeights, IntegerGemm, Residual, Weights};
use kinglet_kernels::{Activation, Level, Window, reference};
use support::{assert_close, values};

struct Case {
    window: Window,
    depth: usize,
    columns: usize,
    /// Numbers of the table.
    numbers: usize,
    activation: Activation,
}

fn codes(count: usize, numbers: usize) -> Vec<u8> {
    let code = |x: f32| usize::try_from(x.to_bits() >> 8).unwrap() % numbers;
    values(count, 2).into_iter().map(|x| u8::try_from(code(x)).unwrap()).collect()
}

impl Case {
    fn of(window: Window, depth: usize, columns: usize, numbers: usize) -> Self {
        Self { window, depth, columns, numbers, activation: Activation::None }
    }

    /// All levels and panel widths agree with the oracle, and touch nothing beside their output.
    fn check(&self) {
        let Self { window, depth, columns, numbers, activation } = *self;
        let (left, taps) = (values(window.reach(depth), 1), window.taps());
        let codes = codes(taps * depth * columns, numbers);
        let (table, scales) = (values(numbers, 5), values(columns, 6));
        let (bias, rows) = (values(columns, 3), window.pixels());
        let (pitch, residual_pitch) = (columns + 3, columns + 1);
        let residual = values(rows * residual_pitch, 4);
        let residual = Some(Residual { elements: &residual, pitch: residual_pitch });
        for scales in [&scales[..], &[]] {
            let number =
                |(at, &code): (usize, &u8)| table[usize::from(code)] * scales.get(at % columns).copied().unwrap_or(1.0);
            let decoded: Vec<f32> = codes.iter().enumerate().map(number).collect();
            let weights = Weights::new(&decoded, [taps, depth, columns]);
            let expected = reference::f32_gemm(&left, &window, &weights, Some(&bias), residual, activation);
            let weights = CodedWeights { elements: &codes[..], taps, depth, columns };
            for level in Level::all() {
                for vectors in CodebookGemm::widths(level).map(Some).chain([None]) {
                    let gemm = CodebookGemm::pack(level, &weights, [&table, scales], Some(&bias), activation, vectors);
                    let mut out = vec![7.0; rows * pitch];
                    gemm.run(&left, &window, residual, &gemm.grid(&mut out, pitch, rows));
                    let got: Vec<f32> = out.chunks(pitch).flat_map(|row| row[..columns].iter().copied()).collect();
                    let told = format!("{level} {vectors:?} {window:?} {depth}x{columns} of {numbers}");
                    assert_close(&got, &expected, taps * depth, &told);
                    assert!(out.chunks(pitch).all(|row| row[columns..].iter().all(|&x| x == 7.0)), "{told}");
                }
            }
        }
    }
}

/// A product of rows that are rounded.
struct Rounded {
    rows: usize,
    depth: usize,
    columns: usize,
    numbers: usize,
    block: usize,
    zeros: bool,
}

/// What a product is made of.
struct Made {
    codes: Vec<u8>,
    table: Vec<i8>,
    scales: Vec<f32>,
    zeros: Vec<f32>,
}

impl Rounded {
    fn of(rows: usize, depth: usize, columns: usize, numbers: usize) -> Self {
        Self { rows, depth, columns, numbers, block: usize::MAX, zeros: false }
    }

    fn made(&self) -> Made {
        let count = self.depth.div_ceil(self.block).max(1) * self.columns;
        let integer = |at: usize| i8::try_from(at * 37 % 255).unwrap_or(-128);
        Made {
            codes: codes(self.depth * self.columns, self.numbers),
            table: (0..self.numbers).map(integer).collect(),
            scales: values(count, 6),
            zeros: if self.zeros { values(count, 7).iter().map(|x| (x * 8.0).round()).collect() } else { Vec::new() },
        }
    }

    fn run(&self, level: Level, vectors: Option<usize>, left: &[f32], residual: Option<Residual<'_>>) -> Vec<f32> {
        let (Made { codes, table, scales, zeros }, bias) = (self.made(), values(self.columns, 3));
        let Self { depth, columns, .. } = *self;
        let codebook = Codebook { table: &table, scales: &scales, zeros: &zeros, block: self.block };
        let weights = CodedWeights { elements: &codes[..], taps: 1, depth, columns };
        let gemm = IntegerGemm::pack(level, &weights, &codebook, Some(&bias), Activation::RELU, vectors);
        let rows = left.len().checked_div(depth).unwrap_or(self.rows);
        let (mut rounded, mut out) = (vec![f32::NAN; rows * gemm.rounded()], vec![7.0; rows * (columns + 3)]);
        gemm.round(left, &gemm.rounded_grid(&mut rounded));
        gemm.run(&rounded, residual, &gemm.grid(&mut out, columns + 3, rows));
        assert!(out.chunks(columns + 3).all(|row| row[columns..].iter().all(|&x| x == 7.0)), "{level}");
        out.chunks(columns + 3).flat_map(|row| row[..columns].iter().copied()).collect()
    }

    /// Within what rounding an element by 2^-16 of the greatest leaves, for each term that could add up.
    fn check(&self) {
        let Self { rows, depth, columns, .. } = *self;
        let (Made { codes, table, scales, zeros }, left) = (self.made(), values(rows * depth, 1));
        let number = |(at, &code): (usize, &u8)| {
            let place = at / columns / self.block * columns + at % columns;
            (f32::from(table[usize::from(code)]) - zeros.get(place).copied().unwrap_or(0.0)) * scales[place]
        };
        let decoded: Vec<f32> = codes.iter().enumerate().map(number).collect();
        let weights = Weights::new(&decoded, [1, depth, columns]);
        let (bias, window) = (values(columns, 3), Window::rows(rows, depth));
        let residual = values(rows * (columns + 1), 4);
        let residual = Some(Residual { elements: &residual, pitch: columns + 1 });
        let expected = reference::f32_gemm(&left, &window, &weights, Some(&bias), residual, Activation::RELU);
        let largest = decoded.iter().fold(1.0, |largest: f32, x| largest.max(x.abs()));
        let allowed = largest * (depth as f32).sqrt() * 4.0 / 65536.0 + 1e-5;
        for level in Level::all() {
            for vectors in IntegerGemm::widths(level).map(Some).chain([None]) {
                let got = self.run(level, vectors, &left, residual);
                assert_eq!(got.len(), expected.len());
                for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    let told = format!("{level} {vectors:?} {rows}x{depth}x{columns} of {}", self.numbers);
                    assert!((got - expected).abs() <= allowed, "{told}: at {at} expected {expected}, got {got}");
                }
            }
        }
    }
}

#[test]
fn every_tail_of_rows_and_columns() {
    for rows in [0, 1, 2, 3, 5, 7, 8, 11, 13, 26] {
        for columns in [1, 7, 8, 9, 16, 17, 33, 48, 63, 64, 65, 130, 257] {
            Case::of(Window::rows(rows, 5), 5, columns, 16).check();
            Rounded::of(rows, 5, columns, 16).check();
            Rounded { zeros: true, block: 8, ..Rounded::of(rows, 19, columns, 16) }.check();
        }
    }
}

#[test]
fn every_number_of_bits_and_tail_of_depth() {
    for numbers in 1..=16 {
        for depth in [0, 1, 7, 8, 9, 10, 11, 16, 31, 32, 33, 63, 100, 256, 257, 600] {
            for rows in [1, 4] {
                Case::of(Window::rows(rows, depth), depth, 35, numbers).check();
                Rounded::of(rows, depth, 135, numbers).check();
            }
        }
    }
}

#[test]
fn blocks_with_and_without_zeros() {
    for (numbers, block) in [(16, 8), (16, 32), (9, 16), (4, 16), (3, 48), (2, 32), (16, 512), (16, 768)] {
        for depth in [1, 31, 32, 33, 64, 95, 200, 1000] {
            for zeros in [false, true] {
                for rows in [1, 3, 9] {
                    Rounded { block, zeros, ..Rounded::of(rows, depth, 70, numbers) }.check();
                }
            }
        }
    }
    Rounded { zeros: true, ..Rounded::of(3, 700, 70, 16) }.check();
}

#[test]
fn windows_of_every_kind() {
    for (kernel, stride, dilation, pad, out) in [
        ([3, 3], [1, 1], [1, 1], [1, 1], [6, 7]),
        ([3, 3], [2, 2], [1, 1], [1, 1], [3, 4]),
        ([1, 1], [2, 1], [1, 1], [0, 0], [3, 7]),
        ([5, 2], [1, 3], [1, 1], [2, 0], [6, 2]),
        ([8, 8], [1, 1], [1, 1], [7, 7], [13, 14]),
    ] {
        let window = Window { kernel, stride, dilation, pad, out, ..Window::image(2, [6, 7], 5) };
        for numbers in [2, 3, 16] {
            Case::of(window, 5, 20, numbers).check();
            // Some channels of each pixel, as a group has them.
            Case::of(window, 3, 20, numbers).check();
        }
    }
}

#[test]
fn what_follows_the_sum() {
    let activations = [
        Activation::RELU,
        Activation::Clip { low: -0.25, high: 0.5 },
        Activation::LeakyRelu { slope: 0.1 },
        Activation::HardSwish,
        Activation::Function(Function::Gelu),
    ];
    for activation in activations {
        Case { activation, ..Case::of(Window::rows(7, 4), 4, 37, 16) }.check();
        Case { activation, ..Case::of(Window::rows(1, 4), 4, 301, 3) }.check();
    }
}

#[test]
fn deep_rows_and_many_columns() {
    Case::of(Window::rows(5, 9001), 9001, 9, 16).check();
    Rounded { block: 128, ..Rounded::of(2, 9001, 270, 16) }.check();
}

#[test]
fn blocks_that_end_within_a_word_do_not_fit() {
    assert!(IntegerGemm::fits(100, 16, 32) && IntegerGemm::fits(100, 2, 100) && IntegerGemm::fits(1000, 16, 384));
    assert!(!IntegerGemm::fits(100, 17, 100) && !IntegerGemm::fits(100, 2, 16) && !IntegerGemm::fits(1000, 16, 300));
}

#[test]
fn magnitudes_of_any_size() {
    let case = Rounded::of(1, 300, 9, 16);
    for level in Level::all() {
        let run = |scale: f32| {
            let left: Vec<f32> = values(300, 1).iter().map(|x| x * scale).collect();
            case.run(level, None, &left, None)
        };
        // A power of two moves no digit.
        let (one, bias) = (run(1.0), values(9, 3));
        for power in [-80, 80] {
            for ((scaled, one), bias) in run(2f32.powi(power)).iter().zip(&one).zip(&bias) {
                let expected = ((one - bias) * 2f32.powi(power) + bias).max(0.0);
                assert!(
                    *one == 0.0 || (scaled - expected).abs() <= expected.abs() * 1e-3,
                    "{level}: {scaled} {expected}"
                );
            }
        }
        for tiny in [0.0, f32::MIN_POSITIVE, 1e-42] {
            assert!(run(tiny).iter().zip(&bias).all(|(got, bias)| (got - bias.max(0.0)).abs() < 1e-6), "{level}");
        }
        for none in [f32::NAN, f32::INFINITY] {
            assert!(run(none).iter().all(|x| x.is_nan()), "{level}: a sum with {none} is no number");
        }
    }
}

#[test]
fn results_do_not_depend_on_company_width_or_level() {
    let (rows, depth, columns) = (17, 700, 100);
    let left = values(rows * depth, 5);
    for (block, zeros) in [(usize::MAX, false), (32, false), (32, true)] {
        let case = Rounded { block, zeros, ..Rounded::of(rows, depth, columns, 16) };
        let fused = |level: &Level| *level > Level::all().next().unwrap();
        for level in Level::all().filter(fused) {
            let first = Level::all().find(fused).unwrap();
            let whole = case.run(first, Some(1), &left, None);
            for vectors in IntegerGemm::widths(level) {
                for row in 0..rows {
                    let alone = case.run(level, Some(vectors), &left[row * depth..][..depth], None);
                    let same = alone.iter().zip(&whole[row * columns..]).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{level} {vectors} {row}");
                }
            }
        }
    }
    let (codes, table, scales) = (codes(depth * columns, 16), values(16, 5), values(columns, 6));
    let weights = CodedWeights { elements: &codes[..], taps: 1, depth, columns };
    let run = |level, vectors, left: &[f32]| {
        let gemm = CodebookGemm::pack(level, &weights, [&table, &scales], None, Activation::None, Some(vectors));
        let rows = left.len() / depth;
        let mut out = vec![0.0; rows * columns];
        gemm.run(left, &Window::rows(rows, depth), None, &gemm.grid(&mut out, columns, rows));
        out
    };
    for level in Level::all() {
        let whole = run(level, 1, &left);
        for vectors in CodebookGemm::widths(level) {
            for row in 0..rows {
                let alone = run(level, vectors, &left[row * depth..][..depth]);
                let same = alone.iter().zip(&whole[row * columns..]).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{level} {vectors} {row}");
            }
        }
    }
}
