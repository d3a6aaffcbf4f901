//! Operators of ONNX Runtime's own that its optimizer makes of several: written with those again.

use kinglet_kernels::f32_functions::Function;

use super::formula::Formula;
use super::node::{Along, Source};
use super::quantization::{Bytes, meaning};
use super::{Importer, attention, elementwise, image, product};
use crate::engine::graph::op::{Binary, Compare, ReduceKind, Unary};
use crate::engine::graph::{Op, ValueId};
use crate::engine::{EngineError, proto};
use crate::proto::onnx::NodeProto;
use crate::tensor::DType;

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
        of_squares(&mut formula, sum, &Along::given(&[-1]), scale, epsilon)
    } else {
        let shift = shift.unwrap_or_else(|| formula.with(Binary::Mul, scale, 0.0));
        formula.normalized([sum, scale, shift], epsilon)
    };
    // Nothing asks for the two between them.
    Ok(vec![normal, sum, sum, sum])
}

/// EmbedLayerNormalization: words, places and segments are looked up, and their sum is normalised; where there is a mask,
/// how many words it leaves. QEmbedLayerNormalization has its constants in bytes, which are floats once they are taken.
pub(super) fn embedding(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    let of_bytes = node.proto.op_type == "QEmbedLayerNormalization";
    let taken = |importer: &mut Importer, at: usize, take: &dyn Fn(&mut Formula<'_>, ValueId) -> ValueId| {
        let table = importer.operand(node, at)?;
        let x = take(&mut Formula::with_name(importer, node), table);
        if !of_bytes {
            return Ok(x);
        }
        let of = Bytes { x, ..Bytes::at(importer, node, [at, at + 6, at + 11])? };
        meaning(importer, node, of, 0)
    };
    let rows = |ids: ValueId| move |formula: &mut Formula<'_>, table| formula.op(Op::Gather { axis: 0 }, &[table, ids]);
    let (ids, segments) = (importer.operand(node, 0)?, importer.optional(node, 1)?);
    let (mask, places) = (importer.optional(node, 7)?, if of_bytes { None } else { importer.optional(node, 8)? });
    let epsilon = node.float("epsilon", 1e-12)?;
    let word = taken(importer, 2, &rows(ids))?;
    let place = taken(importer, 3, &|formula, table| match places {
        Some(places) => rows(places)(formula, table),
        // A slice would be silent about a text that is longer than the table.
        None => rows(attention::places(formula, ids))(formula, table),
    })?;
    let segment = segments.map(|segments| taken(importer, 4, &rows(segments))).transpose()?;
    let (scale, shift) = (taken(importer, 5, &|_, scale| scale)?, taken(importer, 6, &|_, shift| shift)?);
    let mut formula = Formula::with_name(importer, node);
    let sum = formula.binary(Binary::Add, word, place);
    let sum = segment.map_or(sum, |segment| formula.binary(Binary::Add, sum, segment));
    let normal = formula.normalized([sum, scale, shift], epsilon);
    let count = match mask {
        Some(mask) => {
            let one = formula.number_like(mask, 1.0);
            let is_word = formula.compare(Compare::Equal, mask, one);
            let is_word = formula.cast(is_word, DType::I32);
            formula.reduce(ReduceKind::Sum, &Along::given(&[1]), false, is_word)
        }
        None => {
            let texts = formula.extents(ids, 0, Some(1));
            formula.filled(texts, DType::I32, 0.0)
        }
    };
    Ok(vec![normal, count, sum])
}

/// FusedConv: a convolution, a sum with another value, and an activation.
pub(super) fn conv(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let mut y = image::conv(importer, node)?;
    if let Some(other) = importer.optional(node, 3)? {
        y = importer.graph.add(&node.shown(), Op::Binary(Binary::Add), &[y, other]);
    }
    let names = if node.text("activation")?.as_deref() == Some("Clip") { ["min", "max"] } else { ["alpha", "beta"] };
    let given = node.floats("activation_params")?.unwrap_or_default();
    activated(importer, node, y, names.into_iter().zip(given))
}

/// FusedGemm: Gemm and an activation.
pub(super) fn gemm(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let y = product::gemm(importer, node)?;
    let mut given = Vec::new();
    for name in ["alpha", "beta", "gamma"] {
        let attribute = proto::attribute(node.proto, &format!("activation_{name}"));
        given.extend(attribute.map(|attribute| (name, attribute.f)));
    }
    activated(importer, node, y, given.into_iter())
}

/// The activation that a node names, as the standard's operator of that name has it.
fn activated<'a>(
    importer: &mut Importer,
    node: &Source<'_>,
    y: ValueId,
    attributes: impl Iterator<Item = (&'a str, f32)>,
) -> Result<ValueId, EngineError> {
    let Some(kind) = node.text("activation")?.filter(|kind| !kind.is_empty()) else { return Ok(y) };
    if !ACTIVATIONS.contains(&kind.as_str()) {
        return Err(node.refuse(&format!("activation must be one of {ACTIVATIONS:?}, got {kind:?}")));
    }
    let made = node.proto.output.first().ok_or_else(|| node.invalid("it has no output"))?;
    let before = format!("{made} before {kind}");
    importer.name(&before, y)?;
    let attribute = attributes.map(|(name, value)| proto::float(name, value)).collect();
    let activation = NodeProto { attribute, ..proto::node(&kind, &[&before], &[], vec![]) };
    let made = importer.operator(&Source { proto: &activation })?;
    made.first().copied().ok_or_else(|| node.invalid(&format!("{kind} makes nothing")))
}

/// Those that ONNX Runtime makes a part of convolutions and products.
const ACTIVATIONS: &[&str] = &[
    "Clip",
    "Elu",
    "HardSigmoid",
    "LeakyRelu",
    "Relu",
    "Selu",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Tanh",
    "ThresholdedRelu",
];

/// BiasSoftmax: along the given axis and all behind it as one. The bias is broadcast as in a sum, whichever of its axes do.
pub(super) fn bias_softmax(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (bias, axis) = (importer.operand(node, 1)?, node.axis(1)?);
    let (mut formula, x) = Formula::of(importer, node)?;
    let sum = formula.binary(Binary::Add, x, bias);
    Ok(elementwise::softmax_from(importer, node, sum, axis))
}

/// Along the given axis and all behind it.
pub(super) fn simplified_normalization(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let axis = node.int("axis", -1)?;
    let along = match usize::try_from(axis) {
        Ok(axis) => Along::from(axis),
        Err(_) if axis >= -AXES_MAX => Along::given(&(axis..0).collect::<Vec<_>>()),
        Err(_) => return Err(node.invalid(&format!("axis must be at least {}, got {axis}", -AXES_MAX))),
    };
    let (scale, epsilon) = (importer.operand(node, 1)?, node.float("epsilon", 1e-5)?);
    let (mut formula, x) = Formula::of(importer, node)?;
    Ok(of_squares(&mut formula, x, &along, scale, epsilon))
}

/// Over the root of the mean of squares along axes, and scaled.
fn of_squares(formula: &mut Formula<'_>, x: ValueId, along: &Along, scale: ValueId, epsilon: f32) -> ValueId {
    let square = formula.binary(Binary::Mul, x, x);
    let mean = formula.reduce(ReduceKind::Mean, along, true, square);
    let raised = formula.with(Binary::Add, mean, epsilon);
    let root = formula.unary(Unary::Sqrt, raised);
    let normal = formula.binary(Binary::Div, x, root);
    formula.binary(Binary::Mul, normal, scale)
}

/// Axes that are counted from the last are listed, as many as a file asks for.
const AXES_MAX: i64 = 64;
