//! The few numbers that weights of a format have: integers of scales, or entries of a table.

use half::bf16;
use ndarray::{Array1, Array2, Axis, concatenate};
use serde::{Deserialize, Serialize};

use super::algebra::{narrow, part};
use super::fit;
use super::moments::Problem;
use super::recipe::Format;
use crate::engine::stored_bytes;

/// What each weight of a layer is rounded to.
#[derive(Clone, Debug)]
pub(super) struct Numbers {
    kind: Kind,
    taps: usize,
}

#[derive(Clone, Debug)]
enum Kind {
    Bf16,
    /// Integers up to a bound, of a scale for each line, or for each block of channels of it at each tap.
    Scaled {
        format: Format,
        scales: Array2<f64>,
        block: Option<usize>,
    },
    /// In ascending order.
    Table(Vec<f64>),
}

/// How a file has the weights.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Stored {
    Floats,
    Bf16,
    /// A line of scales for each output, one for each block of so many inputs at each tap.
    Integers {
        bits: usize,
        scales: Vec<f32>,
        block: Option<usize>,
    },
    Table {
        values: Vec<f32>,
    },
}

/// Numbers for a layer's weights, and the weights rounded to them so that responses stay. There is a problem for each group.
pub(super) fn fit(format: Format, problems: &[Problem], weights: &Array2<f64>, taps: usize) -> (Numbers, Array2<f64>) {
    let lines = weights.nrows() / problems.len();
    let squares = |(line, column): (usize, usize)| problems[line / lines].gram[[column, column]];
    let mut numbers = Numbers::of(format, weights, &Array2::from_shape_fn(weights.dim(), squares), taps);
    let rounded = |numbers: &Numbers| {
        let group = |(group, problem): (usize, &Problem)| {
            let from = group * lines;
            let some = part(weights.view(), from..from + lines, 0..weights.ncols()).to_owned();
            fit::round(problem, &some, &|line, column, weight| numbers.nearest(from + line, column, weight))
        };
        let groups: Vec<Array2<f64>> = problems.iter().enumerate().map(group).collect();
        let views: Vec<_> = groups.iter().map(|group| group.view()).collect();
        concatenate(Axis(0), &views).expect("groups have weights of one depth")
    };
    let mut result = rounded(&numbers);
    if matches!(format, Format::Ternary | Format::Binary) {
        for _ in 0..ROUNDS {
            numbers.rescale(problems, &result);
            result = rounded(&numbers);
        }
    }
    (numbers, result)
}

impl Numbers {
    /// From weights, and how much each counts.
    pub(super) fn of(format: Format, weights: &Array2<f64>, squares: &Array2<f64>, taps: usize) -> Self {
        let channels = weights.ncols() / taps;
        let kind = match format {
            Format::Bf16 => Kind::Bf16,
            Format::Codebook(entries) => Kind::Table(table(weights, squares, entries)),
            Format::Int4 => {
                let blocks = channels.div_ceil(INT4_BLOCK);
                let scale = |(line, place): (usize, usize)| {
                    let (first, tap) = (place / taps * INT4_BLOCK, place % taps);
                    let columns = (first..(first + INT4_BLOCK).min(channels)).map(|channel| channel * taps + tap);
                    let some: Vec<[f64; 2]> =
                        columns.map(|column| [weights[[line, column]], squares[[line, column]]]).collect();
                    best_scale(&some, format.bound())
                };
                let scales = Array2::from_shape_fn((weights.nrows(), blocks * taps), scale);
                Kind::Scaled { format, scales, block: Some(INT4_BLOCK) }
            }
            Format::Int8 | Format::Ternary | Format::Binary => {
                let scales = weights.rows().into_iter().map(|line| line_scale(format, line.to_vec()));
                let scales = scales.collect::<Array1<f64>>().insert_axis(Axis(1));
                Kind::Scaled { format, scales, block: None }
            }
        };
        Self { kind, taps }
    }

