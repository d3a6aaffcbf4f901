//! Weights of one layer that keep to a pattern, or to some numbers, and give the responses that the original gave.
//!
//! What stays is found by the alternating direction method of multipliers (Boyd et al., Distributed Optimization and
//! Statistical Learning via the Alternating Direction Method of Multipliers, 2011, 9.1), on inputs that are scaled to have
//! equal mean squares, while the share of zeros grows (Boza, Fast and Effective Weight Update for Pruned Large Language
//! Models, 2024; Meng et al., ALPS, 2024). What stays is then the least squares solution for the responses on calibration
//! rows, as in Net-Trim (Aghasi et al., 2017). Numbers are rounded one after the other, each with what the others left
//! (Behdin et al., QuantEase, 2023), which is the greedy form of Optimal Brain Compression (Frantar and Alistarh, 2022).

use std::ops::Range;
use std::thread;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, concatenate};

use super::algebra::{Factor, part};
use super::moments::Problem;
use super::pattern::Pattern;
use crate::engine::pool::cores_available;

/// What to prune, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Zeros {
    pub(super) pattern: Pattern,
    pub(super) share: f64,
    /// Of the layer's window.
    pub(super) taps: usize,
}

/// Weights with a share of zeros, a line for each output; none where the problem is not positive. `problem` has a ridge.
pub(super) fn prune(problem: &Problem, original: &Array2<f64>, zeros: Zeros) -> Option<Array2<f64>> {
    let mut search = Search::of(problem, original)?;
    for round in 1..=ROUNDS {
        search.step(&keep(&search.sum(), zeros, share_in(round, zeros.share)));
    }
    let sum = search.sum();
    let kept = masked(&sum, &keep(&sum, zeros, zeros.share));
    Some(refit(&search.gram, &search.target, &kept.mapv(|weight| weight != 0.0))? / &search.roots)
}

/// Weights of one of the layers that take some channels, with so many weights in a row for each channel.
#[derive(Debug)]
pub(super) struct Taker {
    pub(super) original: Array2<f64>,
    pub(super) each: usize,
    /// With a ridge, where there are rows.
    pub(super) problem: Option<Problem>,
}

/// The channels that stay when a share of them goes, for all layers that take them: those that matter most to the responses
/// of all, each in parts of its own; none where a problem is not positive.
pub(super) fn channels(takers: &[Taker], share: f64) -> Option<Vec<usize>> {
    let mut searches: Vec<Search> = takers.iter().filter_map(Taker::search).collect::<Option<_>>()?;
    let sums = |searches: &[Search]| -> Vec<Array2<f64>> {
        // Where nothing is known of inputs, all are alike.
        match searches.is_empty() {
            true => takers.iter().map(|taker| taker.original.clone()).collect(),
            false => searches.iter().map(Search::sum).collect(),
        }
    };
    let whole: Vec<f64> = sums(&searches).iter().map(|sum| sum.iter().map(|weight| weight * weight).sum()).collect();
    let stays = |sums: &[Array2<f64>], share: f64| -> Vec<bool> {
        let effects = takers.iter().zip(sums).zip(&whole);
        let effects: Vec<_> =
            effects.map(|((taker, sum), whole)| taker.effects(sum) / whole.max(f64::MIN_POSITIVE)).collect();
        let views: Vec<ArrayView2<'_, f64>> = effects.iter().map(|effects| effects.view()).collect();
        let effects = concatenate(Axis(0), &views).expect("layers take the same channels");
        Pattern::Channels.keep(&effects, share, 1).row(0).to_vec()
    };
    for round in 1..=if searches.is_empty() { 0 } else { ROUNDS } {
        let stays = stays(&sums(&searches), share_in(round, share));
        for (search, taker) in searches.iter_mut().zip(takers) {
            search.step(&Array2::from_shape_fn(taker.original.dim(), |(_, column)| stays[column / taker.each]));
        }
    }
    let stays = stays(&sums(&searches), share);
    Some((0..stays.len()).filter(|&channel| stays[channel]).collect())
}

impl Taker {
    fn search(&self) -> Option<Option<Search>> {
        self.problem.as_ref().map(|problem| Search::of(problem, &self.original))
    }

