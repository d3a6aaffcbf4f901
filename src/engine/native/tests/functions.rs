//! Functions that a model brings along.

use super::typed::{Graph, near, some};
use super::*;
use crate::engine::proto::{float, int, longs, node};
use crate::proto::onnx::attribute_proto::AttributeType;
use crate::proto::onnx::{AttributeProto, FunctionProto, GraphProto, ModelProto, OperatorSetIdProto};
use crate::tensor::DType;

/// An attribute that is the call's.
fn referred(name: &str, to: &str, r#type: AttributeType) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: r#type as i32, ref_attr_name: to.into(), ..AttributeProto::default() }
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: domain.into(), version }
}

fn call(name: &str, inputs: &[&str], outputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
    NodeProto { domain: "own".into(), ..node(name, inputs, outputs, attributes) }
}

fn function(name: &str, inputs: &[&str], outputs: &[&str], nodes: Vec<NodeProto>) -> FunctionProto {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    FunctionProto {
        name: name.into(),
        domain: "own".into(),
        input: names(inputs),
        output: names(outputs),
        node: nodes,
        opset_import: vec![opset("", 17), opset("own", 1)],
        ..FunctionProto::default()
    }
}

/// A leaky function of `x` and twice that; its slope is a half unless the call says otherwise.
fn leaky() -> FunctionProto {
    let slope = referred("alpha", "slope", AttributeType::Float);
    let nodes = vec![node("LeakyRelu", &["x"], &["y"], vec![slope]), node("Sum", &["y", "y"], &["twice"], vec![])];
    FunctionProto { attribute_proto: vec![float("slope", 0.5)], ..function("Leaky", &["x"], &["y", "twice"], nodes) }
}

