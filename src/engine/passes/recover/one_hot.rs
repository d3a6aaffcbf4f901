//! Rows of a table that were written as products with vectors of one 1.

use kinglet_kernels::Activation;

use crate::engine::graph::op::{Binary, Compare, Linear};
use crate::engine::graph::samples::Samples;
use crate::engine::graph::{
    Graph, Node, Op, ValueId, floats, integers, tensor_of, tensor_of_integers, tensor_of_number,
};
use crate::tensor::DType;

/// `(index == [0, 1, ..]) as float` times constant weights: the row of that index, or zeros where there is none.
pub(super) fn recover(graph: &mut Graph, samples: &Samples, at: usize) {
    let Some((index, dtype)) = index(graph, samples, at) else { return };
    let Some(weights) = graph.constant(graph.nodes[at].inputs[1]) else { return };
    let (&[depth, width], Some(mut rows)) = (&weights.shape()[..], floats(weights)) else { return };
    if rows.iter().any(|weight| !weight.is_finite()) {
        return;
    }
    // The last row is both what lies beyond the table and, counted from the end, what lies before it.
    rows.resize((depth + 1) * width, 0.0);
    let name = graph.nodes[at].name.clone();
    let table = graph.add_constant(format!("{name} table"), tensor_of(&[depth + 1, width], &rows));
    let bounds = [-1.0, depth as f64].map(|bound| tensor_of_number(dtype, bound));
    let [least, greatest] = bounds.map(|bound| graph.add_constant(format!("{name} bound"), bound));
    let axes = graph.add_constant(format!("{name} axes"), tensor_of_integers(&[1], &[-1]));
    let mut place = at;
    let mut before = |graph: &mut Graph, op: Op, inputs: [ValueId; 2]| {
        let output = graph.add_value(&name);
        graph.nodes.insert(place, Node { name: name.clone(), op, inputs: inputs.to_vec(), output });
        place += 1;
        output
    };
    let bounded = before(graph, Op::Binary(Binary::Max), [index, least]);
    let bounded = before(graph, Op::Binary(Binary::Min), [bounded, greatest]);
    let bounded = before(graph, Op::Squeeze, [bounded, axes]);
    graph.nodes[place].op = Op::Gather { axis: 0 };
    graph.nodes[place].inputs = vec![table, bounded];
}

/// What is compared with all places of the rows of weights, and its type.
fn index(graph: &Graph, samples: &Samples, at: usize) -> Option<(ValueId, DType)> {
    let node = &graph.nodes[at];
    let plain = Linear { bias: false, residual: false, activation: Activation::None };
    if node.op != Op::Linear(plain) {
        return None;
    }
    let cast = &graph.nodes[graph.maker(node.inputs[0], at)?];
    let compared = &graph.nodes[graph.maker(*cast.inputs.first()?, at)?];
    if cast.op != (Op::Cast { to: DType::F32 }) || compared.op != Op::Compare(Compare::Equal) {
        return None;
    }
    let places = graph.constant(compared.inputs[1])?;
    let index = compared.inputs[0];
    let shape = samples.fixed(index)?;
    let counted = integers(places)?.into_iter().eq((0..).take(graph.constant(node.inputs[1])?.shape()[0]));
    let in_a_row =
        places.shape().iter().rev().skip(1).all(|extent| *extent == 1) && places.shape().len() <= shape.len();
    let dtype = samples.0[0].get(index)?.dtype;
    let is_index = matches!(dtype, DType::I32 | DType::I64) && shape.last() == Some(&Some(1));
    (counted && in_a_row && is_index).then_some((index, dtype))
}
