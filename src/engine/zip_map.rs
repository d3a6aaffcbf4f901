//! A `ZipMap` at the end of a classifier only names the columns of its scores. No wire has maps, so that the scores are
//! served as a tensor instead.

use super::proto;
use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::onnx::tensor_shape_proto::Dimension;
use crate::proto::onnx::type_proto::Value;
use crate::proto::onnx::{GraphProto, NodeProto};

/// Replaces every `ZipMap` whose answer is a graph output; its column count comes from the class labels.
pub(super) fn strip(graph: &mut GraphProto) {
    let batch = graph.input.first().and_then(first_axis).unwrap_or_default();
    let last: Vec<usize> = {
        let is_taken = |name: &str| graph.node.iter().any(|node| node.input.iter().any(|input| input == name));
        let is_last = |node: &NodeProto| {
            let output = node.output.first().map(String::as_str).unwrap_or_default();
            node.op_type == "ZipMap" && !is_taken(output) && graph.output.iter().any(|value| value.name == output)
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

fn first_axis(value: &crate::proto::onnx::ValueInfoProto) -> Option<Dimension> {
    let Value::TensorType(tensor) = value.r#type.as_ref()?.value.as_ref()? else { return None };
    tensor.shape.as_ref()?.dim.first().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::proto::{ints, node, value_free};
    use crate::engine::testing::model;
    use crate::proto::onnx::ValueInfoProto;

    #[test]
    fn a_tensor_is_left() {
        let zip = node("ZipMap", &["p"], &["y"], vec![ints("classlabels_int64s", &[5, 7])]);
        let nodes = vec![node("Softmax", &["x"], &["p"], vec![]), zip];
        let x = value_free("x", DataType::Float, &["rows", "2"]);
        // A sequence of maps: its type is unknown to the decoder.
        let y = ValueInfoProto { name: "y".into(), ..Default::default() };
        let mut graph = model(vec![x], nodes, vec![y], vec![]).graph.unwrap();
        strip(&mut graph);
        assert_eq!(graph.node[1].op_type, "Identity");
        assert_eq!(graph.output, [value_free("y", DataType::Float, &["rows", "2"])]);
    }
}
