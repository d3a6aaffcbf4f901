//! Operators that exporters write as several: found where they mean the same, left alone where they do not.

use super::*;
use crate::engine::Batch;
use crate::engine::proto::{int, ints, node};
use crate::engine::testing::on_cores;
use crate::tensor::DType;

fn number(name: &str, number: f32) -> TensorProto {
    floats(name, &[], &[number])
}

/// What runs of a graph over rows of 17 elements, answered as tract answers it.
fn ran(nodes: Vec<NodeProto>, constants: Vec<TensorProto>) -> Vec<&'static str> {
    operators(&Case { x: vec!["n", "17"], nodes, constants, rank: 2 }.check(&[5, 17]))
}

fn two(op_type: &str, a: &str, b: &str, y: &str) -> NodeProto {
    node(op_type, &[a, b], &[y], vec![])
}

fn one(op_type: &str, x: &str, y: &str) -> NodeProto {
    node(op_type, &[x], &[y], vec![])
}

#[test]
fn gelu_in_any_order() {
    let constants = |half: f32| {
        let root = std::f32::consts::SQRT_2;
        vec![number("root", root), number("inverse", 1.0 / root), number("one", 1.0), number("half", half)]
    };
    let raised = |scaled: NodeProto| vec![scaled, one("Erf", "s", "e"), two("Add", "e", "one", "r")];
    let divided = || raised(two("Div", "x", "root", "s"));
    let multiplied = || raised(two("Mul", "inverse", "x", "s"));
    let ends = [
        vec![two("Mul", "x", "r", "p"), two("Mul", "p", "half", "y")],
        vec![two("Mul", "half", "x", "p"), two("Mul", "p", "r", "y")],
        vec![two("Mul", "r", "half", "p"), two("Mul", "x", "p", "y")],
    ];
    for end in ends {
        for begin in [divided(), multiplied()] {
            let nodes: Vec<NodeProto> = begin.into_iter().chain(end.clone()).collect();
            assert_eq!(ran(nodes.clone(), constants(0.5)), ["Activation"]);
            assert!(ran(nodes, constants(0.25)).len() > 1);
        }
    }
    // Of another value than the one it is multiplied with.
    let other = [two("Add", "x", "one", "z")].into_iter().chain(divided());
    let other = other.chain([two("Mul", "z", "r", "p"), two("Mul", "p", "half", "y")]).collect();
    assert!(ran(other, constants(0.5)).len() > 1);
}

#[test]
fn gelu_by_a_tangent() {
    let constants = |cube: f32| {
        let root = (2.0 / std::f32::consts::PI).sqrt();
        let numbers = [("one", 1.0), ("half", 0.5), ("cube", cube), ("root", root), ("three", 3.0)];
        numbers.map(|(name, value)| number(name, value)).to_vec()
    };
    let cubes = [
        vec![two("Mul", "cube", "x", "a"), two("Mul", "x", "a", "b"), two("Mul", "x", "b", "c")],
        vec![two("Pow", "x", "three", "a"), two("Mul", "a", "cube", "c")],
        vec![two("Mul", "x", "x", "a"), two("Mul", "a", "x", "b"), two("Mul", "cube", "b", "c")],
    ];
    let ends = [
        vec![two("Mul", "half", "r", "p"), two("Mul", "x", "p", "y")],
        vec![two("Mul", "half", "x", "p"), two("Mul", "p", "r", "y")],
    ];
    for (cube, end) in cubes.iter().flat_map(|cube| ends.iter().map(move |end| (cube, end))) {
        let inner = [two("Add", "x", "c", "s"), two("Mul", "root", "s", "t"), one("Tanh", "t", "h")];
        let raised = [two("Add", "h", "one", "r")];
        let nodes: Vec<NodeProto> =
            cube.iter().cloned().chain(inner).chain(raised).chain(end.iter().cloned()).collect();
        assert_eq!(ran(nodes.clone(), constants(0.044_715)), ["Activation"]);
        assert!(ran(nodes, constants(0.05)).len() > 1);
    }
}

#[test]
fn vectors_of_one_1_choose_rows() {
    let index = typed::some(DType::I32, &[2, 2], &[0., 2., 3., -1.]);
    let chosen = |places: &[f64]| {
        let nodes = vec![
            two("Unsqueeze", "x", "last", "i"),
            two("Equal", "i", "places", "e"),
            node("Cast", &["e"], &["c"], vec![int("to", 1)]),
            two("MatMul", "c", "w", "y"),
        ];
        let constants = vec![
            typed::constant("places", &typed::some(DType::I32, &[1, 1, 3], places)),
            typed::constant("last", &typed::some(DType::I64, &[1], &[-1.])),
            floats("w", &[3, 2], &[1., 2., 3., 4., 5., 6.]),
        ];
        let inputs = std::slice::from_ref(&index);
        typed::Graph { version: 17, nodes, constants, inputs, outputs: &[("y", DType::F32, 3)] }.layers()
    };
    let (layers, answer) = chosen(&[0., 1., 2.]);
    assert_eq!(answer, [1., 2., 5., 6., 0., 0., 0., 0.], "what is no row of the table is zero");
    assert!(layers.contains(&"Gather") && !layers.contains(&"Linear"), "{layers:?}");
    let (layers, answer) = chosen(&[2., 1., 0.]);
    assert_eq!(answer, [5., 6., 1., 2., 0., 0., 0., 0.]);
    assert!(layers.contains(&"Linear"), "{layers:?}");
}

