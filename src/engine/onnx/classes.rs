//! What classical models make of scores: labels of classes, and the transforms behind them.

use kinglet_kernels::f32_functions::Function;

use super::Importer;
use super::formula::Formula;
use super::node::{Along, Source};
use crate::engine::EngineError;
use crate::engine::graph::op::{Arg, Binary, Compare, ReduceKind, Unary};
use crate::engine::graph::{Op, ValueId, tensor_of_integers};
use crate::tensor::DType;

/// What becomes of scores, by its name in both forms of attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transform {
    None,
    Softmax,
    Logistic,
    SoftmaxZero,
    Probit,
}

impl Transform {
    pub(super) fn of(node: &Source<'_>) -> Result<Self, EngineError> {
        Ok(match node.text("post_transform")?.as_deref().unwrap_or("NONE") {
            "NONE" => Self::None,
            "SOFTMAX" => Self::Softmax,
            "LOGISTIC" => Self::Logistic,
            "SOFTMAX_ZERO" => Self::SoftmaxZero,
            "PROBIT" => Self::Probit,
            other => return Err(node.invalid(&format!("post_transform {other:?} is none"))),
        })
    }

    /// The number that the newer form has for it.
    pub(super) fn numbered(node: &Source<'_>) -> Result<Self, EngineError> {
        let all = [Self::None, Self::Softmax, Self::Logistic, Self::SoftmaxZero, Self::Probit];
        let number = node.int("post_transform", 0)?;
        let known = usize::try_from(number).ok().and_then(|number| all.get(number)).copied();
        known.ok_or_else(|| node.invalid(&format!("post_transform {number} is none")))
    }

    /// Of `[rows, columns]` in FP32. One column alone knows PROBIT only, as ONNX Runtime has it.
    pub(super) fn apply(self, formula: &mut Formula<'_>, scores: ValueId, columns: usize) -> ValueId {
        match self {
            Self::Probit => probit(formula, scores),
            _ if columns < 2 => scores,
            Self::None => scores,
            Self::Softmax => formula.op(Op::Softmax { axis: -1, log: false }, &[scores]),
            Self::Logistic => formula.function(Function::Sigmoid, scores),
            Self::SoftmaxZero => softmax_zero(formula, scores),
        }
    }
}

/// Softmax of what is not zero; zeros stay.
fn softmax_zero(formula: &mut Formula<'_>, scores: ValueId) -> ValueId {
    let axes = Along::given(&[-1]);
    let greatest = formula.reduce(ReduceKind::Max, &axes, true, scores);
    let below = formula.binary(Binary::Sub, scores, greatest);
    let power = formula.function(Function::Exp, below);
    let (size, zero) = (formula.unary(Unary::Abs, scores), formula.number(0.0));
    let power = formula.choose(size, Compare::Greater, 1e-7, [power, zero]);
    let sum = formula.reduce(ReduceKind::Sum, &axes, true, power);
    formula.binary(Binary::Div, power, sum)
}

/// The quantile of the normal distribution: the root of two times the inverse error function of `2 x - 1`, by Winitzki's
/// approximation, as ONNX Runtime has it.
fn probit(formula: &mut Formula<'_>, x: ValueId) -> ValueId {
    const A: f32 = 0.147;
    let twice = formula.with(Binary::Mul, x, 2.0);
    let y = formula.with(Binary::Sub, twice, 1.0);
    let square = formula.binary(Binary::Mul, y, y);
    let one = formula.number(1.0);
    let rest = formula.binary(Binary::Sub, one, square);
    let log = formula.unary(Unary::Log, rest);
    let half = formula.with(Binary::Mul, log, 0.5);
    let middle = formula.with(Binary::Add, half, 2.0 / (std::f32::consts::PI * A));
    let over = formula.with(Binary::Mul, log, 1.0 / A);
    let square = formula.binary(Binary::Mul, middle, middle);
    let under = formula.binary(Binary::Sub, square, over);
    let root = formula.unary(Unary::Sqrt, under);
    let size = formula.binary(Binary::Sub, root, middle);
    let size = formula.unary(Unary::Sqrt, size);
    let sign = formula.unary(Unary::Sign, y);
    let signed = formula.binary(Binary::Mul, sign, size);
    formula.with(Binary::Mul, signed, std::f32::consts::SQRT_2)
}

