//! Quantized graphs. Scales are powers of two, so that sums of floats are as exact as those of integers and answers must
//! be equal whichever way they are computed.

use super::*;
use crate::engine::proto::{int, ints, node};
use crate::proto::onnx::AttributeProto;

/// Integers of a type, as raw bytes.
fn raw(name: &str, data_type: DataType, dims: &[i64], raw_data: Vec<u8>) -> TensorProto {
    let raw_data = raw_data.into();
    TensorProto { name: name.into(), data_type: data_type as i32, dims: dims.to_vec(), raw_data, ..Default::default() }
}

fn signed(name: &str, dims: &[i64]) -> TensorProto {
    let count: i64 = dims.iter().product();
    let bytes = (0..count).map(|at| (at * 37 + 11).to_le_bytes()[0]).collect();
    raw(name, DataType::Int8, dims, bytes)
}

fn zero(name: &str, byte: u8) -> TensorProto {
    raw(name, DataType::Uint8, &[], vec![byte])
}

fn signed_zero(name: &str, zero: i8) -> TensorProto {
    raw(name, DataType::Int8, &[], zero.to_le_bytes().to_vec())
}

fn scale(name: &str, scale: f32) -> TensorProto {
    floats(name, &[], &[scale])
}

fn quantized(x: &str, scale: &str, zero: &str, y: &str) -> NodeProto {
    node("QuantizeLinear", &[x, scale, zero], &[y], vec![])
}

fn meant(x: &str, scale: &str, zero: &str, y: &str) -> NodeProto {
    node("DequantizeLinear", &[x, scale, zero], &[y], vec![])
}

/// A graph with input `x` of this shape, to `y`, and what its operators are at last.
fn check(
    x: Vec<&'static str>,
    shape: &[usize],
    rank: usize,
    nodes: Vec<NodeProto>,
    more: Vec<TensorProto>,
) -> Vec<&'static str> {
    let mut constants =
        vec![scale("s", 0.0625), zero("z", 100), signed_zero("zs", -28), scale("t", 0.5), zero("zt", 64)];
    constants.extend(more);
    operators(&Case { x, nodes, constants, rank }.check(shape))
}

/// `x`, its bytes' meaning `xf`, a convolution and its bytes' meaning `y`, by way of `between`.
fn convolution(attributes: Vec<AttributeProto>, zero: &str, between: &[(&str, &str, &str)]) -> Vec<NodeProto> {
    let weights = node("DequantizeLinear", &["w", "ws"], &["wf"], vec![int("axis", 0)]);
    let mut nodes = vec![
        weights,
        quantized("x", "s", zero, "xq"),
        meant("xq", "s", zero, "xf"),
        node("Conv", &["xf", "wf", "b"], &["c"], attributes),
    ];
    nodes.extend(between.iter().map(|(op_type, from, to)| node(op_type, &[from], &[to], vec![])));
    let last = between.last().map_or("c", |(_, _, to)| to);
    nodes.extend([quantized(last, "t", "zt", "yq"), meant("yq", "t", "zt", "y")]);
    nodes
}

fn weights_of(out: i64, depth: i64, kernel: i64) -> Vec<TensorProto> {
    let count = usize::try_from(out).unwrap();
    let scales: Vec<f32> = (0..count).map(|at| [0.0078125, 0.015625][at % 2]).collect();
    let bias: Vec<f32> = (0..count).map(|at| at as f32 * 0.25 - 1.0).collect();
    vec![signed("w", &[out, depth, kernel, kernel]), floats("ws", &[out], &scales), floats("b", &[out], &bias)]
}