    /// What each channel does for each output.
    fn effects(&self, weights: &Array2<f64>) -> Array2<f64> {
        let (outputs, depth) = weights.dim();
        Array2::from_shape_fn((outputs, depth / self.each), |(line, channel)| {
            let of = channel * self.each..(channel + 1) * self.each;
            of.map(|column| weights[[line, column]].powi(2)).sum()
        })
    }
}

/// A search for weights that keep to a pattern, on inputs scaled to equal mean squares.
struct Search {
    gram: Array2<f64>,
    target: Array2<f64>,
    inverse: Array2<f64>,
    roots: Array1<f64>,
    weights: Array2<f64>,
    dual: Array2<f64>,
}

impl Search {
    fn of(problem: &Problem, original: &Array2<f64>) -> Option<Self> {
        let roots = problem.gram.diag().mapv(f64::sqrt);
        let column = roots.view().insert_axis(Axis(1));
        let gram = &problem.gram / &roots / column;
        let target = (&problem.target / &column).reversed_axes();
        let inverse = Factor::of(&gram + &(Array2::<f64>::eye(gram.nrows()) * PENALTY))?.inverse();
        let (weights, dual) = (original * &roots, Array2::zeros(original.dim()));
        Some(Self { gram, target, inverse, roots, weights, dual })
    }

    /// What the pattern is to be found in.
    fn sum(&self) -> Array2<f64> {
        &self.weights + &self.dual
    }

    fn step(&mut self, keep: &Array2<bool>) {
        let sum = self.sum();
        let kept = masked(&sum, keep);
        self.dual = sum - &kept;
        let right = &self.target + &((kept - &self.dual) * PENALTY);
        self.weights = product(&right, &self.inverse);
    }
}

/// Zeros of the least magnitudes, where nothing is known of inputs.
pub(super) fn cut(original: &Array2<f64>, zeros: Zeros) -> Array2<f64> {
    masked(original, &keep(original, zeros, zeros.share))
}

/// Zeros where magnitudes times those of inputs are least (Sun et al., Wanda, 2023): a guess at what fitting will keep.
pub(super) fn cut_by_effect(problem: &Problem, original: &Array2<f64>, zeros: Zeros) -> Array2<f64> {
    let effects = original * &problem.gram.diag().mapv(|square| square.max(0.0).sqrt());
    masked(original, &keep(&effects, zeros, zeros.share))
}

/// The least squares solution in weights that are not zero.
pub(super) fn refit_kept(problem: &Problem, weights: &Array2<f64>) -> Option<Array2<f64>> {
    refit(&problem.gram, &problem.target.t().to_owned(), &weights.mapv(|weight| weight != 0.0))
}

/// Rounds weights to numbers that each line has, one after the other, and each again while that helps. Zeros stay.
pub(super) fn round(
    problem: &Problem,
    weights: &Array2<f64>,
    nearest: &(dyn Fn(usize, usize, f64) -> f64 + Sync),
) -> Array2<f64> {
    let rounded = |line: usize| {
        let mut weights = weights.row(line).to_owned();
        let places: Vec<usize> = (0..weights.len()).filter(|&at| weights[at] != 0.0).collect();
        let mut rest = &problem.target.column(line) - &problem.gram.dot(&weights);
        for sweep in 0..SWEEPS {
            let mut moved = false;
            for &at in &places {
                let best = nearest(line, at, weights[at] + rest[at] / problem.gram[[at, at]]);
                let step = best - weights[at];
                if step != 0.0 {
                    rest.scaled_add(-step, &problem.gram.row(at));
                    weights[at] = best;
                    moved = true;
                }
            }
            if !moved && sweep > 0 {
                break;
            }
        }
        weights
    };
    let lines = in_parts(weights.nrows(), |part| part.map(&rounded).collect::<Vec<_>>());
    stacked(&lines.into_iter().flatten().collect::<Vec<_>>(), weights.ncols())
}

/// The share of zeros in a round: it grows fast at first, and is what it shall be in the second half.
fn share_in(round: usize, share: f64) -> f64 {
    let left = 1.0 - (2 * round) as f64 / ROUNDS as f64;
    share * (1.0 - left.max(0.0).powi(3))
}

fn keep(weights: &Array2<f64>, zeros: Zeros, share: f64) -> Array2<bool> {
    zeros.pattern.keep(&weights.mapv(|weight| weight * weight), share, zeros.taps)
}

fn masked(weights: &Array2<f64>, keep: &Array2<bool>) -> Array2<f64> {
    let mut weights = weights.clone();
    weights.zip_mut_with(keep, |weight, keep| *weight = if *keep { *weight } else { 0.0 });
    weights
}

