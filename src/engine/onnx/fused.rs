//! Operators of ONNX Runtime's own that its optimizer makes of several: written with those again.

use kinglet_kernels::f32_functions::Function;

use super::Importer;
use super::formula::Formula;
use super::node::{Along, Source};
use crate::engine::EngineError;
use crate::engine::graph::op::{Binary, ReduceKind, Unary};
use crate::engine::graph::{Op, ValueId};

/// Gelu, BiasGelu, FastGelu and QuickGelu: of the operand, or of its sum with a bias.
pub(super) fn gelu(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let kind = node.proto.op_type.as_str();
    let bias = if matches!(kind, "BiasGelu" | "FastGelu") { importer.optional(node, 1)? } else { None };
    let alpha = node.float("alpha", 1.702)?;
    let (mut formula, x) = Formula::of(importer, node)?;
    let x = bias.map_or(x, |bias| formula.binary(Binary::Add, x, bias));
    Ok(match kind {
        "FastGelu" => formula.function(Function::GeluTanh, x),
        "QuickGelu" => {
            let steep = formula.with(Binary::Mul, x, alpha);
            let part = formula.function(Function::Sigmoid, steep);
            formula.binary(Binary::Mul, x, part)
        }
        _ => formula.function(Function::Gelu, x),
    })
}

/// A sum, and it normalised: with means and a shift, or simplified by the mean of squares alone.
pub(super) fn skip_normalization(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    let simplified = node.proto.op_type == "SkipSimplifiedLayerNormalization";
    if node.has_output(1) || node.has_output(2) {
        return Err(node.refuse("it is asked for means or deviations"));
    }
    let (skip, scale) = (importer.operand(node, 1)?, importer.operand(node, 2)?);
    let shift = if simplified { None } else { importer.optional(node, 3)? };
    let bias = importer.optional(node, if simplified { 3 } else { 4 })?;
    let epsilon = node.float("epsilon", 1e-12)?;
    let (mut formula, x) = Formula::of(importer, node)?;
    let mut sum = formula.binary(Binary::Add, x, skip);
    if let Some(bias) = bias {
        sum = formula.binary(Binary::Add, sum, bias);
    }
    let normal = if simplified {
        of_squares(&mut formula, sum, scale, epsilon)
    } else {
        let shift = shift.unwrap_or_else(|| formula.with(Binary::Mul, scale, 0.0));
        formula.op(Op::Normalize { epsilon }, &[sum, scale, shift])
    };
    // Nothing asks for the two between them.
    Ok(vec![normal, sum, sum, sum])
}

pub(super) fn simplified_normalization(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    if node.axis(-1)? != -1 {
        return Err(node.refuse("it normalises more than the last axis, or one whose place is not known"));
    }
    let (scale, epsilon) = (importer.operand(node, 1)?, node.float("epsilon", 1e-5)?);
    let (mut formula, x) = Formula::of(importer, node)?;
    Ok(of_squares(&mut formula, x, scale, epsilon))
}

/// Over the root of the mean of squares along the last axis, and scaled.
fn of_squares(formula: &mut Formula<'_>, x: ValueId, scale: ValueId, epsilon: f32) -> ValueId {
    let square = formula.binary(Binary::Mul, x, x);
    let mean = formula.reduce(ReduceKind::Mean, &Along::given(&[-1]), true, square);
    let raised = formula.with(Binary::Add, mean, epsilon);
    let root = formula.unary(Unary::Sqrt, raised);
    let normal = formula.binary(Binary::Div, x, root);
    formula.binary(Binary::Mul, normal, scale)
}
