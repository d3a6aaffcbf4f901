//! Bytes and floats against plain code, exactly, on every tail and at every level this processor has.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use kinglet_kernels::Level;
use kinglet_kernels::u8_functions::{Scale, Sum, add, dequantize, grid, interleave, quantize};

fn byte(x: f32, to: Scale, [low, high]: [u8; 2]) -> f32 {
    ((x / to.scale).round_ties_even() + f32::from(to.zero)).max(low.into()).min(high.into())
}

fn meaning(byte: u8, of: Scale) -> f32 {
    (f32::from(byte) - f32::from(of.zero)) * of.scale
}

#[test]
fn every_tail() {
    let (to, other) = (Scale { scale: 0.25, zero: 100 }, Scale { scale: 0.03, zero: 7 });
    for count in (0..40).chain([20_000]) {
        let mut floats: Vec<f32> = (0..count).map(|at| (at as f32 - 20.0) * 2.125).collect();
        if let Some(first) = floats.first_mut() {
            *first = f32::NAN;
        }
        let a: Vec<u8> = (0..count).map(|at| (at * 7 % 256).try_into().unwrap()).collect();
        let b: Vec<u8> = (0..count).map(|at| (at * 91 % 256).try_into().unwrap()).collect();
        for level in Level::all() {
            let mut out = vec![0u8; count];
            quantize(level, &floats, to, &grid(&mut out));
            let expected = floats.iter().map(|&x| if x.is_nan() { 0.0 } else { byte(x, to, [0, 255]) });
            assert!(out.iter().map(|&got| f32::from(got)).eq(expected), "{level} {count}");
            let mut out = vec![0.0; count];
            dequantize(level, &a, to, &grid(&mut out));
            assert!(out.iter().copied().eq(a.iter().map(|&byte| meaning(byte, to))), "{level} {count}");
            let mut out = vec![0u8; count];
            add(level, [&a, &b], &Sum { of: [to, other], to, bounds: [100, 200] }, &grid(&mut out));
            for ((&a, &b), &got) in a.iter().zip(&b).zip(&out) {
                let sum = meaning(a, to) + meaning(b, other);
                let near = [sum - 1e-5, sum + 1e-5].map(|sum| byte(sum, to, [100, 200]));
                assert!(near.contains(&f32::from(got)), "{level} {count}: {a} {b} {got}");
            }
        }
    }
}

#[test]
fn planes_of_every_tail() {
    for count in (0..50).chain([1000]) {
        let all: Vec<u8> = (0..3 * count).map(|at| (at * 37 % 251).try_into().unwrap()).collect();
        let plane = |nth: usize| &all[nth * count..][..count];
        let expected: Vec<u8> = (0..3 * count).map(|at| plane(at % 3)[at / 3]).collect();
        for level in Level::all() {
            let mut out = vec![7; 3 * count + 20];
            interleave(level, [0, 1, 2].map(plane), &mut out[..3 * count]);
            assert_eq!(out[..3 * count], expected, "{level} {count}");
            assert!(out[3 * count..].iter().all(|&byte| byte == 7), "{level} {count}");
        }
    }
}
