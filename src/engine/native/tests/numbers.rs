//! Functions and reductions of numbers that are no FP32, products of integers, and sums of products over named axes.

use super::typed::{Graph, constant, counted, near, of, some};
use super::*;
use crate::engine::proto::{int, ints, node, text};
use crate::tensor::DType;

/// What an operator of this name computes.
type Function = (&'static str, fn(f64) -> f64);

fn one(
    operator: &str,
    version: i64,
    x: &[Tensor],
    attributes: Vec<crate::proto::onnx::AttributeProto>,
    to: DType,
) -> Vec<f64> {
    ranked(operator, version, x, attributes, (to, x[0].shape().len()))
}

fn ranked(
    operator: &str,
    version: i64,
    x: &[Tensor],
    attributes: Vec<crate::proto::onnx::AttributeProto>,
    (to, rank): (DType, usize),
) -> Vec<f64> {
    let names = &["x", "x1", "x2"][..x.len()];
    let nodes = vec![node(operator, names, &["y"], attributes)];
    Graph { version, nodes, constants: vec![], inputs: x, outputs: &[("y", to, rank)] }.answer()
}

#[test]
fn functions_of_integers_and_doubles() {
    for dtype in [DType::I8, DType::I16, DType::I32, DType::I64] {
        let x = [some(dtype, &[4], &[-3., 0., 2., 100.])];
        assert_eq!(one("Neg", 13, &x, vec![], dtype), [3., 0., -2., -100.]);
        assert_eq!(one("Abs", 13, &x, vec![], dtype), [3., 0., 2., 100.]);
        assert_eq!(one("Sign", 13, &x, vec![], dtype), [-1., 0., 1., 1.]);
        assert_eq!(one("Relu", 14, &x, vec![], dtype), [0., 0., 2., 100.]);
        assert_eq!(one("BitwiseNot", 18, &x, vec![], dtype), [2., -1., -3., -101.]);
    }
    let x = [some(DType::U8, &[3], &[0., 7., 255.])];
    assert_eq!(one("Sign", 13, &x, vec![], DType::U8), [0., 1., 1.]);
    assert_eq!(one("BitwiseNot", 18, &x, vec![], DType::U8), [255., 248., 0.]);
    let elements = [-1.5, 0.25, 3.0];
    let x = [some(DType::F64, &[3], &elements)];
    let functions: [Function; 6] = [
        ("Exp", f64::exp),
        ("Tanh", f64::tanh),
        ("Sqrt", |x| if x < 0.0 { f64::NAN } else { x.sqrt() }),
        ("Sigmoid", |x| 1.0 / (1.0 + (-x).exp())),
        ("Floor", f64::floor),
        ("Softsign", |x| x / (1.0 + x.abs())),
    ];
    for (name, meaning) in functions {
        for (got, x) in one(name, 13, &x, vec![], DType::F64).iter().zip(elements) {
            let expected = meaning(x);
            assert!((got - expected).abs() < 1e-14 || got.is_nan() && expected.is_nan(), "{name} {got} {expected}");
        }
    }
    let refused = |operator: &str, dtype| {
        let nodes = vec![node(operator, &["x"], &["y"], vec![])];
        let (inputs, outputs) = ([some(dtype, &[1], &[1.0])], [("y", dtype, 1)]);
        Graph { version: 18, nodes, constants: vec![], inputs: &inputs, outputs: &outputs }.refused()
    };
    assert!(refused("Neg", DType::U8).ends_with("expected numbers with a sign, got UINT8"));
    assert!(refused("Exp", DType::I32).ends_with("expected floats, got INT32"));
    assert!(refused("Erf", DType::F64).ends_with("expected floats, got FP64"));
}

#[test]
fn powers_of_two_types() {
    let [base, exponent] = [[2., 3., 4.], [3., 2., 0.5]];
    let power = |a, b| one("Pow", 15, &[some(a, &[3], &base), some(b, &[3], &exponent)], vec![], a);
    assert_eq!(power(DType::F32, DType::I64), [8., 9., 1.]);
    assert_eq!(power(DType::I32, DType::F32), [8., 9., 2.]);
    near(&power(DType::F64, DType::F32), &[8., 9., 2.]);
}

#[test]
fn reductions_of_every_type() {
    let x = [some(DType::I32, &[2, 3], &[5., -7., 2., 1., 1., 9.])];
    let along = |name, axes: &[i64]| one(name, 11, &x, vec![ints("axes", axes)], DType::I32);
    assert_eq!(along("ReduceSum", &[1]), [0., 11.]);
    assert_eq!(along("ReduceMax", &[0]), [5., 1., 9.]);
    assert_eq!(along("ReduceMin", &[0, 1]), [-7.]);
    assert_eq!(along("ReduceProd", &[-1]), [-70., 9.]);
    assert_eq!(along("ReduceL1", &[1]), [14., 11.]);
    assert_eq!(along("ReduceSumSquare", &[1]), [78., 83.]);
    let x = [some(DType::Bool, &[2, 2], &[1., 0., 0., 0.])];
    let of_truth = |name| ranked(name, 20, &x, vec![int("keepdims", 0)], (DType::Bool, 0));
    assert_eq!((of_truth("ReduceMax"), of_truth("ReduceMin")), (vec![1.], vec![0.]));
    let x = [some(DType::F64, &[1, 3], &[700., 1000., 999.])];
    let expected = 1000. + (1. + (-1f64).exp() + (-300f64).exp()).ln();
    near(&one("ReduceLogSumExp", 11, &x, vec![], DType::F64), &[expected]);
    // Of nothing: what changes nothing.
    let x = [some(DType::F32, &[2, 0], &[])];
    let of_none = |name| one(name, 11, &x, vec![ints("axes", &[1])], DType::F32);
    assert_eq!((of_none("ReduceSum"), of_none("ReduceProd")), (vec![0.; 2], vec![1.; 2]));
    assert_eq!(of_none("ReduceMax"), [f64::NEG_INFINITY; 2]);
}

#[test]
fn half_floats_stand_at_the_edges() {
    let x = [some(DType::F16, &[3], &[0.5, -2.0, 1000.0])];
    assert_eq!(one("Add", 14, &[x[0].clone(), x[0].clone()], vec![], DType::F16), [1., -4., 2000.]);
    let nodes = vec![
        node("Mul", &["x", "w"], &["a"], vec![]),
        node("Cast", &["a"], &["b"], vec![int("to", 11)]),
        node("Cast", &["b"], &["y"], vec![int("to", 10)]),
    ];
    let constants = vec![constant("w", &some(DType::F16, &[], &[3.0]))];
    let outputs = [("y", DType::F16, 1), ("b", DType::F64, 1)];
    let graph = Graph { version: 17, nodes, constants, inputs: &x, outputs: &outputs };
    let answers = graph.answers();
    assert_eq!((of(&answers[0]), of(&answers[1])), (vec![1.5, -6., 3000.], vec![1.5, -6., 3000.]));
    // A cast rounds, though what follows is computed more precisely.
    let x = [some(DType::F32, &[1], &[1.0 + 1.0 / 4096.0])];
    let nodes = vec![node("Cast", &["x"], &["a"], vec![int("to", 10)]), node("CastLike", &["a", "x"], &["y"], vec![])];
    let outputs = [("y", DType::F32, 1)];
    assert_eq!(Graph { version: 17, nodes, constants: vec![], inputs: &x, outputs: &outputs }.answer(), [1.0]);
}

/// Bytes that look random, as numbers.
fn bytes(count: usize, low: i64) -> Vec<f64> {
    (0..count).map(|at| ((at * 7919 + 13) % 256) as f64 + low as f64).collect()
}

#[test]
fn products_of_integers_are_exact() {
    // Longer than what one float holds the sums of.
    let [rows, depth, columns] = [3, 700, 5];
    for (left, right) in [(DType::U8, DType::I8), (DType::I8, DType::U8), (DType::U8, DType::U8)] {
        let low = |dtype| if dtype == DType::I8 { -128 } else { 0 };
        let (a, b) = (bytes(rows * depth, low(left)), bytes(depth * columns, low(right)));
        let zero = [100.0 + low(left) as f64, 3.0 + low(right) as f64];
        let inputs = [some(left, &[rows, depth], &a), some(right, &[depth, columns], &b)];
        let nodes = vec![node("MatMulInteger", &["x", "x1", "za", "zb"], &["y"], vec![])];
        let column_zeros: Vec<f64> = (0..columns).map(|at| zero[1] + at as f64).collect();
        let constants =
            vec![constant("za", &some(left, &[], &zero[..1])), constant("zb", &some(right, &[columns], &column_zeros))];
        let outputs = [("y", DType::I32, 2)];
        let got = Graph { version: 17, nodes, constants, inputs: &inputs, outputs: &outputs }.answer();
        for (at, got) in got.into_iter().enumerate() {
            let (row, column) = (at / columns, at % columns);
            let product = |k: usize| (a[row * depth + k] - zero[0]) * (b[k * columns + column] - column_zeros[column]);
            assert_eq!(got, (0..depth).map(product).sum::<f64>());
        }
    }
}

#[test]
fn convolutions_of_integers_are_exact() {
    // With sixteen channels and an image this large floats would go through transformed tiles, which round.
    for (channels, out, size) in [(16, 16, 14), (70, 2, 5)] {
        let (a, w) = (bytes(channels * size * size, 0), bytes(out * channels * 9, -128));
        let inputs = [some(DType::U8, &[1, channels, size, size], &a)];
        let nodes = vec![node("ConvInteger", &["x", "w", "zx", "zw"], &["y"], vec![ints("pads", &[1, 1, 1, 1])])];
        let weights = some(DType::I8, &[out, channels, 3, 3], &w);
        let zeros = [constant("zx", &some(DType::U8, &[], &[128.])), constant("zw", &some(DType::I8, &[], &[2.]))];
        let constants = [vec![constant("w", &weights)], zeros.to_vec()].concat();
        let outputs = [("y", DType::I32, 4)];
        let got = Graph { version: 17, nodes, constants, inputs: &inputs, outputs: &outputs }.answer();
        for (at, got) in got.into_iter().enumerate() {
            let (column, line, filter) = (at % size, at / size % size, at / size / size);
            let tap = |channel: usize, tap: usize| {
                let (y, x) = ((line + tap / 3).checked_sub(1)?, (column + tap % 3).checked_sub(1)?);
                let inside = y < size && x < size;
                let weight = w[(filter * channels + channel) * 9 + tap] - 2.0;
                inside.then(|| (a[(channel * size + y) * size + x] - 128.0) * weight)
            };
            let sum: f64 = (0..channels).flat_map(|channel| (0..9).filter_map(move |at| tap(channel, at))).sum();
            assert_eq!(got, sum);
        }
    }
}

#[test]
fn equations_of_named_axes() {
    let a = some(DType::F32, &[2, 3], &counted(6));
    let b = some(DType::F32, &[3, 2], &counted(6));
    let sum = |equation: &str, x: &[Tensor], rank| {
        ranked("Einsum", 12, x, vec![text("equation", equation)], (x[0].dtype(), rank))
    };
    let both = [a.clone(), b];
    assert_eq!(sum("ij,jk->ik", &both, 2), [10., 13., 28., 40.]);
    assert_eq!(sum("ij,jk->ki", &both, 2), [10., 28., 13., 40.]);
    assert_eq!(sum("ij, ji", &both, 0), [50.]);
    assert_eq!(sum("ij,kl->jl", &[a.clone(), a.clone()], 2)[..2], [9., 15.]);
    assert_eq!(
        sum("i,j->ij", &[some(DType::F32, &[2], &[2., 3.]), some(DType::F32, &[2], &[5., 7.])], 2),
        [10., 14., 15., 21.]
    );
    assert_eq!(sum("ij->j", std::slice::from_ref(&a), 1), [3., 5., 7.]);
    assert_eq!(sum("...ii->...i", &[some(DType::I32, &[2, 2, 2], &counted(8))], 2), [0., 3., 4., 7.]);
    let batched = [some(DType::F32, &[2, 1, 2], &counted(4)), some(DType::F32, &[2, 2, 1], &counted(4))];
    assert_eq!(sum("bij,bjk->bik", &batched, 3), [1., 13.]);
    assert_eq!(sum("...ij,...jk->...ik", &batched, 3), [1., 13.]);
    let three =
        [some(DType::F64, &[2], &[1., 2.]), some(DType::F64, &[2], &[3., 4.]), some(DType::F64, &[2], &[5., 6.])];
    assert_eq!(sum("i,i,j->j", &three, 1), [55., 66.]);
}