/// The labels of classes.
pub(super) struct Labels {
    pub(super) count: usize,
    /// None where they are strings, which nothing takes.
    integers: Option<Vec<i64>>,
}

impl Labels {
    /// From the attribute with integers, or the one with strings.
    pub(super) fn of(
        importer: &Importer,
        node: &Source<'_>,
        [integers, strings]: [&str; 2],
    ) -> Result<Self, EngineError> {
        let texts = node.texts(strings)?.unwrap_or_default();
        if texts.is_empty() {
            let integers = node.ints(integers)?.unwrap_or_default();
            return Ok(Self { count: integers.len(), integers: Some(integers) });
        }
        match node.proto.output.first().is_some_and(|label| importer.is_taken(label)) {
            true => Err(node.refuse("its labels are strings, which are not served")),
            false => Ok(Self { count: texts.len(), integers: None }),
        }
    }

    /// The label of the greatest of `[rows, classes]`, the first of equal ones.
    pub(super) fn of_greatest(&self, formula: &mut Formula<'_>, scores: ValueId) -> ValueId {
        let place = formula.op(Op::Arg(Arg { greatest: true, axis: 1, keep: false, last: false }), &[scores]);
        let Some(labels) = self.integers.as_ref().filter(|labels| !labels.iter().copied().eq(0..)) else {
            return place;
        };
        let labels = formula.list(labels);
        formula.op(Op::Gather { axis: 0 }, &[labels, place])
    }

    /// The second of two labels where a score (`[rows, 1]`) is above a bound, the first elsewhere; 1 and 0 where there
    /// are not two.
    pub(super) fn of_two(&self, formula: &mut Formula<'_>, score: ValueId, bound: ValueId) -> ValueId {
        let [first, second] = match self.integers.as_deref() {
            Some(&[first, second]) => [first, second],
            _ => [0, 1],
        };
        let label = |formula: &mut Formula<'_>, label: i64| formula.constant(tensor_of_integers(&[], &[label]));
        let labels = [label(formula, second), label(formula, first)];
        let flat = formula.importer.list_of(&formula.name, &[-1]);
        let row = formula.op(Op::Reshape { allow_zero: false }, &[score, flat]);
        let above = formula.op(Op::Compare(Compare::Greater), &[row, bound]);
        formula.op(Op::Where, &[above, labels[0], labels[1]])
    }
}

/// Scores of two classes from the one (`[rows, 1]`) of the second: what is left of one, or the opposite.
pub(super) fn both(formula: &mut Formula<'_>, score: ValueId, transform: Transform, is_share: bool) -> ValueId {
    let (first, second) = match transform {
        Transform::Logistic => {
            let opposite = formula.unary(Unary::Neg, score);
            (formula.function(Function::Sigmoid, opposite), formula.function(Function::Sigmoid, score))
        }
        _ if is_share => {
            let one = formula.number(1.0);
            (formula.binary(Binary::Sub, one, score), score)
        }
        _ => (formula.unary(Unary::Neg, score), score),
    };
    formula.op(Op::Concat { axis: 1 }, &[first, second])
}

/// In FP32, which is what scores and inputs of most classical operators are in the end.
pub(super) fn in_floats(importer: &mut Importer, node: &Source<'_>, x: ValueId) -> ValueId {
    match importer.dtype(x) {
        DType::F32 => x,
        _ => importer.graph.add(&node.shown(), Op::Cast { to: DType::F32 }, &[x]),
    }
}
