//! Losses of classes that are given by their numbers.

use super::Importer;
use super::formula::Formula;
use super::node::{Along, Source};
use crate::engine::EngineError;
use crate::engine::graph::op::{Binary, Compare, ReduceKind, Unary};
use crate::engine::graph::{Op, ValueId};
use crate::tensor::DType;

/// What a loss is of, besides the logarithms of probabilities.
struct Classes {
    classes: ValueId,
    weights: Option<ValueId>,
    /// A class that counts for nothing.
    ignored: Option<i64>,
    reduction: Reduction,
}

enum Reduction {
    None,
    Sum,
    Mean,
}

impl Classes {
    fn of(importer: &Importer, node: &Source<'_>) -> Result<Self, EngineError> {
        let reduction = match node.text("reduction")?.as_deref().unwrap_or("mean") {
            "none" => Reduction::None,
            "sum" => Reduction::Sum,
            "mean" => Reduction::Mean,
            other => return Err(node.invalid(&format!("reduction {other:?} is none"))),
        };
        let is_ignored = crate::engine::proto::attribute(node.proto, "ignore_index").is_some();
        let ignored = is_ignored.then(|| node.int("ignore_index", 0)).transpose()?;
        let (classes, weights) = (importer.operand(node, 1)?, importer.optional(node, 2)?);
        Ok(Self { classes, weights, ignored, reduction })
    }

    /// The loss of logarithms of probabilities, classes being their second axis.
    fn loss(&self, formula: &mut Formula<'_>, logarithms: ValueId) -> ValueId {
        let given = formula.cast(self.classes, DType::I64);
        let ignored = self.ignored.map(|ignored| {
            let ignored = formula.integer(ignored);
            formula.compare(Compare::Equal, given, ignored)
        });
        let or_zero = |formula: &mut Formula<'_>, dtype: DType, value: ValueId| {
            let Some(ignored) = ignored else { return value };
            let zero = formula.number_of(dtype, 0.0);
            formula.op(Op::Where, &[ignored, zero, value])
        };
        let dtype = formula.dtype;
        let classes = or_zero(formula, DType::I64, given);
        let places = formula.unsqueeze(classes, &[1]);
        let chosen = formula.op(Op::GatherElements { axis: 1 }, &[logarithms, places]);
        let chosen = formula.squeeze(chosen, &[1]);
        let mut loss = formula.unary(Unary::Neg, chosen);
        let weights = match self.weights {
            Some(weights) => Some(formula.op(Op::Gather { axis: 0 }, &[weights, classes])),
            None => ignored.map(|_| {
                let shape = formula.extents(given, 0, None);
                formula.filled(shape, dtype, 1.0)
            }),
        };
        let weights = weights.map(|weights| or_zero(formula, dtype, weights));
        if let Some(weights) = weights {
            loss = formula.binary(Binary::Mul, loss, weights);
        }
        let loss = or_zero(formula, dtype, loss);
        let all = Along::from(0);
        let sum = |formula: &mut Formula<'_>, of| formula.reduce(ReduceKind::Sum, &all, false, of);
        match (&self.reduction, weights) {
            (Reduction::None, _) => loss,
            (Reduction::Sum, _) => sum(formula, loss),
            (Reduction::Mean, None) => formula.reduce(ReduceKind::Mean, &all, false, loss),
            (Reduction::Mean, Some(weights)) => {
                let [loss, weights] = [sum(formula, loss), sum(formula, weights)];
                formula.binary(Binary::Div, loss, weights)
            }
        }
    }
}

pub(super) fn negative_log_likelihood(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let classes = Classes::of(importer, node)?;
    let (mut formula, logarithms) = Formula::of(importer, node)?;
    Ok(classes.loss(&mut formula, logarithms))
}

/// The loss, and the logarithms of probabilities that it is of.
pub(super) fn softmax_cross_entropy(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    let classes = Classes::of(importer, node)?;
    let (mut formula, scores) = Formula::of(importer, node)?;
    let logarithms = formula.op(Op::Softmax { axis: 1, log: true }, &[scores]);
    Ok(vec![classes.loss(&mut formula, logarithms), logarithms])
}
