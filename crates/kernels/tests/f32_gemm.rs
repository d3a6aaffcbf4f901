//! Packed products and implicit convolutions against the oracle, at every level this processor has.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use kinglet_kernels::f32_functions::Function;
use kinglet_kernels::f32_gemm::{Gemm, Residual, Weights};
use kinglet_kernels::{Activation, Level, Window, reference};
use support::{assert_close, values};

struct Case {
    window: Window,
    depth: usize,
    columns: usize,
    bias: bool,
    residual: bool,
    activation: Activation,
}

impl Case {
    fn of(window: Window, depth: usize, columns: usize) -> Self {
        Self { window, depth, columns, bias: true, residual: false, activation: Activation::None }
    }

    /// All levels and panel widths agree with the oracle, and touch nothing beside their output.
    fn check(&self) {
        let Self { window, depth, columns, .. } = *self;
        let left = values(window.reach(depth), 1);
        let elements = values(window.taps() * depth * columns, 2);
        let weights = Weights::new(&elements, [window.taps(), depth, columns]);
        let bias = self.bias.then(|| values(columns, 3));
        let rows = window.pixels();
        let (pitch, residual_pitch) = (columns + 3, columns + 1);
        let residual = values(rows * residual_pitch, 4);
        let residual = self.residual.then_some(Residual { elements: &residual, pitch: residual_pitch });
        let expected = reference::f32_gemm(&left, &window, &weights, bias.as_deref(), residual, self.activation);
        for level in Level::all() {
            for vectors in Gemm::widths(level).map(Some).chain([None]) {
                let gemm = Gemm::pack(level, &weights, bias.as_deref(), self.activation, vectors);
                let mut out = vec![7.0; rows * pitch];
                gemm.run(&left, &window, residual, &gemm.grid(&mut out, pitch, rows));
                let got: Vec<f32> = out.chunks(pitch).flat_map(|row| row[..columns].iter().copied()).collect();
                assert_close(
                    &got,
                    &expected,
                    window.taps() * depth,
                    &format!("{level} {vectors:?} {window:?} {depth}x{columns}"),
                );
                assert!(out.chunks(pitch).all(|row| row[columns..].iter().all(|&x| x == 7.0)), "{level}");
            }
        }
    }
}

#[test]
fn every_tail_of_rows_and_columns() {
    for rows in 0..=26 {
        for columns in [1, 7, 8, 9, 15, 16, 17, 31, 33, 47, 48, 50, 63, 64, 65, 130] {
            Case::of(Window::rows(rows, 5), 5, columns).check();
        }
    }
}

#[test]
fn no_depth_leaves_the_bias() {
    Case::of(Window::rows(3, 2), 0, 20).check();
    Case { bias: false, ..Case::of(Window::rows(3, 2), 0, 20) }.check();
}

#[test]
fn deep_chains_are_cut_and_resumed() {
    // One vector of 8 lanes takes 8192 rows of weights a part.
    Case::of(Window::rows(5, 9001), 9001, 9).check();
    Case { residual: true, ..Case::of(Window::rows(1, 9001), 9001, 270) }.check();
    let kernel = Window { kernel: [3, 3], pad: [1, 1], ..Window::image(1, [4, 4], 1100) };
    Case::of(kernel, 1100, 17).check();
    Case::of(Window { kernel: [1, 90], out: [1, 11], ..Window::image(2, [1, 100], 3) }, 3, 5).check();
}

#[test]
fn windows_of_every_kind() {
    for (kernel, stride, dilation, pad, out) in [
        ([3, 3], [1, 1], [1, 1], [1, 1], [6, 7]),
        ([3, 3], [2, 2], [1, 1], [1, 1], [3, 4]),
        ([3, 3], [1, 1], [2, 2], [2, 2], [6, 7]),
        ([1, 1], [2, 1], [1, 1], [0, 0], [3, 7]),
        ([5, 2], [1, 3], [1, 1], [2, 0], [6, 2]),
        ([7, 7], [1, 1], [1, 1], [6, 6], [12, 13]),
    ] {
        let window = Window { kernel, stride, dilation, pad, out, ..Window::image(2, [6, 7], 5) };
        Case::of(window, 5, 20).check();
        // Some channels of each pixel, as a group has them.
        Case::of(window, 3, 20).check();
    }
}

#[test]
fn what_follows_the_sum() {
    let activations = [
        Activation::RELU,
        Activation::Clip { low: -0.25, high: 0.5 },
        Activation::LeakyRelu { slope: 0.1 },
        Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
        Activation::HardSwish,
        Activation::Function(Function::Gelu),
        Activation::Function(Function::Sigmoid),
    ];
    for activation in activations {
        for (bias, residual) in [(false, false), (true, false), (false, true), (true, true)] {
            Case { bias, residual, activation, ..Case::of(Window::rows(7, 4), 4, 37) }.check();
            Case { bias, residual, activation, ..Case::of(Window::rows(1, 4), 4, 301) }.check();
        }
    }
}

