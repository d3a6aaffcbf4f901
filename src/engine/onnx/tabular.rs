//! Operators on tables of features: linear models, scaling, encoding. All are written with operators of the standard
//! domain; most give FP32, whatever they take.

use super::Importer;
use super::classes::{self, Labels, Transform};
use super::forest;
use super::formula::Formula;
use super::node::{Along, Source};
use crate::engine::EngineError;
use crate::engine::graph::op::{Arg, Binary, Compare, Linear, Op, ReduceKind, Unary};
use crate::engine::graph::{ValueId, tensor_of, tensor_of_integers};
use crate::tensor::{DType, Shape, Tensor};

/// Labels of the greatest score, or of the sign where there is one score alone, and scores.
pub(super) fn linear_classifier(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    let labels = Labels::of(importer, node, ["classlabels_ints", "classlabels_strings"])?;
    let transform = Transform::of(node)?;
    let intercepts = node.floats("intercepts")?.unwrap_or_default();
    let columns = if intercepts.is_empty() { labels.count } else { intercepts.len() };
    if columns > 1 && columns != labels.count {
        return Err(node.invalid(&format!("it has {} labels for {columns} scores", labels.count)));
    }
    let scores = linear(importer, node, columns, &intercepts)?;
    let mut formula = Formula::with_name(importer, node);
    if columns > 1 {
        let label = labels.of_greatest(&mut formula, scores);
        return Ok(vec![label, transform.apply(&mut formula, scores, columns)]);
    }
    let zero = formula.number(0.0);
    let label = labels.of_two(&mut formula, scores, zero);
    match (labels.count, transform) {
        (2, Transform::Probit) => Err(node.refuse("PROBIT leaves one of two classes without a score")),
        (2, _) => Ok(vec![label, classes::both(&mut formula, scores, transform, true)]),
        _ => Ok(vec![label, transform.apply(&mut formula, scores, 1)]),
    }
}

pub(super) fn linear_regressor(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let targets = node.int("targets", 1)?;
    let columns = usize::try_from(targets).map_err(|_| node.invalid(&format!("targets is {targets}")))?;
    let mut intercepts = node.floats("intercepts")?.unwrap_or_default();
    if intercepts.len() != columns {
        intercepts.clear();
    }
    let transform = Transform::of(node)?;
    let scores = linear(importer, node, columns, &intercepts)?;
    Ok(transform.apply(&mut Formula::with_name(importer, node), scores, columns))
}

/// Products with rows of coefficients, one for each column, and intercepts.
fn linear(
    importer: &mut Importer,
    node: &Source<'_>,
    columns: usize,
    intercepts: &[f32],
) -> Result<ValueId, EngineError> {
    let coefficients = node.floats("coefficients")?.unwrap_or_default();
    let depth = coefficients.len().checked_div(columns).unwrap_or(0);
    if depth == 0 || depth * columns != coefficients.len() {
        let told = format!("it has {} coefficients for {columns} columns", coefficients.len());
        return Err(node.invalid(&told));
    }
    let turned: Vec<f32> = (0..depth).flat_map(|k| coefficients.iter().skip(k).step_by(depth).copied()).collect();
    let x = importer.operand(node, 0)?;
    let x = classes::in_floats(importer, node, x);
    let mut formula = Formula::with_name(importer, node);
    let mut operands = vec![x, formula.constant(tensor_of(&[depth, columns], &turned))];
    if !intercepts.is_empty() {
        operands.push(formula.constant(tensor_of(&[columns], intercepts)));
    }
    let linear = Linear { bias: operands.len() > 2, residual: false, activation: kinglet_kernels::Activation::None };
    Ok(formula.op(Op::Linear(linear), &operands))
}

/// `(x - offset) * scale`, a number for all columns or one for each.
pub(super) fn scaler(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let mut y = floats(importer, node)?;
    for (name, binary) in [("offset", Binary::Sub), ("scale", Binary::Mul)] {
        let numbers = node.floats(name)?.unwrap_or_default();
        let mut formula = Formula::with_name(importer, node);
        y = match numbers[..] {
            [] => y,
            [number] => formula.with(binary, y, number),
            _ => {
                let numbers = formula.constant(tensor_of(&[numbers.len()], &numbers));
                formula.binary(binary, y, numbers)
            }
        };
    }
    Ok(y)
}

