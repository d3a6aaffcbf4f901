//! Operators of classical machine learning: `Scaler` is arithmetic.

use tract_onnx::pb::NodeProto;
use tract_onnx::pb::tensor_proto::DataType;

use super::Replacement;
use crate::engine::proto;

/// y = (x - offset) * scale, in floats.
pub(super) fn scaler(node: &NodeProto) -> Option<Replacement> {
    if node.op_type != "Scaler" || node.domain != "ai.onnx.ml" {
        return None;
    }
    let (input, output) = (node.input.first()?, node.output.first()?);
    let constant = |name: &str| {
        let values = proto::attribute(node, name).map(|attribute| attribute.floats.clone()).unwrap_or_default();
        let length = i64::try_from(values.len()).ok()?;
        // One value stands for all columns.
        let dims = if length == 1 { vec![] } else { vec![length] };
        Some(proto::floats(&format!("{output}.{name}"), &dims, &values))
    };
    let (offset, scale) = (constant("offset")?, constant("scale")?);
    let (cast, centred) = (format!("{output}.float"), format!("{output}.centred"));
    let nodes = vec![
        proto::node("Cast", &[input], &[&cast], vec![proto::int("to", DataType::Float as i64)]),
        proto::node("Sub", &[&cast, &offset.name], &[&centred], vec![]),
        proto::node("Mul", &[&centred, &scale.name], &[output], vec![]),
    ];
    Some(Replacement { nodes, constants: vec![offset, scale] })
}
