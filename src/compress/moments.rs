//! What calibration rows say about a layer: how the elements that meet its weights vary together, and with the responses
//! that the original layer gave.

use ndarray::{Array1, Array2, Axis};

use super::CompressError;
use super::windows::{Picks, columns, responses};
use crate::engine::WeightLayer;
use crate::tensor::Tensor;

/// Sums over calibration rows, for one group of a layer.
#[derive(Clone, Debug)]
pub(super) struct Moments {
    count: f64,
    /// Of inputs with inputs, inputs with responses, and responses with themselves; about zero.
    inputs: Array2<f64>,
    cross: Array2<f64>,
    responses: Array1<f64>,
    input_sums: Array1<f64>,
    response_sums: Array1<f64>,
}

/// The least squares problem of a group: `gram * weights' = target`, an output's bias what is left at the means.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// An entry for each pair of weights of one output.
    pub(super) gram: Array2<f64>,
    /// A column for each output.
    pub(super) target: Array2<f64>,
    input_means: Array1<f64>,
    response_means: Array1<f64>,
    /// Mean squares of all responses: about the means that were taken off, and about their own.
    energy: f64,
    variance: f64,
}

impl Moments {
    fn none(depth: usize, outputs: usize) -> Self {
        Self {
            count: 0.0,
            inputs: Array2::zeros((depth, depth)),
            cross: Array2::zeros((depth, outputs)),
            responses: Array1::zeros(outputs),
            input_sums: Array1::zeros(depth),
            response_sums: Array1::zeros(outputs),
        }
    }

    /// For each group of a layer.
    pub(super) fn of_groups(layer: &WeightLayer) -> Vec<Self> {
        let groups = layer.groups();
        (0..groups).map(|_| Self::none(layer.depth, layer.outputs / groups)).collect()
    }

    /// Adds rows of a batch: what enters the layer now, and what left it in the original.
    pub(super) fn add(
        groups: &mut [Self],
        layer: &WeightLayer,
        [input, response]: [&Tensor; 2],
        picks: &mut Picks,
    ) -> Result<(), CompressError> {
        let positions = picks.next(layer, response);
        for (group, moments) in groups.iter_mut().enumerate() {
            // Bounds what is copied at a time.
            for some in positions.chunks(POSITIONS_AT_ONCE) {
                moments.take(&columns(layer, input, response, group, some)?, &responses(layer, response, group, some));
            }
        }
        Ok(())
    }

    /// Lines of inputs and of responses.
    fn take(&mut self, x: &Array2<f64>, y: &Array2<f64>) {
        self.count += x.nrows() as f64;
        self.inputs += &x.t().dot(x);
        self.cross += &x.t().dot(y);
        self.responses += &y.mapv(|y| y * y).sum_axis(Axis(0));
        self.input_sums += &x.sum_axis(Axis(0));
        self.response_sums += &y.sum_axis(Axis(0));
    }

    /// About the means where the layer has a bias, which takes these up; else about zero.
    pub(super) fn problem(self, has_bias: bool) -> Problem {
        let count = self.count.max(1.0);
        let (x, y) = (self.input_sums / count, self.response_sums / count);
        let about = |means: &Array1<f64>| if has_bias { means.clone() } else { Array1::zeros(means.len()) };
        let (input_means, response_means) = (about(&x), about(&y));
        let outer = |a: &Array1<f64>, b: &Array1<f64>| {
            let line = b.view().insert_axis(Axis(0));
            a.view().insert_axis(Axis(1)).dot(&line)
        };
        let responses = &self.responses / count;
        Problem {
            gram: self.inputs / count - outer(&input_means, &input_means),
            target: self.cross / count - outer(&input_means, &response_means),
            energy: (&responses - &(&response_means * &response_means)).sum(),
            // A constant is no response.
            variance: (&responses - &(&y * &y)).sum(),
            input_means,
            response_means,
        }
    }
}

