//! Layers of FP32 alone, on FP64: what they answer is what those do, and as precise as FP64 is.

use super::typed::{Graph, constant, near, of, some};
use super::*;
use crate::engine::proto::{float, int, node};
use crate::tensor::DType;

/// The first operand is an input, the others are constants, but for a product's second where it is named so.
fn answers(call: &NodeProto, shapes: &[&[usize]], dtype: DType) -> Vec<f64> {
    let operand = |(seed, shape): (usize, &&[usize])| {
        let numbers = made_up(shape.iter().product(), seed + 1).into_iter().map(|x| f64::from(x.abs()));
        some(dtype, shape, &numbers.collect::<Vec<_>>())
    };
    let operands: Vec<Tensor> = shapes.iter().enumerate().map(operand).collect();
    let is_input = |at: &usize| call.input[*at].starts_with('x');
    let inputs: Vec<Tensor> = (0..operands.len()).filter(is_input).map(|at| operands[at].clone()).collect();
    let constants = (0..operands.len()).filter(|at| !is_input(at)).map(|at| constant(&call.input[at], &operands[at]));
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap();
    let outputs = [("y", dtype, rank)];
    let (nodes, constants) = (vec![call.clone()], constants.collect());
    let answer = Graph { version: 21, nodes, constants, inputs: &inputs, outputs: &outputs }.answers().remove(0);
    assert_eq!(answer.dtype(), dtype);
    of(&answer)
}

#[test]
fn they_answer_as_those_of_fp32() {
    let gemm = || vec![int("transB", 1), float("alpha", 0.5), float("beta", 2.0)];
    let channels: &[&[usize]] = &[&[2, 4, 5], &[4], &[4]];
    let rows: &[&[usize]] = &[&[2, 4, 5], &[5], &[5]];
    for (call, shapes) in [
        (node("MatMul", &["x", "x1"], &["y"], vec![]), &[&[2, 3, 4][..], &[2, 4, 5]][..]),
        (node("MatMul", &["x", "b"], &["y"], vec![]), &[&[2, 3, 4], &[4, 5]]),
        (node("MatMul", &["x", "b"], &["y"], vec![]), &[&[2, 3, 4], &[4]]),
        (node("MatMul", &["x", "x1"], &["y"], vec![]), &[&[4], &[2, 4, 3]]),
        (node("Gemm", &["x", "b", "c"], &["y"], gemm()), &[&[3, 4], &[5, 4], &[5]]),
        (node("Softmax", &["x"], &["y"], vec![int("axis", 1)]), &[&[2, 4, 5]]),
        (node("LogSoftmax", &["x"], &["y"], vec![]), &[&[2, 4, 5]]),
        (node("LayerNormalization", &["x", "b", "c"], &["y"], vec![]), rows),
        (node("InstanceNormalization", &["x", "b", "c"], &["y"], vec![]), channels),
        (node("GroupNormalization", &["x", "b", "c"], &["y"], vec![int("num_groups", 2)]), channels),
        (node("BatchNormalization", &["x", "b", "c", "d", "e"], &["y"], vec![]), &[&[2, 4, 5], &[4], &[4], &[4], &[4]]),
    ] {
        let [narrow, wide] = [DType::F32, DType::F64].map(|dtype| answers(&call, shapes, dtype));
        near(&wide, &narrow);
    }
}

#[test]
fn products_are_of_any_numbers() {
    let call = node("MatMul", &["x", "x1"], &["y"], vec![]);
    let (inputs, outputs) =
        ([[2, 3], [3, 2]].map(|shape| some(DType::I32, &shape, &[1., 2., 3., -4., 5., 6.])), [("y", DType::I32, 2)]);
    let graph = Graph { version: 17, nodes: vec![call], constants: vec![], inputs: &inputs, outputs: &outputs };
    assert_eq!(graph.answer(), [22., 12., 41., 8.]);
    let call = node("Softmax", &["x"], &["y"], vec![]);
    let (inputs, outputs) = ([some(DType::F64, &[1, 2], &[0.0, 1e-9])], [("y", DType::F64, 2)]);
    let graph = Graph { version: 17, nodes: vec![call], constants: vec![], inputs: &inputs, outputs: &outputs };
    assert!((graph.answer()[1] - 0.5 - 2.5e-10).abs() < 1e-13);
}
