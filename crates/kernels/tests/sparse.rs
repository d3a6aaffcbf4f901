//! Products with weights of which most are zero against the dense ones, at every level this processor has.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use kinglet_kernels::f32_functions::Function;
use kinglet_kernels::f32_gemm::{Gemm, Residual, SparseGemm, Weights};
use kinglet_kernels::u8_functions::{Scale, Sum};
use kinglet_kernels::u8s8_gemm::{self, Finish};
use kinglet_kernels::{Activation, Fill, Level, Window, reference};
use support::{assert_close, values};

struct Case {
    window: Window,
    depth: usize,
    columns: usize,
    /// Columns that have the same rows, and of how many rows one is not zero.
    alike: usize,
    one_in: usize,
    bias: bool,
    residual: bool,
    activation: Activation,
}

impl Case {
    fn of(window: Window, depth: usize, columns: usize) -> Self {
        let activation = Activation::None;
        Self { window, depth, columns, alike: 1, one_in: 5, bias: true, residual: false, activation }
    }

    /// All levels and blocks agree with the oracle and have the bits of dense products, and touch nothing beside their
    /// output.
    fn check(&self) {
        let Self { window, depth, columns, .. } = *self;
        let left = values(window.reach(depth), 1);
        let elements = thinned(window.taps() * depth, columns, self.alike, self.one_in);
        let weights = Weights::new(&elements, [window.taps(), depth, columns]);
        let bias = self.bias.then(|| values(columns, 3));
        let rows = window.pixels();
        let (pitch, residual_pitch) = (columns + 3, columns + 1);
        let residual = values(rows * residual_pitch, 4);
        let residual = self.residual.then_some(Residual { elements: &residual, pitch: residual_pitch });
        let expected = reference::f32_gemm(&left, &window, &weights, bias.as_deref(), residual, self.activation);
        for level in Level::all() {
            let mut dense = vec![7.0; rows * pitch];
            let gemm = Gemm::pack(level, &weights, bias.as_deref(), self.activation, None);
            gemm.run(&left, &window, residual, &gemm.grid(&mut dense, pitch, rows));
            for block in SparseGemm::blocks() {
                let gemm = SparseGemm::pack(level, &weights, bias.as_deref(), self.activation, block);
                let mut out = vec![7.0; rows * pitch];
                gemm.run(&left, &window, residual, &gemm.grid(&mut out, pitch, rows, 1));
                let got: Vec<f32> = out.chunks(pitch).flat_map(|row| row[..columns].iter().copied()).collect();
                let case = format!("{level} {block} {window:?} {depth}x{columns}");
                assert_close(&got, &expected, window.taps() * depth, &case);
                assert!(out.iter().zip(&dense).all(|(a, b)| a == b), "{case}");
            }
        }
    }
}

#[test]
fn every_tail_of_pixels_and_columns() {
    for rows in (0..=34).chain([47, 48, 49, 63, 64, 65, 130]) {
        for columns in [1, 3, 7, 8, 9, 16, 17, 33, 65] {
            Case::of(Window::rows(rows, 21), 21, columns).check();
        }
    }
}

#[test]
fn every_tail_of_steps() {
    for depth in (0..=40).chain([127, 128, 129, 255, 257, 300]) {
        Case::of(Window::rows(17, depth), depth, 20).check();
        Case { one_in: 2, ..Case::of(Window::rows(3, depth), depth, 5) }.check();
    }
}

#[test]
fn more_columns_than_go_together() {
    Case::of(Window::rows(70, 40), 40, 1100).check();
    // Some of each columns together have no weight in the later panels.
    Case { one_in: 150, ..Case::of(Window::rows(70, 900), 900, 200) }.check();
    Case { alike: 4, residual: true, ..Case::of(Window::rows(300, 40), 40, 1100) }.check();
}

#[test]
fn windows_of_every_kind() {
    for (kernel, stride, dilation, pad, out) in [
        ([3, 3], [1, 1], [1, 1], [1, 1], [6, 7]),
        ([3, 3], [2, 2], [1, 1], [1, 1], [3, 4]),
        ([3, 3], [1, 1], [2, 2], [2, 2], [6, 7]),
        ([5, 2], [1, 3], [1, 1], [2, 0], [6, 2]),
        ([7, 7], [1, 1], [1, 1], [6, 6], [12, 13]),
    ] {
        let window = Window { kernel, stride, dilation, pad, out, ..Window::image(2, [6, 7], 21) };
        Case::of(window, 21, 20).check();
        // Some channels of each pixel, as a group has them.
        Case { alike: 2, ..Case::of(window, 18, 20) }.check();
        Case { one_in: 20, ..Case::of(window, 3, 20) }.check();
    }
}

