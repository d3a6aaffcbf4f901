//! Products of bytes against the oracle, exactly, at every level this processor has.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use kinglet_kernels::u8_functions::{Scale, Sum, add, grid};
use kinglet_kernels::u8s8_gemm::{DynamicGemm, Finish, Gemm, Matrix, Requantize, Residual, Weights, Zeros};
use kinglet_kernels::{Aligned, Level, Window, reference};

const SCALE: f32 = 0.001;

/// All levels and panel widths agree with the oracle, and touch nothing beside their output.
fn check(window: &Window, depth: usize, columns: usize, zero: u8) {
    for behind in [0, 3] {
        check_behind(window, depth, columns, zero, behind);
    }
}

/// With so many bytes behind the window.
fn check_behind(window: &Window, depth: usize, columns: usize, zero: u8, behind: usize) {
    let left: Vec<u8> = (0..window.reach(depth) + behind).map(|at| (at * 37 % 256).try_into().unwrap()).collect();
    let count = window.taps() * depth * columns;
    // Two of three groups have products that two of, and some that four of fit into sixteen bits.
    let elements: Vec<i8> = (0..count)
        .map(|at| (at * 101 % 256).to_le_bytes()[0].cast_signed() / [1, 2, 5][at / columns / 4 % 3])
        .collect();
    let weights = Weights { elements: &elements, taps: window.taps(), depth, columns };
    let bias: Vec<i32> = (0..columns).map(|at| i32::try_from(at).unwrap() * 1000 - 5000).collect();
    let scale: Vec<f32> = (0..columns).map(|at| SCALE / (1 + at % 7) as f32).collect();
    let (rows, pitch) = (window.pixels(), columns + 3);
    let sums = reference::u8s8_gemm(&left, window, &weights, zero);
    let products: Vec<f32> =
        sums.iter().enumerate().map(|(at, sum)| (sum + bias[at % columns]) as f32 * scale[at % columns]).collect();
    for level in Level::all() {
        for vectors in Gemm::widths(level).map(Some).chain([None]) {
            let pack = |finish, plus| {
                let then = Requantize { bias: &bias, scale: &scale, finish, plus };
                Gemm::pack(level, &weights, zero, &then, vectors)
            };
            let told = format!("{level} {vectors:?} {window:?} {depth}x{columns}");
            let gemm = pack(Finish::Floats, None);
            let mut out = vec![7.0f32; rows * pitch];
            gemm.run(&left, window, None, &gemm.grid(&mut out, pitch, rows));
            let got: Vec<f32> = out.chunks(pitch).flat_map(|row| row[..columns].iter().copied()).collect();
            assert_eq!(got, products, "{told}");
            assert!(out.chunks(pitch).all(|row| row[columns..].iter().all(|&x| x == 7.0)), "{told}");
            let (low, high) = (3, 250);
            let finish = Finish::Bytes { zero: 100, low, high };
            let gemm = pack(finish, None);
            let mut out = vec![7u8; rows * pitch];
            gemm.run(&left, window, None, &gemm.grid(&mut out, pitch, rows));
            for (row, expected) in out.chunks(pitch).zip(products.chunks(columns)) {
                for (&got, product) in row.iter().zip(expected) {
                    let expected = (product.round_ties_even() + 100.0).clamp(low.into(), high.into());
                    assert_eq!(f32::from(got), expected, "{told}");
                }
                assert!(row[columns..].iter().all(|&byte| byte == 7), "{told}");
            }
            let [other, expected] = summed(level, &out, pitch);
            let gemm = pack(finish, Some(SUM));
            let mut out = vec![7u8; rows * pitch];
            let residual = Residual { elements: &other, pitch };
            gemm.run(&left, window, Some(residual), &gemm.grid(&mut out, pitch, rows));
            for (got, expected) in out.chunks(pitch).zip(expected.chunks(pitch)) {
                assert_eq!(got[..columns], expected[..columns], "{told}");
                assert!(got[columns..].iter().all(|&byte| byte == 7), "{told}");
            }
        }
    }
}

/// Other bytes, and their sum with some.
fn summed(level: Level, bytes: &[u8], pitch: usize) -> [Vec<u8>; 2] {
    let other: Vec<u8> = (0..bytes.len() + pitch).map(|at| (at * 59 % 256).try_into().unwrap()).collect();
    let mut sum = vec![0; bytes.len()];
    add(level, [bytes, &other[..bytes.len()]], &SUM, &grid(&mut sum));
    [other, sum]
}

const SUM: Sum = Sum {
    of: [Scale { scale: 0.25, zero: 100 }, Scale { scale: 0.03, zero: 7 }],
    to: Scale { scale: 0.2, zero: 90 },
    bounds: [5, 240],
};

