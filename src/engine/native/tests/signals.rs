//! Transforms of signals, windows over them, normalisations and scales: against what they mean.

use super::typed::{Graph, constant, counted, near, of, some};
use super::*;
use crate::engine::proto::{int, node};
use crate::tensor::DType;

const FLOATS: DType = DType::F32;
type Attributes = Vec<crate::proto::onnx::AttributeProto>;

fn answers(
    (operator, version): (&str, i64),
    attributes: Attributes,
    x: &Tensor,
    more: &[(&str, Tensor)],
    outputs: &[(&'static str, DType, usize)],
) -> Vec<Vec<f64>> {
    let operands: Vec<&str> = ["x"].into_iter().chain(more.iter().map(|(name, _)| *name)).collect();
    let results: Vec<&str> = outputs.iter().map(|(name, ..)| *name).collect();
    let named = more.iter().filter(|(name, _)| !name.is_empty());
    let constants = named.map(|(name, tensor)| constant(name, tensor)).collect();
    let nodes = vec![node(operator, &operands, &results, attributes)];
    Graph { version, nodes, constants, inputs: std::slice::from_ref(x), outputs }.answers().iter().map(of).collect()
}

fn answer(of: (&str, i64), attributes: Attributes, x: &Tensor, more: &[(&str, Tensor)], rank: usize) -> Vec<f64> {
    answers(of, attributes, x, more, &[("y", x.dtype(), rank)]).remove(0)
}

fn none() -> (&'static str, Tensor) {
    ("", some(FLOATS, &[0], &[]))
}

#[test]
fn transforms() {
    let x = some(FLOATS, &[1, 4, 1], &[1., 2., 0., -1.]);
    let all = [2., 0., 1., -3., 0., 0., 1., 3.];
    near(&answer(("DFT", 17), vec![], &x, &[], 3), &all);
    near(&answer(("DFT", 17), vec![int("onesided", 1)], &x, &[], 3), &all[..6]);
    let axis = ("axis", some(DType::I64, &[], &[1.]));
    near(&answer(("DFT", 20), vec![], &x, &[none(), axis], 3), &all);
    let pairs = some(DType::F64, &[1, 4, 2], &all);
    near(&answer(("DFT", 20), vec![int("inverse", 1)], &pairs, &[], 3), &[1., 0., 2., 0., 0., 0., -1., 0.]);
    let length = ("length", some(DType::I64, &[], &[2.]));
    near(&answer(("DFT", 17), vec![], &x, &[length], 3), &[3., 0., -1., 0.]);
    // Two pieces of two, two apart.
    let step = ("step", some(DType::I64, &[], &[2.]));
    let window = ("window", some(FLOATS, &[2], &[1., 2.]));
    near(&answer(("STFT", 17), vec![], &x, &[step, window], 4), &[5., 0., -3., 0., -2., 0., 2., 0.]);
}

#[test]
fn windows() {
    let window = |operator: &'static str, periodic: i64| {
        let nodes = vec![node(operator, &["n"], &["y"], vec![int("periodic", periodic)])];
        let constants = vec![constant("n", &some(DType::I32, &[], &[4.]))];
        let (inputs, outputs) = ([some(FLOATS, &[1], &[0.])], [("y", FLOATS, 1)]);
        Graph { version: 17, nodes, constants, inputs: &inputs, outputs: &outputs }.answer()
    };
    near(&window("HannWindow", 1), &[0., 0.5, 1., 0.5]);
    near(&window("HannWindow", 0), &[0., 0.75, 0.75, 0.]);
    near(&window("HammingWindow", 1), &[4. / 46., 25. / 46., 1., 25. / 46.]);
    near(&window("BlackmanWindow", 1), &[0., 0.34, 1., 0.34]);
}

#[test]
fn statistics_of_a_batch_and_of_groups() {
    let x = some(FLOATS, &[2, 2, 1], &[1., 10., 3., 30.]);
    let list = |name: &'static str, all: &[f64]| (name, some(FLOATS, &[all.len()], all));
    let given = [list("s", &[1., 2.]), list("b", &[0., 1.]), list("m", &[4., 4.]), list("v", &[9., 9.])];
    let outputs = [("y", FLOATS, 3), ("mean", FLOATS, 1), ("variance", FLOATS, 1)];
    let trained = answers(("BatchNormalization", 15), vec![int("training_mode", 1)], &x, &given, &outputs);
    near(&trained[0], &[-0.999_995, -1., 0.999_995, 3.]);
    near(&trained[1], &[4. * 0.9 + 0.2, 4. * 0.9 + 2.]);
    near(&trained[2], &[9. * 0.9 + 0.1, 9. * 0.9 + 10.]);
    // Statistics that are computed are as good as constants.
    let known = answer(("BatchNormalization", 15), vec![], &x, &given, 3);
    let (mut nodes, mut constants) = (Vec::new(), Vec::new());
    for (name, tensor) in &given {
        constants.push(constant(&format!("{name}0"), tensor));
        nodes.push(node("Add", &[&format!("{name}0"), "zero"], &[name], vec![]));
    }
    nodes.insert(0, node("ReduceSum", &["x"], &["sum"], vec![int("keepdims", 0)]));
    nodes.insert(1, node("Sub", &["sum", "sum"], &["zero"], vec![]));
    nodes.push(node("BatchNormalization", &["x", "s", "b", "m", "v"], &["y"], vec![]));
    let inputs = std::slice::from_ref(&x);
    near(&Graph { version: 15, nodes, constants, inputs, outputs: &[("y", FLOATS, 3)] }.answer(), &known);
    let x = some(FLOATS, &[1, 4, 1], &[1., 3., 10., 30.]);
    let groups = || vec![int("num_groups", 2)];
    let by_group = [list("s", &[1., 2.]), list("b", &[0., 5.])];
    near(&answer(("GroupNormalization", 18), groups(), &x, &by_group, 3), &[-0.999_995, 0.999_995, 3., 7.]);
    let by_channel = [list("s", &[1., 2., 3., 4.]), list("b", &[0., 5., 0., 0.])];
    near(&answer(("GroupNormalization", 21), groups(), &x, &by_channel, 3), &[-0.999_995, 6.999_99, -3., 4.]);
}

#[test]
fn lengths_and_neighbours() {
    let x = some(FLOATS, &[1, 2, 2], &[3., 0., -4., 0.]);
    let normal = |p| answer(("LpNormalization", 1), vec![int("p", p), int("axis", 1)], &x, &[], 3);
    near(&normal(1), &[3. / 7., 0., -4. / 7., 0.]);
    near(&normal(2), &[0.6, 0., -0.8, 0.]);
    near(&answer(("GlobalLpPool", 2), vec![int("p", 3)], &x, &[], 3), &[3., 4.]);
    let x = some(FLOATS, &[1, 4, 1], &[1., 2., 3., 4.]);
    // The sums of squares of a channel and the ones before and behind it, the first and last with a zero.
    let sums: [f64; 4] = [5., 14., 29., 25.];
    let divided = |size: f64, sums: [f64; 4]| -> Vec<f64> {
        sums.iter().zip(1..).map(|(sum, x)| f64::from(x) / (1.0 + 1e-4 / size * sum).powf(0.75)).collect()
    };
    near(&answer(("LRN", 13), vec![int("size", 3)], &x, &[], 3), &divided(3.0, sums));
    // Of an even number the one more is behind.
    near(&answer(("LRN", 13), vec![int("size", 2)], &x, &[], 3), &divided(2.0, [5., 13., 25., 16.]));
}

#[test]
fn operands_along_named_axes() {
    let x = some(FLOATS, &[1, 2, 2], &[-1., 2., -3., 4.]);
    let of_channels = ("a", some(FLOATS, &[2], &[10., 100.]));
    let more = std::slice::from_ref(&of_channels);
    let attributes = || vec![int("broadcast", 1), int("axis", 1)];
    assert_eq!(answer(("Add", 6), attributes(), &x, more, 3), [9., 12., 97., 104.]);
    assert_eq!(answer(("Sub", 6), attributes(), &x, more, 3), [-11., -8., -103., -96.]);
    assert_eq!(answer(("Mul", 6), attributes(), &x, more, 3), [-10., 20., -300., 400.]);
    let lines = ("a", some(FLOATS, &[1, 2], &[10., 100.]));
    let first = vec![int("broadcast", 1), int("axis", 0)];
    near(&answer(("Div", 6), first, &x, &[lines], 3), &[-0.1, 0.2, -0.03, 0.04]);
    assert_eq!(answer(("PRelu", 6), vec![], &x, more, 3), [-10., 2., -300., 4.]);
}

#[test]
fn wider_integers_and_blocks_are_quantized() {
    let x = some(FLOATS, &[2, 4], &[0., 1., 2., 3., -4., 50., 6., 1e9]);
    let scale = ("s", some(FLOATS, &[], &[0.5]));
    for (dtype, zero, high) in [(DType::U16, 100., 65_535.), (DType::I16, -5., 32_767.)] {
        let more = [scale.clone(), ("z", some(dtype, &[], &[zero]))];
        let bytes = answers(("QuantizeLinear", 21), vec![], &x, &more, &[("y", dtype, 2)]).remove(0);
        let expected: Vec<f64> = [0., 2., 4., 6., -8., 100., 12.].iter().map(|x| x + zero).chain([high]).collect();
        assert_eq!(bytes, expected);
        let back = some(dtype, &[2, 4], &bytes);
        let meant = answers(("DequantizeLinear", 21), vec![], &back, &more, &[("y", FLOATS, 2)]).remove(0);
        assert_eq!(meant[..7], of(&x)[..7]);
    }
    let blocks = || vec![int("block_size", 2), int("axis", 1)];
    let more = [("s", some(FLOATS, &[2, 2], &[1., 2., 4., 1.])), ("z", some(DType::U8, &[2, 2], &[0., 1., 2., 3.]))];
    let bytes = answers(("QuantizeLinear", 21), blocks(), &x, &more, &[("y", DType::U8, 2)]).remove(0);
    assert_eq!(bytes, [0., 1., 2., 3., 1., 14., 9., 255.]);
    let bytes = some(DType::U8, &[2, 4], &counted(8));
    let meant = answers(("DequantizeLinear", 21), blocks(), &bytes, &more, &[("y", FLOATS, 2)]).remove(0);
    assert_eq!(meant, [0., 1., 2., 4., 8., 12., 3., 4.]);
}

#[test]
fn axes_follow_from_shapes() {
    let nodes = vec![
        node("Shape", &["x"], &["s"], vec![]),
        node("Slice", &["s", "zero", "one", "zero"], &["axes"], vec![]),
        node("ReduceSum", &["x", "axes"], &["y"], vec![int("keepdims", 0)]),
    ];
    let list = |name: &str, number: f64| constant(name, &some(DType::I64, &[1], &[number]));
    let x = some(FLOATS, &[1, 2], &[3., 4.]);
    let outputs = [("y", FLOATS, 1)];
    let inputs = std::slice::from_ref(&x);
    let graph =
        Graph { version: 18, nodes, constants: vec![list("zero", 0.), list("one", 1.)], inputs, outputs: &outputs };
    assert_eq!(graph.answer(), [7.]);
}
