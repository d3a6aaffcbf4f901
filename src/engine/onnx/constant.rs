//! Values that stand in the file.

use super::Importer;
use super::node::Source;
use crate::engine::EngineError;
use crate::engine::graph::op::FillValue;
use crate::engine::graph::{Op, ValueId, tensor_of, tensor_of_integers};
use crate::engine::proto::attribute;
use crate::tensor::DType;

pub(super) fn constant(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let tensor = if let Some(tensor) = node.tensor("value")? {
        tensor
    } else if let Some(sparse) = attribute(node.proto, "sparse_value").and_then(|found| found.sparse_tensor.as_ref()) {
        importer.dense(sparse)?
    } else if let Some(attribute) = attribute(node.proto, "value_float") {
        tensor_of(&[], &[attribute.f])
    } else if let Some(attribute) = attribute(node.proto, "value_floats") {
        tensor_of(&[attribute.floats.len()], &attribute.floats)
    } else if let Some(attribute) = attribute(node.proto, "value_int") {
        tensor_of_integers(&[], &[attribute.i])
    } else if let Some(ints) = node.ints("value_ints")? {
        tensor_of_integers(&[ints.len()], &ints)
    } else {
        return Err(node.refuse("its value is no tensor of numbers"));
    };
    Ok(importer.graph.add_constant(node.shown(), tensor))
}

/// ConstantOfShape: a shape filled with one element, the number zero where none is given.
pub(super) fn fill(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let value = match node.tensor("value")? {
        Some(tensor) if tensor.element_count() == 1 => {
            FillValue { dtype: tensor.dtype(), bytes: tensor.bytes().to_vec() }
        }
        Some(_) => return Err(node.invalid("its value must be one element")),
        None => FillValue { dtype: DType::F32, bytes: vec![0; 4] },
    };
    let shape = importer.operand(node, 0)?;
    Ok(importer.graph.add(&node.shown(), Op::Fill { value }, &[shape]))
}