    /// The number that is nearest to what a weight would be.
    pub(super) fn nearest(&self, line: usize, column: usize, weight: f64) -> f64 {
        match &self.kind {
            Kind::Bf16 => f64::from(bf16::from_f64(weight).to_f32()),
            Kind::Scaled { format, scales, block } => {
                let place = block.map_or(0, |block| column / self.taps / block * self.taps + column % self.taps);
                let scale = scales[[line, place]];
                match format {
                    Format::Binary => scale.copysign(weight),
                    _ => (weight / scale).round_ties_even().clamp(-format.bound(), format.bound()) * scale,
                }
            }
            Kind::Table(entries) => {
                let above = entries.partition_point(|entry| *entry < weight);
                let around = &entries[above.saturating_sub(1)..(above + 1).min(entries.len())];
                let nearest = around.iter().min_by(|a, b| (*a - weight).abs().total_cmp(&(*b - weight).abs()));
                nearest.copied().unwrap_or(0.0)
            }
        }
    }

    /// Each weight's nearest number; zeros stay.
    pub(super) fn nearest_all(&self, weights: &Array2<f64>) -> Array2<f64> {
        let number = |(line, column)| match weights[[line, column]] {
            0.0 => 0.0,
            weight => self.nearest(line, column, weight),
        };
        Array2::from_shape_fn(weights.dim(), number)
    }

    pub(super) fn stored(&self) -> Stored {
        match &self.kind {
            Kind::Bf16 => Stored::Bf16,
            Kind::Scaled { format, scales, block } => {
                let bits = if *format == Format::Int4 { 4 } else { 8 };
                Stored::Integers { bits, scales: scales.iter().copied().map(narrow).collect(), block: *block }
            }
            Kind::Table(entries) => Stored::Table { values: entries.iter().copied().map(narrow).collect() },
        }
    }

    /// The scale of each line that is best for integers that were found.
    fn rescale(&mut self, problems: &[Problem], rounded: &Array2<f64>) {
        let Kind::Scaled { scales, .. } = &mut self.kind else { return };
        let lines = rounded.nrows() / problems.len();
        for (line, scale) in scales.iter_mut().enumerate() {
            let problem = &problems[line / lines];
            let integers = rounded.row(line).mapv(|weight| weight / *scale);
            let best = integers.dot(&problem.target.column(line % lines)) / integers.dot(&problem.gram.dot(&integers));
            *scale = usable(best).unwrap_or(*scale);
        }
    }
}

impl Stored {
    /// Of so many weights, of which some are not zero, and what they need.
    pub(super) fn bytes(&self, weights: usize, nonzero: usize) -> usize {
        let floats = |count: usize| count * size_of::<f32>();
        // Zeros take a bit each where they are many.
        let stored = |size: usize| stored_bytes(weights, nonzero, size);
        match self {
            Self::Floats => stored(size_of::<f32>()),
            Self::Bf16 => stored(size_of::<bf16>()),
            Self::Integers { bits: 8, scales, .. } => stored(1) + floats(scales.len()),
            Self::Integers { bits, scales, .. } => (weights * bits).div_ceil(8) + floats(scales.len()),
            Self::Table { values } => weights + floats(values.len()),
        }
    }
}

/// From the magnitudes of a line that is not zero.
fn line_scale(format: Format, line: Vec<f64>) -> f64 {
    let kept: Vec<f64> = line.into_iter().map(f64::abs).filter(|weight| *weight > 0.0).collect();
    let mean = |some: &[f64]| some.iter().sum::<f64>() / some.len() as f64;
    let scale = match format {
        // Rastegari et al., XNOR-Net, 2016.
        Format::Binary => mean(&kept),
        // Li et al., Ternary Weight Networks, 2016: 0.7 of the mean is where zero begins.
        Format::Ternary => {
            let least = 0.7 * mean(&kept);
            mean(&kept.iter().copied().filter(|weight| *weight > least).collect::<Vec<_>>())
        }
        _ => kept.iter().copied().fold(0.0, f64::max) / format.bound(),
    };
    // Of nothing but zeros any scale is right.
    usable(scale).unwrap_or(1.0)
}

