//! One tiny model for each class of operator: does the analysis keep its rows apart, or name it?

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};

use super::*;
use crate::engine::Merging;
use crate::engine::proto::{floats, int, ints, longs, node, value_free};
use crate::engine::testing::model;

/// `x` [n, 4, 6] through some nodes to `y`, whose rank is `rank`.
fn merging(nodes: Vec<NodeProto>, constants: Vec<TensorProto>, rank: usize) -> String {
    merging_of(DataType::Float, &["n", "4", "6"], nodes, constants, rank)
}

fn merging_of(
    data_type: DataType,
    input: &[&str],
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    rank: usize,
) -> String {
    let dims: Vec<String> = (0..rank).map(|axis| if axis == 0 { "n".into() } else { format!("d{axis}") }).collect();
    let output = value_free("y", DataType::Float, &dims.iter().map(String::as_str).collect::<Vec<_>>());
    let model = model(vec![value_free("x", data_type, input)], nodes, vec![output], constants);
    match plan(model, &options()).unwrap().merging() {
        Merging::Rows => "rows".into(),
        Merging::Alone { operator, reason } => format!("{operator}: {reason}"),
    }
}

fn one(op_type: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> Vec<NodeProto> {
    vec![node(op_type, inputs, &["y"], attributes)]
}

#[test]
fn elementwise_operators_keep_rows_apart() {
    for op_type in ["Relu", "Sigmoid", "Tanh", "Exp", "Neg", "Softplus", "Erf"] {
        assert_eq!(merging(one(op_type, &["x"], vec![]), vec![], 3), "rows", "{op_type}");
    }
    let bias = || vec![floats("b", &[4, 1], &[1., 2., 3., 4.])];
    for op_type in ["Add", "Mul", "Sub", "Div", "Max", "Pow"] {
        assert_eq!(merging(one(op_type, &["x", "b"], vec![]), bias(), 3), "rows", "{op_type}");
        assert_eq!(merging(one(op_type, &["b", "x"], vec![]), bias(), 3), "rows", "{op_type}");
    }
    assert_eq!(merging(one("Add", &["x", "x"], vec![]), vec![], 3), "rows");
}

#[test]
fn operators_along_an_axis_must_not_work_along_the_rows() {
    let cases = [
        ("Softmax", "axis", true),
        ("LogSoftmax", "axis", true),
        ("Hardmax", "axis", true),
        ("LpNormalization", "axis", true),
        ("Flatten", "axis", false),
    ];
    for (op_type, attribute, named) in cases {
        let along = |axis| merging(one(op_type, &["x"], vec![int(attribute, axis)]), vec![], if named { 3 } else { 2 });
        assert_eq!(along(1), "rows", "{op_type}");
        assert!(along(0).starts_with(&format!("{op_type} y: ")), "{op_type} {}", along(0));
    }
    for op_type in ["ReduceMax", "ReduceMean", "ReduceL2", "ReduceProd"] {
        let over = |axes: &[i64]| merging(one(op_type, &["x"], vec![ints("axes", axes)]), vec![], 3);
        assert_eq!(over(&[1]), "rows", "{op_type}");
        assert_eq!(over(&[-1, 1]), "rows", "{op_type}");
        assert!(over(&[0]).starts_with(&format!("{op_type} y: it works along axis 0")), "{}", over(&[0]));
        assert!(over(&[0, 2]).starts_with(&format!("{op_type} y: ")), "{op_type}");
    }
    let over_all = merging(one("ReduceSum", &["x"], vec![]), vec![], 3);
    assert!(over_all.starts_with("ReduceSum y: it works along axis 0"), "{over_all}");
    let cumulative = |axis| merging(one("CumSum", &["x", "a"], vec![]), vec![longs("a", &[], &[axis])], 3);
    assert_eq!(cumulative(2), "rows");
    assert!(cumulative(0).starts_with("CumSum y: it works along axis 0"), "{}", cumulative(0));
    let arg_max = |axis| merging_labels(one("ArgMax", &["x"], vec![int("axis", axis)]));
    assert_eq!(arg_max(1), "rows");
    assert!(arg_max(0).starts_with("ArgMax y: "), "{}", arg_max(0));
}

/// As `merging`, with an integer output.
fn merging_labels(nodes: Vec<NodeProto>) -> String {
    let output = value_free("y", DataType::Int64, &["n", "d1", "d2"]);
    let model = model(vec![value_free("x", DataType::Float, &["n", "4", "6"])], nodes, vec![output], vec![]);
    match plan(model, &options()).unwrap().merging() {
        Merging::Rows => "rows".into(),
        Merging::Alone { operator, reason } => format!("{operator}: {reason}"),
    }
}

#[test]
fn dynamic_quantisation_spans_the_batch() {
    let nodes = vec![
        node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], vec![]),
        node("Cast", &["q"], &["f"], vec![int("to", DataType::Float as i64)]),
        node("Mul", &["f", "s"], &["y"], vec![]),
    ];
    let merging = merging(nodes, vec![], 3);
    assert!(merging.starts_with("DynamicQuantizeLinear q: "), "{merging}");
}

