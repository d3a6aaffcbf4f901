//! Small ONNX files for tests that start the binary.

use std::fs;
use std::path::Path;

use kinglet::proto::onnx::tensor_proto::DataType;
use kinglet::proto::onnx::tensor_shape_proto::{Dimension, dimension::Value as Extent};
use kinglet::proto::onnx::type_proto::{Tensor, Value};
use kinglet::proto::onnx::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto,
};
use prost::Message;

/// Writes a model of one operator from `input` to `y`, both floats of these extents: a number, or a free axis' name.
pub(crate) fn write(path: &Path, operator: &str, input: &str, dims: &[&str]) {
    let node = NodeProto {
        name: format!("the {operator}"),
        op_type: operator.into(),
        input: vec![input.into()],
        output: vec!["y".into()],
        ..NodeProto::default()
    };
    let graph = GraphProto {
        name: "g".into(),
        node: vec![node],
        input: vec![tensor(input, dims)],
        output: vec![tensor("y", dims)],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
    let model = ModelProto { ir_version: 8, graph: Some(graph), opset_import: vec![opset], ..ModelProto::default() };
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, model.encode_to_vec()).unwrap();
}

fn tensor(name: &str, dims: &[&str]) -> ValueInfoProto {
    let extent = |dim: &&str| match dim.parse() {
        Ok(extent) => Extent::DimValue(extent),
        Err(_) => Extent::DimParam((*dim).to_owned()),
    };
    let dim = dims.iter().map(|dim| Dimension { value: Some(extent(dim)) }).collect();
    let shape = Some(TensorShapeProto { dim });
    let value = Value::TensorType(Tensor { elem_type: DataType::Float as i32, shape });
    let r#type = Some(TypeProto { value: Some(value) });
    ValueInfoProto { name: name.into(), r#type }
}