fn refit(gram: &Array2<f64>, target: &Array2<f64>, keep: &Array2<bool>) -> Option<Array2<f64>> {
    // Outputs that keep the same weights have one factor.
    let order: Vec<usize> = (0..keep.nrows()).collect();
    let runs: Vec<&[usize]> = order.chunk_by(|&a, &b| keep.row(a) == keep.row(b)).collect();
    let solved = |run: usize| solve_kept(gram, target, runs[run], keep.row(runs[run][0]));
    let parts = in_parts(runs.len(), |part| part.map(&solved).collect::<Option<Vec<_>>>());
    let parts = parts.into_iter().collect::<Option<Vec<_>>>()?;
    let views: Vec<ArrayView2<'_, f64>> = parts.iter().flatten().map(|part| part.view()).collect();
    Some(concatenate(Axis(0), &views).expect("lines of one matrix fit"))
}

/// Some outputs' weights: of the kept ones the solution, of others zero.
fn solve_kept(
    gram: &Array2<f64>,
    target: &Array2<f64>,
    lines: &[usize],
    keep: ArrayView1<'_, bool>,
) -> Option<Array2<f64>> {
    let kept: Vec<usize> = (0..keep.len()).filter(|&at| keep[at]).collect();
    let some = gram.select(Axis(0), &kept).select(Axis(1), &kept);
    let right = target.select(Axis(0), lines).select(Axis(1), &kept);
    let solution = Factor::of(some)?.solve(&right.t());
    let mut weights = Array2::zeros((lines.len(), keep.len()));
    for ((at, line), weight) in solution.indexed_iter() {
        weights[[line, kept[at]]] = *weight;
    }
    Some(weights)
}

/// A product of which each core makes some lines.
fn product(left: &Array2<f64>, right: &Array2<f64>) -> Array2<f64> {
    let parts = in_parts(left.nrows(), |lines| part(left.view(), lines, 0..left.ncols()).dot(right));
    let views: Vec<ArrayView2<'_, f64>> = parts.iter().map(|part| part.view()).collect();
    concatenate(Axis(0), &views).expect("parts of one matrix fit")
}

fn stacked(lines: &[Array1<f64>], columns: usize) -> Array2<f64> {
    let elements = lines.iter().flatten().copied().collect();
    Array2::from_shape_vec((lines.len(), columns), elements).expect("lines have the columns of their matrix")
}

/// Has every core do a part of so many lines; what they made, in order.
fn in_parts<T: Send>(lines: usize, job: impl Fn(Range<usize>) -> T + Sync) -> Vec<T> {
    let cores = cores_available().min(lines).max(1);
    let part = |core: usize| core * lines / cores..(core + 1) * lines / cores;
    thread::scope(|scope| {
        let job = &job;
        let others: Vec<_> = (1..cores).map(|core| scope.spawn(move || job(part(core)))).collect();
        let first = job(part(0));
        let joined = others.into_iter().map(|other| other.join().expect("parts do not panic"));
        std::iter::once(first).chain(joined).collect()
    })
}

/// Of the method; more do not change which weights stay.
const ROUNDS: usize = 30;

/// What a weight outside of the pattern costs, in mean squares of the scaled inputs, which are 1.
const PENALTY: f64 = 1.0;

