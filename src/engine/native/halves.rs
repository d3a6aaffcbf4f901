//! Which values lie in memory as bf16, where operands are rounded to it anyway: half the bytes, and nothing left to round.
//!
//! Layers say what they can take and make (`Layer::halves`); what inputs and outputs of the model hold stays as declared.
//! Facts of such a value name the type it lies in, so that arenas, chains and layers need to know nothing else.

use super::layers::{First, Halves};
use super::model::Layered;
use crate::engine::graph::infer::Facts;
use crate::engine::graph::samples::Samples;
use crate::engine::graph::{Graph, Node, ValueId};
use crate::tensor::DType;

/// The values of a graph that every layer around them takes and makes as bf16, whatever the extents.
pub(super) fn find(graph: &Graph, layers: &[Layered], samples: &Samples) -> Vec<ValueId> {
    let mut may = vec![false; graph.value_count()];
    for node in &graph.nodes {
        let fact = samples.0[0].get(node.output);
        may[node.output.index()] = fact.is_some_and(|fact| fact.dtype == DType::F32 && fact.value.is_none());
    }
    graph.outputs.iter().for_each(|output| may[output.index()] = false);
    let of_layers: Vec<Halves> =
        graph.nodes.iter().zip(layers).map(|(node, layered)| said(node, layered, samples)).collect();
    // What one value cannot be others depend on.
    loop {
        let before = may.clone();
        for ((node, layered), halves) in graph.nodes.iter().zip(layers).zip(&of_layers) {
            settle(node, layered, halves, &mut may);
        }
        if may == before {
            break;
        }
    }
    graph.nodes.iter().map(|node| node.output).filter(|output| may[output.index()]).collect()
}

/// What the layer of a node says for operands like those of both samples, if that is the same.
fn said(node: &Node, layered: &Layered, samples: &Samples) -> Halves {
    if node.op.only_reshapes() {
        return Halves::ALIKE;
    }
    let [one, other] = samples.0.each_ref().map(|sample| {
        let facts: Option<Facts<'_>> = node.inputs.iter().map(|&input| sample.get(input)).collect();
        facts.map_or(Halves::NONE, |facts| layered.layer.halves(&facts))
    });
    if one == other { one } else { Halves::NONE }
}

fn settle(node: &Node, layered: &Layered, halves: &Halves, may: &mut [bool]) {
    let output = node.output.index();
    may[output] &= halves.output;
    // Extents and the like.
    let others = node.inputs.iter().filter(|input| !layered.operands.contains(input));
    others.for_each(|input| may[input.index()] = false);
    for (at, operand) in layered.operands.iter().enumerate() {
        let taken = match at {
            0 => halves.first,
            _ if at <= halves.alike => First::AsOutput,
            _ => First::Floats,
        };
        match taken {
            First::Floats => may[operand.index()] = false,
            First::Either => {}
            First::AsOutput => {
                let both = may[operand.index()] && may[output];
                (may[operand.index()], may[output]) = (both, both);
            }
        }
    }
}