#[test]
fn convolutions_between_conversions() {
    for (channels, out, groups, kernel, stride) in [
        ("1", 16, 1, 5, 1),
        ("3", 8, 1, 3, 2),
        ("8", 20, 1, 3, 1),
        ("8", 12, 4, 3, 1),
        ("5", 7, 1, 1, 1),
        ("6", 6, 6, 3, 2),
    ] {
        let count: usize = channels.parse().unwrap();
        for zero in ["z", "zs"] {
            let pads = vec![ints("pads", &[kernel / 2; 4]), ints("strides", &[stride; 2]), int("group", groups)];
            let nodes = convolution(pads, zero, &[("Relu", "c", "r")]);
            let more = weights_of(out, i64::try_from(count).unwrap() / groups, kernel);
            let ran = check(vec!["n", channels, "9", "10"], &[2, count, 9, 10], 4, nodes, more);
            assert!(ran.contains(&"QuantizedConv"), "{ran:?}");
            assert!(!ran.contains(&"Activation"), "{ran:?}");
        }
    }
}

#[test]
fn bytes_are_moved_and_compared_as_they_are() {
    let mut nodes = convolution(vec![ints("pads", &[1; 4])], "zs", &[]);
    nodes.truncate(4);
    let kernel = || vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2]), ints("pads", &[1, 0, 0, 1])];
    nodes.extend([
        quantized("c", "t", "zt", "cq"),
        meant("cq", "t", "zt", "cf"),
        node("MaxPool", &["cf"], &["p"], kernel()),
        quantized("p", "t", "zt", "pq"),
        meant("pq", "t", "zt", "pf"),
        node("Flatten", &["pf"], &["f"], vec![]),
        quantized("f", "t", "zt", "fq"),
        meant("fq", "t", "zt", "ff"),
        node("DequantizeLinear", &["v", "vs"], &["vf"], vec![int("axis", 0)]),
        node("Gemm", &["ff", "vf"], &["y"], vec![int("transB", 1)]),
    ]);
    let mut more = weights_of(8, 4, 3);
    more.extend([signed("v", &[3, 200]), floats("vs", &[3], &[0.0078125, 0.015625, 0.03125])]);
    let ran = check(vec!["n", "4", "9", "10"], &[3, 4, 9, 10], 2, nodes, more);
    assert_eq!(ran, ["Quantize", "Transpose", "QuantizedConv", "Pool", "QuantizedLinear"], "{ran:?}");
}

#[test]
fn sums_of_bytes() {
    // The convolution adds what it alone makes, on either side; one of every channel by itself does not.
    for (a, b, group, is_fused) in [
        ("cf", "xf", 1, true),
        ("xf", "cf", 1, true),
        ("cf", "xf", 2, true),
        ("cf", "xf", 4, false),
        ("gf", "xf", 1, false),
    ] {
        let mut nodes = convolution(vec![ints("pads", &[1; 4]), int("group", group)], "z", &[]);
        nodes.truncate(4);
        nodes.extend([
            quantized("c", "t", "zt", "cq"),
            meant("cq", "t", "zt", "cf"),
            node("MaxPool", &["cf"], &["g"], vec![ints("kernel_shape", &[1, 1])]),
            quantized("g", "t", "zt", "gq"),
            meant("gq", "t", "zt", "gf"),
            node("Add", &[a, b], &["sum"], vec![]),
            node("Relu", &["sum"], &["r"], vec![]),
            quantized("r", "t", "zt", "yq"),
            meant("yq", "t", "zt", "y"),
        ]);
        let ran = check(vec!["n", "4", "5", "6"], &[2, 4, 5, 6], 4, nodes, weights_of(4, 4 / group, 3));
        assert_eq!(ran.contains(&"QuantizedAdd"), !is_fused, "{ran:?}");
        assert!(ran.contains(&"QuantizedConv") && !ran.contains(&"Binary"), "{ran:?}");
    }
}