impl Problem {
    /// For tests of what solves it: without a bias.
    #[cfg(test)]
    pub(super) fn of_rows(x: &Array2<f64>, y: &Array2<f64>) -> Self {
        let mut moments = Moments::none(x.ncols(), y.ncols());
        moments.take(x, y);
        moments.problem(false)
    }

    /// Mean square of what weights, a line for each output, leave of the responses, in parts of what these vary by.
    pub(super) fn error(&self, weights: &Array2<f64>) -> f64 {
        Self::error_of(&[(self, weights)])
    }

    /// As `error`, of all groups of a layer.
    pub(super) fn error_of(groups: &[(&Self, &Array2<f64>)]) -> f64 {
        let rest: f64 = groups.iter().map(|(problem, weights)| problem.rest(weights)).sum();
        let variance: f64 = groups.iter().map(|(problem, _)| problem.variance).sum();
        rest / variance.max(f64::MIN_POSITIVE)
    }

    fn rest(&self, weights: &Array2<f64>) -> f64 {
        let met = (&weights.dot(&self.gram) * weights).sum();
        (met - 2.0 * (weights * &self.target.t()).sum() + self.energy).max(0.0)
    }

    /// The bias that lets mean responses be the original's.
    pub(super) fn bias(&self, weights: &Array2<f64>) -> Array1<f64> {
        &self.response_means - &weights.dot(&self.input_means)
    }

    /// Asks for weights near those that were there, so that what few rows cannot tell stays as it was.
    pub(super) fn with_ridge(mut self, original: &Array2<f64>) -> Self {
        let mean = self.gram.diag().mean().unwrap_or(0.0);
        // Inputs that are constant say nothing: any weight of them is as good.
        let ridge = if mean > 0.0 { RIDGE * mean } else { 1.0 };
        self.gram.diag_mut().mapv_inplace(|square| square + ridge);
        self.target.scaled_add(ridge, &original.t());
        self
    }
}

/// In parts of the mean square of an input.
const RIDGE: f64 = 1e-2;

/// Positions of an image whose windows are copied at a time.
const POSITIONS_AT_ONCE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// A problem of two inputs, the second twice the first but for little, and one response.
    fn problem(has_bias: bool) -> Problem {
        let mut moments = Moments::none(2, 1);
        let x = |(at, column): (usize, usize)| (at * (column + 1) + column * (at % 2)) as f64;
        moments
            .take(&Array2::from_shape_fn((10, 2), x), &Array2::from_shape_fn((10, 1), |(at, _)| 3.0 * at as f64 + 1.0));
        moments.problem(has_bias)
    }

    #[test]
    fn errors_are_parts_of_what_responses_vary_by() {
        let weights = |a, b| Array2::from_shape_vec((1, 2), vec![a, b]).unwrap();
        let centred = problem(true);
        assert!((centred.error(&weights(0.0, 0.0)) - 1.0).abs() < 1e-12);
        assert!(centred.error(&weights(3.0, 0.0)) < 1e-12);
        assert!((centred.bias(&weights(3.0, 0.0))[0] - 1.0).abs() < 1e-12);
        assert!((centred.error(&weights(6.0, 0.0)) - 1.0).abs() < 1e-12);
        // Without a bias the constant 1 is left.
        let plain = problem(false);
        assert!((plain.error(&weights(3.0, 0.0)) * plain.variance - 1.0).abs() < 1e-9);
        assert_eq!(plain.bias(&weights(3.0, 0.0))[0], 0.0);
    }

    #[test]
    fn a_ridge_leaves_alone_what_rows_do_not_tell() {
        let silent = Moments::none(2, 1).problem(true);
        let original = Array2::from_shape_vec((1, 2), vec![5.0, -7.0]).unwrap();
        let ridged = silent.with_ridge(&original);
        assert_eq!((ridged.gram, ridged.target), (Array2::eye(2), original.t().to_owned()));
    }
}
