//! Layers as two in a row, with few values between them.
//!
//! What is between is the directions in which the original's responses on calibration rows vary most, and the second layer
//! is the least squares solution for these responses: of all pairs of a rank, the one that loses the least of them (Zhang et
//! al., Accelerating Very Deep Convolutional Networks, 2015, 3.1). Without rows every input counts the same, and this is the
//! singular value decomposition of the weights. Layers may have it by blocks, of their outputs or of their inputs,
//! each with a part of the values between of its own; that is a convolution of groups. In a linear layer, for which models have
//! no groups, zeros stand between the blocks. Of all ways that keep the energy, a layer takes the one of the fewest weights.

use std::iter;

use ndarray::{Array2, ArrayBase, ArrayView2, Axis, Data, Ix2, concatenate};
use serde::{Deserialize, Serialize};

use super::algebra::{Factor, eigen, narrow, part};
use super::kept::{Kept, encoded};
use super::layers::problems;
use super::moments::Problem;
use super::pattern::taps;
use super::samples::Samples;
use super::{CompressError, Factorize, Job, OnLayer};
use crate::engine::{Draft, Pool, WeightLayer, Weights};

/// A layer that became two.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Factored {
    pub name: String,
    /// Values between the two.
    pub rank: usize,
    /// Of the first and of the second.
    pub groups: [usize; 2],
    /// Weights of the original, and of both.
    pub weights: [usize; 2],
    /// The part of responses that is lost, where rows tell.
    pub error: Option<f64>,
}

impl Factored {
    /// What a draft names the first of the two; the second has the layer's name.
    pub(super) fn first_name(&self) -> String {
        format!("{} first", self.name)
    }
}

/// Makes two layers of all those of which that takes fewer weights.
pub(super) fn all(
    draft: &mut Draft,
    kept: &Kept,
    job: &Job,
    calibration: Option<&Samples>,
    pool: &Pool,
    on_layer: OnLayer<'_>,
) -> Result<Vec<Factored>, CompressError> {
    let Some(recipe) = job.recipe.factorize else { return Ok(Vec::new()) };
    let original = draft.clone();
    let layers: Vec<_> = job.recipe.of(original.layers()).into_iter().filter(|layer| layer.groups() == 1).collect();
    let mut factored = Vec::new();
    for (place, layer) in layers.iter().enumerate() {
        on_layer(place, layers.len(), &layer.name);
        let two: Option<Two> = match kept.done(STEP, place) {
            Some(two) => two,
            None => {
                let problems = calibration
                    .map(|rows| problems([&original; 2], (layer, None), rows, pool, &job.load))
                    .transpose()?;
                Two::of(&original, layer, problems.as_ref().map(|problems| &problems[0]), recipe)
            }
        };
        kept.keep(STEP, place, &two)?;
        if let Some(Two { first, second, bias, told }) = two {
            let groups = if layer.windows.is_some() { told.groups } else { [1, 1] };
            draft.split(layer, &first, &Weights { elements: second, bias }, groups);
            factored.push(told);
        }
    }
    Ok(factored)
}

/// What a layer becomes. Of a linear layer's blocks the zeros between them are there too.
#[derive(Debug, Serialize, Deserialize)]
struct Two {
    #[serde(with = "encoded")]
    first: Vec<f32>,
    #[serde(with = "encoded")]
    second: Vec<f32>,
    bias: Option<Vec<f32>>,
    told: Factored,
}

