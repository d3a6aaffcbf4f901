//! Rates of products with weights of few bits beside floats and bytes, in 10^9 multiply-adds a second, by instruction set
//! and panel width; the least time of many runs. So many layers take turns that their weights come from where the case says.
//! `cargo bench -p kinglet-kernels --bench low_bit -- NAME` runs cases whose names contain NAME.
#![allow(clippy::print_stdout, reason = "a table is what it is for")]

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use kinglet_kernels::f32_gemm::{Codebook, CodebookGemm, CodedWeights, Gemm, IntegerGemm, Weights};
use kinglet_kernels::{Activation, Level, Window, u8s8_gemm};

struct Case {
    name: &'static str,
    rows: usize,
    /// Of depth, and of columns.
    size: usize,
    /// Layers that take turns.
    layers: usize,
}

fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let case = |name, rows, size, layers| Case { name, rows, size, layers };
    let cases = [
        case("near 1x512", 1, 512, 1),
        case("cached 1x1024", 1, 1024, 1),
        case("memory 1x4096", 1, 4096, 6),
        case("memory 4x4096", 4, 4096, 6),
        case("near 4x512", 4, 512, 1),
        case("near 8x512", 8, 512, 1),
        case("near 32x512", 32, 512, 1),
        case("memory 32x4096", 32, 4096, 6),
    ];
    let levels: Vec<Level> = Level::all().collect();
    for case in cases.iter().filter(|case| case.name.contains(&filter)) {
        for &level in levels.iter().rev().take(4) {
            print!("{:16} {level:12}", case.name);
            case.rates("f32", Gemm::widths(level), |vectors| case.floats(level, vectors));
            case.rates("u8s8", u8s8_gemm::Gemm::widths(level), |vectors| case.bytes(level, vectors));
            let made = Made::new(case, 16, usize::MAX, false);
            case.rates("f32u4", CodebookGemm::widths(level), |vectors| case.numbers(level, vectors, &made));
            for (name, numbers, block, zeros) in [
                ("u4", 16, usize::MAX, false),
                ("u4/32", 16, 32, false),
                ("u4/128", 16, 128, false),
                ("u4/32-zero", 16, 32, true),
                ("u2", 3, usize::MAX, false),
                ("u1", 2, usize::MAX, false),
            ] {
                let made = Made::new(case, numbers, block, zeros);
                case.rates(name, IntegerGemm::widths(level), |vectors| case.integers(level, vectors, &made));
            }
            println!();
        }
    }
}

/// Codes, and what they mean.
struct Made {
    codes: Vec<u8>,
    table: Vec<i8>,
    scales: Vec<f32>,
    zeros: Vec<f32>,
    block: usize,
}

impl Made {
    fn new(case: &Case, numbers: u8, block: usize, zeros: bool) -> Self {
        let count = case.size.div_ceil(block) * case.size;
        let codes = (0u8..=u8::MAX).cycle().map(|code| code % numbers).take(case.size * case.size).collect();
        let table = (0..numbers).map(u8::cast_signed).collect();
        let zeros = if zeros { vec![0.5; count] } else { Vec::new() };
        Self { codes, table, scales: vec![0.1; count], zeros, block }
    }

    fn codebook(&self) -> Codebook<'_> {
        Codebook { table: &self.table, scales: &self.scales, zeros: &self.zeros, block: self.block }
    }
}

impl Case {
    fn rates(&self, name: &str, widths: RangeInclusive<usize>, time: impl Fn(usize) -> Duration) {
        print!(" | {name}");
        for vectors in widths {
            let products = (self.rows * self.size * self.size) as f64;
            print!(" {:5.1}", products / time(vectors).as_secs_f64() / 1e9);
        }
    }