/// Rows over their greatest element, the sum of their sizes, or their length; unchanged where that is zero.
pub(super) fn normalizer(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let x = floats(importer, node)?;
    let mut formula = Formula::with_name(importer, node);
    let axes = Along::given(&[-1]);
    let norm = match node.text("norm")?.as_deref().unwrap_or("MAX") {
        "MAX" => formula.reduce(ReduceKind::Max, &axes, true, x),
        "L1" => {
            let size = formula.unary(Unary::Abs, x);
            formula.reduce(ReduceKind::Sum, &axes, true, size)
        }
        "L2" => {
            let square = formula.binary(Binary::Mul, x, x);
            let sum = formula.reduce(ReduceKind::Sum, &axes, true, square);
            formula.unary(Unary::Sqrt, sum)
        }
        other => return Err(node.invalid(&format!("norm {other:?} is none"))),
    };
    let one = formula.number(1.0);
    let norm = formula.choose(norm, Compare::Equal, 0.0, [one, norm]);
    Ok(formula.binary(Binary::Div, x, norm))
}

/// One where an element is above a threshold, zero elsewhere.
pub(super) fn binarizer(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let threshold = node.float("threshold", 0.0)?;
    let x = importer.operand(node, 0)?;
    let mut formula = Formula::with_name(importer, node);
    let [threshold, one, zero] = [f64::from(threshold), 1.0, 0.0].map(|number| formula.number_like(x, number));
    let above = formula.op(Op::Compare(Compare::Greater), &[x, threshold]);
    Ok(formula.op(Op::Where, &[above, one, zero]))
}

/// Elements of one value replaced by another, one for all columns or one for each.
pub(super) fn imputer(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let x = importer.operand(node, 0)?;
    let (floats, whole) = (node.floats("imputed_value_floats")?, node.ints("imputed_value_int64s")?);
    let mut formula = Formula::with_name(importer, node);
    let (imputed, replaced) = match (floats.filter(|list| !list.is_empty()), whole.filter(|list| !list.is_empty())) {
        (Some(floats), None) => {
            let replaced = node.float("replaced_value_float", 0.0)?;
            (tensor_of(&[floats.len()], &floats), tensor_of(&[], &[replaced]))
        }
        (None, Some(whole)) => {
            let replaced = node.int("replaced_value_int64", 0)?;
            (tensor_of_integers(&[whole.len()], &whole), tensor_of_integers(&[], &[replaced]))
        }
        _ => return Err(node.invalid("it must impute either floats or integers")),
    };
    let is_nan = crate::engine::graph::floats(&replaced).is_some_and(|replaced| replaced[0].is_nan());
    let dtype = formula.importer.dtype(x);
    let [imputed, replaced] = [imputed, replaced].map(|tensor| {
        let is_like = tensor.dtype() == dtype;
        let constant = formula.constant(tensor);
        if is_like { constant } else { formula.op(Op::Cast { to: dtype }, &[constant]) }
    });
    let kept = if is_nan { x } else { replaced };
    let equal = formula.op(Op::Compare(Compare::Equal), &[x, kept]);
    Ok(match is_nan {
        true => formula.op(Op::Where, &[equal, x, imputed]),
        false => formula.op(Op::Where, &[equal, imputed, x]),
    })
}

/// Columns by their places.
pub(super) fn array_feature_extractor(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (x, places) = (importer.operand(node, 0)?, importer.operand(node, 1)?);
    let is_row = importer.graph.constant(x).is_some_and(|constant| constant.shape().len() == 1);
    let mut formula = Formula::with_name(importer, node);
    let flat = formula.list(&[-1]);
    let places = formula.op(Op::Reshape { allow_zero: false }, &[places, flat]);
    let taken = formula.op(Op::Gather { axis: -1 }, &[x, places]);
    let first = formula.list(&[0]);
    // One axis alone is a row.
    Ok(if is_row { formula.op(Op::Unsqueeze, &[taken, first]) } else { taken })
}

/// Rows of all operands beside each other.
pub(super) fn feature_vectorizer(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let widths = node.extents("inputdimensions")?.unwrap_or_default();
    let operands = importer.operands(node)?;
    if widths.len() != operands.len() {
        return Err(node.invalid(&format!("it has {} inputdimensions for {} operands", widths.len(), operands.len())));
    }
    let mut columns = Vec::with_capacity(operands.len());
    for (operand, width) in operands.into_iter().zip(widths) {
        // A node of its own, to say of its output how wide it must be.
        let column = importer.cast(node, operand, DType::F32);
        importer.graph.assume(column, [(1, width)].into_iter());
        columns.push(column);
    }
    Ok(importer.graph.add(&node.shown(), Op::Concat { axis: 1 }, &columns))
}