#[test]
fn gates() {
    let nodes = vec![one("Sigmoid", "x", "s"), two("Mul", "s", "x", "y")];
    assert_eq!(ran(nodes, vec![]), ["Activation"]);
    let nodes = vec![one("Sigmoid", "x", "s"), one("Neg", "x", "z"), two("Mul", "s", "z", "y")];
    assert_eq!(ran(nodes, vec![]).len(), 3);
    let gate = || vec![two("Add", "x", "three", "z"), node("Clip", &["z", "zero", "six"], &["c"], vec![])];
    let constants = |six| vec![number("three", 3.0), number("zero", 0.0), number("six", six)];
    let ends = [
        vec![two("Mul", "x", "c", "p"), two("Div", "p", "six", "y")],
        vec![two("Div", "c", "six", "p"), two("Mul", "x", "p", "y")],
    ];
    for end in ends {
        let nodes: Vec<NodeProto> = gate().into_iter().chain(end).collect();
        assert_eq!(ran(nodes.clone(), constants(6.0)), ["Activation"]);
        assert!(ran(nodes, constants(5.0)).len() > 1);
    }
}

#[test]
fn activations_of_more_than_a_few_instructions_follow_their_layer() {
    for (kernel, channels) in [([1, 1], "5"), ([3, 3], "16"), ([3, 3], "5")] {
        for group in [1, i64::from(channels == "5") * 4 + 1] {
            let extent: i64 = channels.parse().unwrap();
            let attributes = vec![ints("pads", &[kernel[0] / 2; 4]), int("group", group)];
            let conv = node("Conv", &["x", "w"], &["c"], attributes);
            let nodes = vec![conv, one("Sigmoid", "c", "s"), two("Mul", "c", "s", "y")];
            let constants = vec![weights("w", &[extent, extent / group, kernel[0], kernel[1]])];
            let layers = Case { x: vec!["n", channels, "20", "21"], nodes, constants, rank: 4 };
            let layers = layers.check(&[2, channels.parse().unwrap(), 20, 21]);
            assert_eq!(operators(&layers), ["Transpose", "Conv", "Transpose"]);
        }
    }
}

#[test]
fn layer_normalisation() {
    let mean = |x: &str, y: &str| node("ReduceMean", &[x], &[y], vec![ints("axes", &[-1])]);
    let begin = |square: NodeProto| {
        vec![
            mean("x", "m"),
            two("Sub", "x", "m", "d"),
            square,
            mean("q", "v"),
            two("Add", "v", "epsilon", "w"),
            one("Sqrt", "w", "s"),
        ]
    };
    let constants =
        || vec![number("epsilon", 1e-5), number("two", 2.0), weights("scale", &[17]), weights("shift", &[1, 17])];
    let squares = [two("Mul", "d", "d", "q"), two("Pow", "d", "two", "q")];
    let ends = [
        vec![two("Div", "d", "s", "n"), two("Mul", "scale", "n", "p"), two("Add", "p", "shift", "y")],
        vec![two("Div", "d", "s", "n"), two("Mul", "n", "scale", "y")],
        vec![two("Div", "d", "s", "n"), two("Add", "n", "shift", "y")],
        vec![two("Div", "d", "s", "y")],
    ];
    for square in squares {
        for end in &ends {
            let nodes = begin(square.clone()).into_iter().chain(end.clone()).collect();
            assert_eq!(ran(nodes, constants()), ["Normalize"]);
        }
    }
    // Fourth powers are none, nor is a mean over another axis.
    let mut others = constants();
    others[1] = number("two", 4.0);
    let nodes = begin(two("Pow", "d", "two", "q")).into_iter().chain(ends[3].clone()).collect();
    assert!(!ran(nodes, others).contains(&"Normalize"));
    let mut nodes = begin(two("Mul", "d", "d", "q"));
    nodes[3] = node("ReduceMean", &["q"], &["v"], vec![ints("axes", &[0])]);
    nodes.extend(ends[3].clone());
    assert!(!ran(nodes, constants()).contains(&"Normalize"));
}

/// Attention of three heads over tokens of twelve elements.
struct Heads {
    queries: Vec<NodeProto>,
    keys: Vec<NodeProto>,
    scores: Vec<NodeProto>,
    axis: i64,
    result: Vec<NodeProto>,
}

fn split(x: &str, y: &str, axes: &[i64]) -> Vec<NodeProto> {
    let between = format!("{y} split");
    vec![
        node("Reshape", &[x, "split"], &[&between], vec![]),
        node("Transpose", &[&between], &[y], vec![ints("perm", axes)]),
    ]
}

