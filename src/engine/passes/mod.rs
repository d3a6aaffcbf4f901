//! Graph to graph, answers unchanged: what runs less often, moves less, or is done while a result is in registers.

mod affine;
mod constants;
mod dead;
mod dynamic;
mod epilogues;
mod integer;
mod layout;
mod quantization;
mod recover;
mod tables;

use super::graph::samples::{Evaluate, Inputs, Others, Samples, Stopped};
use super::graph::{Graph, Node, ValueId, floats_in};
use crate::tensor::Tensor;

/// Runs all passes. `evaluate` computes a node of a graph from constants.
pub(super) fn run(graph: Graph, inputs: &Inputs<'_>, evaluate: &EvaluateIn) -> Result<Graph, Stopped> {
    let mut graph = graph;
    let samples = |graph: &Graph| {
        let of_graph: Evaluate<'_> = &|node, operands| evaluate(graph, node, operands);
        Samples::of(graph, inputs, Others::Different, of_graph)
    };
    // Conversions of what has become codes.
    graph.drop_dead();
    constants::fold(&mut graph, evaluate);
    graph.drop_dead();
    quantization::settle(&mut graph);
    integer::scale_products(&mut graph);
    graph.drop_dead();
    let known = samples(&graph)?;
    recover::recover(&mut graph, &known);
    graph.drop_dead();
    let known = samples(&graph)?;
    layout::push_transpositions(&mut graph, &known);
    graph.drop_dead();
    constants::fold(&mut graph, evaluate);
    integer::scale_convolutions(&mut graph);
    graph.drop_dead();
    let mut known = samples(&graph)?;
    // Weights that nobody else holds are changed where they lie.
    known.forget_constants(&graph);
    affine::fold(&mut graph, &known);
    graph.drop_dead();
    dead::remove(&mut graph);
    graph.drop_dead();
    let known = samples(&graph)?;
    quantization::fuse(&mut graph, &known, evaluate);
    graph.drop_dead();
    dynamic::fuse(&mut graph, &known);
    graph.drop_dead();
    let known = samples(&graph)?;
    epilogues::fuse(&mut graph, &known);
    graph.drop_dead();
    Ok(graph)
}

/// A constant of one element of FP32.
fn number(graph: &Graph, value: ValueId) -> Option<f32> {
    match *floats_in(graph.constant(value)?)? {
        [number] => Some(number),
        _ => None,
    }
}

/// Computes a node of a graph from constants, or cannot.
pub(super) type EvaluateIn = dyn Fn(&Graph, &Node, &[&Tensor]) -> Option<Tensor>;
