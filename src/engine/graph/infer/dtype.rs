//! Element types alone, which follow from those of the operands whatever their shapes: for importers, which know no
//! shapes. Inference decides the same again with the shapes.

use super::quantized;
use crate::engine::graph::op::{Arrangement, Op, Unique, UniquePart, WindowKind, Windows};
use crate::tensor::DType;

/// The type of an operator's output; that of the first operand but for some.
pub(in crate::engine) fn dtype(op: &Op, operands: &[DType]) -> DType {
    let operand = |at: usize| operands.get(at).copied().unwrap_or(DType::F32);
    match op {
        Op::Compare(_) | Op::Not => DType::Bool,
        Op::Where => operand(1),
        Op::Shape { .. } | Op::Size | Op::Arg(_) | Op::Top(_) => DType::I64,
        Op::NonZero | Op::NonMaxSuppression { .. } => DType::I64,
        Op::Unique(Unique { part, .. }) if *part != UniquePart::Values => DType::I64,
        Op::Windows(Windows { kind: WindowKind::Place { .. }, .. }) => DType::I64,
        Op::Cast { to } => *to,
        Op::Fill { value } => value.dtype,
        Op::Arrange(Arrangement::OneHot { .. }) => operand(2),
        Op::Arrange(Arrangement::Diagonal { dtype: Some(dtype), .. }) => *dtype,
        Op::Quantize { .. } => operand(2),
        Op::Dequantize { .. } => DType::F32,
        Op::QuantizedConv(conv) => quantized::dtype(conv.product.finish),
        Op::QuantizedLinear(product) => quantized::dtype(product.finish),
        Op::QuantizedMatMul(product) => quantized::dtype(product.finish),
        Op::IntegerMatMul => DType::I32,
        Op::DynamicLinear { .. } => DType::F32,
        _ => operand(0),
    }
}