    /// The least time of one layer's run.
    fn least(&self, mut run: impl FnMut(usize)) -> Duration {
        let (begun, mut least) = (Instant::now(), Duration::MAX);
        while begun.elapsed() < MEASURED || least == Duration::MAX {
            let started = Instant::now();
            (0..self.layers).for_each(&mut run);
            least = least.min(started.elapsed());
        }
        least / u32::try_from(self.layers).unwrap_or(1)
    }

    fn weights<'a>(&self, elements: &'a [u8]) -> CodedWeights<'a> {
        CodedWeights { elements, taps: 1, depth: self.size, columns: self.size }
    }

    fn floats(&self, level: Level, vectors: usize) -> Duration {
        let elements = vec![0.1; self.size * self.size];
        let pack = |_| {
            Gemm::pack(
                level,
                &Weights::new(&elements, [1, self.size, self.size]),
                None,
                Activation::RELU,
                Some(vectors),
            )
        };
        let (gemms, left) = ((0..self.layers).map(pack).collect::<Vec<_>>(), vec![0.1; self.rows * self.size]);
        let mut out = vec![0.0; left.len()];
        let window = Window::rows(self.rows, self.size);
        self.least(|layer| {
            let gemm = &gemms[layer];
            gemm.run(&left, &window, None, &gemm.grid(&mut out, self.size, self.rows));
        })
    }

    fn numbers(&self, level: Level, vectors: usize, made: &Made) -> Duration {
        let weights = self.weights(&made.codes[..]);
        let table: Vec<f32> = made.table.iter().map(|&number| number.into()).collect();
        let pack =
            |_| CodebookGemm::pack(level, &weights, [&table, &made.scales], None, Activation::RELU, Some(vectors));
        let (gemms, left) = ((0..self.layers).map(pack).collect::<Vec<_>>(), vec![0.1; self.rows * self.size]);
        let mut out = vec![0.0; left.len()];
        let window = Window::rows(self.rows, self.size);
        self.least(|layer| {
            let gemm = &gemms[layer];
            gemm.run(&left, &window, None, &gemm.grid(&mut out, self.size, self.rows));
        })
    }

    /// Rounding included.
    fn integers(&self, level: Level, vectors: usize, made: &Made) -> Duration {
        let (weights, codebook) = (self.weights(&made.codes[..]), made.codebook());
        let pack = |_| IntegerGemm::pack(level, &weights, &codebook, None, Activation::RELU, Some(vectors));
        let (gemms, left) = ((0..self.layers).map(pack).collect::<Vec<_>>(), vec![0.1; self.rows * self.size]);
        let (mut out, mut rounded) = (vec![0.0; left.len()], vec![0.0; self.rows * gemms[0].rounded()]);
        self.least(|layer| {
            let gemm = &gemms[layer];
            gemm.round(&left, &gemm.rounded_grid(&mut rounded));
            gemm.run(&rounded, None, &gemm.grid(&mut out, self.size, self.rows));
        })
    }

    fn bytes(&self, level: Level, vectors: usize) -> Duration {
        let elements = vec![3i8; self.size * self.size];
        let (bias, scale) = (vec![1; self.size], vec![1e-4; self.size]);
        let finish = u8s8_gemm::Finish::Bytes { zero: 0, low: 0, high: 255 };
        let then = u8s8_gemm::Requantize { bias: &bias, scale: &scale, finish, plus: None };
        let weights = u8s8_gemm::Weights { elements: &elements, taps: 1, depth: self.size, columns: self.size };
        let pack = |_| u8s8_gemm::Gemm::pack(level, &weights, 3, &then, Some(vectors));
        let (gemms, left) = ((0..self.layers).map(pack).collect::<Vec<_>>(), vec![3u8; self.rows * self.size]);
        let mut out = vec![0u8; left.len()];
        let window = Window::rows(self.rows, self.size);
        self.least(|layer| {
            let gemm = &gemms[layer];
            gemm.run(&left, &window, None, &gemm.grid(&mut out, self.size, self.rows));
        })
    }
}

const MEASURED: Duration = Duration::from_millis(150);