#[test]
fn every_tail_of_rows_columns_and_depth() {
    for rows in 0..=14 {
        for columns in [1, 7, 8, 9, 16, 17, 33, 48, 50, 65] {
            for depth in [1, 3, 4, 6, 64] {
                check(&Window::rows(rows, depth), depth, columns, 128);
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
        ([7, 7], [1, 1], [1, 1], [6, 6], [12, 13]),
    ] {
        for depth in [4, 5] {
            let window = Window { kernel, stride, dilation, pad, out, ..Window::image(2, [6, 7], depth) };
            check(&window, depth, 20, 0);
            check(&window, depth, 20, 200);
        }
    }
}

#[test]
fn sums_of_extremes_are_exact() {
    let depth = 4096;
    let left = vec![255u8; depth];
    for [one, other] in [
        [-128i8, -128],
        [-128, 0],
        [127, 127],
        [127, 1],
        [127, 2],
        [64, 64],
        [-64, -65],
        [-128, 127],
        [32, 32],
        [33, 32],
        [-32, -32],
    ] {
        let elements = [one, other].repeat(depth / 2);
        let weights = Weights { elements: &elements, taps: 1, depth, columns: 1 };
        let exact = 255.0 * (f32::from(one) + f32::from(other)) * (depth / 2) as f32;
        for level in Level::all() {
            let then = Requantize { bias: &[0], scale: &[1.0], finish: Finish::Floats, plus: None };
            let gemm = Gemm::pack(level, &weights, 0, &then, None);
            let mut out = [0.0f32];
            gemm.run(&left, &Window::rows(1, depth), None, &gemm.grid(&mut out, 1, 1));
            assert_eq!(out, [exact], "{level} {one} {other}");
        }
    }
}

#[test]
fn products_beyond_integers_are_kept_within_bytes() {
    let (rows, depth, columns) = (13usize, 4usize, 70usize);
    let left: Vec<u8> = (0..rows * depth).map(|at| (at * 37 % 256).try_into().unwrap()).collect();
    let elements: Vec<i8> = (0..depth * columns).map(|at| (at * 101 % 256).to_le_bytes()[0].cast_signed()).collect();
    let weights = Weights { elements: &elements, taps: 1, depth, columns };
    let window = Window::rows(rows, depth);
    let sums = reference::u8s8_gemm(&left, &window, &weights, 7);
    let finish = Finish::Bytes { zero: 100, low: 3, high: 250 };
    for (scale, level) in
        [1.0, -1e9, f32::MAX].into_iter().flat_map(|scale| Level::all().map(move |level| (scale, level)))
    {
        for vectors in Gemm::widths(level) {
            let (bias, scales) = (vec![0; columns], vec![scale; columns]);
            let run = |plus: Option<Sum>, other: Option<&[u8]>| {
                let then = Requantize { bias: &bias, scale: &scales, finish, plus };
                let gemm = Gemm::pack(level, &weights, 7, &then, Some(vectors));
                let mut out = vec![7u8; rows * columns];
                let residual = other.map(|elements| Residual { elements, pitch: columns });
                gemm.run(&left, &window, residual, &gemm.grid(&mut out, columns, rows));
                out
            };
            let plain = run(None, None);
            for (got, sum) in plain.iter().zip(&sums) {
                let expected = ((*sum as f32 * scale).round_ties_even() + 100.0).clamp(3.0, 250.0);
                assert_eq!(f32::from(*got), expected, "{level} {vectors} {scale} {sum}");
            }
            let [other, expected] = summed(level, &plain, columns);
            assert_eq!(run(Some(SUM), Some(&other)), expected, "{level} {vectors} {scale}");
        }
    }
}

#[test]
fn a_zero_point_leads_to_the_greatest_byte_and_no_further() {
    for columns in [1, 16, 20, 40] {
        let elements = vec![0i8; 4 * columns];
        let weights = Weights { elements: &elements, taps: 1, depth: 4, columns };
        for (level, sum) in Level::all().flat_map(|level| [(level, i32::MAX), (level, i32::MIN)]) {
            let (bias, scale) = (vec![sum; columns], vec![1.0f32.next_down(); columns]);
            let finish = Finish::Bytes { zero: 255, low: 3, high: 255 };
            for vectors in Gemm::widths(level) {
                let then = Requantize { bias: &bias, scale: &scale, finish, plus: None };
                let gemm = Gemm::pack(level, &weights, 0, &then, Some(vectors));
                let mut out = vec![7u8; 2 * columns];
                gemm.run(&[0; 8], &Window::rows(2, 4), None, &gemm.grid(&mut out, columns, 2));
                let expected = if sum > 0 { 255 } else { 3 };
                assert!(out.iter().all(|&byte| byte == expected), "{level} {vectors} {columns} {sum}: {out:?}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "of the type")]
fn floats_are_not_written_as_bytes() {
    let then = Requantize { bias: &[0], scale: &[1.0], finish: Finish::Floats, plus: None };
    let weights = Weights { elements: &[1], taps: 1, depth: 1, columns: 1 };
    let gemm = Gemm::pack(Level::all().last().unwrap(), &weights, 0, &then, None);
    gemm.run(&[1], &Window::rows(1, 1), None, &gemm.grid(&mut [0u8], 1, 1));
}

/// Products of two matrices of bytes, less their zero points.
fn check_computed([rows, depth, columns]: [usize; 3], zeros: Zeros) {
    let byte = |at: usize, seed: usize| (at * 7919 + seed).to_le_bytes()[1] ^ at.to_le_bytes()[0];
    let left: Vec<u8> = (0..rows * depth).map(|at| byte(at, 3)).collect();
    let right: Vec<u8> = (0..depth * columns).map(|at| byte(at, 77)).collect();
    let below = |byte: u8, zero: u8| f64::from(byte) - f64::from(zero);
    let one = |row: usize, column: usize| -> f64 {
        let product =
            |k: usize| below(left[row * depth + k], zeros.left) * below(right[k * columns + column], zeros.right);
        (0..depth).map(product).sum()
    };
    let expected: Vec<f64> = (0..rows * columns).map(|at| one(at / columns, at % columns)).collect();
    for level in Level::all() {
        let told = format!("{level} {rows}x{depth}x{columns} {zeros:?}");
        let matrix = Matrix::new(level, depth, columns);
        let mut packed = Aligned::zeroed(matrix.bytes());
        packed.elements_mut::<u8>().fill(7);
        matrix.pack(&right, zeros, 1.0, packed.elements_mut());
        let mut out = vec![0.5f32; rows * columns];
        let grid = matrix.grid(&mut out, columns, rows);
        matrix.run(&left, depth, packed.elements(), zeros, Finish::Floats, &grid);
        assert!(out.iter().zip(&expected).all(|(got, expected)| f64::from(*got) == *expected), "{told}");
        let (scale, finish) = (1e-3, Finish::Bytes { zero: 100, low: 3, high: 250 });
        matrix.pack(&right, zeros, scale, packed.elements_mut());
        let mut out = vec![7u8; rows * columns];
        let grid = matrix.grid(&mut out, columns, rows);
        matrix.run(&left, depth, packed.elements(), zeros, finish, &grid);
        for (got, expected) in out.iter().zip(&expected) {
            let expected = (*expected * f64::from(scale) + 100.0).clamp(3.0, 250.0);
            assert!((f64::from(*got) - expected).abs() <= 0.5 + 1e-4, "{told}: {got} {expected}");
        }
    }
}

#[test]
fn computed_matrices_of_every_tail() {
    for [left, right] in [[0, 128], [0, 0], [255, 255], [100, 131]] {
        for rows in [1, 2, 6, 7, 13] {
            for depth in [1, 4, 7, 64] {
                for columns in [1, 9, 16, 65] {
                    check_computed([rows, depth, columns], Zeros { left, right });
                }
            }
        }
    }
    check_computed([97, 16, 33], Zeros { left: 3, right: 200 });
    check_computed([2, 0, 5], Zeros { left: 3, right: 200 });
}

#[test]
fn scales_and_zero_points_that_come_late() {
    for ([rows, depth, columns], zero, of_weights, each) in [
        ([5usize, 7usize, 21usize], 0u8, 0i8, false),
        ([9, 64, 40], 131, 0, true),
        ([1, 33, 17], 255, -128, true),
        ([13, 12, 5], 7, 19, false),
        ([0, 4, 8], 9, 1, false),
    ] {
        let left: Vec<u8> = (0..rows * depth).map(|at| (at * 37 % 256).try_into().unwrap()).collect();
        let elements: Vec<i8> =
            (0..depth * columns).map(|at| (at * 101 % 256).to_le_bytes()[0].cast_signed()).collect();
        let weights = Weights { elements: &elements, taps: 1, depth, columns };
        let scales: Vec<f32> = (0..if each { columns } else { 1 }).map(|at| SCALE / (1 + at % 7) as f32).collect();
        let product = |row: usize, column: usize| -> f32 {
            let byte = |k: usize| i32::from(left[row * depth + k]) - i32::from(zero);
            let weight = |k: usize| i32::from(elements[k * columns + column]) - i32::from(of_weights);
            (0..depth).map(|k| byte(k) * weight(k)).sum::<i32>() as f32 * scales[column % scales.len()]
        };
        let expected: Vec<f32> = (0..rows * columns).map(|at| product(at / columns, at % columns)).collect();
        for level in Level::all() {
            let gemm = DynamicGemm::pack(level, &weights, of_weights);
            let mut room = Aligned::zeroed(gemm.room_bytes());
            gemm.prepare(zero, &scales, room.elements_mut());
            let mut out = vec![7.0; rows * columns];
            gemm.run(&left, room.elements(), &gemm.grid(&mut out, rows));
            assert_eq!(out, expected, "{level} {rows}x{depth}x{columns} {zero} {of_weights}");
        }
    }
}
