//! Functions against the standard library's in `f64`, at every level this processor has.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use kinglet_kernels::Level;
use kinglet_kernels::f32_functions::{Arithmetic, Function, Operands, normalize, rows_grid, softmax};
use support::{assert_close, values};

/// The function in `f64`.
fn expected(function: Function, x: f32) -> f32 {
    let x = f64::from(x);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    narrowed(match function {
        Function::Exp => x.exp(),
        Function::Sigmoid => sigmoid(x),
        Function::Silu => x * sigmoid(x),
        Function::Tanh => x.tanh(),
        Function::Erf => erf(x),
        Function::Gelu => x / 2.0 * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Function::GeluTanh => {
            x / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh())
        }
    })
}

/// By its series, which loses digits where the function is one.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[expect(clippy::cast_possible_truncation, reason = "rounding is the purpose")]
fn narrowed(x: f64) -> f32 {
    x as f32
}

#[test]
fn functions_are_close_on_every_tail() {
    for function in Function::ALL {
        for count in 0..70 {
            let from: Vec<f32> = values(count, 3).iter().map(|x| x * if count % 2 == 0 { 8.0 } else { 0.5 }).collect();
            let expected: Vec<f32> = from.iter().map(|&x| expected(function, x)).collect();
            for level in Level::all() {
                let mut out = vec![7.0; count + 3];
                function.run(level, &from, &Function::grid(&mut out[..count]));
                assert!(out[count..].iter().all(|&x| x == 7.0), "{level}");
                for (got, expected) in out.iter().zip(&expected) {
                    let allowed = if matches!(function, Function::Erf | Function::Gelu | Function::GeluTanh) {
                        4e-6
                    } else {
                        0.0
                    };
                    let error = (got - expected).abs();
                    assert!(error <= allowed + 1e-6 * expected.abs(), "{level} {function:?}: {got} {expected}");
                }
            }
        }
    }
}

#[test]
fn the_ends_of_the_exponential() {
    let from = [-1000.0, -103.0, -87.0, 0.0, 88.7, 89.5, 1000.0, f32::INFINITY, f32::NEG_INFINITY];
    for level in Level::all() {
        let mut out = [0.0; 9];
        Function::Exp.run(level, &from, &Function::grid(&mut out));
        for (got, expected) in out.iter().zip(from.map(f32::exp)) {
            let is_close = (got - expected).abs() <= 1e-6 * expected.abs() + 2e-45;
            assert!(*got == expected || is_close, "{level}: {got} {expected}");
        }
        let mut out = [0.0];
        Function::Exp.run(level, &[f32::NAN], &Function::grid(&mut out));
        assert!(out[0].is_nan(), "{level}");
    }
}

#[test]
fn rows_of_softmax() {
    for (rows, width) in [(0, 3), (1, 1), (3, 7), (5, 16), (2, 129), (600, 20)] {
        let from: Vec<f32> = values(rows * width, 5).iter().map(|x| x * 20.0).collect();
        let expected: Vec<f32> = from.chunks(width).flat_map(softmax_of).collect();
        for level in Level::all() {
            let mut out = vec![0.0; rows * width];
            softmax(level, &from, &rows_grid(&mut out, rows, width));
            assert_close(&out, &expected, width, &level.to_string());
        }
    }
}

#[test]
fn normalised_rows() {
    for (rows, width) in [(0, 3), (1, 1), (3, 7), (5, 16), (2, 129), (600, 20), (3, 768)] {
        // Far from zero, where squares of the elements would lose the variance.
        let from: Vec<f32> = values(rows * width, 5).iter().map(|x| x * 3.0 + 40.0).collect();
        let (scale, shift) = (values(width, 6), values(width, 7));
        let expected: Vec<f32> = from.chunks(width).flat_map(|row| normalized(row, &scale, &shift)).collect();
        for level in Level::all() {
            let mut out = vec![0.0; rows * width];
            normalize(level, &from, [&scale, &shift], 1e-5, &rows_grid(&mut out, rows, width));
            for (got, expected) in out.iter().zip(&expected) {
                assert!((got - expected).abs() < 2e-5, "{level} {rows}x{width}: {got} {expected}");
            }
        }
    }
}

fn normalized(row: &[f32], scale: &[f32], shift: &[f32]) -> Vec<f32> {
    let mean = |of: &dyn Fn(f64) -> f64| row.iter().map(|&x| of(x.into())).sum::<f64>() / row.len() as f64;
    let centre = mean(&|x| x);
    let deviation = (mean(&|x| (x - centre).powi(2)) + 1e-5).sqrt();
    let one = |((&x, &scale), &shift): ((&f32, &f32), &f32)| {
        narrowed((f64::from(x) - centre) / deviation * f64::from(scale) + f64::from(shift))
    };
    row.iter().zip(scale).zip(shift).map(one).collect()
}

fn softmax_of(row: &[f32]) -> Vec<f32> {
    let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = row.iter().map(|x| f64::from(x - greatest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| narrowed(power / sum)).collect()
}

#[test]
fn two_operands_are_combined_on_every_tail() {
    for arithmetic in Arithmetic::ALL {
        let f: fn(f32, f32) -> f32 = match arithmetic {
            Arithmetic::Add => |a, b| a + b,
            Arithmetic::Sub => |a, b| a - b,
            Arithmetic::Mul => |a, b| a * b,
            Arithmetic::Div => |a, b| a / b,
        };
        for count in 0..40 {
            let (a, b) = (values(count, 3), values(count, 5));
            let (one, other) = (0.75, -1.5);
            for level in Level::all() {
                let check = |operands, expected: &dyn Fn(usize) -> f32| {
                    let mut out = vec![7.0; count + 3];
                    arithmetic.run(level, operands, &mut out[..count]);
                    assert!(out[count..].iter().all(|&x| x == 7.0), "{level}");
                    let same = (0..count).all(|at| out[at].to_bits() == expected(at).to_bits());
                    assert!(same, "{level} {arithmetic:?} {count}");
                };
                check(Operands::Each([&a, &b]), &|at| f(a[at], b[at]));
                check(Operands::WithOne(&a, other), &|at| f(a[at], other));
                check(Operands::OneWith(one, &b), &|at| f(one, b[at]));
                for width in (1..=count).filter(|&width| count.is_multiple_of(width)) {
                    let (left, right) = (&a[..width], &b[..width]);
                    check(Operands::WithRow(&a, right), &|at| f(a[at], right[at % width]));
                    check(Operands::RowWith(left, &b), &|at| f(left[at % width], b[at]));
                }
            }
        }
    }
}
