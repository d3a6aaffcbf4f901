//! How a share of zeros is spread over layers.

use ndarray::Array2;

use super::moments::Problem;
use super::recipe::{Prune, Recipe, Scope};
use super::{CompressError, fit, pattern};
use crate::engine::{Draft, WeightLayer};

/// The share of each layer.
pub(super) fn shares(
    recipe: &Recipe,
    draft: &Draft,
    layers: &[WeightLayer],
    problems: &dyn Fn(&WeightLayer) -> Result<Vec<Problem>, CompressError>,
) -> Result<Vec<f64>, CompressError> {
    let Some(prune) = recipe.prune else { return Ok(vec![0.0; layers.len()]) };
    match prune.scope {
        Scope::Layer => Ok(vec![prune.share; layers.len()]),
        Scope::Global => {
            let magnitudes = |layer: &WeightLayer| draft.weights(layer).elements.iter().map(|w| w.abs()).collect();
            Ok(global(prune.share, &layers.iter().map(magnitudes).collect::<Vec<_>>()))
        }
        Scope::Sensitivity => {
            let mut ladders = Vec::new();
            for layer in layers {
                ladders.push(Ladder::of(draft, layer, &problems(layer)?, prune));
            }
            Ok(climb(prune.share, ladders))
        }
    }
}

/// The share of each list that is among the least of all.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a count")]
fn global(share: f64, magnitudes: &[Vec<f32>]) -> Vec<f64> {
    let mut all: Vec<f32> = magnitudes.iter().flatten().copied().collect();
    all.sort_unstable_by(f32::total_cmp);
    let bound = all.get((share * all.len() as f64).round() as usize).copied().unwrap_or(f32::INFINITY);
    let below = |list: &Vec<f32>| list.iter().filter(|magnitude| **magnitude < bound).count() as f64;
    magnitudes.iter().map(|list| below(list) / list.len() as f64).collect()
}

/// What is left of a layer's responses at each of the shares.
struct Ladder {
    weights: f64,
    errors: Vec<f64>,
    at: usize,
}

impl Ladder {
    fn of(draft: &Draft, layer: &WeightLayer, problems: &[Problem], prune: Prune) -> Self {
        let elements = draft.weights(layer).elements;
        let outputs = layer.outputs / layer.groups();
        let error = |share: f64| {
            let zeros = fit::Zeros { pattern: prune.pattern, share, taps: pattern::taps(layer) };
            let of_group = |group: usize| {
                let from = group * outputs * layer.depth;
                let some = elements[from..from + outputs * layer.depth].iter().map(|&weight| f64::from(weight));
                let lines = Array2::from_shape_vec((outputs, layer.depth), some.collect());
                fit::cut_by_effect(&problems[group], &lines.expect("a layer has a line for each output"), zeros)
            };
            let cut: Vec<Array2<f64>> = (0..problems.len()).map(of_group).collect();
            Problem::error_of(&problems.iter().zip(&cut).collect::<Vec<_>>())
        };
        Self { weights: elements.len() as f64, errors: SHARES.iter().map(|&share| error(share)).collect(), at: 0 }
    }

    /// What the next step costs for each weight that becomes zero.
    fn price(&self) -> Option<f64> {
        let next = self.errors.get(self.at + 1)?;
        Some((next - self.errors[self.at]) / ((SHARES[self.at + 1] - SHARES[self.at]) * self.weights))
    }
}

/// Takes the cheapest step of all ladders until the share is reached, the last one in part.
fn climb(share: f64, mut ladders: Vec<Ladder>) -> Vec<f64> {
    let total: f64 = ladders.iter().map(|ladder| ladder.weights).sum();
    let mut left = share * total;
    let mut shares = vec![0.0; ladders.len()];
    while left > 0.0 {
        let priced = ladders.iter().enumerate().filter_map(|(at, ladder)| Some((at, ladder.price()?)));
        let Some((at, _)) = priced.min_by(|a, b| a.1.total_cmp(&b.1)) else { break };
        let ladder = &mut ladders[at];
        let step = (SHARES[ladder.at + 1] - SHARES[ladder.at]) * ladder.weights;
        shares[at] = SHARES[ladder.at] + step.min(left) / ladder.weights;
        left -= step;
        ladder.at += 1;
    }
    shares
}

/// Shares that errors are found for.
const SHARES: [f64; 12] = [0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.96, 0.98, 1.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_all_go() {
        assert_eq!(global(0.5, &[vec![1.0, 2.0], vec![3.0, 4.0]]), [1.0, 0.0]);
        assert_eq!(global(0.25, &[vec![5.0, 2.0], vec![1.0, 4.0]]), [0.0, 0.5]);
        assert_eq!(global(1.0, &[vec![5.0], vec![1.0]]), [1.0, 1.0]);
        assert_eq!(global(0.0, &[vec![0.0], vec![1.0]]), [0.0, 0.0]);
    }

    #[test]
    fn sensitive_layers_are_spared() {
        let ladder = |weights: f64, factor: f64| Ladder {
            weights,
            errors: SHARES.iter().map(|share| factor * share * share).collect(),
            at: 0,
        };
        let shares = climb(0.6, vec![ladder(1000.0, 1.0), ladder(1000.0, 10.0)]);
        assert!((shares[0] + shares[1] - 1.2).abs() < 1e-9 && shares[0] > 0.9, "{shares:?}");
        // The same cost for fewer weights: the large layer gives more.
        let shares = climb(0.5, vec![ladder(1000.0, 1.0), ladder(100.0, 1.0)]);
        assert!((shares[0] * 1000.0 + shares[1] * 100.0 - 550.0).abs() < 1e-6 && shares[0] > shares[1], "{shares:?}");
        assert_eq!(climb(1.0, vec![ladder(10.0, 1.0)]), [1.0]);
        assert_eq!(climb(0.0, vec![ladder(10.0, 1.0)]), [0.0]);
    }
}
