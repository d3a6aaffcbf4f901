//! Times of one row times weights of which some are zeros, in microseconds, beside all products; and of a row of which some
//! elements are zeros.
//! `cargo bench -p kinglet-kernels --bench sparse_row -- NAME` runs instruction sets whose names contain NAME.
#![allow(clippy::print_stdout, reason = "a table is what it is for")]

use std::time::{Duration, Instant};

use kinglet_kernels::f32_gemm::{Gemm, Weights};
use kinglet_kernels::f32_sparse_row::SparseRow;
use kinglet_kernels::{Activation, LeftOut, Level, Window, u8s8_gemm};

fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    for level in Level::all().filter(|level| level.to_string().contains(&filter)) {
        for [depth, columns] in [[784, 512], [512, 512], [1024, 1024], [4096, 4096]] {
            bytes(level, depth, columns);
        }
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
                print!(" | {zeros}: of {dense:.1} us");
                for (name, wide) in [("anywhere", 1), ("16x1", 16)] {
                    let of_blocks = made_up(depth * columns, zeros);
                    let element = |at: usize| of_blocks[at / columns * columns + at % columns / wide];
                    let elements: Vec<f32> = (0..depth * columns).map(element).collect();
                    let weights = Weights::new(&elements, [1, depth, columns]);
                    for left_out in [LeftOut::Anywhere, LeftOut::Blocks] {
                        let packed = SparseRow::pack_any(level, &weights, None, Activation::RELU, left_out);
                        let Some(packed) = packed else { continue };
                        let time = least(|| packed.run(&row, None, &packed.grid(&mut out)));
                        print!(", {name} {left_out:?} {time:.1} at {:.2}", packed.share());
                    }
                }
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

/// Rows of bytes, and weights in blocks or anywhere.
fn bytes(level: Level, depth: usize, columns: usize) {
    use u8s8_gemm::{Finish, Lines, Requantize, SparseRow, Weights};
    let finish = Finish::Bytes { zero: 0, low: 0, high: 255 };
    let then = Requantize { bias: &vec![0; columns], scale: &vec![1e-3; columns], finish, plus: None };
    let row = |zeros| made_up(depth, zeros).iter().map(|&x| u8::from(x != 0.0) * 5).collect::<Vec<_>>();
    let mut out = vec![0u8; columns];
    let elements = vec![3i8; depth * columns];
    let weights = Weights { elements: &elements, taps: 1, depth, columns };
    let (window, all) = (Window::rows(1, depth), row(0.0));
    print!("{level:12} {depth}x{columns} bytes, all in us:");
    // So many take turns that weights of the largest size come from memory.
    let turns = if depth * columns > 8 << 20 { 6 } else { 1 };
    for vectors in u8s8_gemm::Gemm::widths(level) {
        let pack = |_| u8s8_gemm::Gemm::pack(level, &weights, 0, &then, Some(vectors));
        let gemms: Vec<_> = (0..turns).map(pack).collect();
        let time = least(|| {
            for gemm in &gemms {
                gemm.run(&all, &window, None, &gemm.grid(&mut out, columns, 1));
            }
        });
        print!(" {:.1}", time / turns as f64);
    }
    for zeros in [0.8, 0.9, 0.95] {
        for (name, left_out, high, wide) in [("anywhere", LeftOut::Anywhere, 1, 1), ("16x4", LeftOut::Blocks, 4, 16)] {
            let blocks = made_up(depth * columns, zeros);
            let at = |at: usize| blocks[at / columns / high * columns + at % columns / wide];
            let elements: Vec<i8> = (0..depth * columns).map(|n| i8::from(at(n) != 0.0)).collect();
            let weights = Weights { elements: &elements, taps: 1, depth, columns };
            let Some(sparse) = SparseRow::pack(level, &weights, 0, &then, left_out) else { continue };
            let time = least(|| sparse.run(&all, &sparse.grid(&mut out)));
            print!(" | {zeros} {name}: {time:.1} at {:.2}", sparse.share());
        }
    }
    let several: Vec<_> = (0..turns).map(|_| Lines::pack(level, &weights, 0, &then)).collect();
    let mut room = vec![0u64; depth];
    for zeros in [0.0, 0.4, 0.5, 0.65, 0.8] {
        let row = row(zeros);
        let time = least(|| {
            for lines in &several {
                let nonzero = lines.any_nonzero(&row, bytemuck::cast_slice_mut(&mut room));
                lines.run(&nonzero, &lines.grid(&mut out));
            }
        });
        print!(" | row {zeros}: {:.1}", time / turns as f64);
    }
    println!();
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