#[test]
fn matrix_products_keep_rows_apart_unless_they_sum_over_them() {
    let weights = || vec![floats("w", &[6, 2], &[0.5; 12])];
    assert_eq!(merging(one("MatMul", &["x", "w"], vec![]), weights(), 3), "rows");
    // Attention over axis 1 of each row.
    let attention = vec![
        node("Transpose", &["x"], &["t"], vec![ints("perm", &[0, 2, 1])]),
        node("MatMul", &["x", "t"], &["scores"], vec![]),
        node("Softmax", &["scores"], &["weights"], vec![int("axis", -1)]),
        node("MatMul", &["weights", "x"], &["y"], vec![]),
    ];
    assert_eq!(merging(attention, vec![], 3), "rows");
    // Attention over the batch.
    let mixing = |shape: &[&str]| {
        let nodes = vec![
            node("Transpose", &["x"], &["t"], vec![ints("perm", &[1, 0])]),
            node("MatMul", &["x", "t"], &["s"], vec![]),
            node("MatMul", &["s", "x"], &["y"], vec![]),
        ];
        merging_of(DataType::Float, shape, nodes, vec![], 2)
    };
    assert_eq!(mixing(&["n", "4"]), "MatMul s: it combines different rows");
    let gemm = |attributes| {
        let weights = vec![floats("w", &[4, 3], &[0.5; 12]), floats("b", &[3], &[1.; 3])];
        merging_of(DataType::Float, &["n", "4"], one("Gemm", &["x", "w", "b"], attributes), weights, 2)
    };
    assert_eq!(gemm(vec![]), "rows");
    let transposed = merging_of(
        DataType::Float,
        &["n", "4"],
        vec![
            node("Transpose", &["x"], &["t"], vec![ints("perm", &[1, 0])]),
            node("MatMul", &["t", "x"], &["y"], vec![]),
        ],
        vec![],
        2,
    );
    assert_eq!(transposed, "MatMul y: it sums over the rows");
}

#[test]
fn convolutions_and_pools_keep_rows_apart() {
    let conv = one("Conv", &["x", "w"], vec![]);
    assert_eq!(merging(conv, vec![floats("w", &[2, 4, 3], &[0.1; 24])], 3), "rows");
    // With the batch where the channels should be.
    let swapped = vec![
        node("Transpose", &["x"], &["t"], vec![ints("perm", &[1, 0, 2])]),
        node("MaxPool", &["t"], &["p"], vec![ints("kernel_shape", &[2])]),
        node("Transpose", &["p"], &["y"], vec![ints("perm", &[1, 0, 2])]),
    ];
    assert_eq!(merging(swapped, vec![], 3), "MaxPool p: it depends on the number of rows");
    for op_type in ["MaxPool", "AveragePool"] {
        let pool = one(op_type, &["x"], vec![ints("kernel_shape", &[2]), ints("strides", &[2])]);
        assert_eq!(merging(pool, vec![], 3), "rows", "{op_type}");
    }
    for op_type in ["GlobalAveragePool", "GlobalMaxPool"] {
        assert_eq!(merging(one(op_type, &["x"], vec![]), vec![], 3), "rows", "{op_type}");
    }
    let norm: Vec<TensorProto> = ["s", "b", "m", "v"].map(|name| floats(name, &[4], &[1.; 4])).into();
    let batch_norm = one("BatchNormalization", &["x", "s", "b", "m", "v"], vec![]);
    assert_eq!(merging(batch_norm, norm, 3), "rows");
    let layer = vec![floats("s", &[6], &[1.; 6])];
    assert_eq!(merging(one("LayerNormalization", &["x", "s"], vec![]), layer, 3), "rows");
}

