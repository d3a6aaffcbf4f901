//! The walk over a model's layers: each is fitted to what the original made of calibration rows, given what the compressed
//! layers before it make of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ndarray::{Array2, Axis, concatenate};
use serde::{Deserialize, Serialize};

use super::algebra::{narrow, part};
use super::fit::{self, Zeros};
use super::kept::{Kept, encoded};
use super::moments::{Moments, Problem};
use super::numbers::{self, Numbers, Stored};
use super::pattern::{Pattern, taps};
use super::ranges::Seen;
use super::rates;
use super::samples::Samples;
use super::windows::{self, Picks};
use super::{CompressError, Format, Job, OnLayer};
use crate::engine::{Channels, Draft, Integers, LoadOptions, Plan, Pool, Scale, WeightLayer, Weights};

/// A model whose layers are being compressed.
pub(super) struct Layers<'a> {
    original: &'a Draft,
    pub(super) draft: Draft,
    /// Channels that can go, if any shall.
    channels: Vec<Channels>,
    /// Outputs that are left of layers some of whose channels went.
    left: HashMap<String, Vec<usize>>,
    job: &'a Job,
    calibration: Option<&'a Samples>,
    pool: &'a Pool,
}

/// What was done to one layer, to be done again where the job goes on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Change {
    /// Values that became bytes before the layer ran: name, scale and zero point.
    values: Vec<(String, f32, u8)>,
    /// Channels that stay of what enters the layer, where others went.
    channels: Option<Vec<usize>>,
    #[serde(with = "encoded")]
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    stored: Stored,
    /// What is left of the responses: by cutting and rounding alone, and as it was fitted.
    pub(super) errors: Option<[f64; 2]>,
}

impl<'a> Layers<'a> {
    pub(super) fn of(original: &'a Draft, job: &'a Job, calibration: Option<&'a Samples>, pool: &'a Pool) -> Self {
        let prunes = job.recipe.prune.is_some_and(|prune| prune.pattern == Pattern::Channels);
        let stays = |layer: &WeightLayer| job.recipe.leave.contains(&layer.name);
        let mut channels = if prunes { original.channels() } else { Vec::new() };
        channels.retain(|channels| !channels.makers.iter().chain(&channels.takers).any(stays));
        Self { original, draft: original.clone(), channels, left: HashMap::new(), job, calibration, pool }
    }

    /// Goes through all layers, but those that are done.
    pub(super) fn compress(
        &mut self,
        kept: &Kept,
        on_layer: OnLayer<'_>,
    ) -> Result<Vec<(WeightLayer, Change)>, CompressError> {
        let recipe = &self.job.recipe;
        if recipe.prune.is_none() && recipe.quantize.is_none() {
            return Ok(Vec::new());
        }
        let layers = recipe.of(self.original.layers());
        let moments = |layer: &WeightLayer| self.problems(self.original, layer);
        let shares = rates::shares(recipe, self.original, &layers, &moments)?;
        let mut changes = Vec::new();
        for (place, (layer, share)) in layers.iter().zip(shares).enumerate() {
            on_layer(place, layers.len(), &layer.name);
            let done: Option<Change> = kept.done(STEP, place);
            let change = match done {
                Some(change) => {
                    self.quantize_values(&change.values);
                    self.keep_channels(layer, change.channels.as_deref());
                    change
                }
                None => self.change(layer, share)?,
            };
            self.apply(&layer.name, &change);
            kept.keep(STEP, place, &change)?;
            if let (Some(channels), Some(kept)) = (self.taken_first(layer), &change.channels) {
                let made = |earlier: &WeightLayer| channels.makers.iter().any(|maker| maker.name == earlier.name);
                let earlier = changes.iter_mut().filter(|(earlier, _): &&mut (WeightLayer, Change)| made(earlier));
                earlier.for_each(|(earlier, change)| change.keep_lines(earlier.outputs, kept));
            }
            changes.push((layer.clone(), change));
        }
        on_layer(layers.len(), layers.len(), "");
        Ok(changes)
    }

