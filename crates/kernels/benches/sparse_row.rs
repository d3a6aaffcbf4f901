//! Times of one row times weights of which some are zeros, in microseconds, beside all products; and of a row of which some
//! elements are zeros.
//! `cargo bench -p kinglet-kernels --bench sparse_row`
#![allow(clippy::print_stdout, reason = "a table is what it is for")]

use std::time::{Duration, Instant};

use kinglet_kernels::f32_gemm::{Gemm, Weights};
use kinglet_kernels::f32_sparse_row::SparseRow;
use kinglet_kernels::{Activation, Level, Window};

fn main() {
    for level in Level::all() {
        for [depth, columns] in [[784, 512], [512, 512], [1024, 1024], [4096, 4096]] {
            print!("{level:12} {depth}x{columns}");
            let row = vec![0.5; depth];
            let mut out = vec![0.0; columns];
            for zeros in [0.5, 0.7, 0.8, 0.9, 0.95, 0.98] {
                let elements = made_up(depth * columns, zeros);
                let weights = Weights::new(&elements, [1, depth, columns]);
                let gemm = Gemm::pack(level, &weights, None, Activation::RELU, None);
                let window = Window::rows(1, depth);
                let dense = least(|| gemm.run(&row, &window, None, &gemm.grid(&mut out, columns, 1)));
                let packed = SparseRow::pack_any(level, &weights, None, Activation::RELU);
                let sparse = least(|| packed.run(&row, None, &packed.grid(&mut out)));
                let share = packed.share();
                print!(" | {zeros}: {sparse:.1} of {dense:.1} us at {share:.2} of the steps");
            }
            println!();
            print!("{level:12} {depth}x{columns}, zeros in the row");
            for zeros in [0.0, 0.4, 0.5, 0.65, 0.8] {
                let row = made_up(depth, zeros);
                let elements = made_up(depth * columns, 0.0);
                let weights = Weights::new(&elements, [1, depth, columns]);
                let gemm = Gemm::pack(level, &weights, None, Activation::RELU, None);
                let window = Window::rows(1, depth);
                let time = least(|| gemm.run(&row, &window, None, &gemm.grid(&mut out, columns, 1)));
                print!(" | {zeros}: {time:.1} us");
            }
            println!();
        }
    }
}

/// Uniform numbers, so many of which are zeros.
fn made_up(count: usize, zeros: f32) -> Vec<f32> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32
    };
    (0..count).map(|_| if next() < zeros { 0.0 } else { next() + 0.1 }).collect()
}

/// Microseconds.
fn least(mut run: impl FnMut()) -> f64 {
    let (begun, mut least) = (Instant::now(), Duration::MAX);
    while begun.elapsed() < Duration::from_millis(100) {
        let started = Instant::now();
        run();
        least = least.min(started.elapsed());
    }
    least.as_secs_f64() * 1e6
}
