//! Rewritten graphs give the values that the original operators are specified to give.

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, NodeProto, SparseTensorProto, TensorProto};

use super::*;
use crate::engine::proto::{floats, int, longs, node, value_free};
use crate::engine::testing::model;

fn float_list(name: &str, values: &[f32]) -> AttributeProto {
    let r#type = AttributeType::Floats as i32;
    AttributeProto { name: name.into(), r#type, floats: values.to_vec(), ..AttributeProto::default() }
}

fn classical(mut node: NodeProto) -> NodeProto {
    node.domain = "ai.onnx.ml".into();
    node
}

fn bytes(name: &str, data_type: DataType, dims: &[i64], values: &[u8]) -> TensorProto {
    let (dims, raw_data) = (dims.to_vec(), values.to_vec());
    TensorProto { name: name.into(), dims, data_type: data_type as i32, raw_data, ..TensorProto::default() }
}

/// `x` of rows of `width` through some nodes to the float output `y`.
fn run(nodes: Vec<NodeProto>, constants: Vec<TensorProto>, width: usize, input: &[f32]) -> Vec<f32> {
    let x = value_free("x", DataType::Float, &["n", &width.to_string()]);
    let model = model(vec![x], nodes, vec![value_free("y", DataType::Float, &["n", "m"])], constants);
    let entry = vec![tensor(&[input.len() / width, width], input)];
    values(&answer(plan(model, &options()).unwrap(), entry).unwrap()[0])
}

#[test]
fn scaler() {
    let scaler = |offset: &[f32], scale: &[f32]| {
        let attributes = vec![float_list("offset", offset), float_list("scale", scale)];
        run(vec![classical(node("Scaler", &["x"], &["y"], attributes))], vec![], 2, &[1., 2., 3., 4.])
    };
    assert_eq!(scaler(&[1., 2.], &[2., 10.]), [0., 0., 4., 20.]);
    assert_eq!(scaler(&[1.], &[2.]), [0., 2., 4., 6.]);
}

#[test]
fn normalizer() {
    let normalizer = |norm: &str| {
        let r#type = AttributeType::String as i32;
        let norm = AttributeProto { name: "norm".into(), r#type, s: norm.into(), ..AttributeProto::default() };
        run(vec![classical(node("Normalizer", &["x"], &["y"], vec![norm]))], vec![], 2, &[3., 4., 1., 0.])
    };
    for (norm, expected) in
        [("MAX", [0.75, 1., 1., 0.]), ("L1", [3. / 7., 4. / 7., 1., 0.]), ("L2", [0.6, 0.8, 1., 0.])]
    {
        let got = normalizer(norm);
        assert!(got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-5), "{norm} {got:?}");
    }
}

#[test]
fn sparse_initializers() {
    let sparse = SparseTensorProto {
        values: Some(floats("w", &[2], &[10., 20.])),
        indices: Some(longs("", &[2], &[0, 3])),
        dims: vec![2, 2],
    };
    let x = value_free("x", DataType::Float, &["n", "2"]);
    let y = value_free("y", DataType::Float, &["n", "2"]);
    let mut model = model(vec![x], vec![node("MatMul", &["x", "w"], &["y"], vec![])], vec![y], vec![]);
    model.proto.graph.as_mut().unwrap().sparse_initializer.push(sparse);
    let answer = answer(plan(model, &options()).unwrap(), vec![tensor(&[1, 2], &[1., 2.])]).unwrap();
    assert_eq!(values(&answer[0]), [10., 40.]);
}

#[test]
fn quantised_matrix_product() {
    // a = (x - 2) * 0.5, b = w * 0.25 - transposed, c = [10, -10]; all in integers.
    let constants = || {
        vec![
            floats("half", &[], &[0.5]),
            bytes("two", DataType::Uint8, &[], &[2]),
            bytes("w", DataType::Int8, &[2, 2], &[1, 2, 3, 0xfc]),
            floats("quarter", &[], &[0.25]),
            bytes("none", DataType::Int8, &[], &[0]),
            bytes("c", DataType::Int32, &[2], &[10, 0, 0, 0, 0xf6, 0xff, 0xff, 0xff]),
            floats("step", &[], &[0.125]),
        ]
    };
    let gemm = |inputs: &[&str], output: &str| {
        let mut gemm = node("QGemm", inputs, &[output], vec![int("transB", 1)]);
        gemm.domain = "com.microsoft".into();
        gemm
    };
    let quantize = node("QuantizeLinear", &["x", "half", "two"], &["a"], vec![]);
    let inputs = ["a", "half", "two", "w", "quarter", "none", "c"];
    // x = [1, 2] is 4 and 6 quantised, so 2 and 4 without the zero point: [2*1 + 4*2 + 10, 2*3 - 4*4 - 10] / 8.
    let expected = [20. / 8., -20. / 8.];
    let float = run(vec![quantize.clone(), gemm(&inputs, "y")], constants(), 2, &[1., 2.]);
    assert_eq!(float, expected);
    let requantised: Vec<&str> = inputs.iter().copied().chain(["step", "none"]).collect();
    let back = node("DequantizeLinear", &["q", "step", "none"], &["y"], vec![]);
    assert_eq!(run(vec![quantize.clone(), gemm(&requantised, "q"), back.clone()], constants(), 2, &[1., 2.]), expected);
    // Without transposition and bias, and with signed integers: [2*1 + 4*3, 2*2 - 4*4] / 8.
    let plain = ["a", "half", "two", "w", "quarter", "none", "step", "none"];
    let product = node("QLinearMatMul", &plain, &["q"], vec![]);
    assert_eq!(run(vec![quantize, product, back], constants(), 2, &[1., 2.]), [14. / 8., -12. / 8.]);
}

/// Quantises, dequantises, applies an operator, and does both again: the pattern that tract makes a table of.
fn quantised(op_type: &str, first: (DataType, u8), second: (DataType, u8), input: &[f32]) -> Vec<f32> {
    let constants = vec![
        floats("s1", &[], &[0.05]),
        bytes("z1", first.0, &[], &[first.1]),
        floats("s2", &[], &[1. / 256.]),
        bytes("z2", second.0, &[], &[second.1]),
    ];
    let nodes = vec![
        node("QuantizeLinear", &["x", "s1", "z1"], &["a"], vec![]),
        node("DequantizeLinear", &["a", "s1", "z1"], &["b"], vec![]),
        node(op_type, &["b"], &["c"], vec![]),
        node("QuantizeLinear", &["c", "s2", "z2"], &["d"], vec![]),
        node("DequantizeLinear", &["d", "s2", "z2"], &["y"], vec![]),
    ];
    run(nodes, constants, 4, input)
}

#[test]
fn quantised_softmax_is_no_table() {
    let input = [1., 2., -1., 0.5, 0., 0., 0., 3.];
    let got = quantised("Softmax", (DataType::Uint8, 128), (DataType::Uint8, 0), &input);
    for (row, got) in input.chunks(4).zip(got.chunks(4)) {
        let sum: f32 = row.iter().map(|x| x.exp()).sum();
        let expected = row.iter().map(|x| x.exp() / sum);
        assert!(got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 0.003), "{got:?}");
    }
}

#[test]
fn quantised_elementwise_operators_keep_their_signs() {
    let input = [-0.5, 0.25, 0.75, -3.];
    for (first, second) in [
        ((DataType::Int8, 0), (DataType::Uint8, 0)),
        ((DataType::Uint8, 128), (DataType::Uint8, 0)),
        ((DataType::Int8, 0), (DataType::Int8, 0)),
        ((DataType::Uint8, 128), (DataType::Int8, 0)),
    ] {
        let got = quantised("Relu", first, second, &input);
        let limit = if second.0 == DataType::Int8 { 127. / 256. } else { 1. };
        let expected = input.map(|x: f32| x.clamp(0., limit));
        assert!(
            got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 0.003),
            "{first:?} {second:?} {got:?}"
        );
    }
}