#[test]
fn joining_and_cutting_must_leave_the_rows_alone() {
    let concat = |axis| merging(one("Concat", &["x", "x"], vec![int("axis", axis)]), vec![], 3);
    assert_eq!(concat(1), "rows");
    assert_eq!(concat(0), "Concat y: it works along axis 0, which is the rows'");
    let slice = |axis, start, end| {
        let bounds = [("s", start), ("e", end), ("a", axis)].map(|(name, bound)| longs(name, &[1], &[bound]));
        merging(one("Slice", &["x", "s", "e", "a"], vec![]), bounds.into(), 3)
    };
    assert_eq!(slice(1, 1, 3), "rows");
    assert_eq!(slice(-1, 0, 2), "rows");
    assert_eq!(slice(0, 0, i64::MAX), "rows");
    assert_eq!(slice(0, 1, i64::MAX), "Slice y: it works along axis 0, which is the rows'");
    assert_eq!(slice(0, 0, 1), "Slice y: it works along axis 0, which is the rows'");
    let gather =
        |axis| merging(one("Gather", &["x", "i"], vec![int("axis", axis)]), vec![longs("i", &[2], &[1, 0])], 3);
    assert_eq!(gather(2), "rows");
    assert_eq!(gather(0), "Gather y: it looks elements up across rows");
    let pad = |pads: &[i64]| merging(one("Pad", &["x", "p"], vec![]), vec![longs("p", &[6], pads)], 3);
    assert_eq!(pad(&[0, 1, 0, 0, 0, 2]), "rows");
    assert!(pad(&[1, 0, 0, 0, 0, 0]).starts_with("Pad y: it works along axis 0"));
    let tile = |times: &[i64]| merging(one("Tile", &["x", "t"], vec![]), vec![longs("t", &[3], times)], 3);
    assert_eq!(tile(&[1, 2, 1]), "rows");
    assert!(tile(&[2, 1, 1]).starts_with("Tile y: it works along axis 0"));
    let top = |axis| {
        let nodes = vec![node("TopK", &["x", "k"], &["y", "i"], vec![int("axis", axis)])];
        merging(nodes, vec![longs("k", &[1], &[2])], 3)
    };
    assert_eq!(top(2), "rows");
    assert!(top(0).starts_with("TopK y: "), "{}", top(0));
}

#[test]
fn reshapes_must_keep_rows_whole() {
    let reshape = |shape: &[i64], rank: usize| {
        let length = i64::try_from(shape.len()).unwrap();
        merging(one("Reshape", &["x", "s"], vec![]), vec![longs("s", &[length], shape)], rank)
    };
    assert_eq!(reshape(&[0, 24], 2), "rows");
    assert_eq!(reshape(&[-1, 24], 2), "rows");
    assert_eq!(reshape(&[0, 2, 2, 6], 4), "rows");
    assert_eq!(reshape(&[0, 0, -1], 3), "rows");
    // Axis 0 is not the batch any more.
    assert_eq!(reshape(&[-1, 6], 2), "Reshape y: its output has several elements for each row on axis 0");
    assert!(reshape(&[4, -1], 2).starts_with("Reshape y: "), "{}", reshape(&[4, -1], 2));
    // Rows folded with another axis and unfolded again, as exporters do around matrix products.
    let folded = |between: &str, attributes: Vec<AttributeProto>| {
        let nodes = vec![
            node("Reshape", &["x", "flat"], &["f"], vec![]),
            node(between, &["f"], &["g"], attributes),
            node("Reshape", &["g", "deep"], &["y"], vec![]),
        ];
        merging(nodes, vec![longs("flat", &[2], &[-1, 6]), longs("deep", &[3], &[-1, 4, 6])], 3)
    };
    assert_eq!(folded("Softmax", vec![int("axis", 1)]), "rows");
    assert!(folded("Softmax", vec![int("axis", 0)]).starts_with("Softmax g: "));
    // Transposed before it is folded, a row is no longer in one piece.
    let torn = vec![
        node("Transpose", &["x"], &["t"], vec![ints("perm", &[1, 0, 2])]),
        node("Reshape", &["t", "flat"], &["f"], vec![]),
        node("Reshape", &["f", "deep"], &["y"], vec![]),
    ];
    let constants = vec![longs("flat", &[2], &[-1, 6]), longs("deep", &[3], &[-1, 4, 6])];
    assert!(merging(torn, constants, 3).starts_with("Reshape f: it folds the rows"));
}