/// A new last axis with a one at the element's category; all zeros for others.
pub(super) fn one_hot_encoder(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let categories = node.ints("cats_int64s")?.unwrap_or_default();
    if categories.is_empty() {
        return Err(node.refuse("its categories are strings, or none"));
    }
    if node.int("zeros", 1)? == 0 {
        return Err(node.refuse("it fails for what is no category"));
    }
    let x = importer.operand(node, 0)?;
    let x = importer.cast(node, x, DType::I64);
    let mut formula = Formula::with_name(importer, node);
    let (categories, last) = (formula.list(&categories), formula.list(&[-1]));
    let x = formula.op(Op::Unsqueeze, &[x, last]);
    let is_category = formula.op(Op::Compare(Compare::Equal), &[x, categories]);
    Ok(formula.op(Op::Cast { to: DType::F32 }, &[is_category]))
}

/// Elements looked up among keys, the first of equal ones; what is no key becomes the default.
pub(super) fn label_encoder(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let keys = encoded(node, "keys")?;
    let values = encoded(node, "values")?;
    let count = keys.element_count();
    if count == 0 || count != values.element_count() {
        return Err(node.invalid(&format!("it has {count} keys for {} values", values.element_count())));
    }
    if count > KEYS_MAX {
        return Err(node.refuse(&format!("it has {count} keys, at most {KEYS_MAX} are searched")));
    }
    let default = match (node.tensor("default_tensor")?, values.dtype()) {
        (Some(default), _) => default,
        (None, DType::I64) => tensor_of_integers(&[], &[node.int("default_int64", -1)?]),
        (None, _) => tensor_of(&[], &[node.float("default_float", -0.0)?]),
    };
    if default.dtype() != values.dtype() || default.element_count() != 1 {
        return Err(node.invalid("its default is no one value"));
    }
    let x = importer.operand(node, 0)?;
    let default = Tensor::new(default.dtype(), Shape::new(&[]), default.bytes().clone());
    let default = default.map_err(|error| node.invalid(&error.to_string()))?;
    // Newer versions find NaN among keys.
    let finds_nan = importer.versions.get("ai.onnx.ml").is_some_and(|version| *version >= 4);
    let has_nan = finds_nan && forest::wide(&keys).is_some_and(|keys| keys.iter().any(|key| key.is_nan()));
    let mut formula = Formula::with_name(importer, node);
    let (keys, values, last) = (formula.constant(keys), formula.constant(values), formula.list(&[-1]));
    let x = formula.op(Op::Unsqueeze, &[x, last]);
    let mut equal = formula.op(Op::Compare(Compare::Equal), &[x, keys]);
    if has_nan {
        let [x_nan, key_nan] = [x, keys].map(|of| {
            let same = formula.op(Op::Compare(Compare::Equal), &[of, of]);
            formula.op(Op::Not, &[same])
        });
        let both = formula.op(Op::Compare(Compare::And), &[x_nan, key_nan]);
        equal = formula.op(Op::Compare(Compare::Or), &[equal, both]);
    }
    let found = formula.op(Op::Cast { to: DType::U8 }, &[equal]);
    let place = formula.op(Op::Arg(Arg { greatest: true, axis: -1, keep: false, last: false }), &[found]);
    // Whether it was found there.
    let of_place = formula.op(Op::Unsqueeze, &[place, last]);
    let is_there = formula.op(Op::GatherElements { axis: -1 }, &[equal, of_place]);
    let is_there = formula.op(Op::Squeeze, &[is_there, last]);
    let value = formula.op(Op::Gather { axis: 0 }, &[values, place]);
    let default = formula.constant(default);
    Ok(formula.op(Op::Where, &[is_there, value, default]))
}

/// Keys or values, as a list of one element type.
fn encoded(node: &Source<'_>, of: &str) -> Result<Tensor, EngineError> {
    if let Some(tensor) = node.tensor(&format!("{of}_tensor"))? {
        let list = Shape::new(&[tensor.element_count()]);
        return Tensor::new(tensor.dtype(), list, tensor.bytes().clone()).map_err(|e| node.invalid(&e.to_string()));
    }
    let whole = node.ints(&format!("{of}_int64s"))?.unwrap_or_default();
    let floats = node.floats(&format!("{of}_floats"))?.unwrap_or_default();
    match (&whole[..], &floats[..]) {
        ([], []) => Err(node.refuse(&format!("its {of} are strings, or none"))),
        (whole, []) => Ok(tensor_of_integers(&[whole.len()], whole)),
        ([], floats) => Ok(tensor_of(&[floats.len()], floats)),
        _ => Err(node.invalid(&format!("its {of} are of two types"))),
    }
}

/// The first operand in FP32.
fn floats(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let x = importer.operand(node, 0)?;
    Ok(classes::in_floats(importer, node, x))
}

/// Every element meets every key.
const KEYS_MAX: usize = 1024;
