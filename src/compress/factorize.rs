//! Layers as two in a row, with few values between them.
//!
//! The second layer's columns are the directions in which the original's responses on calibration rows vary most, the first
//! layer is the original along them: of all layers of a rank, those that lose the least of these responses (Zhang et al.,
//! Accelerating Very Deep Convolutional Networks, 2015, 3.1). Without rows every input counts the same, and this is the
//! singular value decomposition of the weights.

use ndarray::{Array2, Axis};
use serde::Serialize;

use super::algebra::eigen;
use super::layers::problems;
use super::moments::Problem;
use super::samples::Samples;
use super::{CompressError, Job};
use crate::engine::{Draft, Pool, WeightLayer, Weights};

/// A layer that became two.
#[derive(Clone, Debug, Serialize)]
pub struct Factored {
    pub name: String,
    /// Values between the two.
    pub rank: usize,
    /// Weights of the original, and of both.
    pub weights: [usize; 2],
    /// The part of responses that is lost, where rows tell.
    pub error: Option<f64>,
}

/// Makes two layers of all those of which that takes fewer weights.
pub(super) fn all(
    draft: &mut Draft,
    job: &Job,
    calibration: Option<&Samples>,
    pool: &Pool,
) -> Result<Vec<Factored>, CompressError> {
    let Some(energy) = job.recipe.factorize else { return Ok(Vec::new()) };
    let original = draft.clone();
    let mut factored = Vec::new();
    for layer in job.recipe.of(original.layers()).into_iter().filter(|layer| layer.groups() == 1) {
        let problems = calibration.map(|rows| problems([&original; 2], &layer, rows, pool, &job.load)).transpose()?;
        factored.extend(factorize(draft, &layer, problems.as_ref().map(|problems| &problems[0]), energy));
    }
    Ok(factored)
}

/// Makes two layers of one, if they keep so much of its responses' energy with fewer weights.
fn factorize(draft: &mut Draft, layer: &WeightLayer, problem: Option<&Problem>, energy: f64) -> Option<Factored> {
    let before = draft.weights(layer);
    let elements = before.elements.iter().map(|&element| f64::from(element)).collect();
    let weights = Array2::from_shape_vec((layer.outputs, layer.depth), elements).ok()?;
    let met = problem.map_or_else(|| weights.clone(), |problem| weights.dot(&problem.gram));
    let (values, vectors) = eigen(met.dot(&weights.t()));
    let rank = rank(&values, energy);
    let count = rank * (layer.outputs + layer.depth);
    if count >= weights.len() {
        return None;
    }
    let kept: Vec<usize> = (0..rank).collect();
    let second = vectors.select(Axis(1), &kept);
    let first = second.t().dot(&weights);
    let both = second.dot(&first);
    let bias = problem.map(|problem| problem.bias(&both).iter().copied().map(narrow).collect());
    let floats = |matrix: &Array2<f64>| matrix.iter().copied().map(narrow).collect::<Vec<f32>>();
    let second = Weights { elements: floats(&second), bias: before.bias.map(|before| bias.unwrap_or(before)) };
    draft.split(layer, &floats(&first), &second, rank);
    Some(Factored {
        name: layer.name.clone(),
        rank,
        weights: [weights.len(), count],
        error: problem.map(|problem| problem.error(&both)),
    })
}

/// The fewest of the greatest values that have so much of their sum.
fn rank(values: &[f64], energy: f64) -> usize {
    let wanted = energy * values.iter().map(|value| value.max(0.0)).sum::<f64>();
    let mut sum = 0.0;
    let enough = values.iter().position(|value| {
        sum += value.max(0.0);
        sum >= wanted
    });
    enough.map_or(values.len(), |last| last + 1)
}

#[expect(clippy::cast_possible_truncation, reason = "weights are stored so")]
fn narrow(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_values_as_have_the_energy() {
        for (energy, expected) in [(0.5, 1), (0.6, 1), (0.61, 2), (0.9, 2), (0.95, 3), (1.0, 3)] {
            assert_eq!(rank(&[6.0, 3.0, 1.0, 0.0], energy), expected, "{energy}");
        }
        assert_eq!(rank(&[0.0, 0.0], 0.9), 1);
    }
}