#[test]
fn values_that_count_rows_are_found() {
    let count = vec![
        node("Shape", &["x"], &["s"], vec![]),
        node("Gather", &["s", "zero"], &["n"], vec![]),
        node("Cast", &["n"], &["f"], vec![int("to", DataType::Float as i64)]),
        node("Div", &["x", "f"], &["y"], vec![]),
    ];
    let found = merging(count, vec![longs("zero", &[], &[0])], 3);
    assert_eq!(found, "Div y: it reads a value that depends on the number of rows");
    // A shape made from the input's own is no such value.
    let reshape = vec![
        node("Shape", &["x"], &["s"], vec![]),
        node("Gather", &["s", "zero"], &["n"], vec![]),
        node("Concat", &["n", "rest"], &["to"], vec![int("axis", 0)]),
        node("Reshape", &["x", "to"], &["y"], vec![]),
    ];
    let constants = vec![longs("zero", &[1], &[0]), longs("rest", &[1], &[24])];
    assert_eq!(merging(reshape, constants, 2), "rows");
    // The same value for every row is added to each.
    let expand = vec![
        node("Shape", &["x"], &["s"], vec![]),
        node("Expand", &["c", "s"], &["e"], vec![]),
        node("Add", &["x", "e"], &["y"], vec![]),
    ];
    assert_eq!(merging(expand, vec![floats("c", &[4, 1], &[1., 2., 3., 4.])], 3), "rows");
}

#[test]
fn embeddings_keep_rows_apart() {
    let table = vec![floats("t", &[5, 3], &[0.5; 15])];
    let nodes = one("Gather", &["t", "x"], vec![]);
    assert_eq!(merging_of(DataType::Int64, &["n", "4"], nodes, table, 3), "rows");
}

#[test]
fn loops_keep_rows_apart_when_their_bodies_do() {
    let graph = |attributes: Vec<AttributeProto>, output: &str, perm: &[i64]| {
        let weights = vec![floats("w", &[1, 8, 4], &[0.1; 32]), floats("r", &[1, 8, 2], &[0.1; 16])];
        let nodes = vec![
            node("Transpose", &["x"], &["t"], vec![ints("perm", &[2, 0, 1])]),
            node("LSTM", &["t", "w", "r"], &["all", "last"], attributes),
            node("Transpose", &[output], &["y"], vec![ints("perm", perm)]),
        ];
        merging(nodes, weights, perm.len())
    };
    let hidden = || vec![int("hidden_size", 2)];
    assert_eq!(graph(hidden(), "last", &[1, 0, 2]), "rows");
    assert_eq!(graph(hidden(), "all", &[2, 0, 1, 3]), "rows");
    // A sum over the rounds of a loop along the rows.
    let scan = |axis: i64| {
        let body = GraphProto {
            node: vec![
                node("Add", &["before", "row"], &["after"], vec![]),
                node("Identity", &["after"], &["seen"], vec![]),
            ],
            input: vec![value_free("before", DataType::Float, &["?"]), value_free("row", DataType::Float, &["?"])],
            output: vec![value_free("after", DataType::Float, &["?"]), value_free("seen", DataType::Float, &["?"])],
            ..GraphProto::default()
        };
        let r#type = AttributeType::Graph as i32;
        let body = AttributeProto { name: "body".into(), r#type, g: Some(body), ..AttributeProto::default() };
        let attributes =
            vec![body, int("num_scan_inputs", 1), ints("scan_input_axes", &[axis]), ints("scan_output_axes", &[axis])];
        let nodes = vec![
            node("ReduceSum", &["x", "axis"], &["zero"], vec![int("keepdims", 0)]),
            node("Scan", &["zero", "x"], &["last", "y"], attributes),
        ];
        merging_of(DataType::Float, &["n", "4"], nodes, vec![longs("axis", &[1], &[axis])], 2)
    };
    assert_eq!(scan(1), "rows");
    assert!(scan(0).contains("rows"), "{}", scan(0));
    assert_ne!(scan(0), "rows");
}

#[test]
fn unknown_operators_are_not_trusted() {
    let nodes = vec![node("NonZero", &["x"], &["i"], vec![]), node("Cast", &["i"], &["y"], vec![int("to", 1)])];
    let found = merging_of(DataType::Float, &["n", "4"], nodes, vec![], 2);
    assert_eq!(found, "NonZero i: NonZero is not known to keep rows apart");
    let random = vec![
        node("RandomUniform", &[], &["r"], vec![ints("shape", &[4, 6]), int("dtype", DataType::Float as i64)]),
        node("Add", &["x", "r"], &["y"], vec![]),
    ];
    let found = merging(random, vec![], 3);
    assert_eq!(found, "RandomUniform r: it makes values that depend on the number of rows, or on chance");
}
