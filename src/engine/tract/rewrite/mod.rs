//! Changes to an ONNX graph before tract sees it: operators tract lacks become ones it has, and patterns it is known to
//! answer wrongly are broken up. Every rewrite keeps the values of the graph's outputs.

mod classifier;
mod dequantize;
mod integer_product;
mod sparse;

use std::collections::HashMap;

use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use crate::engine::EngineError;

/// Applies every rewrite. `bytes_max` bounds what dense copies of sparse tensors may take.
pub(super) fn apply(graph: &mut GraphProto, bytes_max: u64) -> Result<(), EngineError> {
    // Facts of intermediate values only get in the way of concrete shapes.
    graph.value_info.clear();
    sparse::densify(graph, bytes_max)?;
    replace_nodes(graph, &classifier::scaler);
    replace_nodes(graph, &integer_product::qgemm);
    replace_nodes(graph, &integer_product::matrix_product);
    dequantize::split(graph);
    Ok(())
}

/// New nodes in place of one, or `None` to keep it.
struct Replacement {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
}

fn replace_nodes(graph: &mut GraphProto, rewrite: &dyn Fn(&NodeProto) -> Option<Replacement>) {
    let mut nodes = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        match rewrite(&node) {
            Some(replacement) => {
                nodes.extend(replacement.nodes);
                graph.initializer.extend(replacement.constants);
            }
            None => nodes.push(node),
        }
    }
    graph.node = nodes;
}

/// The nodes that read each value, by position.
fn consumers(graph: &GraphProto) -> HashMap<&str, Vec<usize>> {
    let mut consumers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (position, node) in graph.node.iter().enumerate() {
        for input in node.input.iter().filter(|input| !input.is_empty()) {
            consumers.entry(input).or_default().push(position);
        }
    }
    consumers
}

/// Values that are constant: initializers and `Constant` nodes.
pub(super) fn constants(graph: &GraphProto) -> HashMap<&str, &TensorProto> {
    let nodes = graph.node.iter().filter(|node| node.op_type == "Constant").filter_map(|node| {
        let value = node.attribute.iter().find_map(|attribute| attribute.t.as_ref())?;
        Some((node.output.first()?.as_str(), value))
    });
    graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).chain(nodes).collect()
}