impl Two {
    /// Keeps so much of a layer's responses' energy with fewer weights than it has, if that can be.
    fn of(original: &Draft, layer: &WeightLayer, problem: Option<&Problem>, recipe: Factorize) -> Option<Self> {
        let before = original.weights(layer);
        let elements = before.elements.iter().map(|&element| f64::from(element)).collect();
        let weights = Array2::from_shape_vec((layer.outputs, layer.depth), elements).ok()?;
        let gram = problem.map_or_else(|| Array2::eye(layer.depth), |problem| problem.gram.clone());
        let responses = Responses { met: weights.dot(&gram), weights, gram, energy: recipe.energy };
        let (mut best, mut fewest) = (None, responses.weights.len());
        for groups in ways(layer, recipe.blocks) {
            if let Some(factors) = responses.factors(groups, fewest) {
                fewest = factors.first.len() + factors.second.len();
                best = Some(factors);
            }
        }
        let Factors { groups, first, second } = best?;
        let whole = [block_diagonal(&first, groups[0]), block_diagonal(&second, groups[1])];
        let both = whole[1].dot(&whole[0]);
        let bias = problem.map(|problem| problem.bias(&both).iter().copied().map(narrow).collect());
        let floats = |matrix: &Array2<f64>| matrix.iter().copied().map(narrow).collect::<Vec<f32>>();
        let told = Factored {
            name: layer.name.clone(),
            rank: first.nrows(),
            groups,
            weights: [responses.weights.len(), fewest],
            error: problem.map(|problem| problem.error(&both)),
        };
        let bias = before.bias.map(|before| bias.unwrap_or(before));
        let [first, second] = if layer.windows.is_some() { [first, second] } else { whole };
        Some(Self { first: floats(&first), second: floats(&second), bias, told })
    }
}

/// Groups that the first and the second of two layers may have.
fn ways(layer: &WeightLayer, most: usize) -> impl Iterator<Item = [usize; 2]> {
    let (outputs, channels) = (layer.outputs, layer.depth / taps(layer));
    let blocks = iter::successors(Some(2), |blocks| Some(blocks * 2)).take_while(move |blocks| *blocks <= most);
    let blocks = blocks.flat_map(move |blocks| {
        let of = |extent: usize, groups| extent.is_multiple_of(blocks).then_some(groups);
        [of(outputs, [1, blocks]), of(channels, [blocks, 1])]
    });
    iter::once([1, 1]).chain(blocks.flatten())
}

/// A layer whose responses are to be kept.
struct Responses {
    weights: Array2<f64>,
    /// How inputs vary together.
    gram: Array2<f64>,
    /// Their product: how responses vary with inputs.
    met: Array2<f64>,
    /// The part to keep.
    energy: f64,
}

/// Two layers in place of one, a line for each of their outputs.
struct Factors {
    groups: [usize; 2],
    first: Array2<f64>,
    second: Array2<f64>,
}

impl Responses {
    /// With as few values between as keep the energy, if that takes fewer weights than `limit`. One of the groups is 1.
    fn factors(&self, groups: [usize; 2], limit: usize) -> Option<Factors> {
        let (outputs, depth) = self.weights.dim();
        let each = groups[1] * depth + groups[0] * outputs;
        let most = (limit - 1) / each;
        let (first, second) =
            if groups[0] > 1 { self.of_inputs(groups[0], most) } else { self.of_outputs(groups[1], most) }?;
        Some(Factors { groups, first, second })
    }

    /// By blocks of outputs, with up to `most` values between for each.
    fn of_outputs(&self, blocks: usize, most: usize) -> Option<(Array2<f64>, Array2<f64>)> {
        let lines = self.weights.nrows() / blocks;
        let of = |at: usize| at * lines..(at + 1) * lines;
        let whole = |matrix: &Array2<f64>, at: usize| part(matrix.view(), of(at), 0..matrix.ncols()).to_owned();
        let found: Vec<_> = (0..blocks).map(|at| directions(&whole(&self.weights, at), self.gram.view())).collect();
        let sum = |at: usize| found.iter().map(|(values, _)| values[at]).sum();
        let rank = rank(&(0..found[0].0.len()).map(sum).collect::<Vec<f64>>(), self.energy);
        if rank > most {
            return None;
        }
        let firsts: Vec<_> =
            found.iter().map(|(_, directions)| part(directions.view(), 0..rank, 0..directions.ncols())).collect();
        // Directions do not vary together, so that each is fitted by itself.
        let second = |at: usize| {
            let mut fitted = whole(&self.met, at).dot(&firsts[at].t());
            for (mut column, value) in fitted.columns_mut().into_iter().zip(&found[at].0) {
                column.mapv_inplace(|cross| if *value > 0.0 { cross / value } else { 0.0 });
            }
            fitted
        };
        Some((stacked(&firsts), stacked(&(0..blocks).map(second).collect::<Vec<_>>())))
    }

