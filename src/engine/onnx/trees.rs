//! Ensembles of decision trees: regression, and classification as ONNX Runtime has it.

use std::sync::Arc;

use kinglet_kernels::trees::Aggregate;

use super::Importer;
use super::classes::{self, Labels, Transform};
use super::forest::{self, Grown};
use super::formula::Formula;
use super::node::Source;
use crate::engine::EngineError;
use crate::engine::graph::ValueId;
use crate::engine::graph::op::{Compare, Op};
use crate::tensor::DType;

/// Scores in FP32, whatever the features are.
pub(super) fn regressor(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let targets = targets(node, node.int("n_targets", 0)?)?;
    let mut grown = forest::named(node, "target", targets)?;
    grown.forest.aggregate = match node.text("aggregate_function")?.as_deref().unwrap_or("SUM") {
        "SUM" => Aggregate::Sum,
        "AVERAGE" => Aggregate::Average,
        "MIN" => Aggregate::Min,
        "MAX" => Aggregate::Max,
        other => return Err(node.invalid(&format!("aggregate_function {other:?} is none"))),
    };
    base(node, &mut grown, &[0, targets])?;
    let transform = Transform::of(node)?;
    let scores = scores(importer, node, &grown)?;
    let scores = classes::in_floats(importer, node, scores);
    Ok(transform.apply(&mut Formula::with_name(importer, node), scores, targets))
}

/// Scores in the type of the features.
pub(super) fn ensemble(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let targets = targets(node, node.int("n_targets", 0)?)?;
    let mut grown = forest::placed(node, targets)?;
    grown.forest.aggregate = match node.int("aggregate_function", 1)? {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        other => return Err(node.invalid(&format!("aggregate_function {other} is none"))),
    };
    let transform = Transform::numbered(node)?;
    let made = scores(importer, node, &grown)?;
    if transform == Transform::None {
        return Ok(made);
    }
    let scores = classes::in_floats(importer, node, made);
    let transformed = transform.apply(&mut Formula::with_name(importer, node), scores, targets);
    Ok(if scores == made { transformed } else { importer.cast(node, transformed, DType::F64) })
}

/// Labels and scores.
pub(super) fn classifier(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    let labels = Labels::of(importer, node, ["classlabels_int64s", "classlabels_strings"])?;
    let count = targets(node, i64::try_from(labels.count).unwrap_or(i64::MAX))?;
    let mut grown = forest::named(node, "class", count)?;
    let transform = Transform::of(node)?;
    let first = grown.weights().next().map_or(0, |(class, _)| class);
    let is_sole = grown.weights().all(|(class, _)| class == first);
    match count {
        2 if is_sole && first < 2 => two_classes(importer, node, grown, &labels, (transform, first)),
        1 => {
            base(node, &mut grown, &[0, 1])?;
            let score = scores(importer, node, &grown)?;
            let mut formula = Formula::with_name(importer, node);
            let bound = formula.number_like(score, 0.0);
            let label = labels.of_two(&mut formula, score, bound);
            let score = classes::in_floats(importer, node, score);
            Ok(vec![label, transform.apply(&mut Formula::with_name(importer, node), score, 1)])
        }
        _ => {
            // Of two classes with weights for both, each engine takes base values for something else.
            base(node, &mut grown, &[0, if count == 2 { 0 } else { count }])?;
            several_classes(importer, node, grown, &labels, transform)
        }
    }
}

/// A score for each class. One that a row has no weight for is zero, and its class is not chosen.
fn several_classes(
    importer: &mut Importer,
    node: &Source<'_>,
    mut grown: Grown,
    labels: &Labels,
    transform: Transform,
) -> Result<Vec<ValueId>, EngineError> {
    grown.forest.tell_absent = grown.forest.base.is_empty();
    let (made, is_scattered) = scores_told(importer, node, &grown)?;
    let mut formula = Formula::with_name(importer, node);
    let [mut chosen, mut scores] = [made; 2];
    if is_scattered && grown.forest.tell_absent {
        let is_there = formula.op(Op::Compare(Compare::Equal), &[made, made]);
        let [lowest, zero] = [f64::NEG_INFINITY, 0.0].map(|number| formula.number_like(made, number));
        chosen = formula.op(Op::Where, &[is_there, made, lowest]);
        scores = formula.op(Op::Where, &[is_there, made, zero]);
    }
    let label = labels.of_greatest(&mut formula, chosen);
    let scores = classes::in_floats(importer, node, scores);
    Ok(vec![label, transform.apply(&mut Formula::with_name(importer, node), scores, labels.count)])
}