    /// Finds what to do to a layer, once its input is bytes where it shall be.
    fn change(&mut self, layer: &WeightLayer, share: f64) -> Result<Change, CompressError> {
        let values = match self.job.recipe.quantize {
            Some(Format::Int8) => self.ranges(layer)?,
            _ => Vec::new(),
        };
        self.quantize_values(&values);
        let channels = self.channels(layer, share)?;
        self.keep_channels(layer, channels.as_deref());
        let layer = &self.current(&layer.name);
        let before = self.draft.weights(layer);
        let original = lines(&before.elements, layer);
        let zeros = self.zeros(layer, &original, share);
        let (cut, stored) = self.cut(layer, &original, zeros);
        let narrowed = |weights: &Array2<f64>| weights.iter().copied().map(narrow).collect();
        if self.calibration.is_none() {
            let weights = narrowed(&cut);
            return Ok(Change { values, channels, weights, bias: before.bias, stored, errors: None });
        }
        let problems = self.problems(&self.draft, layer)?;
        let fitted = self.fitted(layer, &problems, &original, zeros);
        let (weights, stored) = fitted.ok_or_else(|| CompressError::NotPositive { layer: layer.name.clone() })?;
        let groups =
            |weights: &Array2<f64>| (0..layer.groups()).map(|at| group(layer, weights, at)).collect::<Vec<_>>();
        let error = |groups: &[Array2<f64>]| Problem::error_of(&problems.iter().zip(groups).collect::<Vec<_>>());
        let parts = groups(&weights);
        let biases = problems.iter().zip(&parts).flat_map(|(problem, part)| problem.bias(part));
        Ok(Change {
            values,
            channels,
            weights: narrowed(&weights),
            bias: before.bias.map(|_| biases.map(narrow).collect()),
            stored,
            errors: Some([error(&groups(&cut)), error(&parts)]),
        })
    }

    /// Weights where nothing is known of rows.
    fn cut(&self, layer: &WeightLayer, original: &Array2<f64>, zeros: Option<Zeros>) -> (Array2<f64>, Stored) {
        let weights = zeros.map_or_else(|| original.clone(), |zeros| fit::cut(original, zeros));
        let Some(format) = self.job.recipe.quantize else { return (weights, Stored::Floats) };
        let numbers = Numbers::of(format, &weights, &Array2::ones(weights.dim()), taps(layer));
        (numbers.nearest_all(&weights), numbers.stored())
    }

    /// Weights that answer as the original did.
    fn fitted(
        &self,
        layer: &WeightLayer,
        problems: &[Problem],
        original: &Array2<f64>,
        zeros: Option<Zeros>,
    ) -> Option<(Array2<f64>, Stored)> {
        // Groups give what the least weights of all are of each.
        let least = zeros.map(|zeros| fit::cut(original, zeros));
        let zeros = |at: usize| {
            let some = group(layer, least.as_ref()?, at);
            let share = some.iter().filter(|weight| **weight == 0.0).count() as f64 / some.len() as f64;
            zeros.map(|zeros| Zeros { share, ..zeros })
        };
        let (mut ridged, mut parts) = (Vec::new(), Vec::new());
        for (at, problem) in problems.iter().enumerate() {
            let original = group(layer, original, at);
            let problem = problem.clone().with_ridge(&original);
            parts.push(match zeros(at) {
                Some(zeros) => fit::prune(&problem, &original, zeros)?,
                None if self.job.recipe.prune.is_some() => fit::refit_kept(&problem, &original)?,
                None => original,
            });
            ridged.push(problem);
        }
        let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
        let weights = concatenate(Axis(0), &views).expect("groups have weights of one depth");
        let Some(format) = self.job.recipe.quantize else { return Some((weights, Stored::Floats)) };
        let (numbers, weights) = numbers::fit(format, &ridged, &weights, taps(layer));
        Some((weights, numbers.stored()))
    }

    /// Channels that a layer is the first to take.
    fn taken_first(&self, layer: &WeightLayer) -> Option<&Channels> {
        self.channels.iter().find(|channels| channels.takers[0].name == layer.name)
    }

