//! Makes and reads the small pieces of ONNX messages: nodes, attributes, constants, declarations.

use crate::proto::onnx::attribute_proto::AttributeType;
use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::onnx::tensor_shape_proto::{Dimension, dimension};
use crate::proto::onnx::{AttributeProto, NodeProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto};

#[cfg(test)]
pub(super) use made::{floats, int, ints, longs, text, value, value_free};

/// A node of the standard domain, named after its first output.
pub(super) fn node(op_type: &str, inputs: &[&str], outputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op_type.into(),
        name: outputs.first().map(|name| (*name).to_owned()).unwrap_or_default(),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: outputs.iter().map(|name| (*name).to_owned()).collect(),
        attribute: attributes,
        ..NodeProto::default()
    }
}

pub(super) fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Float as i32, f, ..AttributeProto::default() }
}

pub(super) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

/// An operator with its domain, where that is not the standard one, and the node's name.
pub(super) fn shown(node: &NodeProto) -> String {
    let name =
        if node.name.is_empty() { node.output.first().map(String::as_str).unwrap_or_default() } else { &node.name };
    match node.domain.as_str() {
        "" | "ai.onnx" => format!("{} {name}", node.op_type),
        domain => format!("{domain}:{} {name}", node.op_type),
    }
}

pub(super) fn tensor_type(data_type: DataType, dims: Vec<Dimension>) -> TypeProto {
    let shape = Some(TensorShapeProto { dim: dims });
    let tensor = type_proto::Tensor { elem_type: data_type as i32, shape };
    TypeProto { value: Some(type_proto::Value::TensorType(tensor)) }
}

/// An axis: a number is a fixed extent, anything else the name of a free one.
pub(super) fn dim(text: &str) -> Dimension {
    let value = match text.parse::<u32>() {
        Ok(extent) => dimension::Value::DimValue(extent.into()),
        Err(_) => dimension::Value::DimParam(text.to_owned()),
    };
    Dimension { value: Some(value) }
}

/// A declaration without a shape.
pub(super) fn untold(name: &str, data_type: DataType) -> ValueInfoProto {
    let tensor = type_proto::Tensor { elem_type: data_type as i32, shape: None };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)) }) }
}

/// A declaration without a type.
pub(super) fn unknown(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: name.into(), r#type: None }
}

/// What only tests make.
#[cfg(test)]
mod made {
    use super::{AttributeType, dim, tensor_type};
    use crate::proto::onnx::tensor_proto::DataType;
    use crate::proto::onnx::{AttributeProto, TensorProto, ValueInfoProto};

    pub(in crate::engine) fn int(name: &str, i: i64) -> AttributeProto {
        AttributeProto { name: name.into(), r#type: AttributeType::Int as i32, i, ..AttributeProto::default() }
    }

    pub(in crate::engine) fn ints(name: &str, ints: &[i64]) -> AttributeProto {
        let r#type = AttributeType::Ints as i32;
        AttributeProto { name: name.into(), r#type, ints: ints.to_vec(), ..AttributeProto::default() }
    }

    pub(in crate::engine) fn text(name: &str, text: &str) -> AttributeProto {
        let r#type = AttributeType::String as i32;
        AttributeProto { name: name.into(), r#type, s: text.as_bytes().to_vec(), ..AttributeProto::default() }
    }

    pub(in crate::engine) fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
        let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        TensorProto {
            name: name.into(),
            dims: dims.to_vec(),
            data_type: DataType::Float as i32,
            raw_data,
            ..Default::default()
        }
    }

    /// A declaration with named free axes.
    pub(in crate::engine) fn value_free(name: &str, data_type: DataType, dims: &[&str]) -> ValueInfoProto {
        let r#type = Some(tensor_type(data_type, dims.iter().map(|text| dim(text)).collect()));
        ValueInfoProto { name: name.into(), r#type }
    }

    /// A declaration with fixed axes.
    pub(in crate::engine) fn value(name: &str, data_type: DataType, dims: &[i64]) -> ValueInfoProto {
        let dims: Vec<String> = dims.iter().map(ToString::to_string).collect();
        value_free(name, data_type, &dims.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub(in crate::engine) fn longs(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
        let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        TensorProto {
            name: name.into(),
            dims: dims.to_vec(),
            data_type: DataType::Int64 as i32,
            raw_data,
            ..Default::default()
        }
    }
}
