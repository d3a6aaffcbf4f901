//! Classical models against values computed by hand, and against tract where that serves them.

use super::*;
use crate::engine::proto::{float, int, ints, node, text};
use crate::proto::onnx::AttributeProto;
use crate::proto::onnx::attribute_proto::AttributeType;
use crate::tensor::DType;

pub(super) fn float_list(name: &str, floats: &[f32]) -> AttributeProto {
    let (r#type, floats) = (AttributeType::Floats as i32, floats.to_vec());
    AttributeProto { name: name.into(), r#type, floats, ..AttributeProto::default() }
}

fn texts(name: &str, texts: &[&str]) -> AttributeProto {
    let strings = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    AttributeProto { name: name.into(), r#type: AttributeType::Strings as i32, strings, ..AttributeProto::default() }
}

fn tensor_attribute(name: &str, data_type: DataType, raw_data: Vec<u8>, count: usize) -> AttributeProto {
    let dims = vec![i64::try_from(count).unwrap()];
    let raw_data = raw_data.into();
    let t = Some(TensorProto { dims, data_type: data_type as i32, raw_data, ..TensorProto::default() });
    AttributeProto { name: name.into(), r#type: AttributeType::Tensor as i32, t, ..AttributeProto::default() }
}

fn doubles(name: &str, values: &[f64]) -> AttributeProto {
    tensor_attribute(name, DataType::Double, values.iter().flat_map(|x| x.to_le_bytes()).collect(), values.len())
}

fn classical(op_type: &str, outputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
    NodeProto { domain: "ai.onnx.ml".into(), ..node(op_type, &["x"], outputs, attributes) }
}

/// A graph of one node, whose outputs are of these types and ranks.
fn graph(node: NodeProto, x: (DataType, &[&str]), outputs: &[(DataType, usize)], version: i64) -> ModelProto {
    let named = node.output.iter().filter(|name| !name.is_empty());
    let output = |(name, (data_type, rank)): (&String, &(DataType, usize))| {
        value_free(name, *data_type, &["a", "b", "c"][..*rank])
    };
    let outputs = named.zip(outputs).map(output).collect();
    let mut model = model(vec![value_free("x", x.0, x.1)], vec![node], outputs, vec![]);
    model.opset_import[1].version = version;
    model
}

const SCORES: (DataType, usize) = (DataType::Float, 2);
const LABELS: (DataType, usize) = (DataType::Int64, 1);

/// Answers to rows of FP32.
fn answers(node: NodeProto, width: usize, x: &[f32], outputs: &[(DataType, usize)]) -> Vec<Tensor> {
    let model = graph(node, (DataType::Float, &["n", NUMBERS[width]]), outputs, 3);
    let rows = x.len() / width;
    answer(plan(&model, &options()).unwrap(), vec![tensor(&[rows, width], x)]).unwrap()
}

fn scores(op_type: &str, attributes: Vec<AttributeProto>, width: usize, x: &[f32]) -> Vec<f32> {
    values(&answers(classical(op_type, &["y"], attributes), width, x, &[SCORES])[0])
}

fn labels(tensor: &Tensor) -> Vec<i64> {
    assert_eq!(tensor.dtype(), DType::I64);
    tensor.bytes().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
}

fn near(got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    let is_near = |(got, expected): (&f32, &f32)| (got - expected).abs() < 1e-6;
    assert!(got.iter().zip(expected).all(is_near), "{got:?} {expected:?}");
}

const NUMBERS: [&str; 5] = ["0", "1", "2", "3", "4"];

/// Two trees: "x0 <= 0" and, of those that are not, "x1 > 1"; and a tree of one leaf.
fn nodes() -> Vec<AttributeProto> {
    vec![
        ints("nodes_treeids", &[0, 0, 0, 0, 0, 1]),
        ints("nodes_nodeids", &[0, 1, 2, 3, 4, 0]),
        ints("nodes_featureids", &[0, 0, 1, 0, 0, 0]),
        ints("nodes_truenodeids", &[1, 0, 4, 0, 0, 0]),
        ints("nodes_falsenodeids", &[2, 0, 3, 0, 0, 0]),
        texts("nodes_modes", &["BRANCH_LEQ", "LEAF", "BRANCH_GT", "LEAF", "LEAF", "LEAF"]),
    ]
}

const VALUES: [f32; 6] = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0];

/// Weights of the leaves 1, 3 and 4 of the first tree, and of the second tree, for these targets.
fn weights_for(of: &str, ids: [i64; 4], weights: [f32; 4]) -> Vec<AttributeProto> {
    let name = |what: &str| format!("{of}_{what}");
    vec![
        ints(&name("treeids"), &[0, 0, 0, 1]),
        ints(&name("nodeids"), &[1, 3, 4, 0]),
        ints(&name("ids"), &ids),
        float_list(&name("weights"), &weights),
    ]
}

fn regressor(more: Vec<AttributeProto>) -> Vec<AttributeProto> {
    let weights = weights_for("target", [0; 4], [10.0, 20.0, 30.0, 1.0]);
    [nodes(), vec![float_list("nodes_values", &VALUES)], weights, more].concat()
}

/// To the leaves 1, 3 and 4, and where NaN goes: nowhere by "x0 <= 0", nor by "x1 > 1".
const ROWS: [f32; 8] = [0.0, 5.0, 1.0, 1.0, 1.0, 1.5, f32::NAN, f32::NAN];

#[test]
fn regression() {
    let sums = |more| scores("TreeEnsembleRegressor", regressor(more), 2, &ROWS);
    let one = || int("n_targets", 1);
    assert_eq!(sums(vec![one()]), [11.0, 21.0, 31.0, 21.0]);
    assert_eq!(sums(vec![one(), float_list("base_values", &[0.5])]), [11.5, 21.5, 31.5, 21.5]);
    assert_eq!(sums(vec![one(), text("aggregate_function", "AVERAGE")]), [5.5, 10.5, 15.5, 10.5]);
    assert_eq!(sums(vec![one(), text("aggregate_function", "MIN")]), [1.0; 4]);
    assert_eq!(sums(vec![one(), text("aggregate_function", "MAX")]), [10.0, 20.0, 30.0, 20.0]);
    let tracks = |first, second| ints("nodes_missing_value_tracks_true", &[first, 0, second, 0, 0, 0]);
    assert_eq!(sums(vec![one(), tracks(1, 0)]), [11.0, 21.0, 31.0, 11.0]);
    assert_eq!(sums(vec![one(), tracks(0, 1)]), [11.0, 21.0, 31.0, 31.0]);
}

#[test]
fn features_of_other_types() {
    let answer_to = |attributes, data_type, x: Tensor| {
        let model =
            graph(classical("TreeEnsembleRegressor", &["y"], attributes), (data_type, &["n", "2"]), &[SCORES], 3);
        values(&answer(plan(&model, &options()).unwrap(), vec![x]).unwrap()[0])
    };
    let whole = |x: &[i64]| bytes_of(DType::I64, &[2, 2], x.iter().flat_map(|x| x.to_le_bytes()).collect());
    let of_integers = answer_to(regressor(vec![int("n_targets", 1)]), DataType::Int64, whole(&[0, 9, 1, 2]));
    assert_eq!(of_integers, [11.0, 31.0]);
    // A threshold between two numbers of FP32.
    let mut wide = nodes();
    wide.push(doubles("nodes_values_as_tensor", &[1.0 + 1e-12, 0.0, 1.0, 0.0, 0.0, 0.0]));
    wide.extend(weights_for("target", [0; 4], [0.0; 4]).into_iter().take(3));
    wide.extend([doubles("target_weights_as_tensor", &[10.0, 20.0, 30.0, 1.0]), int("n_targets", 1)]);
    let x = [1.0 + 1e-12, 0.0, 1.0 + 2e-12, 0.0];
    let x = bytes_of(DType::F64, &[2, 2], x.iter().flat_map(|x: &f64| x.to_le_bytes()).collect());
    assert_eq!(answer_to(wide.clone(), DataType::Double, x), [11.0, 21.0]);
    assert_eq!(answer_to(wide, DataType::Float, tensor(&[2, 2], &[1.0, 0.0, 1.000_001, 0.0])), [11.0, 21.0]);
}

fn classifier(ids: [i64; 4], weights: [f32; 4], more: Vec<AttributeProto>) -> Vec<Tensor> {
    let values = vec![float_list("nodes_values", &VALUES)];
    let attributes = [nodes(), values, weights_for("class", ids, weights), more].concat();
    answers(classical("TreeEnsembleClassifier", &["l", "p"], attributes), 2, &ROWS[..6], &[LABELS, SCORES])
}

#[test]
fn several_classes() {
    let three = || ints("classlabels_int64s", &[5, 6, 9]);
    let made = classifier([0, 1, 2, 1], [0.5, 0.25, 0.75, 0.125], vec![three()]);
    assert_eq!(labels(&made[0]), [5, 6, 9]);
    assert_eq!(values(&made[1]), [0.5, 0.125, 0.0, 0.0, 0.375, 0.0, 0.0, 0.125, 0.75]);
    // A class without weights is not chosen, though its score of zero is the greatest.
    let made = classifier([0, 1, 2, 1], [-0.5, 0.0, -0.75, -0.125], vec![three()]);
    assert_eq!(labels(&made[0]), [6, 6, 6]);
    assert_eq!(values(&made[1]), [-0.5, -0.125, 0.0, 0.0, -0.125, 0.0, 0.0, -0.125, -0.75]);
    // With base values every class has a score.
    let made = classifier(
        [0, 1, 2, 1],
        [-0.5, 0.0, -0.75, -0.125],
        vec![three(), float_list("base_values", &[0.0, 0.0, 0.5])],
    );
    assert_eq!(labels(&made[0]), [9, 9, 5]);
    let made = classifier([0, 1, 2, 1], [1.0, 2.0, 3.0, 0.0], vec![three(), text("post_transform", "SOFTMAX_ZERO")]);
    assert_eq!(values(&made[1]), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
    let made = classifier([0, 1, 2, 1], [1.0, 2.0, 3.0, 0.0], vec![three(), text("post_transform", "SOFTMAX")]);
    let [e, rest] = [1f32.exp(), 1f32.exp() + 2.0];
    near(&values(&made[1])[..3], &[e / rest, 1.0 / rest, 1.0 / rest]);
}

#[test]
fn two_classes_of_which_one_has_weights() {
    let two = |more: &[AttributeProto]| [&[ints("classlabels_int64s", &[3, 4])], more].concat();
    let logistic = |x: f32| 1.0 / (1.0 + (-x).exp());
    let made = classifier([0; 4], [0.25, 0.5, 0.75, 0.0], two(&[]));
    assert_eq!(labels(&made[0]), [3, 3, 4], "what is not negative is a share");
    assert_eq!(values(&made[1]), [0.75, 0.25, 0.5, 0.5, 0.25, 0.75]);
    let made = classifier([0; 4], [-1.0, 0.25, 0.5, 0.0], two(&[text("post_transform", "LOGISTIC")]));
    assert_eq!(labels(&made[0]), [3, 4, 4], "others are chosen by their sign");
    let expected = [-1.0, 0.25, 0.5].map(|x| [logistic(-x), logistic(x)]).concat();
    near(&values(&made[1]), &expected);
    let made = classifier([0; 4], [-1.0, 0.25, 0.5, 0.0], two(&[float_list("base_values", &[-0.25])]));
    assert_eq!((labels(&made[0]), values(&made[1])), (vec![3, 3, 4], vec![1.25, -1.25, 0.0, 0.0, -0.25, 0.25]));
    let made = classifier([1; 4], [-1.0, 0.25, 0.5, 0.0], two(&[]));
    assert_eq!((labels(&made[0]), values(&made[1])), (vec![3, 4, 4], vec![0.0, -1.0, 0.0, 0.25, 0.0, 0.5]));
}

#[test]
fn labels_that_are_strings() {
    let values = vec![float_list("nodes_values", &VALUES)];
    let strings = vec![texts("classlabels_strings", &["a", "b", "c"])];
    let weights = weights_for("class", [0, 1, 2, 1], [0.5, 0.25, 0.75, 0.125]);
    let attributes = [nodes(), values, weights, strings].concat();
    let node = |outputs| classical("TreeEnsembleClassifier", outputs, attributes.clone());
    let taken = graph(node(&["l", "p"]), (DataType::Float, &["n", "2"]), &[LABELS, SCORES], 3);
    let told = plan(&taken, &options()).err().unwrap().to_string();
    assert!(told.ends_with("its labels are strings, which are not served"), "{told}");
    let made = answers(node(&["", "p"]), 2, &ROWS[..2], &[SCORES]);
    assert_eq!(self::values(&made[0]), [0.5, 0.125, 0.0]);
}

/// As an example of the standard has it: membership, sets apart by NaN, leaves that are shared.
#[test]
fn the_newer_form() {
    let attributes = vec![
        int("n_targets", 4),
        ints("tree_roots", &[0]),
        tensor_attribute("nodes_modes", DataType::Uint8, vec![0, 6, 6], 3),
        ints("nodes_featureids", &[0, 0, 0]),
        tensor_attribute(
            "nodes_splits",
            DataType::Float,
            [11.0, 232_344.0, f32::NAN].iter().flat_map(|x| x.to_le_bytes()).collect(),
            3,
        ),
        ints("nodes_truenodeids", &[1, 0, 1]),
        ints("nodes_trueleafs", &[0, 1, 1]),
        ints("nodes_falsenodeids", &[2, 2, 3]),
        ints("nodes_falseleafs", &[1, 0, 1]),
        ints("leaf_targetids", &[0, 1, 2, 3]),
        tensor_attribute(
            "leaf_weights",
            DataType::Float,
            [1.0f32, 10.0, 1000.0, 100.0].iter().flat_map(|x| x.to_le_bytes()).collect(),
            4,
        ),
        tensor_attribute(
            "membership_values",
            DataType::Float,
            [1.2, 3.7, 8.0, 9.0, f32::NAN, 12.0, 7.0, f32::NAN].iter().flat_map(|x| x.to_le_bytes()).collect(),
            8,
        ),
    ];
    let model = graph(classical("TreeEnsemble", &["y"], attributes), (DataType::Float, &["n", "1"]), &[SCORES], 5);
    let x = [1.2, 3.4, -0.12, f32::NAN, 12.0, 7.0];
    let got = answer(plan(&model, &options()).unwrap(), vec![tensor(&[6, 1], &x)]).unwrap();
    let rows: Vec<usize> = values(&got[0]).chunks(4).map(|row| row.iter().position(|x| *x != 0.0).unwrap()).collect();
    assert_eq!(rows, [0, 3, 3, 2, 2, 1]);
}

#[test]
fn forests_that_make_no_sense_are_told() {
    let refused = |name: &str, replaced: AttributeProto| {
        let mut attributes = regressor(vec![int("n_targets", 1)]);
        attributes.retain(|attribute| attribute.name != name);
        attributes.push(replaced);
        let node = classical("TreeEnsembleRegressor", &["y"], attributes);
        let model = graph(node, (DataType::Float, &["n", "2"]), &[SCORES], 3);
        plan(&model, &options()).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let ends = |told: String, end: &str| assert!(told.ends_with(end), "{told}");
    let children = |ids: &[i64]| refused("nodes_truenodeids", ints("nodes_truenodeids", ids));
    ends(children(&[0, 0, 4, 0, 0, 0]), "node 0 of tree 0 is reached by two ways");
    ends(children(&[1, 0, 1, 0, 0, 0]), "node 1 of tree 0 is reached by two ways");
    ends(children(&[9, 0, 4, 0, 0, 0]), "node 0 of tree 0 leads to a node that is not there");
    ends(children(&[1, 0, 4]), "nodes_truenodeids has 3 elements, expected 6");
    let features = |ids: &[i64]| refused("nodes_featureids", ints("nodes_featureids", ids));
    ends(features(&[0, 0, -1, 0, 0, 0]), "node 2 of tree 0 asks for feature -1");
    ends(features(&[0, 0, 2, 0, 0, 0]), "index 2 is outside an axis of 2");
    ends(features(&[0, 0, 1 << 40, 0, 0, 0]), "node 2 of tree 0 asks for a feature beyond any");
    ends(refused("nodes_nodeids", ints("nodes_nodeids", &[0, 1, 2, 3, 3, 0])), "node 3 of tree 0 is there twice");
    ends(refused("nodes_values", float_list("nodes_values", &[f32::NAN; 6])), "node 0 of tree 0 compares with NaN");
    ends(refused("target_ids", ints("target_ids", &[0, 1, 0, 0])), "has a weight for a target that is none");
    ends(
        refused("target_nodeids", ints("target_nodeids", &[1, 3, 3, 0])),
        "node 4 of tree 0 is a leaf without a weight",
    );
    ends(refused("n_targets", int("n_targets", i64::MAX)), "from 1 to 1048576 targets or classes");
    let modes = texts("nodes_modes", &["BRANCH_ODD", "LEAF", "BRANCH_GT", "LEAF", "LEAF", "LEAF"]);
    ends(refused("nodes_modes", modes), "a node is \"BRANCH_ODD\", which is no mode");
}

#[test]
fn as_tract_classifies() {
    let labels_of = ints("classlabels_int64s", &[0, 1, 2]);
    let weights = weights_for("class", [0, 1, 2, 1], [0.5, 0.25, 0.75, 0.125]);
    let trees = [nodes(), vec![float_list("nodes_values", &VALUES), labels_of], weights].concat();
    let coefficients = float_list("coefficients", &[0.1, -0.2, 0.3, 0.4, -0.5, 0.6]);
    let intercepts = float_list("intercepts", &[0.1, 0.2, -0.3]);
    let labels_of = ints("classlabels_ints", &[0, 1, 2]);
    let linear = vec![coefficients, intercepts, labels_of, text("post_transform", "SOFTMAX")];
    for (op_type, attributes) in [("TreeEnsembleClassifier", trees), ("LinearClassifier", linear)] {
        let node = classical(op_type, &["l", "p"], attributes);
        let model = graph(node, (DataType::Float, &["n", "2"]), &[LABELS, SCORES], 3);
        let x = || vec![tensor(&[3, 2], &ROWS[..6])];
        let expected = crate::engine::tract::answers(&model, &x());
        let got = answer(plan(&model, &options()).unwrap(), x()).unwrap();
        assert_eq!(labels(&got[0]), labels(&expected[0]), "{op_type}");
        near(&values(&got[1]), &values(&expected[1]));
    }
}

#[test]
fn linear_models() {
    let attributes = |more: &[AttributeProto]| {
        let coefficients = vec![float_list("coefficients", &[1.0, 2.0]), float_list("intercepts", &[0.5])];
        [coefficients, more.to_vec()].concat()
    };
    assert_eq!(scores("LinearRegressor", attributes(&[]), 2, &[1.0, 2.0, 0.0, 0.0]), [5.5, 0.5]);
    let two = |more: &[AttributeProto]| {
        let attributes = attributes(&[&[ints("classlabels_ints", &[7, 8])], more].concat());
        answers(classical("LinearClassifier", &["l", "p"], attributes), 2, &[0.0, 0.0, -1.0, 0.0], &[LABELS, SCORES])
    };
    let made = two(&[]);
    assert_eq!((labels(&made[0]), values(&made[1])), (vec![8, 7], vec![0.5, 0.5, 1.5, -0.5]));
    let logistic = |x: f32| 1.0 / (1.0 + (-x).exp());
    let made = two(&[text("post_transform", "LOGISTIC")]);
    near(&values(&made[1]), &[logistic(-0.5), logistic(0.5), logistic(0.5), logistic(-0.5)]);
    // The quantiles of the normal distribution, by an approximation.
    let quantiles = vec![float_list("coefficients", &[1.0]), text("post_transform", "PROBIT")];
    for (x, expected) in [(0.5, 0.0), (0.9, 1.281_552), (0.025, -1.959_964)] {
        let got = scores("LinearRegressor", quantiles.clone(), 1, &[x])[0];
        assert!((got - expected).abs() < 1e-2, "{got} {expected}");
    }
}

#[test]
fn tables_of_features() {
    let x = [3.0, -4.0, 0.0, 0.0];
    assert_eq!(scores("Normalizer", vec![text("norm", "L1")], 2, &x), [3.0 / 7.0, -4.0 / 7.0, 0.0, 0.0]);
    assert_eq!(scores("Normalizer", vec![text("norm", "L2")], 2, &x), [0.6, -0.8, 0.0, 0.0]);
    assert_eq!(scores("Normalizer", vec![text("norm", "MAX")], 2, &x), [1.0, -4.0 / 3.0, 0.0, 0.0]);
    let scaler = vec![float_list("offset", &[1.0, 0.0]), float_list("scale", &[2.0, 0.5])];
    assert_eq!(scores("Scaler", scaler, 2, &x), [4.0, -2.0, -2.0, 0.0]);
    assert_eq!(scores("Binarizer", vec![float("threshold", -1.0)], 2, &x), [1.0, 0.0, 1.0, 1.0]);
    let imputer =
        |replaced| vec![float_list("imputed_value_floats", &[8.0, 9.0]), float("replaced_value_float", replaced)];
    assert_eq!(scores("Imputer", imputer(0.0), 2, &x), [3.0, -4.0, 8.0, 9.0]);
    assert_eq!(scores("Imputer", imputer(f32::NAN), 2, &[f32::NAN, 1.0]), [8.0, 1.0]);
    let encoder = vec![float_list("keys_floats", &[0.0, 3.0, 3.0]), float_list("values_floats", &[1.0, 2.0, 4.0])];
    let encoder = [encoder, vec![float("default_float", -7.0)]].concat();
    assert_eq!(scores("LabelEncoder", encoder, 2, &x), [2.0, -7.0, 1.0, 1.0]);
    assert_eq!(scores("FeatureVectorizer", vec![ints("inputdimensions", &[2])], 2, &x), x);
    let one_hot = classical("OneHotEncoder", &["y"], vec![ints("cats_int64s", &[-4, 3])]);
    let made = answers(one_hot, 2, &x, &[(DataType::Float, 3)]);
    assert_eq!((made[0].shape()[..].to_vec(), values(&made[0])), (vec![2, 2, 2], vec![0., 1., 1., 0., 0., 0., 0., 0.]));
}

#[test]
fn strings_are_refused() {
    let told = |op_type: &str, attributes| {
        let model = graph(classical(op_type, &["y"], attributes), (DataType::Float, &["n", "2"]), &[SCORES], 3);
        plan(&model, &options()).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let keys = vec![texts("keys_strings", &["a"]), ints("values_int64s", &[1])];
    assert!(told("LabelEncoder", keys).ends_with("its keys are strings, or none"));
    let categories = vec![texts("cats_strings", &["a"])];
    assert!(told("OneHotEncoder", categories).ends_with("its categories are strings, or none"));
    assert!(told("SVMRegressor", vec![]).contains("there is no row for it at opset 3"));
    assert!(told("FeatureVectorizer", vec![ints("inputdimensions", &[3])]).contains("must be 3"));
}