/// Two classes of which one alone has weights. The second is chosen where the score is above a half, or above zero where
/// weights may be negative. Weights of the first stand for the second, and the first has the rest or the opposite. Where
/// each class has a base value, or the weights are the second's, the other class has zero and its base value is not used.
fn two_classes(
    importer: &mut Importer,
    node: &Source<'_>,
    mut grown: Grown,
    labels: &Labels,
    (transform, of): (Transform, usize),
) -> Result<Vec<ValueId>, EngineError> {
    let is_share = grown.weights().all(|(_, weight)| weight >= 0.0);
    base(node, &mut grown, if of == 0 { &[0, 1, 2] } else { &[0, 1] })?;
    let is_one = of == 0 && grown.forest.base.len() < 2;
    if is_one {
        grown.forest.targets = 1;
    } else {
        grown.forest.base.truncate(1 - of);
        grown.forest.base.resize(2, 0.0);
    }
    if is_one && transform == Transform::Probit {
        return Err(node.refuse("PROBIT leaves one of two classes without a score"));
    }
    let made = scores(importer, node, &grown)?;
    let mut formula = Formula::with_name(importer, node);
    let own = formula.list(&[i64::from(of == 1)]);
    let score = if is_one { made } else { formula.op(Op::Gather { axis: 1 }, &[made, own]) };
    let bound = formula.number_like(score, if is_share { 0.5 } else { 0.0 });
    let label = labels.of_two(&mut formula, score, bound);
    let made = classes::in_floats(importer, node, made);
    let mut formula = Formula::with_name(importer, node);
    let scores = match is_one {
        true => classes::both(&mut formula, made, transform, is_share),
        false => transform.apply(&mut formula, made, 2),
    };
    Ok(vec![label, scores])
}

fn scores(importer: &mut Importer, node: &Source<'_>, grown: &Grown) -> Result<ValueId, EngineError> {
    scores_told(importer, node, grown).map(|(scores, _)| scores)
}

/// What trees make of the node's first operand, and whether some row may get nothing for a target.
fn scores_told(importer: &mut Importer, node: &Source<'_>, grown: &Grown) -> Result<(ValueId, bool), EngineError> {
    let x = importer.operand(node, 0)?;
    let own = importer.dtype(x);
    let dtype = if grown.is_wide || own == DType::F64 { DType::F64 } else { DType::F32 };
    let x = if own == dtype { x } else { importer.cast(node, x, dtype) };
    let trees = grown.pack(node, dtype)?;
    let is_scattered = trees.is_scattered();
    Ok((importer.graph.add(&node.shown(), Op::Trees(Arc::new(trees)), &[x]), is_scattered))
}

/// Reads base values, of which there may be so many.
fn base(node: &Source<'_>, grown: &mut Grown, counts: &[usize]) -> Result<(), EngineError> {
    let (base, wide) = forest::numbers_of(node, "base_values")?;
    if !counts.contains(&base.len()) {
        return Err(node.refuse(&format!("it has {} base values, served are {counts:?}", base.len())));
    }
    grown.forest.base = base;
    grown.is_wide |= wide;
    Ok(())
}

fn targets(node: &Source<'_>, count: i64) -> Result<usize, EngineError> {
    let count = usize::try_from(count).ok().filter(|count| (1..=TARGETS_MAX).contains(count));
    count.ok_or_else(|| node.invalid(&format!("it must have from 1 to {TARGETS_MAX} targets or classes")))
}

const TARGETS_MAX: usize = 1 << 20;