/// Of weights, each with what it counts: the one with the least squares of what rounding leaves.
fn best_scale(weights: &[[f64; 2]], bound: f64) -> f64 {
    let greatest = weights.iter().map(|[weight, _]| weight.abs()).fold(0.0, f64::max);
    let loss = |scale: f64| {
        let rest = |weight: f64| weight - (weight / scale).round_ties_even().clamp(-bound, bound) * scale;
        weights.iter().map(|[weight, square]| square * rest(*weight).powi(2)).sum::<f64>()
    };
    let tried = (0..SCALES).map(|step| greatest / bound * (1.0 - 0.5 * f64::from(step) / f64::from(SCALES)));
    let tried = tried.filter_map(usable).map(|scale| (loss(scale), scale));
    tried.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(1.0, |(_, scale)| scale)
}

/// So many numbers that weights are near to: the means of what is nearest to each, found in turns (Lloyd, Least Squares
/// Quantization in PCM, 1982). Zero is one of them where weights are zero. A short table is integers times one number, so that
/// products with it are those of integers.
fn table(weights: &Array2<f64>, squares: &Array2<f64>, entries: usize) -> Vec<f64> {
    let mut sorted: Vec<[f64; 2]> =
        weights.iter().zip(squares).map(|(weight, square)| [*weight, *square]).filter(|pair| pair[0] != 0.0).collect();
    sorted.sort_unstable_by(|a, b| a[0].total_cmp(&b[0]));
    let has_zeros = sorted.len() < weights.len();
    let free = (entries - usize::from(has_zeros)).min(sorted.len());
    let mut table: Vec<f64> = (0..free).map(|entry| sorted[(2 * entry + 1) * sorted.len() / (2 * free)][0]).collect();
    for _ in 0..TURNS {
        let mut from = 0;
        for entry in 0..free {
            let bound = table.get(entry + 1).map_or(f64::INFINITY, |next| f64::midpoint(table[entry], *next));
            let to = from + sorted[from..].partition_point(|pair| pair[0] <= bound);
            let [sum, count] = sorted[from..to].iter().fold([0.0, 0.0], |[sum, count], [weight, square]| {
                // What no row tells counts a little.
                let square = square.max(f64::MIN_POSITIVE);
                [sum + weight * square, count + square]
            });
            if count > 0.0 {
                table[entry] = sum / count;
            }
            from = to;
        }
    }
    table.extend(has_zeros.then_some(0.0));
    if entries <= SHORT_TABLE {
        multiples(&mut table);
    }
    let mut table: Vec<f64> = table.into_iter().map(|entry| f64::from(narrow(entry))).collect();
    table.sort_unstable_by(f64::total_cmp);
    table.dedup();
    table
}

/// Rounds numbers to multiples of one, at most 127 times it: of some the one that leaves the least squares.
fn multiples(table: &mut [f64]) {
    let greatest = table.iter().fold(0.0f64, |greatest, entry| greatest.max(entry.abs()));
    let nearest = |entry: f64, unit: f64| (entry / unit).round() * unit;
    let rest = |unit: f64| table.iter().map(|&entry| (entry - nearest(entry, unit)).powi(2)).sum::<f64>();
    let units = (64..=i8::MAX).map(|most| greatest / f64::from(most)).filter_map(usable);
    if let Some(unit) = units.min_by(|a, b| rest(*a).total_cmp(&rest(*b))) {
        table.iter_mut().for_each(|entry| *entry = nearest(*entry, unit));
    }
}