impl Heads {
    fn plain() -> Self {
        Self {
            queries: split("xq", "q", &[0, 2, 1, 3]),
            keys: split("xk", "k", &[0, 2, 3, 1]),
            scores: vec![two("Div", "qk", "two", "s")],
            axis: -1,
            result: vec![
                node("Transpose", &["o"], &["t"], vec![ints("perm", &[0, 2, 1, 3])]),
                node("Reshape", &["t", "join"], &["y"], vec![]),
            ],
        }
    }

    fn case(self, rank: usize) -> Case {
        let product = |weights: &str, y: &str| two("MatMul", "x", weights, y);
        let nodes = [product("a", "xq"), product("b", "xk"), product("c", "xv")].into_iter();
        let nodes = nodes.chain(self.queries).chain(self.keys).chain(split("xv", "v", &[0, 2, 1, 3]));
        let nodes = nodes.chain([two("MatMul", "q", "k", "qk")]).chain(self.scores);
        let nodes =
            nodes.chain([node("Softmax", &["s"], &["w"], vec![int("axis", self.axis)]), two("MatMul", "w", "v", "o")]);
        let nodes = nodes.chain(self.result).collect();
        let constants = vec![
            weights("a", &[12, 12]),
            weights("b", &[12, 12]),
            weights("c", &[12, 12]),
            list("split", &[0, 0, 3, 4]),
            list("join", &[0, 0, 12]),
            number("two", 2.0),
            floats("mask", &[1, 1, 1, 7], &[0.0, -1e4, 0.0, 0.5, 0.0, 0.0, -1e4]),
        ];
        Case { x: vec!["n", "7", "12"], nodes, constants, rank }
    }

    fn ran(self, rank: usize) -> Vec<&'static str> {
        operators(&self.case(rank).check(&[3, 7, 12]))
    }
}

/// Attention between products, with what is answered last.
pub(super) fn attention() -> Case {
    let result = vec![
        node("Transpose", &["o"], &["t"], vec![ints("perm", &[0, 2, 1, 3])]),
        node("Reshape", &["t", "join"], &["r"], vec![]),
        two("MatMul", "r", "a", "y"),
    ];
    Heads { result, ..Heads::plain() }.case(3)
}

#[test]
fn attention_of_every_kind() {
    let products = ["Linear", "Linear", "Linear", "Attention"];
    assert_eq!(Heads::plain().ran(3), products);
    let masked = vec![two("Div", "qk", "two", "d"), two("Add", "d", "mask", "s")];
    assert_eq!(Heads { scores: masked, ..Heads::plain() }.ran(3), products);
    let masked = vec![two("Add", "mask", "qk", "s")];
    assert_eq!(Heads { scores: masked, ..Heads::plain() }.ran(3), products);
    // Queries and keys scaled by themselves, keys turned twice.
    let mut queries = split("xq", "p", &[0, 2, 1, 3]);
    queries.push(two("Mul", "p", "two", "q"));
    let mut keys = split("xk", "r", &[0, 2, 1, 3]);
    keys.push(node("Transpose", &["r"], &["u"], vec![ints("perm", &[0, 1, 3, 2])]));
    keys.push(two("Mul", "u", "two", "k"));
    let scores = vec![one("Identity", "qk", "s")];
    assert_eq!(Heads { queries, keys, scores, ..Heads::plain() }.ran(3), products);
    // Heads stay outside where nothing puts them back.
    let result = vec![one("Identity", "o", "y")];
    assert_eq!(Heads { result, ..Heads::plain() }.ran(4), products);
}

#[test]
fn what_only_looks_like_attention() {
    // Weights of queries instead of keys.
    let other_axis = Heads { axis: 2, ..Heads::plain() }.ran(3);
    assert!(other_axis.contains(&"Softmax") && !other_axis.contains(&"Attention"), "{other_axis:?}");
    // Something else takes the scores.
    let taken_twice = vec![
        two("Div", "qk", "two", "d"),
        node("ReduceMax", &["d"], &["g"], vec![ints("axes", &[-1])]),
        two("Sub", "d", "g", "s"),
    ];
    let kept = Heads { scores: taken_twice, ..Heads::plain() }.ran(3);
    assert!(kept.contains(&"MatMul") && !kept.contains(&"Attention"), "{kept:?}");
}

#[test]
fn a_run_takes_no_more_cores_than_its_model_has_room_for() {
    let entry = vec![tensor(&[3, 7, 12], &made_up(3 * 7 * 12, 1))];
    let run = |cores_max: usize| {
        let plan = Heads::plain().case(3).load(&LoadOptions { cores_max, ..options() }).unwrap();
        let batch = Batch::merge(std::slice::from_ref(&entry), vec![3]);
        on_cores(4, move |cores| plan.run(&batch, cores).unwrap().shares.remove(0)).remove(0)
    };
    let alone = run(1);
    assert!((2..6).all(|cores_max| run(cores_max).bytes() == alone.bytes()));
}