    /// The channels that stay of those that a layer is the first to take.
    fn channels(&self, layer: &WeightLayer, share: f64) -> Result<Option<Vec<usize>>, CompressError> {
        let Some(channels) = self.taken_first(layer) else { return Ok(None) };
        let mut takers = Vec::new();
        for layer in &channels.takers {
            let current = self.current(&layer.name);
            let original = lines(&self.draft.weights(&current).elements, &current);
            let problem = self.problems(&self.draft, &current)?.pop().map(|problem| problem.with_ridge(&original));
            takers.push(fit::Taker { original, each: layer.depth / channels.count, problem });
        }
        let kept = fit::channels(&takers, share);
        let mut kept = kept.ok_or_else(|| CompressError::NotPositive { layer: layer.name.clone() })?;
        // Operators take no tensors of nothing.
        if kept.is_empty() {
            kept.push(0);
        }
        Ok(Some(kept))
    }

    fn keep_channels(&mut self, layer: &WeightLayer, kept: Option<&[usize]>) {
        if let (Some(channels), Some(kept)) = (self.taken_first(layer).cloned(), kept) {
            self.draft.keep_channels(&channels, kept);
            self.left.extend(channels.makers.into_iter().map(|maker| (maker.name, kept.to_vec())));
        }
    }

    /// What to prune; nothing where so many weights are zero already.
    fn zeros(&self, layer: &WeightLayer, original: &Array2<f64>, share: f64) -> Option<Zeros> {
        let prune = self.job.recipe.prune.filter(|prune| prune.pattern != Pattern::Channels)?;
        let there = original.iter().filter(|weight| **weight == 0.0).count() as f64 / original.len() as f64;
        let zeros = Zeros { pattern: prune.pattern, share, taps: taps(layer) };
        let fits = |keep: Array2<bool>| keep.iter().zip(original).all(|(keep, weight)| *keep || *weight == 0.0);
        let is_done = there >= share && fits(prune.pattern.keep(&original.mapv(f64::abs), share, zeros.taps));
        (!is_done).then_some(zeros)
    }

    /// For each group of a layer what a draft's inputs and the original's responses say, where there are rows.
    fn problems(&self, draft: &Draft, layer: &WeightLayer) -> Result<Vec<Problem>, CompressError> {
        let Some(calibration) = self.calibration else { return Ok(Vec::new()) };
        let left = self.left.get(&layer.name).map(Vec::as_slice);
        problems([draft, self.original], (layer, left), calibration, self.pool, &self.job.load)
    }

    /// Values that are to become bytes before a layer: its input, and where that is a sum, what is summed.
    fn ranges(&self, layer: &WeightLayer) -> Result<Vec<(String, f32, u8)>, CompressError> {
        let Some(calibration) = self.calibration else { return Ok(Vec::new()) };
        let made: HashSet<String> = self.original.layers().into_iter().map(|layer| layer.output).collect();
        let entrance = self.draft.moved_from(&self.current(&layer.name).input);
        let summands = self.draft.summands(&entrance);
        let are_bytes = summands.iter().all(|value| made.contains(value) || self.draft.is_quantized(value));
        let wanted = summands.into_iter().filter(|_| are_bytes).chain([entrance]);
        let mut ranges = Vec::new();
        for value in wanted.filter(|value| !self.draft.is_quantized(value)) {
            let plan: Arc<dyn Plan> = self.draft.watch(&value, &self.job.load)?.into();
            let mut seen = Seen::new();
            calibration.each(&[&plan], self.pool, |answers| {
                seen.add(&answers[0][0]);
                Ok(())
            })?;
            let Scale { scale, zero } = seen.scale(self.job.recipe.ranges);
            ranges.push((value, scale, zero));
        }
        Ok(ranges)
    }

    fn quantize_values(&mut self, values: &[(String, f32, u8)]) {
        for (value, scale, zero) in values {
            self.draft.quantize_value(value, Scale { scale: *scale, zero: *zero });
        }
    }

    fn apply(&mut self, name: &str, change: &Change) {
        let layer = self.current(name);
        let weights = Weights { elements: change.weights.clone(), bias: change.bias.clone() };
        self.draft.set_weights(&layer, &weights);
        match &change.stored {
            Stored::Floats => {}
            Stored::Bf16 => self.draft.store_halves(&layer),
            Stored::Table { values } => self.draft.store_table(&layer, values),
            Stored::Integers { bits, scales, block } => {
                let input = self.draft.scale_of(&layer.input);
                let units = Units { bits: *bits, scales, block: *block };
                self.draft.quantize_weights(&layer, &integers(&layer, &weights, units, input), input);
            }
        }
    }