#[test]
fn functions_between_bytes_are_tables() {
    let between = |nodes: Vec<NodeProto>| {
        let begin = vec![quantized("x", "s", "z", "xq"), meant("xq", "s", "z", "a")];
        let end = vec![quantized("b", "t", "zt", "yq"), meant("yq", "t", "zt", "y")];
        let nodes = begin.into_iter().chain(nodes).chain(end).collect();
        check(vec!["n", "300"], &[3, 300], 2, nodes, vec![scale("three", 3.0), weights("row", &[300])])
    };
    let one = |op: &str, x: &str, y: &str| node(op, &[x], &[y], vec![]);
    let table = ["Quantize", "LookUp", "Dequantize"];
    assert_eq!(between(vec![one("Sigmoid", "a", "b")]), table);
    assert_eq!(between(vec![one("Identity", "a", "b")]), table);
    assert_eq!(between(vec![one("Relu", "a", "c"), node("Sub", &["three", "c"], &["b"], vec![])]), table);
    let gelu = vec![
        node("Div", &["a", "three"], &["d"], vec![]),
        quantized("d", "s", "z", "dq"),
        meant("dq", "s", "z", "df"),
        one("Erf", "df", "e"),
        quantized("e", "s", "z", "eq"),
        meant("eq", "s", "z", "ef"),
        node("Mul", &["ef", "a"], &["b"], vec![]),
    ];
    assert_eq!(between(gelu), table);
    // Not of single elements.
    let rows = between(vec![node("Mul", &["a", "row"], &["b"], vec![])]);
    assert_eq!(rows, ["Quantize", "Dequantize", "Binary", "Quantize", "Dequantize"]);
}

#[test]
fn products_of_computed_bytes() {
    let begin = || {
        vec![
            quantized("x", "s", "z", "xq"),
            meant("xq", "s", "z", "a"),
            node("Mul", &["x", "half"], &["h"], vec![]),
            quantized("h", "s", "zt", "hq"),
            meant("hq", "s", "zt", "hf"),
            node("Transpose", &["hf"], &["b"], vec![ints("perm", &[0, 2, 1])]),
        ]
    };
    let ran = |end: Vec<NodeProto>| {
        let nodes = begin().into_iter().chain(end).collect();
        check(vec!["n", "9", "13"], &[3, 9, 13], 3, nodes, vec![scale("half", 0.5)])
    };
    let floats = ran(vec![node("MatMul", &["a", "b"], &["y"], vec![])]);
    assert!(floats.ends_with(&["QuantizedMatMul"]), "{floats:?}");
    let bytes = ran(vec![
        node("MatMul", &["a", "b"], &["p"], vec![]),
        quantized("p", "t", "zt", "yq"),
        meant("yq", "t", "zt", "y"),
    ]);
    assert!(bytes.ends_with(&["QuantizedMatMul", "Dequantize"]), "{bytes:?}");
}

#[test]
fn a_bias_is_one_of_the_sums_integers_or_rounded_to_one() {
    let ran = |bias: [f32; 4]| {
        let mut constants = vec![scale("s", 0.0625), zero("z", 100), scale("t", 0.5), zero("zt", 64)];
        constants.extend(weights_of(4, 4, 3));
        constants.pop();
        constants.push(floats("b", &[4], &bias));
        let nodes = convolution(vec![ints("pads", &[1; 4])], "z", &[]);
        let case = Case { x: vec!["n", "4", "5", "6"], nodes, constants, rank: 4 };
        operators(&case.check_within(&[1, 4, 5, 6], 0.5))
    };
    let between = ran([0.1, 0.2, 0.3, 0.4]);
    assert!(between.contains(&"QuantizedConv") && !between.contains(&"Binary"), "{between:?}");
    // More than an integer of 32 bits: it is added behind.
    let beyond = ran([0.1, 0.2, 0.3, 2e6]);
    assert!(beyond.contains(&"QuantizedConv") && beyond.contains(&"Binary"), "{beyond:?}");
}

#[test]
fn scales_along_an_axis() {
    let nodes = vec![
        node("QuantizeLinear", &["x", "scales", "zeros"], &["q"], vec![int("axis", 1)]),
        node("DequantizeLinear", &["q", "scales", "zeros"], &["y"], vec![int("axis", 1)]),
    ];
    for zeros in
        [raw("zeros", DataType::Uint8, &[3], vec![0, 128, 255]), raw("zeros", DataType::Int8, &[3], vec![0, 127, 0x80])]
    {
        let more = vec![floats("scales", &[3], &[0.25, 0.0078125, 2.0]), zeros];
        check(vec!["n", "3", "m"], &[2, 3, 4], 3, nodes.clone(), more);
    }
}

