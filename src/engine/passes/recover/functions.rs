//! GELU, SiLU and HardSwish.

use std::f32::consts::{FRAC_1_SQRT_2, PI};

use kinglet_kernels::Activation;
use kinglet_kernels::f32_functions::Function;

use super::{binary, function, is_near, number, scaled};
use crate::engine::graph::op::Binary;
use crate::engine::graph::{Graph, Op, ValueId};

pub(super) fn recover(graph: &mut Graph, at: usize) {
    let node = &graph.nodes[at];
    let found = match node.op {
        Op::Binary(Binary::Mul | Binary::Div) => gelu(graph, at)
            .map(|x| (x, Activation::Function(Function::Gelu)))
            .or_else(|| gelu_tanh(graph, at).map(|x| (x, Activation::Function(Function::GeluTanh))))
            .or_else(|| hard_swish(graph, at).map(|x| (x, Activation::HardSwish)))
            .or_else(|| gated(graph, at)),
        _ => None,
    };
    if let Some((x, activation)) = found {
        graph.nodes[at].op = Op::Activation(activation);
        graph.nodes[at].inputs = vec![x];
    }
}

/// `x * sigmoid(x)`, and `x` times its hard sigmoid of slope one sixth.
fn gated(graph: &Graph, at: usize) -> Option<(ValueId, Activation)> {
    let node = &graph.nodes[at];
    if node.op != Op::Binary(Binary::Mul) {
        return None;
    }
    let by = |x: ValueId, gate: ValueId| {
        let maker = &graph.nodes[graph.maker(gate, at)?];
        let activation = match maker.op {
            Op::Activation(Activation::Function(Function::Sigmoid)) => Activation::Function(Function::Silu),
            Op::Activation(Activation::HardSigmoid { alpha, beta })
                if is_near(alpha, 1.0 / 6.0) && is_near(beta, 0.5) =>
            {
                Activation::HardSwish
            }
            _ => return None,
        };
        (maker.inputs[0] == x).then_some((x, activation))
    };
    let [a, b] = [node.inputs[0], node.inputs[1]];
    by(a, b).or_else(|| by(b, a))
}

/// `x * (1 + erf(x / sqrt(2))) / 2`, the products in any order.
fn gelu(graph: &Graph, at: usize) -> Option<ValueId> {
    let (factors, factor) = factors(graph, at)?;
    let raised = |value: ValueId| {
        let [a, b] = binary(graph, value, at, Binary::Add)?;
        let (step, _) = either(a, b, |one| number(graph, one).filter(|one| is_near(*one, 1.0)))?;
        let (x, scale) = scaled(graph, function(graph, step, at, Function::Erf)?, at)?;
        is_near(scale, FRAC_1_SQRT_2).then_some(x)
    };
    let [a, b] = factors;
    let (x, inner) = either(a, b, raised)?;
    (x == inner && is_near(factor, 0.5)).then_some(x)
}

/// `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x))) / 2`, the products in any order.
fn gelu_tanh(graph: &Graph, at: usize) -> Option<ValueId> {
    let ([a, b], factor) = factors(graph, at)?;
    let raised = |value: ValueId| {
        let [a, b] = binary(graph, value, at, Binary::Add)?;
        let (step, _) = either(a, b, |one| number(graph, one).filter(|one| is_near(*one, 1.0)))?;
        scaled(graph, function(graph, step, at, Function::Tanh)?, at)
    };
    let (x, (sum, scale)) = either(a, b, raised)?;
    let [a, b] = binary(graph, sum, at, Binary::Add)?;
    let cubic = |value: ValueId| power(graph, value, at, x).filter(|(power, _)| *power == 3);
    let (other, (_, of_cube)) = either(a, b, cubic)?;
    let is_it = is_near(factor, 0.5) && is_near(scale, (2.0 / PI).sqrt()) && is_near(of_cube, 0.044_715);
    (other == x && is_it).then_some(x)
}

/// The power of `x` that a value is, and what it is multiplied with.
fn power(graph: &Graph, value: ValueId, before: usize, x: ValueId) -> Option<(u32, f32)> {
    if value == x {
        return Some((1, 1.0));
    }
    if let Some((value, factor)) = scaled(graph, value, before) {
        let (power, other) = power(graph, value, before, x)?;
        return Some((power, factor * other));
    }
    if let Some([base, exponent]) = binary(graph, value, before, Binary::Pow) {
        let exponent = number(graph, exponent)?;
        return (base == x && is_near(exponent, 3.0)).then_some((3, 1.0));
    }
    let [a, b] = binary(graph, value, before, Binary::Mul)?;
    let ((a, of_a), (b, of_b)) = (power(graph, a, before, x)?, power(graph, b, before, x)?);
    Some((a + b, of_a * of_b))
}

/// `x * clip(x + 3, 0, 6) / 6`, the products in any order.
fn hard_swish(graph: &Graph, at: usize) -> Option<ValueId> {
    let ([a, b], factor) = factors(graph, at)?;
    let clipped = |value: ValueId| {
        let node = &graph.nodes[graph.maker(value, at)?];
        if node.op != Op::Activation(Activation::Clip { low: 0.0, high: 6.0 }) {
            return None;
        }
        let [a, b] = binary(graph, node.inputs[0], at, Binary::Add)?;
        Some(either(a, b, |three| number(graph, three).filter(|three| is_near(*three, 3.0)))?.0)
    };
    let (x, inner) = either(a, b, clipped)?;
    (x == inner && is_near(factor, 1.0 / 6.0)).then_some(x)
}

/// A product of two values and a number, in any order.
fn factors(graph: &Graph, at: usize) -> Option<([ValueId; 2], f32)> {
    let output = graph.nodes[at].output;
    if let Some((product, factor)) = scaled(graph, output, at + 1) {
        return Some((binary(graph, product, at, Binary::Mul)?, factor));
    }
    let [a, b] = binary(graph, output, at + 1, Binary::Mul)?;
    let (other, (value, factor)) = either(a, b, |value| scaled(graph, value, at))?;
    Some(([value, other], factor))
}

/// Of two values the one that is not `found`, and what is found of the other.
fn either<T>(a: ValueId, b: ValueId, found: impl Fn(ValueId) -> Option<T>) -> Option<(ValueId, T)> {
    found(b).map(|of_b| (a, of_b)).or_else(|| found(a).map(|of_a| (b, of_a)))
}