#[test]
fn results_do_not_depend_on_company_or_width() {
    let (depth, columns) = (700, 100);
    let left = values(17 * depth, 5);
    let elements = values(depth * columns, 6);
    let weights = Weights::new(&elements, [1, depth, columns]);
    let run = |level, vectors, rows: usize, first: usize| {
        let gemm = Gemm::pack(level, &weights, None, Activation::None, Some(vectors));
        let mut out = vec![0.0; rows * columns];
        gemm.run(&left[first * depth..], &Window::rows(rows, depth), None, &gemm.grid(&mut out, columns, rows));
        out
    };
    for level in Level::all() {
        let whole = run(level, 2, 17, 0);
        for vectors in Gemm::widths(level) {
            for row in 0..17 {
                let alone = run(level, vectors, 1, row);
                assert!(alone.iter().zip(&whole[row * columns..]).all(|(a, b)| a.to_bits() == b.to_bits()), "{level}");
            }
        }
    }
}

#[test]
fn elements_that_are_zero_add_nothing() {
    let columns = 300;
    for depth in [1, 15, 63, 64, 65, 200, 1500] {
        for (zeros, weight) in [(100, 1.0), (700, 1.0), (1000, 1.0), (700, f32::INFINITY)] {
            let is_zero = |x: &f32| (x.to_bits() >> 8) % 1000 < zeros;
            let row: Vec<f32> = values(depth, 5).into_iter().map(|x| if is_zero(&x) { 0.0 } else { x }).collect();
            let mut elements = values(depth * columns, 6);
            elements[depth / 2 * columns] = weight;
            let weights = Weights::new(&elements, [1, depth, columns]);
            let together = row.repeat(2);
            for level in Level::all() {
                for vectors in Gemm::widths(level) {
                    let gemm = Gemm::pack(level, &weights, None, Activation::None, Some(vectors));
                    let run = |left: &[f32], rows| {
                        let mut out = vec![0.0; rows * columns];
                        gemm.run(left, &Window::rows(rows, depth), None, &gemm.grid(&mut out, columns, rows));
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
fn threads_share_a_grid() {
    let (rows, depth, columns) = (1000, 32, 70);
    let (left, elements) = (values(rows * depth, 7), values(depth * columns, 8));
    let weights = Weights::new(&elements, [1, depth, columns]);
    let window = Window::rows(rows, depth);
    let expected = reference::f32_gemm(&left, &window, &weights, None, None, Activation::None);
    for level in Level::all() {
        let gemm = Gemm::pack(level, &weights, None, Activation::None, None);
        let mut out = vec![0.0; rows * columns];
        let grid = gemm.grid(&mut out, columns, rows);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| gemm.run(&left, &window, None, &grid));
            }
        });
        assert_close(&out, &expected, depth, &level.to_string());
    }
}

#[test]
fn weights_in_any_order_pack_to_the_same() {
    for (taps, depth, columns) in [(1, 7, 5), (1, 64, 48), (1, 100, 33), (9, 3, 17), (9, 70, 64), (4, 1, 1), (1, 0, 3)]
    {
        let (elements, scale) = (values(taps * depth * columns, 1), values(columns, 2));
        let at = |column: usize, row: usize, tap: usize| elements[(column * depth + row) * taps + tap];
        let each = (0..taps).flat_map(|tap| (0..depth).flat_map(move |row| (0..columns).map(move |n| (n, row, tap))));
        let [plain, scaled]: [Vec<f32>; 2] = [false, true].map(|is_scaled| {
            let scaled = |(n, row, tap)| at(n, row, tap) * if is_scaled { scale[n] } else { 1.0 };
            each.clone().map(scaled).collect()
        });
        let filters = Weights::of_filters(&elements, [taps, depth, columns]);
        for (filters, dense) in [(filters, plain), (filters.scaled(Some(&scale)), scaled)] {
            assert_eq!(filters.taps_first(), dense);
            let image = values(20 * taps * depth, 3);
            let window = Window { kernel: [taps, 1], ..Window::image(1, [20, 1], depth) };
            let window = Window { out: [21 - taps, 1], ..window };
            for level in Level::all() {
                let of = |weights: &Weights<'_>| {
                    let gemm = Gemm::pack(level, weights, None, Activation::None, None);
                    let mut out = vec![0.0; window.pixels() * columns];
                    gemm.run(&image, &window, None, &gemm.grid(&mut out, columns, window.pixels()));
                    out
                };
                let dense = Weights::new(&dense, [taps, depth, columns]);
                assert_eq!(of(&filters), of(&dense), "{level} {taps} {depth} {columns}");
            }
        }
    }
}
