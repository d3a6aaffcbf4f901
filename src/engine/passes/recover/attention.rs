//! Scaled dot-product attention: `softmax(q k' * scale + mask) v`.

use super::{binary, scaled};
use crate::engine::graph::infer::{self, Facts};
use crate::engine::graph::op::{Attention, Binary};
use crate::engine::graph::samples::Samples;
use crate::engine::graph::{Graph, Op, ValueId};

pub(super) fn recover(graph: &mut Graph, samples: &Samples, at: usize) {
    let Some((mut attention, inputs)) = found(graph, samples, at) else { return };
    // What follows may put the heads back inside their tokens.
    let is_swap = |op: &Op| matches!(op, Op::Transpose { axes } if axes[..] == SWAPPED);
    let swaps = graph.sole_taker(at).filter(|taker| is_swap(&graph.nodes[*taker].op));
    attention.heads_inside[3] = swaps.is_some();
    let last = &mut graph.nodes[swaps.unwrap_or(at)];
    last.op = Op::Attention(attention);
    last.inputs = inputs;
}

/// The attention that a product of weights and values ends, with the heads of its result outside.
fn found(graph: &Graph, samples: &Samples, at: usize) -> Option<(Attention, Vec<ValueId>)> {
    let node = &graph.nodes[at];
    if node.op != Op::MatMul {
        return None;
    }
    let (weights, values) = (node.inputs[0], Head::of(graph, node.inputs[1], at));
    let softmax = graph.sole_maker(weights, at)?;
    if !matches!(graph.nodes[softmax].op, Op::Softmax { axis: -1 | 3, log: false }) {
        return None;
    }
    let scores = graph.nodes[softmax].inputs[0];
    let (product, factor, mask) = match binary(graph, scores, softmax, Binary::Add) {
        Some([a, b]) => {
            let sum = graph.sole_maker(scores, softmax)?;
            let masked = |scores: ValueId, mask: ValueId| {
                let (product, factor) = scaled_product(graph, scores, sum)?;
                Some((product, factor, Some(mask)))
            };
            masked(a, b).or_else(|| masked(b, a))?
        }
        None => scaled_product(graph, scores, softmax).map(|(product, factor)| (product, factor, None))?,
    };
    let product = &graph.nodes[product];
    let [queries, keys] = [0, 1].map(|side| Head::of(graph, product.inputs[side], at));
    let inside = |axes: &[usize]| match axes {
        [0, 1, 2, 3] => Some(false),
        axes => (axes == SWAPPED).then_some(true),
    };
    // Keys are `[batch, head, element, token]` in the product.
    let keys_inside = match keys.axes[..] {
        [0, 1, 3, 2] => false,
        [0, 2, 3, 1] => true,
        _ => return None,
    };
    let attention = Attention {
        scale: factor * queries.factor * keys.factor,
        heads_inside: [inside(&queries.axes)?, keys_inside, inside(&values.axes)?, false],
    };
    let inputs: Vec<ValueId> = [queries.base, keys.base, values.base].into_iter().chain(mask).collect();
    let fits = samples.0.iter().all(|sample| {
        let facts: Option<Facts<'_>> = inputs.iter().map(|&input| sample.get(input)).collect();
        let made = facts.and_then(|facts| infer::infer(&Op::Attention(attention), &facts).ok());
        made.is_some_and(|made| Some(&made.shape) == sample.shape(node.output))
    });
    (fits && values.factor.to_bits() == 1f32.to_bits()).then_some((attention, inputs))
}

/// A product that nothing else takes, and what it is multiplied by afterwards.
fn scaled_product(graph: &Graph, scores: ValueId, taker: usize) -> Option<(usize, f32)> {
    let maker = graph.sole_maker(scores, taker)?;
    let (product, factor) = match scaled(graph, scores, taker) {
        Some((product, factor)) => (graph.sole_maker(product, maker)?, factor),
        None => (maker, 1.0),
    };
    (graph.nodes[product].op == Op::MatMul).then_some((product, factor))
}

/// An operand of a product: `base` with axis `i` being its axis `axes[i]`, times a number.
struct Head {
    base: ValueId,
    axes: Vec<usize>,
    factor: f32,
}

impl Head {
    fn of(graph: &Graph, value: ValueId, before: usize) -> Self {
        let mut head = Self { base: value, axes: (0..4).collect(), factor: 1.0 };
        while let Some(maker) = graph.maker(head.base, before) {
            match &graph.nodes[maker].op {
                Op::Transpose { axes } if axes.len() == 4 => {
                    head.axes = head.axes.iter().map(|&axis| axes[axis]).collect();
                    head.base = graph.nodes[maker].inputs[0];
                }
                _ => match scaled(graph, head.base, before) {
                    Some((base, factor)) => {
                        head.factor *= factor;
                        head.base = base;
                    }
                    None => break,
                },
            }
        }
        head
    }
}

/// Heads and tokens in each other's place.
const SWAPPED: [usize; 4] = [0, 2, 1, 3];
