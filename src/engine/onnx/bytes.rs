//! Operators of ONNX Runtime's own on bytes that are no products: their float forms between two conversions.

use kinglet_kernels::Activation;
use kinglet_kernels::f32_functions::Function;

use super::formula::Formula;
use super::node::Source;
use super::quantization::{Bytes, meaning, requantized, triple};
use super::{Importer, elementwise, image};
use crate::engine::EngineError;
use crate::engine::graph::op::Binary;
use crate::engine::graph::{Op, ValueId};
use crate::tensor::DType;

pub(super) fn add(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (a, b) = (triple(importer, node, 0)?, triple(importer, node, 3)?);
    let operands = [meaning(importer, node, a, 1)?, meaning(importer, node, b, 1)?];
    let y = importer.graph.add(&node.shown(), Op::Binary(Binary::Add), &operands);
    let to = To::at(importer, node, 6, a.x)?;
    Ok(to.quantized(&mut Formula::with_name(importer, node), y))
}

/// Integers are multiplied, which is exact, and scaled once.
pub(super) fn multiply(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let (a, b) = (triple(importer, node, 0)?, triple(importer, node, 3)?);
    let to = To::at(importer, node, 6, a.x)?;
    let mut formula = Formula::with_name(importer, node);
    let one = formula.number(1.0);
    let of = formula.binary(Binary::Mul, a.scale, b.scale);
    let scale = formula.binary(Binary::Div, of, to.scale);
    let [a, b] = [a, b].map(|of| meaning(formula.importer, node, Bytes { scale: one, ..of }, 1));
    let product = formula.binary(Binary::Mul, a?, b?);
    let y = formula.binary(Binary::Mul, product, scale);
    Ok(to.rounded(&mut formula, y))
}

/// QLinearWhere.
pub(super) fn choose(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let condition = importer.operand(node, 0)?;
    let (then, otherwise) = (triple(importer, node, 1)?, triple(importer, node, 4)?);
    let operands = [condition, meaning(importer, node, then, 1)?, meaning(importer, node, otherwise, 1)?];
    let y = importer.graph.add(&node.shown(), Op::Where, &operands);
    requantized(importer, node, y, [7, 8])
}

/// QLinearSigmoid and QLinearLeakyRelu.
pub(super) fn function(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let activation = match node.proto.op_type.as_str() {
        "QLinearLeakyRelu" => Activation::LeakyRelu { slope: node.float("alpha", 0.01)? },
        _ => Activation::Function(Function::Sigmoid),
    };
    let inner = |importer: &mut Importer, x| Ok(importer.graph.add(&node.shown(), Op::Activation(activation), &[x]));
    between(importer, node, inner, To::quantized)
}

/// All axes from the given one on are one where the standard's Softmax of that version has it so.
pub(super) fn softmax(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let is_one = match node.int("opset", 0)? {
        version @ 1.. => version < 13,
        given => return Err(node.invalid(&format!("opset must be positive, got {given}"))),
    };
    let axis = node.axis(if is_one { 1 } else { -1 })?;
    let inner = |importer: &mut Importer, x| {
        Ok(match is_one {
            true => elementwise::softmax_from(importer, node, x, axis),
            false => importer.graph.add(&node.shown(), Op::Softmax { axis, log: false }, &[x]),
        })
    };
    between(importer, node, inner, To::quantized)
}

/// QLinearAveragePool and QLinearGlobalAveragePool.
pub(super) fn pool(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let is_global = node.proto.op_type == "QLinearGlobalAveragePool";
    let pooled = |importer: &mut Importer, x| match is_global {
        true => Ok(image::global_pool_of(importer, node, x)),
        false => image::pool_of(importer, node, x).map(|pooled| pooled[0]),
    };
    let is_last = node.int("channels_last", 0)? != 0;
    let in_order = |importer: &mut Importer, x| match is_last {
        true => image::channels_first(importer, node, x, pooled),
        false => pooled(importer, x),
    };
    let end = |to: To, formula: &mut Formula<'_>, y| {
        let y = formula.binary(Binary::Div, y, to.scale);
        to.rounded(formula, y)
    };
    between(importer, node, in_order, if is_global { To::quantized } else { end })
}

/// The output's scale comes first, then each operand with its own.
pub(super) fn concat(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let count = node.proto.input.len();
    if count < 5 || count % 3 != 2 {
        return Err(
            node.invalid(&format!("it must have a scale, a zero point, and three for each operand, got {count}"))
        );
    }
    let axis = node.axis(i64::MAX)?;
    let triples: Vec<Bytes> = (2..count).step_by(3).map(|at| triple(importer, node, at)).collect::<Result<_, _>>()?;
    let operands = triples.iter().map(|&of| meaning(importer, node, of, 1)).collect::<Result<Vec<_>, _>>()?;
    let y = importer.graph.add(&node.shown(), Op::Concat { axis }, &operands);
    requantized(importer, node, y, [0, 1])
}

/// Between the conversions of an operand and of an output, which `end` does: `x`, its scale and zero point, and those of
/// the output.
fn between(
    importer: &mut Importer,
    node: &Source<'_>,
    inner: impl FnOnce(&mut Importer, ValueId) -> Result<ValueId, EngineError>,
    end: fn(To, &mut Formula<'_>, ValueId) -> ValueId,
) -> Result<ValueId, EngineError> {
    let of = triple(importer, node, 0)?;
    let x = meaning(importer, node, of, 1)?;
    let y = inner(importer, x)?;
    let to = To::at(importer, node, 3, of.x)?;
    Ok(end(to, &mut Formula::with_name(importer, node), y))
}

/// What integers an output's floats become.
#[derive(Clone, Copy)]
struct To {
    scale: ValueId,
    zero: ValueId,
}

impl To {
    /// A zero point that is left out is zero, of the operand's type.
    fn at(importer: &mut Importer, node: &Source<'_>, at: usize, operand: ValueId) -> Result<Self, EngineError> {
        let (scale, zero) = (importer.operand(node, at)?, importer.optional(node, at + 1)?);
        let none = |importer| Formula::with_name(importer, node).number_like(operand, 0.0);
        Ok(Self { scale, zero: zero.unwrap_or_else(|| none(importer)) })
    }

    fn quantized(self, formula: &mut Formula<'_>, y: ValueId) -> ValueId {
        formula.op(Op::Quantize { axis: 1 }, &[y, self.scale, self.zero])
    }

    /// Of floats in units of the scale, rounded when the zero point has been added: of two that are as near ONNX Runtime
    /// takes the one that is even then.
    fn rounded(self, formula: &mut Formula<'_>, y: ValueId) -> ValueId {
        let place = formula.cast(self.zero, DType::F32);
        let y = formula.binary(Binary::Add, y, place);
        let (one, none) = (formula.number(1.0), formula.number_like(self.zero, 0.0));
        formula.op(Op::Quantize { axis: 1 }, &[y, one, none])
    }
}