#[test]
fn what_follows_the_sum() {
    for activation in [
        Activation::RELU,
        Activation::HardSwish,
        Activation::Function(Function::Gelu),
        Activation::LeakyRelu { slope: 0.1 },
    ] {
        for (bias, residual) in [(false, false), (true, false), (false, true), (true, true)] {
            Case { bias, residual, activation, ..Case::of(Window::rows(27, 14), 14, 37) }.check();
        }
    }
}

#[test]
fn nothing_but_zeros_leaves_the_bias() {
    Case { one_in: usize::MAX, ..Case::of(Window::rows(20, 300), 300, 20) }.check();
    Case { one_in: usize::MAX, bias: false, ..Case::of(Window::rows(20, 30), 30, 20) }.check();
}

#[test]
fn columns_that_are_alike_share_blocks_wherever_they_are() {
    let (depth, columns) = (64, 32);
    let mut elements = vec![0.0; depth * columns];
    for row in 0..depth {
        // Every eighth column has the same rows.
        (0..columns).filter(|column| row % 8 == column % 8).for_each(|column| elements[row * columns + column] = 1.0);
    }
    let weights = Weights::new(&elements, [1, depth, columns]);
    for level in Level::all() {
        let fills = [1, 2, 4].map(|block| SparseGemm::pack(level, &weights, None, Activation::None, block).fill());
        let all = depth * columns;
        assert_eq!(fills, [Fill { all, multiplied: all / 8, nonzero: all / 8 }; 3], "{level}");
    }
    let all_others: Vec<f32> = (0..depth * columns).map(|at| if at % 2 == 0 { 1.0 } else { 0.0 }).collect();
    let weights = Weights::new(&all_others, [1, depth, columns]);
    let gemm = SparseGemm::pack(Level::all().last().unwrap(), &weights, None, Activation::None, 1);
    assert_eq!(gemm.fill(), Fill { all: 2048, multiplied: 1024, nonzero: 1024 });
}

#[test]
fn what_is_no_number_reaches_its_column_alone() {
    let weights = Weights::new(&[f32::NAN, 0.0, -0.0, 2.0], [1, 2, 2]);
    for level in Level::all() {
        for block in SparseGemm::blocks() {
            let gemm = SparseGemm::pack(level, &weights, None, Activation::None, block);
            let mut out = [0.0; 2];
            gemm.run(&[1.0, 3.0], &Window::rows(1, 2), None, &gemm.grid(&mut out, 2, 1, 1));
            // A block multiplies the zeros of its columns, too.
            assert!(out[0].is_nan() && out[1] == 6.0, "{level} {block} {out:?}");
        }
    }
}

#[test]
fn threads_share_a_grid() {
    let (rows, depth, columns) = (1000, 32, 70);
    let (left, elements) = (values(rows * depth, 7), thinned(depth, columns, 1, 4));
    let weights = Weights::new(&elements, [1, depth, columns]);
    let window = Window::rows(rows, depth);
    let expected = reference::f32_gemm(&left, &window, &weights, None, None, Activation::None);
    for level in Level::all() {
        let gemm = SparseGemm::pack(level, &weights, None, Activation::None, 1);
        let mut out = vec![0.0; rows * columns];
        let grid = gemm.grid(&mut out, columns, rows, 3);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| gemm.run(&left, &window, None, &grid));
            }
        });
        assert_close(&out, &expected, depth, &level.to_string());
    }
}