    /// By blocks of inputs. These vary together: what is kept of all is not the sum of what is kept of each.
    fn of_inputs(&self, blocks: usize, most: usize) -> Option<(Array2<f64>, Array2<f64>)> {
        let (outputs, depth) = self.weights.dim();
        let columns = depth / blocks;
        let of = |at: usize| at * columns..(at + 1) * columns;
        let found = (0..blocks).map(|at| {
            directions(
                &part(self.weights.view(), 0..outputs, of(at)).to_owned(),
                part(self.gram.view(), of(at), of(at)),
            )
            .1
        });
        let found: Vec<_> = found.collect();
        let most = most.min(found[0].nrows());
        let first =
            |rank: usize| stacked(&found.iter().map(|all| part(all.view(), 0..rank, 0..columns)).collect::<Vec<_>>());
        let all = block_diagonal(&first(most), blocks);
        let (gram, cross) = (all.dot(&self.gram).dot(&all.t()), all.dot(&self.met.t()));
        let fitted = |rank: usize| {
            let places: Vec<usize> = (0..blocks).flat_map(|at| at * most..at * most + rank).collect();
            let cross = cross.select(Axis(0), &places);
            let gram = gram.select(Axis(0), &places).select(Axis(1), &places);
            let second = factor(gram)?.solve(&cross.view());
            Some(((&second * &cross).sum(), second))
        };
        let wanted = self.energy * (&self.weights * &self.met).sum();
        let keeps = |rank: usize| fitted(rank).is_some_and(|(kept, _)| kept >= wanted);
        let (mut fewer, mut enough) = (0, most);
        if most == 0 || !keeps(most) {
            return None;
        }
        while enough - fewer > 1 {
            let middle = usize::midpoint(fewer, enough);
            *(if keeps(middle) { &mut enough } else { &mut fewer }) = middle;
        }
        Some((first(enough), fitted(enough)?.1.reversed_axes()))
    }
}

/// The directions in which responses to inputs that vary so vary most: how much in each, and what each is of the inputs.
fn directions(weights: &Array2<f64>, gram: ArrayView2<'_, f64>) -> (Vec<f64>, Array2<f64>) {
    // Where there are more outputs than inputs a triangle has the same responses, but for a turn.
    let narrow = if weights.nrows() > weights.ncols() { triangle(weights) } else { None };
    let narrow = narrow.unwrap_or_else(|| weights.clone());
    let (values, vectors) = eigen(narrow.dot(&gram).dot(&narrow.t()));
    (values, vectors.t().dot(&narrow))
}

/// A square matrix that has the same product of its transpose and itself, if rounding leaves one.
fn triangle(matrix: &Array2<f64>) -> Option<Array2<f64>> {
    Some(factor(matrix.t().dot(matrix))?.triangle().reversed_axes())
}

