//! Operators that ONNX Runtime's optimizer makes of several, and recurrent layers whose weights are computed.

use super::typed::{Graph, constant, near, of, some};
use super::*;
use crate::engine::proto::{int, node, text};
use crate::tensor::DType;

pub(super) fn own(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto { domain: "com.microsoft".into(), ..node(op_type, inputs, outputs, vec![]) }
}

fn numbers(count: usize, seed: usize) -> Vec<f64> {
    made_up(count, seed).into_iter().map(f64::from).collect()
}

/// The second operand is `[4]`, the third and fourth as well.
fn answers(node: NodeProto, outputs: &[(&'static str, DType, usize)]) -> Vec<Vec<f64>> {
    let x = some(DType::F32, &[2, 3, 4], &numbers(24, 1));
    let skip = some(DType::F32, &[2, 3, 4], &numbers(24, 2));
    let constants = [("b", 3), ("c", 4), ("d", 5)];
    let constants = constants.map(|(name, seed)| constant(name, &some(DType::F32, &[4], &numbers(4, seed)))).to_vec();
    let inputs = if node.input.iter().any(|name| name == "x1") { vec![x, skip] } else { vec![x] };
    Graph { version: 17, nodes: vec![node], constants, inputs: &inputs, outputs }.answers().iter().map(of).collect()
}

const ONE: &[(&str, DType, usize)] = &[("y", DType::F32, 3)];

#[test]
fn gelus() {
    let (x, b) = (numbers(24, 1), numbers(4, 3));
    let sum: Vec<f64> = x.iter().enumerate().map(|(at, x)| x + b[at % 4]).collect();
    let tanh = |x: &f64| 0.5 * x * (1.0 + (0.797_884_560_8 * (x + 0.044_715 * x.powi(3))).tanh());
    let check = |node, expected: Vec<f64>, bound: f64| {
        let got = answers(node, ONE).remove(0);
        assert!(got.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= bound), "{got:?} {expected:?}");
    };
    check(own("FastGelu", &["x"], &["y"]), x.iter().map(tanh).collect(), 1e-6);
    check(own("FastGelu", &["x", "b"], &["y"]), sum.iter().map(tanh).collect(), 1e-6);
    let quick = |x: &f64| x / (1.0 + (-1.702 * x).exp());
    check(own("QuickGelu", &["x"], &["y"]), x.iter().map(quick).collect(), 1e-6);
    // The two forms are this close to each other.
    check(own("Gelu", &["x"], &["y"]), x.iter().map(tanh).collect(), 5e-4);
    check(own("BiasGelu", &["x", "b"], &["y"]), sum.iter().map(tanh).collect(), 5e-4);
}

/// Rows with a mean of zero where that is asked for, and a mean of squares of one, scaled and shifted.
fn normal(rows: &[f64], [scale, shift]: [&[f64]; 2], centred: bool, epsilon: f64) -> Vec<f64> {
    let row = |row: &[f64]| {
        let mean = if centred { row.iter().sum::<f64>() / 4.0 } else { 0.0 };
        let root = (row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 4.0 + epsilon).sqrt();
        (0..4).map(|at| (row[at] - mean) / root * scale[at] + shift[at]).collect::<Vec<_>>()
    };
    rows.chunks(4).flat_map(row).collect()
}

#[test]
fn sums_are_normalised() {
    let (x, skip) = (numbers(24, 1), numbers(24, 2));
    let [b, c, d] = [3, 4, 5].map(|seed| numbers(4, seed));
    let sum: Vec<f64> = x.iter().zip(&skip).map(|(x, skip)| x + skip).collect();
    let biased: Vec<f64> = sum.iter().enumerate().map(|(at, x)| x + d[at % 4]).collect();
    let none = [0.0; 4];
    let both = [("y", DType::F32, 3), ("s", DType::F32, 3)];
    let got = answers(own("SkipLayerNormalization", &["x", "x1", "b", "c", "d"], &["y", "", "", "s"]), &both);
    near(&got[0], &normal(&biased, [&b, &c], true, 1e-12));
    near(&got[1], &biased);
    let got = answers(own("SkipLayerNormalization", &["x", "x1", "b"], &["y"]), ONE);
    near(&got[0], &normal(&sum, [&b, &none], true, 1e-12));
    let got = answers(own("SkipSimplifiedLayerNormalization", &["x", "x1", "b", "d"], &["y", "", "", "s"]), &both);
    near(&got[0], &normal(&biased, [&b, &none], false, 1e-12));
    near(&got[1], &biased);
    // In a model of a version that has no such operator.
    let early = Graph {
        version: 13,
        nodes: vec![node("LayerNormalization", &["x", "b", "c"], &["y"], vec![])],
        constants: [("b", &b), ("c", &c)].map(|(name, row)| constant(name, &some(DType::F32, &[4], row))).to_vec(),
        inputs: &[some(DType::F32, &[2, 3, 4], &x)],
        outputs: ONE,
    };
    near(&early.answer(), &normal(&x, [&b, &c], true, 1e-5));
    assert_eq!(early.layers().0, ["Normalize"]);
    let simplified = node("SimplifiedLayerNormalization", &["x", "b"], &["y"], vec![]);
    near(&answers(simplified, ONE)[0], &normal(&x, [&b, &none], false, 1e-5));
    let last = node("SimplifiedLayerNormalization", &["x", "b"], &["y"], vec![int("axis", 2)]);
    near(&answers(last, ONE)[0], &normal(&x, [&b, &none], false, 1e-5));
}

#[test]
fn weights_of_recurrent_layers_may_be_computed() {
    for (kind, gates) in [("LSTM", 4), ("GRU", 3), ("RNN", 1)] {
        let node = node(
            kind,
            &["x", "x1", "x2", "bias"],
            &["y", "h"],
            vec![text("direction", "bidirectional"), int("hidden_size", 5)],
        );
        let random = |shape: &[usize], seed| some(DType::F32, shape, &numbers(shape.iter().product(), seed));
        let given = [random(&[3, 2, 4], 1), random(&[2, gates * 5, 4], 2), random(&[2, gates * 5, 5], 3)];
        let bias = constant("bias", &random(&[2, gates * 10], 4));
        let outputs = &[("y", DType::F32, 4), ("h", DType::F32, 3)];
        let graph = |inputs, constants| Graph { version: 17, nodes: vec![node.clone()], constants, inputs, outputs };
        let computed = graph(&given, vec![bias.clone()]).answers();
        let known = vec![bias, constant("x1", &given[1]), constant("x2", &given[2])];
        // Constant weights are held against the equations elsewhere.
        let packed = graph(&given[..1], known).answers();
        assert_eq!(computed.iter().map(of).collect::<Vec<_>>(), packed.iter().map(of).collect::<Vec<_>>(), "{kind}");
    }
}
