//! Discrete Fourier transforms, by their definition.

use std::f64::consts::TAU;

use bytemuck::Pod;

use super::{Io, Layer};
use crate::engine::graph::infer::{self, Facts, Transformed};
use crate::engine::pool::Team;
use crate::tensor::DType;

#[derive(Debug)]
pub(super) struct Fourier {
    pub(super) inverse: bool,
    pub(super) onesided: bool,
}

impl Layer for Fourier {
    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        let facts: Facts<'_> = io.operands.iter().map(|operand| operand.fact).collect();
        // Inference has read the same length and axis.
        let Ok(transformed) = infer::transformed(self.onesided, &facts) else { return };
        match io.output.fact.dtype {
            #[expect(clippy::cast_possible_truncation, reason = "the type of the signal")]
            DType::F32 => self.run_as(io, &transformed, |x: f32| f64::from(x), |x| x as f32),
            _ => self.run_as(io, &transformed, |x: f64| x, |x| x),
        }
    }
}

impl Fourier {
    fn run_as<T: Pod>(&self, io: &mut Io<'_>, of: &Transformed, widen: impl Fn(T) -> f64, narrow: impl Fn(f64) -> T) {
        let x = io.operands[0];
        let shape = x.shape();
        let (taken, parts) = (shape[of.axis], shape[shape.len() - 1]);
        let inner: usize = shape[of.axis + 1..shape.len() - 1].iter().product();
        let (x, made, length) = (x.elements::<T>(), of.shape[of.axis], of.length);
        let (sign, scale) = if self.inverse { (1.0, 1.0 / length as f64) } else { (-1.0, 1.0) };
        let turns: Vec<(f64, f64)> = (0..length).map(|at| (sign * TAU * at as f64 / length as f64).sin_cos()).collect();
        for (at, to) in io.output.elements::<T>().chunks_exact_mut(2).enumerate() {
            let (lane, frequency, outer) = (at % inner, at / inner % made, at / inner / made);
            let (mut real, mut imaginary) = (0.0, 0.0);
            for place in 0..taken.min(length) {
                let from = &x[((outer * taken + place) * inner + lane) * parts..][..parts];
                let (a, b) = (widen(from[0]), from.get(1).map_or(0.0, |part| widen(*part)));
                let (sin, cos) = turns[place * frequency % length];
                real += a * cos - b * sin;
                imaginary += a * sin + b * cos;
            }
            (to[0], to[1]) = (narrow(real * scale), narrow(imaginary * scale));
        }
    }
}