/// A scale as files have it, if it can be divided by.
fn usable(scale: f64) -> Option<f64> {
    let scale = narrow(scale);
    (scale.is_finite() && scale >= f32::MIN_POSITIVE).then(|| f64::from(scale))
}

/// Inputs that share a scale of four bits.
const INT4_BLOCK: usize = 32;

/// Entries of a table whose places take four bits at most.
const SHORT_TABLE: usize = 16;

/// Times that scales are found for integers, and integers for scales.
const ROUNDS: usize = 3;

/// Scales that are tried, from that of the greatest weight to half of it.
const SCALES: u8 = 32;

/// Times that means are found; they hardly move any more.
const TURNS: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(weights: &[f64]) -> Array2<f64> {
        Array2::from_shape_vec((1, weights.len()), weights.to_vec()).unwrap()
    }

    fn rounded(format: &str, weights: &[f64]) -> Vec<f64> {
        let weights = line(weights);
        Numbers::of(format.parse().unwrap(), &weights, &Array2::ones(weights.dim()), 1)
            .nearest_all(&weights)
            .into_raw_vec_and_offset()
            .0
    }

    #[test]
    fn formats_have_few_numbers() {
        let near = |got: Vec<f64>, expected: &[f64]| {
            assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?} {expected:?}");
        };
        near(rounded("int8", &[1.27, -0.504, 0.0, 0.016]), &[1.27, -0.5, 0.0, 0.02]);
        near(rounded("binary", &[1.0, -2.0, 0.0]), &[1.5, -1.5, 0.0]);
        near(rounded("ternary", &[1.0, -1.2, 0.1, 0.0]), &[1.1, -1.1, 0.0, 0.0]);
        near(rounded("bf16", &[1.0 + 1.0 / 1024.0, -0.5]), &[1.0, -0.5]);
        near(rounded("codebook:2", &[1.0, 1.4, -3.0, -3.4]), &[1.2, 1.2, -3.2, -3.2]);
        near(rounded("codebook:3", &[1.0, 1.4, -3.0, 0.0]), &[1.2, 1.2, -3.0, 0.0]);
        // Where places take eight bits, products are of floats.
        near(rounded("codebook:17", &[1.0, 0.1234, -3.0]), &[1.0, 0.1234, -3.0]);
        near(rounded("codebook:16", &[1.0, 2.0]), &[1.0, 2.0]);
        near(rounded("int8", &[0.0, 0.0]), &[0.0, 0.0]);
        near(rounded("codebook:4", &[0.0, 0.0]), &[0.0, 0.0]);
    }

    #[test]
    fn short_tables_are_multiples_of_one_number() {
        let mut table = vec![-1.7, -0.314_159, 0.0, 0.271_828, 0.9, 1.234_567];
        let before = table.clone();
        multiples(&mut table);
        assert!(table.iter().zip(&before).all(|(a, b)| (a - b).abs() <= 1.7 / 128.0), "{table:?}");
        let of = |unit: f64| table.iter().all(|entry| (entry / unit - (entry / unit).round()).abs() < 1e-6);
        assert!((64..=127).any(|most| of(1.7 / f64::from(most))), "{table:?}");
        assert!(table != before);
    }

    #[test]
    fn blocks_have_scales_of_their_own() {
        // Forty channels at two taps: the first 32 are small at the first tap.
        let weight = |at: usize| if at.is_multiple_of(2) && at < 64 { 0.07 } else { 7.0 };
        let weights = line(&(0..80).map(weight).collect::<Vec<_>>());
        let numbers = Numbers::of(Format::Int4, &weights, &Array2::ones(weights.dim()), 2);
        let Stored::Integers { bits, scales, block } = numbers.stored() else { panic!("integers") };
        assert_eq!((bits, scales, block), (4, vec![0.01, 1.0, 1.0, 1.0], Some(32)));
        let rest = numbers.nearest_all(&weights) - &weights;
        assert!(rest.iter().all(|rest| rest.abs() < 1e-6));
    }
}
