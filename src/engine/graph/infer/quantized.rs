//! Shapes and types of operators between floats and integers.

use kinglet_kernels::Activation;
use kinglet_kernels::u8s8_gemm::{Finish, Matrix};

use super::{Fact, Facts, InferError, axis, image};
use crate::engine::graph::op::{Linear, Op, QuantizedMatMul};
use crate::tensor::DType;

/// The type of a product of bytes.
pub(super) fn dtype(finish: Finish) -> DType {
    match finish {
        Finish::Floats => DType::F32,
        Finish::Bytes { .. } => DType::U8,
    }
}

pub(super) fn of_integers(op: &Op, inputs: &Facts<'_>) -> Result<Fact, InferError> {
    match op {
        Op::Quantize { axis } => quantize(*axis, inputs),
        Op::Dequantize { axis } => dequantize(*axis, inputs),
        Op::QuantizedConv(conv) => {
            image::conv(&conv.conv, inputs).map(|shape| Fact::new(dtype(conv.product.finish), shape))
        }
        Op::QuantizedLinear(product) => {
            let plain = Linear { bias: true, residual: false, activation: Activation::None };
            super::linear(&plain, inputs).map(|shape| Fact::new(dtype(product.finish), shape))
        }
        Op::QuantizedMatMul(product) => matmul(product, inputs),
        Op::IntegerMatMul => integer_matmul(inputs),
        Op::DynamicLinear { .. } => dynamic_linear(inputs),
        Op::LookUp => look_up(inputs),
        _ => add(inputs),
    }
}

fn quantize(axis: isize, inputs: &Facts<'_>) -> Result<Fact, InferError> {
    let &[x, _, zero] = inputs.as_slice() else {
        return Err(InferError::Operands { expected: 3, got: inputs.len() });
    };
    if x.dtype != DType::F32 {
        return Err(InferError::Type { expected: "FP32", got: x.dtype });
    }
    if ![DType::U8, DType::I8, DType::U16, DType::I16].contains(&zero.dtype) {
        return Err(InferError::Type { expected: "a zero point of 8 or 16 bits", got: zero.dtype });
    }
    scales(axis, inputs)?;
    Ok(Fact::new(zero.dtype, x.shape.clone()))
}

fn dequantize(axis: isize, inputs: &Facts<'_>) -> Result<Fact, InferError> {
    let x = *inputs.first().ok_or(InferError::Operands { expected: 2, got: 0 })?;
    if ![DType::U8, DType::I8, DType::U16, DType::I16, DType::I32].contains(&x.dtype) {
        return Err(InferError::Type { expected: "integers of 8 or 16 bits, or INT32", got: x.dtype });
    }
    if let Some(zero) = inputs.get(2).filter(|zero| zero.dtype != x.dtype) {
        return Err(InferError::Type { expected: "a zero point of the operand's type", got: zero.dtype });
    }
    scales(axis, inputs)?;
    Ok(Fact::new(DType::F32, x.shape.clone()))
}

fn look_up(inputs: &Facts<'_>) -> Result<Fact, InferError> {
    let [x, table] = super::two(inputs)?;
    expect_bytes(inputs)?;
    match table.elements() {
        256 => Ok(Fact::new(DType::U8, x.shape.clone())),
        _ => Err(InferError::Mismatch(x.shape.to_string(), table.shape.to_string())),
    }
}

fn matmul(product: &QuantizedMatMul, inputs: &Facts<'_>) -> Result<Fact, InferError> {
    expect_bytes(inputs)?;
    let [a, b] = super::two(inputs)?;
    if a.shape.last().is_some_and(|depth| *depth > Matrix::DEPTH_MAX) {
        return Err(InferError::Overflow);
    }
    super::matmul([a, b]).map(|shape| Fact::new(dtype(product.finish), shape))
}