#[test]
fn operators_on_integers() {
    let bias: Vec<u8> = (0..5i32).flat_map(|at| (at * 40 - 100).to_le_bytes()).collect();
    let linear = ["xq", "s", "z", "w", "ws", "wz", "t", "zt"];
    let nodes = vec![
        quantized("x", "s", "z", "xq"),
        node("QLinearConv", &[&linear[..], &["b"]].concat(), &["yq"], vec![ints("pads", &[1; 4])]),
        meant("yq", "t", "zt", "y"),
    ];
    let more = vec![
        signed("w", &[5, 3, 3, 3]),
        scale("ws", 0.015625),
        signed_zero("wz", 0),
        raw("b", DataType::Int32, &[5], bias),
    ];
    let ran = check(vec!["n", "3", "6", "7"], &[2, 3, 6, 7], 4, nodes, more);
    assert!(ran.contains(&"QuantizedConv"), "{ran:?}");
    let nodes = vec![
        quantized("x", "s", "z", "xq"),
        node("QLinearMatMul", &linear, &["yq"], vec![]),
        meant("yq", "t", "zt", "y"),
    ];
    let more = vec![signed("w", &[7, 5]), scale("ws", 0.015625), signed_zero("wz", 0)];
    let ran = check(vec!["n", "m", "7"], &[2, 3, 7], 3, nodes, more);
    assert!(ran.contains(&"QuantizedLinear"), "{ran:?}");
}

#[test]
fn products_quantized_for_each_run() {
    let unsigned = |name: &str| TensorProto { data_type: DataType::Uint8 as i32, ..signed(name, &[6, 21]) };
    for (weights, of_weights, scales) in [
        (signed("w", &[6, 21]), signed_zero("wz", 0), floats("ws", &[], &[0.25])),
        (signed("w", &[6, 21]), signed_zero("wz", -9), floats("ws", &[21], &made_up(21, 3))),
        (unsigned("w"), zero("wz", 128), floats("ws", &[1], &[0.125])),
        (unsigned("w"), zero("wz", 3), floats("ws", &[1, 21], &made_up(21, 4))),
    ] {
        let nodes = vec![
            node("DynamicQuantizeLinear", &["x"], &["q", "qs", "qz"], vec![]),
            node("MatMulInteger", &["q", "w", "qz", "wz"], &["a"], vec![]),
            node("Cast", &["a"], &["b"], vec![int("to", 1)]),
            node("Mul", &["qs", "ws"], &["scale"], vec![]),
            node("Mul", &["b", "scale"], &["c"], vec![]),
            node("Add", &["bias", "c"], &["y"], vec![]),
        ];
        let constants = vec![weights, of_weights, scales, floats("bias", &[21], &made_up(21, 5))];
        let case = Case { x: vec!["n", "5", "6"], nodes, constants, rank: 3 };
        let ran = operators(&case.check(&[2, 5, 6]));
        assert_eq!(ran.last(), Some(&"DynamicLinear"), "{ran:?}");
        assert!(!ran.contains(&"IntegerMatMul"));
    }
}

#[test]
fn a_scale_for_each_row_stays_a_product() {
    let nodes = vec![
        node("DynamicQuantizeLinear", &["x"], &["q", "qs", "qz"], vec![]),
        node("MatMulInteger", &["q", "w", "qz"], &["a"], vec![]),
        node("Cast", &["a"], &["b"], vec![int("to", 1)]),
        node("Mul", &["b", "ws"], &["y"], vec![]),
    ];
    let constants = vec![signed("w", &[6, 4]), floats("ws", &[4, 1], &made_up(4, 3))];
    let ran = operators(&Case { x: vec!["4", "6"], nodes, constants, rank: 2 }.check(&[4, 6]));
    assert!(!ran.contains(&"DynamicLinear"), "{ran:?}");
}