/// Times that each number is rounded at most.
const SWEEPS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of inputs that vary together, and what weights make of them.
    fn problem(depth: usize, original: &Array2<f64>) -> Problem {
        let rows = 4 * depth;
        let noise = |row: usize, column: usize| ((row * 31 + column * 17 + row * column * 7) % 101) as f64 / 50.0 - 1.0;
        let x = Array2::from_shape_fn((rows, depth), |(row, column)| {
            noise(row, column) + 0.8 * noise(row, column / 2 + 100) + 0.1 * column as f64 * noise(row, 300)
        });
        Problem::of_rows(&x, &x.dot(&original.t()))
    }

    fn weights(outputs: usize, depth: usize) -> Array2<f64> {
        let number = |(line, column)| ((line * 13 + column * 29) % 37) as f64 / 18.0 - 1.0;
        Array2::from_shape_fn((outputs, depth), number)
    }

    fn zeros(pattern: &str, share: f64) -> Zeros {
        Zeros { pattern: pattern.parse().unwrap(), share, taps: 1 }
    }

    #[test]
    fn what_stays_is_the_least_squares_solution() {
        let original = weights(3, 20);
        let problem = problem(20, &original).with_ridge(&original);
        let pruned = prune(&problem, &original, zeros("unstructured", 0.5)).unwrap();
        assert_eq!(pruned.iter().filter(|weight| **weight == 0.0).count(), 30);
        // The gradient of the error is zero in every weight that stays.
        let slope = pruned.dot(&problem.gram) - problem.target.t();
        assert!(slope.iter().zip(&pruned).all(|(slope, weight)| *weight == 0.0 || slope.abs() < 1e-9));
        assert_eq!(refit_kept(&problem, &pruned).unwrap().mapv(f32_of), pruned.mapv(f32_of));
    }

    #[expect(clippy::cast_possible_truncation, reason = "a comparison but for the last digits")]
    fn f32_of(x: f64) -> f32 {
        x as f32
    }

    #[test]
    fn the_right_weights_stay() {
        let original = weights(4, 24);
        let problem = problem(24, &original);
        let ridged = problem.clone().with_ridge(&original);
        for pattern in ["unstructured", "block:2x1", "nm:2:4"] {
            let zeros = zeros(pattern, 0.5);
            let cut = cut(&original, zeros);
            let refitted = refit_kept(&ridged, &cut).unwrap();
            let pruned = prune(&ridged, &original, zeros).unwrap();
            let errors = [&cut, &refitted, &pruned].map(|weights| problem.error(weights));
            assert!(errors[2] < 0.7 * errors[1] && errors[1] < errors[0], "{pattern}: {errors:?}");
        }
    }

    #[test]
    fn a_sparse_layer_that_fits_is_found_again() {
        let mut original = weights(2, 16);
        original.indexed_iter_mut().for_each(|((_, column), weight)| *weight *= f64::from(u8::from(column % 4 == 1)));
        let problem = problem(16, &original).with_ridge(&original);
        let pruned = prune(&problem, &original, zeros("unstructured", 0.75)).unwrap();
        assert!((&pruned - &original).iter().all(|rest| rest.abs() < 1e-6), "{pruned}");
        let all = prune(&problem, &original, zeros("unstructured", 1.0)).unwrap();
        assert!(all.iter().all(|weight| *weight == 0.0));
    }

    #[test]
    fn rounding_makes_up_for_what_it_did() {
        let mut original = weights(3, 18);
        original[[1, 5]] = 0.0;
        let problem = problem(18, &original);
        let nearest = |_: usize, _: usize, weight: f64| (weight * 3.0).round() / 3.0;
        let plain = original.mapv(|weight| nearest(0, 0, weight));
        let rounded = round(&problem, &original, &nearest);
        assert!(rounded.iter().all(|weight| *weight == nearest(0, 0, *weight)) && rounded[[1, 5]] == 0.0);
        assert!(problem.error(&rounded) < problem.error(&plain));
    }

    #[test]
    fn channels_stay_that_matter_to_all_who_take_them() {
        // The first layer needs channels 0 and 1, the second 1 and 2, with two weights each; 3 nobody does.
        let first = Array2::from_shape_fn((3, 4), |(line, at)| [3.0, 2.0, 0.1, 0.0][at] * (1.0 + line as f64 / 4.0));
        let second =
            Array2::from_shape_fn((2, 8), |(line, at)| [0.1, 20.0, 30.0, 0.0][at / 2] * (1.0 - line as f64 / 4.0));
        let takers = |has_rows: bool| {
            let taker = |original: &Array2<f64>, each| {
                let problem = problem(original.ncols(), original).with_ridge(original);
                Taker { original: original.clone(), each, problem: has_rows.then_some(problem) }
            };
            [taker(&first, 1), taker(&second, 2)]
        };
        for has_rows in [false, true] {
            let kept = |share| channels(&takers(has_rows), share).unwrap();
            assert_eq!(kept(0.25), [0, 1, 2], "{has_rows}");
            assert_eq!(kept(0.0), [0, 1, 2, 3]);
            assert!(kept(1.0).is_empty());
            assert_eq!(channels(&takers(has_rows)[..1], 0.5).unwrap(), [0, 1]);
            assert_eq!(channels(&takers(has_rows)[1..], 0.5).unwrap(), [1, 2]);
        }
    }
}
