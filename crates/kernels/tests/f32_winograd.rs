//! Convolutions through transformed tiles against the oracle, at every level this processor has.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use kinglet_kernels::f32_gemm::{Residual, Weights};
use kinglet_kernels::f32_winograd::Winograd;
use kinglet_kernels::{Activation, Level, Window, reference};
use support::{assert_close, values};

fn check(window: &Window, depth: usize, columns: usize, threads: usize, full: bool) {
    let left = values(window.reach(depth), 1);
    let elements = values(9 * depth * columns, 2);
    let weights = Weights::new(&elements, [9, depth, columns]);
    let bias = values(columns, 3);
    let added = values(window.pixels() * columns, 4);
    let (bias, residual, activation) = match full {
        true => (Some(&bias[..]), Some(Residual { elements: &added, pitch: columns }), Activation::RELU),
        false => (None, None, Activation::None),
    };
    let expected = reference::f32_gemm(&left, window, &weights, bias, residual, activation);
    for level in Level::all() {
        let winograd = Winograd::pack(level, &weights, bias, activation);
        let tasks = winograd.tasks(window, threads);
        let mut scratch = vec![f32::NAN; winograd.scratch(window, tasks)];
        let mut out = vec![f32::NAN; window.pixels() * columns];
        let images = Winograd::images_of_grid(window, tasks);
        let elements = images * window.out[0] * window.out[1] * columns;
        for (at, out) in out.chunks_mut(elements.max(1)).enumerate() {
            let grid = winograd.grid(out, window, images, tasks);
            winograd.run(&left, window, residual, at * images, &grid, &mut scratch);
        }
        // Each transformation multiplies rounding by about ten.
        assert_close(&out, &expected, 9 * depth * 100, &format!("{level} {window:?} {depth}x{columns}"));
    }
}

#[test]
fn every_tail_of_tiles_and_channels() {
    for (lines, columns) in [(1, 1), (3, 4), (4, 5), (6, 7), (8, 8), (9, 13)] {
        for pad in [[0, 0], [1, 1], [2, 1]] {
            let out = [lines + 2 * pad[0], columns + 2 * pad[1]].map(|extent: usize| extent.saturating_sub(2));
            if out.contains(&0) {
                continue;
            }
            let window = Window { kernel: [3, 3], pad, out, ..Window::image(1, [lines, columns], 5) };
            check(&window, 5, 7, 1, false);
            check(&window, 3, 17, 2, true);
        }
    }
}

#[test]
fn images_together() {
    for images in [0, 1, 2, 5] {
        let window = Window { kernel: [3, 3], pad: [1, 1], ..Window::image(images, [7, 9], 16) };
        check(&window, 16, 33, 1, true);
        check(&window, 16, 33, 3, true);
    }
    let large = Window { kernel: [3, 3], pad: [1, 1], ..Window::image(1, [40, 41], 8) };
    check(&large, 8, 16, 1, true);
    check(&large, 8, 16, 4, true);
}
