//! Operators of classical machine learning: `Scaler` is arithmetic, and a `ZipMap` at the end of a classifier only
//! names the columns of its probabilities, which are served as a tensor instead.

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::Dimension;
use tract_onnx::pb::type_proto::Value;
use tract_onnx::pb::{GraphProto, NodeProto};

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

/// Replaces every `ZipMap` whose answer is a graph output; its column count comes from the class labels.
pub(super) fn strip_zip_maps(graph: &mut GraphProto) {
    let batch = graph.input.first().and_then(first_axis).unwrap_or_default();
    let last: Vec<usize> = {
        let consumers = super::consumers(graph);
        let is_last = |node: &NodeProto| {
            let output = node.output.first().map(String::as_str).unwrap_or_default();
            node.op_type == "ZipMap"
                && !consumers.contains_key(output)
                && graph.output.iter().any(|value| value.name == output)
        };
        (0..graph.node.len()).filter(|&position| is_last(&graph.node[position])).collect()
    };
    for position in last {
        let zip = &graph.node[position];
        let labels =
            ["classlabels_int64s", "classlabels_strings"].iter().filter_map(|name| proto::attribute(zip, name));
        let classes = labels.map(|labels| labels.ints.len() + labels.strings.len()).max().unwrap_or(0);
        let (input, output) = (zip.input.first().cloned().unwrap_or_default(), zip.output[0].clone());
        graph.node[position] = proto::node("Identity", &[&input], &[&output], vec![]);
        for value in graph.output.iter_mut().filter(|value| value.name == output) {
            let dims = vec![batch.clone(), proto::dim(&classes.to_string())];
            value.r#type = Some(proto::tensor_type(DataType::Float, dims));
        }
    }
}

fn first_axis(value: &tract_onnx::pb::ValueInfoProto) -> Option<Dimension> {
    let Value::TensorType(tensor) = value.r#type.as_ref()?.value.as_ref()?;
    tensor.shape.as_ref()?.dim.first().cloned()
}