/// Products of bytes at all levels and in all blocks have the bits of dense ones.
fn check_bytes(window: Window, depth: usize, columns: usize, alike: usize, finish: Finish, plus: bool) {
    let left: Vec<u8> = values(window.reach(depth), 1).iter().map(|x| x.to_bits().to_le_bytes()[1]).collect();
    // Words are kept, not weights.
    let kept = thinned(window.taps() * depth / 4, columns, alike, 4);
    let weight = |at: usize| {
        let is_kept = kept[at / columns / 4 * columns + at % columns] != 0.0;
        if is_kept { at.wrapping_mul(2_654_435_761).to_le_bytes()[1].cast_signed() } else { 0 }
    };
    let elements: Vec<i8> = (0..window.taps() * depth * columns).map(weight).collect();
    let weights = u8s8_gemm::Weights { elements: &elements, taps: window.taps(), depth, columns };
    let bias: Vec<i32> = (0..).map(|column| column * 10 - 70).take(columns).collect();
    let scale: Vec<f32> = (0..columns).map(|column| 1e-3 + column as f32 * 1e-6).collect();
    let (rows, pitch) = (window.pixels(), columns + 3);
    let other: Vec<u8> = (0..rows * pitch).map(|at| (at * 31).to_le_bytes()[0]).collect();
    let scaled = |scale: f32, zero: u8| Scale { scale, zero };
    let sum = Sum { of: [scaled(0.5, 3), scaled(0.25, 9)], to: scaled(0.6, 4), bounds: [4, 250] };
    let then = u8s8_gemm::Requantize { bias: &bias, scale: &scale, finish, plus: plus.then_some(sum) };
    let residual = plus.then_some(Residual { elements: &other[..], pitch });
    for level in Level::all() {
        let dense = u8s8_gemm::Gemm::pack(level, &weights, 7, &then, None);
        for block in u8s8_gemm::SparseGemm::blocks() {
            let sparse = u8s8_gemm::SparseGemm::pack(level, &weights, 7, &then, block);
            let case = format!("{level} {block} {window:?} {depth}x{columns} {finish:?}");
            if finish == Finish::Floats {
                let [mut got, mut expected] = [0, 1].map(|_| vec![5.0; rows * pitch]);
                dense.run(&left, &window, None, &dense.grid(&mut expected, pitch, rows));
                sparse.run(&left, &window, None, &sparse.grid(&mut got, pitch, rows, 1));
                assert_eq!(got, expected, "{case}");
            } else {
                let [mut got, mut expected] = [0, 1].map(|_| vec![5u8; rows * pitch]);
                dense.run(&left, &window, residual, &dense.grid(&mut expected, pitch, rows));
                sparse.run(&left, &window, residual, &sparse.grid(&mut got, pitch, rows, 2));
                assert_eq!(got, expected, "{case}");
            }
        }
    }
}

#[test]
fn bytes_have_every_tail_of_pixels_and_columns() {
    let bytes = Finish::Bytes { zero: 5, low: 5, high: 255 };
    for rows in (0..=18).chain([31, 33, 63, 64, 65, 130]) {
        for columns in [1, 3, 8, 15, 17, 64, 65, 100, 130] {
            for (finish, plus) in [(bytes, false), (bytes, true), (Finish::Floats, false)] {
                check_bytes(Window::rows(rows, 24), 24, columns, 1, finish, plus);
            }
        }
    }
}

#[test]
fn bytes_of_windows_see_the_zero_point_outside() {
    let finish = Finish::Bytes { zero: 0, low: 0, high: 255 };
    for (stride, dilation, out) in [([1, 1], [1, 1], [6, 7]), ([2, 2], [1, 1], [3, 4]), ([1, 1], [2, 2], [4, 5])] {
        let window = Window { kernel: [3, 3], stride, dilation, pad: [1, 1], out, ..Window::image(2, [6, 7], 24) };
        check_bytes(window, 24, 70, 2, finish, true);
        check_bytes(window, 8, 20, 4, finish, false);
    }
    // Longer than a panel.
    check_bytes(Window::rows(20, 2100), 2100, 33, 1, finish, false);
    check_bytes(Window::rows(20, 0), 0, 33, 1, finish, false);
}

/// Weights `[row][column]` of which one in so many is not zero, the same rows of columns that are alike.
fn thinned(rows: usize, columns: usize, alike: usize, one_in: usize) -> Vec<f32> {
    let (elements, kept) = (values(rows * columns, 2), values(rows * columns.div_ceil(alike), 9));
    let keeps = |row: usize, column: usize| {
        // Made-up values are spread evenly.
        let kept = kept[row * columns.div_ceil(alike) + column / alike].to_bits() as usize;
        (kept >> 8).is_multiple_of(one_in)
    };
    let element = |at: usize| if keeps(at / columns, at % columns) { elements[at] } else { 0.0 };
    (0..rows * columns).map(element).collect()
}
