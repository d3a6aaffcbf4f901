//! Models that ask for too much, or for what makes no sense: an error in words, soon, and no memory.

use super::*;
use crate::engine::proto::{int, ints, node};

fn refused(nodes: Vec<NodeProto>, constants: Vec<TensorProto>, rank: usize) -> String {
    let case = Case { x: vec!["n", "4"], nodes, constants, rank };
    case.load(&options()).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn graphs_that_make_no_sense_are_told() {
    let cycle = vec![node("Relu", &["b"], &["a"], vec![]), node("Relu", &["a"], &["b"], vec![])];
    assert_eq!(refused(cycle, vec![], 2), "invalid model: value \"b\" is used before anything makes it");
    let twice = vec![node("Relu", &["x"], &["y"], vec![]), node("Relu", &["x"], &["y"], vec![])];
    assert_eq!(refused(twice, vec![], 2), "invalid model: two values are named \"y\"");
    let missing = refused(vec![node("Add", &["x"], &["z"], vec![])], vec![], 2);
    assert_eq!(missing, "invalid model: value \"y\" is used before anything makes it");
    let many = (0..20_001).map(|at| node("Relu", &["x"], &[&format!("v{at}")], vec![])).collect();
    let told = refused(many, vec![], 2);
    assert_eq!(told, "operator the graph is not served: it has 20001 nodes, at most 20000 are read");
}

#[test]
fn shapes_without_bounds_are_refused() {
    let huge = [1 << 40, 1 << 40];
    let grown = vec![node("Expand", &["one", "shape"], &["a"], vec![]), node("Add", &["x", "a"], &["y"], vec![])];
    let constants = || vec![floats("one", &[1, 1], &[1.0]), list("shape", &huge)];
    assert!(refused(grown, constants(), 2).contains("a shape overflows"));
    let filled = vec![node("ConstantOfShape", &["shape"], &["a"], vec![]), node("Add", &["x", "a"], &["y"], vec![])];
    assert!(refused(filled, vec![list("shape", &[-1, 4])], 2).contains("a shape overflows"));
}

#[test]
fn a_run_that_needs_too_much_is_refused() {
    // Half a TiB of ones, never made.
    let nodes = vec![
        node("Expand", &["one", "shape"], &["a"], vec![]),
        node("ReduceSum", &["a"], &["b"], vec![ints("axes", &[0]), int("keepdims", 1)]),
        node("Add", &["x", "b"], &["y"], vec![]),
    ];
    let constants = vec![floats("one", &[1, 1], &[1.0]), list("shape", &[1 << 35, 4])];
    let plan = Case { x: vec!["n", "4"], nodes, constants, rank: 2 }.load(&options()).unwrap();
    let error = answer(plan, vec![tensor(&[1, 4], &[0.0; 4])]).unwrap_err().to_string();
    assert!(error.ends_with("the run needs 549755813888 bytes, the limit is 2147483648"), "{error}");
}

#[test]
fn absurd_attributes_are_told() {
    let conv = |attributes| {
        let nodes = vec![node("Conv", &["x", "w"], &["y"], attributes)];
        let case = Case { x: vec!["n", "1", "8", "8"], nodes, constants: vec![weights("w", &[1, 1, 3, 3])], rank: 4 };
        case.load(&options()).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let huge = i64::MAX;
    assert!(conv(vec![ints("strides", &[0, 1])]).ends_with("strides [0, 1] has a zero"));
    assert!(conv(vec![ints("strides", &[-1, 1])]).ends_with("strides must be from 0 to 2147483647, got [-1, 1]"));
    assert!(conv(vec![ints("dilations", &[huge, huge])]).contains("dilations must be from 0 to 2147483647"));
    let large = (1 << 31) - 1;
    assert!(conv(vec![ints("dilations", &[large, large])]).contains("smaller than the window"));
    assert!(conv(vec![ints("pads", &[large, large, large, large])]).contains("a shape overflows"));
    assert!(conv(vec![int("group", 0)]).ends_with("group must be positive"));
    assert!(conv(vec![int("group", 7)]).contains("do not go together"));
    assert!(conv(vec![ints("kernel_shape", &[2, 2])]).contains("is not that of weights"));
    assert!(conv(vec![ints("pads", &[1])]).contains("are not two for each of 2 axes"));
}