fn integer_matmul(inputs: &Facts<'_>) -> Result<Fact, InferError> {
    let &[a, b, left_zero, right_zero] = inputs.as_slice() else {
        return Err(InferError::Operands { expected: 4, got: inputs.len() });
    };
    let is_byte = |fact: &Fact| [DType::U8, DType::I8].contains(&fact.dtype);
    if !is_byte(a) || !is_byte(b) || left_zero.dtype != a.dtype || right_zero.dtype != b.dtype {
        return Err(InferError::Type { expected: "bytes, and zero points of their types", got: b.dtype });
    }
    let shape = super::matmul([a, b])?;
    let rows = a.shape.len().checked_sub(2).map_or(1, |at| a.shape[at]);
    let columns = if b.shape.len() < 2 { Some(&1) } else { b.shape.last() };
    let fits = |zero: &Fact, many: usize| zero.elements() == 1 || zero.elements() == many;
    match fits(left_zero, rows) && columns.is_some_and(|columns| fits(right_zero, *columns)) {
        true => Ok(Fact::new(DType::I32, shape)),
        false => Err(InferError::Mismatch(left_zero.shape.to_string(), right_zero.shape.to_string())),
    }
}

fn dynamic_linear(inputs: &Facts<'_>) -> Result<Fact, InferError> {
    let (x, weights, zero, scale, bias) = match *inputs.as_slice() {
        [x, weights, zero, scale] => (x, weights, zero, scale, None),
        [x, weights, zero, scale, bias] => (x, weights, zero, scale, Some(bias)),
        _ => return Err(InferError::Operands { expected: 4, got: inputs.len() }),
    };
    let types = [x.dtype, weights.dtype, zero.dtype, scale.dtype];
    if types != [DType::U8, DType::I8, DType::U8, DType::F32] || bias.is_some_and(|bias| bias.dtype != DType::F32) {
        return Err(InferError::Type { expected: "UINT8, weights of INT8, and numbers of FP32", got: weights.dtype });
    }
    let shape = super::matmul([x, weights])?;
    let columns = weights.shape.last().copied().unwrap_or(0);
    let by_column = scale.elements() == columns && scale.shape.last() == Some(&columns);
    let fits = (scale.elements() == 1 || by_column) && bias.is_none_or(|bias| bias.elements() == columns);
    match fits && zero.elements() == 1 && weights.shape.len() == 2 {
        true => Ok(Fact::new(DType::F32, shape)),
        false => Err(InferError::Mismatch(weights.shape.to_string(), scale.shape.to_string())),
    }
}

fn add(inputs: &Facts<'_>) -> Result<Fact, InferError> {
    let [a, b] = super::two(inputs)?;
    match a.shape == b.shape {
        true => Ok(Fact::new(a.dtype, a.shape.clone())),
        false => Err(InferError::Mismatch(a.shape.to_string(), b.shape.to_string())),
    }
}

fn expect_bytes(inputs: &Facts<'_>) -> Result<(), InferError> {
    match inputs.iter().find(|operand| operand.dtype != DType::U8) {
        Some(other) => Err(InferError::Type { expected: "UINT8", got: other.dtype }),
        None => Ok(()),
    }
}

/// Scales and zero points are single, or as many as the axis has places.
fn scales(given: isize, inputs: &Facts<'_>) -> Result<(), InferError> {
    let (x, scale) = match inputs.as_slice() {
        [x, scale, ..] => (x, scale),
        few => return Err(InferError::Operands { expected: 2, got: few.len() }),
    };
    if scale.dtype != DType::F32 {
        return Err(InferError::Type { expected: "scales of FP32", got: scale.dtype });
    }
    let count = scale.elements();
    if scale.shape.len() > 1 || (count != 1 && x.shape[axis(given, &x.shape)?] != count) {
        return Err(InferError::Mismatch(x.shape.to_string(), scale.shape.to_string()));
    }
    match inputs.get(2).filter(|zero| zero.elements() != count) {
        Some(zero) => Err(InferError::Mismatch(scale.shape.to_string(), zero.shape.to_string())),
        None => Ok(()),
    }
}