fn with_functions(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> ModelProto {
    let case = Case { x: vec!["n", "4"], nodes, constants: vec![], rank: 2 };
    let mut model = case.model();
    model.opset_import.push(opset("own", 1));
    model.functions = functions;
    model
}

fn answered(model: &ModelProto) -> Vec<f64> {
    let plan = plan(model, &options()).unwrap();
    typed::of(&answer(plan, vec![tensor(&[1, 4], &[-2.0, -1.0, 0.0, 3.0])]).unwrap()[0])
}

fn refused(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> String {
    plan(&with_functions(nodes, functions), &options()).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn calls_have_names_and_attributes_of_their_own() {
    // Within the function `y` is another value than without it, and so is it in every call.
    let nodes =
        vec![call("Leaky", &["x"], &["a", "b"], vec![float("slope", 0.25)]), call("Leaky", &["b"], &["", "y"], vec![])];
    near(&answered(&with_functions(nodes, vec![leaky()])), &[-1.0, -0.5, 0.0, 12.0]);
}

#[test]
fn functions_call_functions() {
    let slope = referred("slope", "steep", AttributeType::Float);
    let twice = function(
        "Twice",
        &["x"],
        &["y"],
        vec![call("Leaky", &["x"], &["z"], vec![slope.clone()]), call("Leaky", &["z"], &["y"], vec![slope])],
    );
    let nodes = vec![call("Twice", &["x"], &["y"], vec![float("steep", 0.1)])];
    near(&answered(&with_functions(nodes, vec![leaky(), twice.clone()])), &[-0.02, -0.01, 0.0, 3.0]);
    // What the call does not give is the inner function's to have.
    let nodes = vec![call("Twice", &["x"], &["y"], vec![])];
    near(&answered(&with_functions(nodes, vec![twice, leaky()])), &[-0.5, -0.25, 0.0, 3.0]);
}

#[test]
fn missing_operands_and_own_versions() {
    // Of opset 10, with bounds that are attributes; the third operand of `Clip` is one that the call leaves out.
    let clip = FunctionProto {
        opset_import: vec![opset("", 10)],
        ..function("Bound", &["x"], &["y"], vec![node("Clip", &["x"], &["y"], vec![float("min", -1.5)])])
    };
    let between =
        function("Between", &["x", "low", "high"], &["y"], vec![node("Clip", &["x", "low", "high"], &["y"], vec![])]);
    let nodes = vec![
        call("Bound", &["x"], &["a"], vec![]),
        node("ReduceMin", &["x"], &["least"], vec![int("keepdims", 0)]),
        call("Between", &["a", "least"], &["b"], vec![]),
        call("Between", &["b", "", "least"], &["c"], vec![]),
        node("Sub", &["b", "c"], &["y"], vec![]),
    ];
    near(&answered(&with_functions(nodes, vec![clip, between])), &[0.5, 1.0, 2.0, 5.0]);
}

#[test]
fn graphs_within_functions_take_what_the_call_gives() {
    let branch = |slope: AttributeProto| GraphProto {
        node: vec![node("LeakyRelu", &["x"], &["z"], vec![slope])],
        output: vec![crate::engine::proto::unknown("z")],
        ..GraphProto::default()
    };
    let graph = |name: &str, g| AttributeProto {
        g: Some(g),
        ..AttributeProto { name: name.into(), r#type: AttributeType::Graph as i32, ..AttributeProto::default() }
    };
    let branches = vec![
        graph("then_branch", branch(referred("alpha", "one", AttributeType::Float))),
        graph("else_branch", branch(referred("alpha", "other", AttributeType::Float))),
    ];
    let chosen = function("Chosen", &["c", "x"], &["z"], vec![node("If", &["c"], &["z"], branches)]);
    let nodes = vec![
        node("ReduceSum", &["x"], &["sum"], vec![int("keepdims", 0)]),
        node("Greater", &["sum", "limit"], &["is"], vec![]),
        call("Chosen", &["is", "x"], &["y"], vec![float("one", 0.5), float("other", 0.25)]),
    ];
    for (limit, slope) in [(-1.0, 0.5), (1.0, 0.25)] {
        let mut model = with_functions(nodes.clone(), vec![chosen.clone()]);
        model.graph.as_mut().unwrap().initializer.push(floats("limit", &[], &[limit]));
        near(&answered(&model), &[-2.0 * slope, -slope, 0.0, 3.0]);
    }
}

#[test]
fn constants_of_functions_are_theirs() {
    let value = AttributeProto {
        t: Some(longs("", &[1], &[-1])),
        ..AttributeProto { name: "value".into(), r#type: AttributeType::Tensor as i32, ..AttributeProto::default() }
    };
    let flat = function(
        "Flat",
        &["x"],
        &["y"],
        vec![node("Constant", &[], &["all"], vec![value]), node("Reshape", &["x", "all"], &["y"], vec![])],
    );
    let nodes = vec![call("Flat", &["x"], &["y"], vec![])];
    let mut model = with_functions(nodes, vec![flat]);
    model.graph.as_mut().unwrap().output = vec![value_free("y", DataType::Float, &["all"])];
    let plan = plan(&model, &options()).unwrap();
    assert_eq!(answer(plan, vec![tensor(&[2, 4], &[1.0; 8])]).unwrap()[0].shape()[..], [8]);
}

#[test]
fn a_function_takes_the_place_of_an_operator() {
    let relu = FunctionProto {
        domain: String::new(),
        ..function("Relu", &["x"], &["y"], vec![node("Neg", &["x"], &["y"], vec![])])
    };
    near(&answered(&with_functions(vec![node("Relu", &["x"], &["y"], vec![])], vec![relu])), &[2.0, 1.0, 0.0, -3.0]);
}

#[test]
fn calls_without_an_end_are_refused() {
    let to = |name: &str, other: &str| function(name, &["x"], &["y"], vec![call(other, &["x"], &["y"], vec![])]);
    let nodes = vec![call("A", &["x"], &["y"], vec![])];
    let told = refused(nodes.clone(), vec![to("A", "B"), to("B", "A")]);
    assert_eq!(told, "invalid model: own:A y: its function calls itself");
    let names: Vec<String> = (0..40).map(|at| format!("F{at}")).collect();
    let chain = names.windows(2).map(|pair| to(&pair[0], &pair[1])).collect();
    let told = refused(vec![call("F0", &["x"], &["y"], vec![])], chain);
    assert_eq!(told, "operator own:F32 y is not served: functions call each other more than 32 deep");
    // Each calls the next one four times: a million nodes.
    let four = |pair: &[String]| {
        let steps = ["x", "a", "b", "c", "y"];
        let calls = steps.windows(2).map(|step| call(&pair[1], &step[..1], &step[1..], vec![])).collect();
        function(&pair[0], &["x"], &["y"], calls)
    };
    let mut many: Vec<FunctionProto> = names[..11].windows(2).map(four).collect();
    many.push(function("F10", &["x"], &["y"], vec![node("Relu", &["x"], &["y"], vec![])]));
    let told = refused(vec![call("F0", &["x"], &["y"], vec![])], many);
    assert!(told.ends_with("is not served: functions become more than 20000 nodes"), "{told}");
    let told = refused(nodes, vec![to("A", "Missing")]);
    assert!(told.contains("own:Missing y is not served: there is no row for it at opset 1"), "{told}");
    let told = refused(vec![call("L", &["x", "x"], &["y"], vec![])], vec![to("L", "L")]);
    assert_eq!(told, "invalid model: own:L y: its function takes 1 operands, it has 2");
}

#[test]
fn types_go_through_functions() {
    let half = function(
        "Half",
        &["x"],
        &["y"],
        vec![node("Sum", &["x", "x"], &["a"], vec![]), node("Mean", &["a", "x"], &["y"], vec![])],
    );
    let nodes = vec![call("Half", &["x"], &["y"], vec![])];
    let x = some(DType::F64, &[1, 2], &[2.0, 4.0]);
    let mut model = Graph {
        version: 17,
        nodes,
        constants: vec![],
        inputs: std::slice::from_ref(&x),
        outputs: &[("y", DType::F64, 2)],
    }
    .model();
    model.opset_import.push(opset("own", 1));
    model.functions = vec![half];
    let plan = plan(&model, &options()).unwrap();
    near(&typed::of(&answer(plan, vec![x]).unwrap()[0]), &[3.0, 6.0]);
}
