//! Operators without a row: another engine may have them.

use super::node::Source;
use super::{Importer, dtype};
use crate::engine::graph::ValueId;
use crate::engine::graph::control::Several;
use crate::engine::graph::foreign::Foreign;
use crate::engine::{EngineError, proto, tract};
use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::onnx::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto};
use crate::tensor::DType;

/// The values of a node that natively nothing is known of; `refused` says so.
pub(super) fn run(
    importer: &mut Importer,
    node: &Source<'_>,
    refused: EngineError,
) -> Result<Vec<ValueId>, EngineError> {
    let Some(settings) = importer.foreign.clone() else { return Err(refused) };
    // tract tells some operators of one family apart by their nodes' names.
    let alone = NodeProto { name: node.proto.op_type.clone(), ..node.proto.clone() };
    let mut graph = GraphProto { node: vec![alone], ..GraphProto::default() };
    let mut operands = Vec::new();
    for name in node.proto.input.iter().filter(|name| !name.is_empty()) {
        let value = importer.value(name)?;
        if graph.input.iter().any(|input| input.name == *name) {
            continue;
        }
        if let Some(constant) = importer.graph.constant(value) {
            let dims = constant.shape().iter().map(|extent| i64::try_from(*extent).unwrap_or(i64::MAX)).collect();
            let data_type = data_type(constant.dtype()) as i32;
            let raw_data = constant.bytes().clone();
            graph.initializer.push(TensorProto { name: name.clone(), dims, data_type, raw_data, ..Default::default() });
        } else {
            graph.input.push(proto::untold(name, data_type(importer.dtype(value))));
            operands.push(value);
        }
    }
    graph.output = node.proto.output.iter().filter(|name| !name.is_empty()).map(|name| proto::unknown(name)).collect();
    let versions = importer.versions.iter();
    let opset_import =
        versions.map(|(domain, version)| OperatorSetIdProto { domain: domain.clone(), version: *version }).collect();
    let model = ModelProto { ir_version: 8, opset_import, graph: Some(graph), ..ModelProto::default() };
    let program = tract::program(&model, settings).map_err(|problem| match refused {
        EngineError::UnsupportedOperator { operator, reason } => {
            EngineError::UnsupportedOperator { operator, reason: format!("{reason}, and {problem}") }
        }
        other => other,
    })?;
    let dtypes = program.dtypes().to_vec();
    let parts = importer.parts(node, Several::Foreign(Foreign(program)), &operands, &dtypes);
    let mut parts = parts.into_iter();
    // Outputs that nobody asked for have no value; any other stands in their place and is given no name.
    let taken = node.proto.output.iter().map(|name| if name.is_empty() { None } else { parts.next() });
    let taken: Vec<Option<ValueId>> = taken.collect();
    let any = taken.iter().flatten().next().copied();
    Ok(taken.into_iter().filter_map(|value| value.or(any)).collect())
}

/// The standard's number of an element type.
fn data_type(of: DType) -> DataType {
    let all = (1..=DataType::Bfloat16 as i32).filter(|number| dtype(*number) == Some(of));
    all.filter_map(|number| DataType::try_from(number).ok()).next().unwrap_or(DataType::Undefined)
}
