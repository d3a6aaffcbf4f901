//! Rows times weights that are mostly zeros against products with all of them, at every level this processor has.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use kinglet_kernels::f32_functions::Function;
use kinglet_kernels::f32_gemm::{Gemm, Residual, Weights};
use kinglet_kernels::f32_sparse_row::SparseRow;
use kinglet_kernels::isa::Set;
use kinglet_kernels::{Activation, LeftOut, Level, Window, reference};
use support::{assert_close, values};

/// Weights of which so many in a thousand are not zero.
fn sparse(count: usize, kept: u32) -> Vec<f32> {
    let kept = |x: &f32| (x.to_bits() >> 8) % 1000 < kept;
    values(count, 3).into_iter().map(|x| if kept(&x) { x } else { 0.0 }).collect()
}

/// The same bits as all products have.
fn check(depth: usize, columns: usize, kept: u32, activation: Activation, is_residual: bool) {
    let (elements, bias) = (sparse(depth * columns, kept), values(columns, 4));
    let (row, residual) = (values(depth, 1), values(columns, 2));
    let residual = is_residual.then_some(&residual[..]);
    let weights = Weights::new(&elements, [1, depth, columns]);
    let of_rows = residual.map(|elements| Residual { elements, pitch: columns });
    let meant = reference::f32_gemm(&row, &Window::rows(1, depth), &weights, Some(&bias), of_rows, activation);
    for level in Level::all() {
        let gemm = Gemm::pack(level, &weights, Some(&bias), activation, None);
        let mut expected = vec![0.0; columns];
        gemm.run(&row, &Window::rows(1, depth), of_rows, &gemm.grid(&mut expected, columns, 1));
        for left_out in [LeftOut::Blocks, LeftOut::Anywhere] {
            let packed = SparseRow::pack_any(level, &weights, Some(&bias), activation, left_out);
            let Some(packed) = packed else { continue };
            let mut out = vec![7.0; columns + 3];
            packed.run(&row, residual, &packed.grid(&mut out[..columns]));
            let same = out.iter().zip(&expected).all(|(got, expected)| got.to_bits() == expected.to_bits());
            assert!(same, "{level} {left_out:?} {depth}x{columns} of {kept}: {out:?} {expected:?}");
            assert_close(&out[..columns], &meant, depth, &format!("{level} {left_out:?} {depth}x{columns}"));
            assert!(out[columns..].iter().all(|&x| x == 7.0), "{level} {left_out:?}");
        }
    }
}

#[test]
fn every_tail_of_depth_and_columns() {
    for depth in [0, 1, 15, 16, 17, 31, 32, 33, 48, 64, 65, 200] {
        for columns in [1, 7, 8, 9, 16, 31, 32, 33, 63, 64, 65, 130] {
            for kept in [0, 100, 1000] {
                check(depth, columns, kept, Activation::RELU, false);
            }
        }
    }
}

#[test]
fn what_follows_the_sum() {
    for activation in [
        Activation::None,
        Activation::Clip { low: -0.25, high: 0.5 },
        Activation::LeakyRelu { slope: 0.1 },
        Activation::HardSwish,
        Activation::Function(Function::Gelu),
    ] {
        check(70, 85, 200, activation, false);
        check(70, 85, 200, activation, true);
    }
}

#[test]
fn only_what_has_many_zeros_is_packed() {
    let level = Level::all().last().unwrap();
    let packs = |kept| {
        let elements = sparse(512 * 512, kept);
        let weights = Weights::new(&elements, [1, 512, 512]);
        SparseRow::pack(level, &weights, None, Activation::None).is_some()
    };
    assert!(packs(30) && !packs(900));
}

#[test]
fn zeros_of_blocks_are_told_from_zeros_anywhere() {
    for level in Level::all() {
        let kernel = |block: usize, kept| {
            let of_blocks = sparse(512 * 512 / block, kept);
            let element = |at: usize| of_blocks[at / 512 * (512 / block) + at % 512 / block];
            let elements: Vec<f32> = (0..512 * 512).map(element).collect();
            let weights = Weights::new(&elements, [1, 512, 512]);
            SparseRow::pack(level, &weights, None, Activation::None).map(|packed| packed.kernel())
        };
        for kept in [50, 200, 400] {
            assert!(kernel(16, kept).is_some_and(|kernel| kernel.contains("x1__")), "{level} {kept}");
        }
        // Blocks of eight are mostly empty then.
        let expected = if level.set() >= Set::Avx512 { "row__" } else { "x1__" };
        assert!(kernel(1, 30).is_some_and(|kernel| kernel.contains(expected)), "{level}");
        assert_eq!(kernel(1, 900), None, "{level}");
    }
}

#[test]
fn rows_that_are_no_numbers_are_told() {
    let level = Level::all().last().unwrap();
    let weights = Weights::new(&[1.0, 0.0], [1, 2, 1]);
    let packed = SparseRow::pack_any(level, &weights, None, Activation::None, LeftOut::Blocks).unwrap();
    assert!(packed.takes(&[1.0, -2.0]) && !packed.takes(&[1.0, f32::INFINITY]) && !packed.takes(&[f32::NAN, 1.0]));
}