    /// The layer as it is now: its input may have another name.
    fn current(&self, name: &str) -> WeightLayer {
        let layers = self.draft.layers();
        layers.into_iter().find(|layer| layer.name == name).expect("layers that are not done are there")
    }
}

/// For each group of a layer what enters it in one draft and leaves it in another, of the latter those outputs that are left.
pub(super) fn problems(
    [draft, original]: [&Draft; 2],
    (layer, left): (&WeightLayer, Option<&[usize]>),
    calibration: &Samples,
    pool: &Pool,
    load: &LoadOptions,
) -> Result<Vec<Problem>, CompressError> {
    let plans = [draft.watch(&layer.input, load)?, original.watch(&layer.output, load)?];
    let plans: [Arc<dyn Plan>; 2] = plans.map(Arc::from);
    let mut groups = Moments::of_groups(layer);
    let mut picks = Picks::of(calibration.rows);
    calibration.each(&[&plans[0], &plans[1]], pool, |answers| {
        let (input, response) = (&answers[0][0], &answers[1][0]);
        let some = left.map(|left| windows::left(layer, response, left));
        Moments::add(&mut groups, layer, [input, some.as_ref().unwrap_or(response)], &mut picks)
    })?;
    Ok(groups.into_iter().map(|moments| moments.problem(layer.has_bias())).collect())
}

impl Change {
    /// Weights that are not zero.
    pub(super) fn left(&self) -> usize {
        self.weights.iter().filter(|weight| **weight != 0.0).count()
    }

    /// Leaves out outputs that went later.
    fn keep_lines(&mut self, outputs: usize, kept: &[usize]) {
        let depth = self.weights.len() / outputs;
        self.weights = kept.iter().flat_map(|line| &self.weights[line * depth..(line + 1) * depth]).copied().collect();
    }

    /// Of weights and what they need in the file.
    pub(super) fn bytes(&self) -> usize {
        self.stored.bytes(self.weights.len(), self.left())
    }
}

/// What integers are multiples of.
#[derive(Clone, Copy)]
struct Units<'a> {
    bits: usize,
    scales: &'a [f32],
    block: Option<usize>,
}

/// Weights as the integers that they are multiples of.
fn integers(layer: &WeightLayer, weights: &Weights, units: Units<'_>, input: Option<Scale>) -> Integers {
    let per_line = units.scales.len() / layer.outputs;
    let element = |(at, weight): (usize, &f32)| {
        let (line, column, taps) = (at / layer.depth, at % layer.depth, taps(layer));
        let place = units.block.map_or(0, |block| column / taps / block * taps + column % taps);
        whole(weight / units.scales[line * per_line + place])
    };
    #[expect(clippy::cast_possible_truncation, reason = "they were rounded to what bytes hold")]
    let elements = weights.elements.iter().enumerate().map(|at| element(at) as i8).collect();
    let factors =
        input.filter(|_| per_line == 1).map(|input| units.scales.iter().map(move |scale| scale * input.scale));
    let bias = weights.bias.as_ref().zip(factors);
    let bias = bias.map(|(bias, factors)| bias.iter().zip(factors).map(|(bias, unit)| whole(bias / unit)).collect());
    Integers { elements, bits: units.bits, scales: units.scales.to_vec(), block: units.block, bias }
}

/// The lines of a group.
fn group(layer: &WeightLayer, weights: &Array2<f64>, at: usize) -> Array2<f64> {
    let outputs = layer.outputs / layer.groups();
    part(weights.view(), at * outputs..(at + 1) * outputs, 0..layer.depth).to_owned()
}

#[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
fn whole(x: f32) -> i32 {
    x.round_ties_even() as i32
}

fn lines(elements: &[f32], layer: &WeightLayer) -> Array2<f64> {
    let elements = elements.iter().map(|&element| f64::from(element)).collect();
    Array2::from_shape_vec((layer.outputs, layer.depth), elements).expect("a layer has a line for each output")
}

/// What files of this step are named for.
const STEP: &str = "layer";
