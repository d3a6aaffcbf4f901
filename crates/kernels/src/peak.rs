//! What one core can do at most, measured: products whose operands stay in the nearest cache.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::activation::Activation;
use crate::f32_gemm::{Gemm, PairGemm, Weights};
use crate::isa::Level;
use crate::u8s8_gemm;
use crate::window::Window;

/// Kinds of products, which differ in how many an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Products {
    F32,
    Bf16,
    /// Unsigned bytes times signed ones.
    U8S8,
}

impl Products {
    /// Those of a kernel, by its name: `<dtype>_<operation>..`.
    pub fn of_kernel(name: &str) -> Option<Self> {
        match name.split_once('_')?.0 {
            "f32" => Some(Self::F32),
            "bf16" => Some(Self::Bf16),
            "u8s8" => Some(Self::U8S8),
            _ => None,
        }
    }

    /// The most of them in a second, over all panel widths; takes a few milliseconds.
    pub fn peak(self, level: Level) -> f64 {
        self.rate(level, SAMPLES)
    }

    fn rate(self, level: Level, samples: usize) -> f64 {
        // Four bytes take the place of a float.
        let depth = if self == Self::U8S8 { 4 * DEPTH } else { DEPTH };
        let floats = vec![1.0; DEPTH * COLUMNS];
        let weights = Weights::new(&floats[..], [1, DEPTH, COLUMNS]);
        let (left, mut out) = (vec![1.0; DEPTH], vec![0.0; ROWS * COLUMNS]);
        let of_floats = |vectors| {
            let gemm = Gemm::pack(level, &weights, None, Activation::None, Some(vectors));
            shortest(samples, || gemm.run(&left, &rows(DEPTH), None, &gemm.grid(&mut out, COLUMNS, ROWS)))
        };
        let time = match self {
            Self::F32 => Gemm::widths(level).map(of_floats).min(),
            Self::Bf16 => PairGemm::widths(level).map(|vectors| of_pairs(level, &weights, vectors, samples)).min(),
            Self::U8S8 => u8s8_gemm::Gemm::widths(level).map(|vectors| of_bytes(level, depth, vectors, samples)).min(),
        };
        (ROWS * depth * COLUMNS) as f64 / time.unwrap_or(Duration::MAX).as_secs_f64()
    }
}

fn of_pairs(level: Level, weights: &Weights<'_>, vectors: usize, samples: usize) -> Duration {
    let gemm = PairGemm::pack(level, weights, None, Activation::None, Some(vectors));
    let each = gemm.rounding().elements(DEPTH);
    let (left, mut out) = (vec![0.0; each], vec![0.0; ROWS * COLUMNS]);
    shortest(samples, || gemm.run(&left, &rows(each), None, &gemm.grid(&mut out, COLUMNS, ROWS)))
}

fn of_bytes(level: Level, depth: usize, vectors: usize, samples: usize) -> Duration {
    let (elements, bias, scale) = (vec![1i8; depth * COLUMNS], [0; COLUMNS], [1.0; COLUMNS]);
    let weights = u8s8_gemm::Weights { elements: &elements, taps: 1, depth, columns: COLUMNS };
    let finish = u8s8_gemm::Finish::Bytes { zero: 0, low: 0, high: u8::MAX };
    let then = u8s8_gemm::Requantize { bias: &bias, scale: &scale, finish, plus: None };
    let gemm = u8s8_gemm::Gemm::pack(level, &weights, 0, &then, Some(vectors));
    let (left, mut out) = (vec![1u8; depth], vec![0u8; ROWS * COLUMNS]);
    shortest(samples, || gemm.run(&left, &rows(depth), None, &gemm.grid(&mut out, COLUMNS, ROWS)))
}

/// The same row again and again.
fn rows(depth: usize) -> Window {
    Window { pitch: [0; 3], ..Window::rows(ROWS, depth) }
}

/// Of one run, of many.
fn shortest(samples: usize, mut run: impl FnMut()) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..samples {
        let started = Instant::now();
        (0..RUNS).for_each(|_| black_box(&mut run)());
        shortest = shortest.min(started.elapsed());
    }
    shortest / RUNS
}

/// Weights take 32 KiB in floats, and ends of sums a fiftieth of the time.
const ROWS: usize = 96;
const DEPTH: usize = 256;
const COLUMNS: usize = 32;

/// A sample takes some ten microseconds, which the clock can tell.
const RUNS: u32 = 2;
const SAMPLES: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_tell_their_products() {
        let weights = Weights::new(&[1.0], [1, 1, 1]);
        for level in Level::all() {
            let gemm = Gemm::pack(level, &weights, None, Activation::None, None);
            assert_eq!(Products::of_kernel(&gemm.kernel()), Some(Products::F32));
        }
        assert_eq!(Products::of_kernel("u8s8_depthwise_6p__avx512"), Some(Products::U8S8));
        assert_eq!(Products::of_kernel("bf16_gemm_6x64__avx512bf16"), Some(Products::Bf16));
        assert_eq!([Products::of_kernel("u8_functions__avx2"), Products::of_kernel("plain")], [None; 2]);
    }

    #[test]
    fn a_peak_is_a_rate() {
        for level in Level::all() {
            for products in [Products::F32, Products::Bf16, Products::U8S8] {
                assert!((1e7..1e13).contains(&products.rate(level, 1)), "{level} {products:?}");
            }
        }
    }
}