/// Of a matrix of squares that may have no inverse.
fn factor(mut gram: Array2<f64>) -> Option<Factor> {
    let ridge = SINGULAR * gram.diag().sum() / gram.nrows() as f64;
    gram.diag_mut().mapv_inplace(|square| square + ridge);
    Factor::of(gram)
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

fn stacked<S: Data<Elem = f64>>(blocks: &[ArrayBase<S, Ix2>]) -> Array2<f64> {
    let views: Vec<_> = blocks.iter().map(|block| block.view()).collect();
    concatenate(Axis(0), &views).expect("blocks have one width")
}

/// A matrix that has so many stacked blocks along its diagonal, and zeros elsewhere.
fn block_diagonal(blocks: &Array2<f64>, count: usize) -> Array2<f64> {
    let (lines, columns) = (blocks.nrows() / count, blocks.ncols());
    let mut all = Array2::zeros((blocks.nrows(), columns * count));
    for at in 0..count {
        let of = at * lines..(at + 1) * lines;
        let block = part(blocks.view(), of.clone(), 0..columns);
        part(all.view_mut(), of, at * columns..(at + 1) * columns).assign(&block);
    }
    all
}

/// What files of this step are named for.
const STEP: &str = "factors";

/// Added to squares, in parts of their mean, where matrices may have no inverse.
const SINGULAR: f64 = 1e-10;

#[cfg(test)]
mod tests {
    use super::*;

    fn made_up(lines: usize, columns: usize) -> Array2<f64> {
        let number = |(line, column)| ((line * 7919 + column * 104_729 + 1) % 1009) as f64 / 504.5 - 1.0;
        Array2::from_shape_fn((lines, columns), number)
    }

    fn responses(weights: Array2<f64>, energy: f64) -> Responses {
        let inputs = made_up(5 * weights.ncols(), weights.ncols());
        let gram = inputs.t().dot(&inputs);
        Responses { met: weights.dot(&gram), weights, gram, energy }
    }

    fn kept(responses: &Responses, factors: &Factors) -> f64 {
        let both =
            block_diagonal(&factors.second, factors.groups[1]).dot(&block_diagonal(&factors.first, factors.groups[0]));
        let rest = &responses.weights - &both;
        let energy = |weights: &Array2<f64>| (&weights.dot(&responses.gram) * weights).sum();
        1.0 - energy(&rest) / energy(&responses.weights)
    }

    #[test]
    fn as_many_values_as_have_the_energy() {
        for (energy, expected) in [(0.5, 1), (0.6, 1), (0.61, 2), (0.9, 2), (0.95, 3), (1.0, 3)] {
            assert_eq!(rank(&[6.0, 3.0, 1.0, 0.0], energy), expected, "{energy}");
        }
        assert_eq!(rank(&[0.0, 0.0], 0.9), 1);
    }

    #[test]
    fn every_way_keeps_the_energy_with_the_fewest_values() {
        for (outputs, depth) in [(16, 24), (24, 16)] {
            for energy in [0.5, 0.9, 0.99] {
                let responses = responses(made_up(outputs, depth), energy);
                for groups in [[1, 1], [1, 2], [1, 8], [2, 1], [8, 1]] {
                    let factors = responses.factors(groups, usize::MAX).unwrap();
                    let rank = factors.first.nrows() / groups[0].max(groups[1]);
                    assert!(kept(&responses, &factors) >= energy - 1e-6, "{groups:?} {energy}");
                    let weights = factors.first.len() + factors.second.len();
                    assert_eq!(weights, rank * (groups[1] * depth + groups[0] * outputs));
                    assert!(responses.factors(groups, weights).is_none(), "{groups:?} {energy}");
                }
            }
        }
    }

    #[test]
    fn blocks_that_are_there_are_found() {
        let blocks = |lines: usize, columns| block_diagonal(&made_up(lines, columns), 4);
        // Of four blocks each has two values between.
        let of_outputs = blocks(32, 2).dot(&made_up(8, 40));
        let of_inputs = made_up(40, 8).dot(&blocks(8, 8));
        for (weights, groups) in [(of_outputs, [1, 4]), (of_inputs, [4, 1])] {
            let responses = responses(weights, 1.0 - 1e-9);
            let factors = responses.factors(groups, responses.weights.len()).unwrap();
            assert_eq!(factors.first.nrows(), 8);
            let whole = responses.factors([1, 1], responses.weights.len()).unwrap();
            assert_eq!(whole.first.nrows(), 8);
            assert!(factors.first.len() + factors.second.len() < whole.first.len() + whole.second.len());
        }
    }
}
