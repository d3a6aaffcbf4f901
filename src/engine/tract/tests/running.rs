//! Batches through the adapter: shapes, errors, state, and answers that do not depend on their company.

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{NodeProto, TensorProto};

use super::*;
use crate::engine::proto::{floats, int, ints, longs, node, value_free};
use crate::engine::testing::model;
use crate::engine::{LoadOptions, Merging};

/// `x` through some nodes to the float output `y`.
fn load(input: &[&str], nodes: Vec<NodeProto>, constants: Vec<TensorProto>, output: &[&str]) -> Box<dyn Plan> {
    let (x, y) = (value_free("x", DataType::Float, input), value_free("y", DataType::Float, output));
    plan(model(vec![x], nodes, vec![y], constants), &options()).unwrap()
}

/// Two layers, whose matrix products run differently for one row and for many.
fn perceptron() -> Box<dyn Plan> {
    let weights = |count: u16, step: f32| (0..count).map(|i| (f32::from(i) * step).sin()).collect::<Vec<_>>();
    let constants = vec![
        floats("w", &[16, 32], &weights(512, 0.37)),
        floats("b", &[32], &weights(32, 0.11)),
        floats("v", &[32, 5], &weights(160, 0.73)),
    ];
    let nodes = vec![
        node("Gemm", &["x", "w", "b"], &["h"], vec![]),
        node("Tanh", &["h"], &["t"], vec![]),
        node("MatMul", &["t", "v"], &["y"], vec![]),
    ];
    load(&["n", "16"], nodes, constants, &["n", "5"])
}

fn row(seed: u16) -> Vec<f32> {
    (0..16).map(|i| (f32::from(seed * 16 + i) * 0.9).cos()).collect()
}

fn entry(seeds: &[u16]) -> Vec<Tensor> {
    vec![tensor(&[seeds.len(), 16], &seeds.iter().flat_map(|&seed| row(seed)).collect::<Vec<_>>())]
}

#[test]
fn an_answer_does_not_depend_on_its_company() {
    for warm in [false, true] {
        let plan = perceptron();
        assert_eq!(plan.merging(), &Merging::Rows);
        let (mut plan, alone) = execute(plan, vec![entry(&[0])], warm);
        let first = alone.unwrap().shares.remove(0);
        for companions in [vec![], vec![1], vec![2, 3, 4], vec![5; 7], vec![6; 30]] {
            let mut entries = vec![entry(&[0])];
            entries.extend(companions.iter().map(|&seed| entry(&[seed])));
            let (same, together) = execute(plan, entries, false);
            let (same, one_request) = execute(same, vec![entry(&[&[0][..], &companions].concat())], false);
            plan = same;
            assert_eq!(together.unwrap().shares[0], first, "{companions:?}");
            let rows = one_request.unwrap().shares.remove(0).remove(0).split_rows(&[1, companions.len()]);
            assert_eq!(rows[0], first[0], "{companions:?}");
        }
    }
}

#[test]
fn entries_of_several_rows_get_their_rows() {
    let rows: [&[u16]; 4] = [&[0, 1, 2], &[3], &[4, 5, 6, 7, 8, 9, 10, 11, 12, 13], &[14]];
    let (plan, executed) = execute(perceptron(), rows.map(entry).into(), true);
    let executed = executed.unwrap();
    let (_, single) = execute(plan, (0..15).map(|seed| entry(&[seed])).collect(), false);
    let single: Vec<u8> = single.unwrap().shares.iter().flat_map(|share| share[0].bytes().to_vec()).collect();
    let got: Vec<u8> = executed.shares.iter().flat_map(|share| share[0].bytes().to_vec()).collect();
    assert_eq!(got, single);
    assert_eq!(executed.shares[2][0].shape(), &Shape::new(&[10, 5]));
}

#[test]
fn no_rows_are_no_rows() {
    let (_, executed) = execute(perceptron(), vec![vec![tensor(&[0, 16], &[])]], false);
    assert_eq!(executed.unwrap().shares[0][0].shape(), &Shape::new(&[0, 5]));
}

#[test]
fn wrong_shapes_are_the_clients_fault() {
    let refused = |tensor: Tensor| answer(perceptron(), vec![tensor]).unwrap_err();
    let error = refused(tensor(&[1, 15], &[0.; 15]));
    let expected = "the model cannot take these input shapes: input \"x\": expected shape [n,16], got [1,15]";
    assert_eq!(error.to_string(), expected);
    assert!(matches!(refused(tensor(&[16], &[0.; 16])), EngineError::InvalidShape(_)));
    let error = refused(bytes_of(DType::F64, &[1, 16], vec![0; 128]));
    assert!(error.to_string().ends_with("input \"x\": expected FP32, got FP64"), "{error}");
    // Extents that only the operators refuse.
    let nodes = vec![node("Reshape", &["x", "s"], &["y"], vec![])];
    let halves = || load(&["n", "w"], nodes.clone(), vec![longs("s", &[3], &[0, 2, -1])], &["n", "2", "h"]);
    assert_eq!(answer(halves(), vec![tensor(&[1, 4], &[0.; 4])]).unwrap()[0].shape(), &Shape::new(&[1, 2, 2]));
    let error = answer(halves(), vec![tensor(&[1, 5], &[0.; 5])]).unwrap_err();
    assert!(matches!(&error, EngineError::InvalidShape(what) if what.starts_with("got x: [1,5]: ")), "{error}");
}

#[test]
fn a_wrong_shape_stays_the_clients_fault_whatever_the_number_of_rows() {
    let nodes = || vec![node("Reshape", &["x", "s"], &["y"], vec![])];
    let load = || load(&["n", "w"], nodes(), vec![longs("s", &[3], &[0, 2, -1])], &["n", "2", "h"]);
    for rows in 1..4 {
        let entries = vec![vec![tensor(&[1, 5], &[0.; 5])]; rows];
        let error = execute(load(), entries, false).1.unwrap_err();
        assert!(matches!(&error, EngineError::InvalidShape(what) if what.starts_with("got x: [")), "{rows}: {error}");
    }
}

#[test]
fn failures_inside_tract_are_errors() {
    let nodes = vec![node("Gather", &["t", "x"], &["y"], vec![])];
    let (x, y) = (value_free("x", DataType::Int64, &["n"]), value_free("y", DataType::Float, &["n"]));
    let load = || {
        plan(model(vec![x.clone()], nodes.clone(), vec![y.clone()], vec![floats("t", &[3], &[1., 2., 3.])]), &options())
    };
    let index = |index: i64| bytes_of(DType::I64, &[1], index.to_le_bytes().into());
    assert_eq!(values(&answer(load().unwrap(), vec![index(2)]).unwrap()[0]), [3.]);
    let error = answer(load().unwrap(), vec![index(1000)]).unwrap_err();
    assert!(matches!(error, EngineError::Failed(_)), "{error}");
}

#[test]
fn a_loop_forgets_what_it_ended_with() {
    let weights = vec![floats("w", &[1, 8, 1], &[0.7; 8]), floats("r", &[1, 8, 2], &[0.6; 16])];
    let nodes = vec![
        node("Transpose", &["x"], &["t"], vec![ints("perm", &[1, 0, 2])]),
        node("LSTM", &["t", "w", "r"], &["", "last"], vec![int("hidden_size", 2)]),
        node("Squeeze", &["last", "first"], &["y"], vec![]),
    ];
    let constants = [weights, vec![longs("first", &[1], &[0])]].concat();
    let mut plan = load(&["n", "3", "1"], nodes, constants, &["n", "2"]);
    let mut answers = Vec::new();
    for _ in 0..3 {
        let (same, executed) = execute(plan, vec![vec![tensor(&[1, 3, 1], &[1., -1., 2.])]], false);
        plan = same;
        answers.push(values(&executed.unwrap().shares[0][0]));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
}

#[test]
fn models_without_a_plan_for_all_shapes_get_one_for_each() {
    // Squeezing an axis of unknown extent cannot be planned ahead.
    let nodes =
        || vec![node("Slice", &["x", "s", "e", "a"], &["f"], vec![]), node("Squeeze", &["f", "one"], &["y"], vec![])];
    let constants = || {
        let bounds = [("s", -1), ("e", i64::MAX), ("a", 2), ("one", 2)];
        bounds.map(|(name, bound)| longs(name, &[1], &[bound])).to_vec()
    };
    let (x, y) = (value_free("x", DataType::Float, &["n", "4", "w"]), value_free("y", DataType::Float, &["n", "4"]));
    let limited = LoadOptions { shape_plans_max: 2, ..options() };
    let mut plan = plan(model(vec![x], nodes(), vec![y], constants()), &limited).unwrap();
    for width in [3usize, 5, 1, 3, 5, 7, 1] {
        let values: Vec<f32> = (0..4 * width).map(|i| f32::from(u8::try_from(i).unwrap())).collect();
        let expected: Vec<f32> = values.chunks(width).map(|row| row[width - 1]).collect();
        let (same, executed) = execute(plan, vec![vec![tensor(&[1, 4, width], &values)]], false);
        plan = same;
        assert_eq!(super::values(&executed.unwrap().shares[0][0]), expected, "{width}");
    }
}

/// tract would read past the end of the shorter one, or leave out the rest of the longer.
#[test]
fn extents_that_must_agree_are_looked_at_in_every_request() {
    let product = || vec![node("MatMul", &["x", "w"], &["y"], vec![])];
    let square = || vec![floats("w", &[2, 2], &[1., 0., 0., 1.])];
    for width in [1usize, 3, 9] {
        let plan = load(&["n", "k"], product(), square(), &["n", "2"]);
        let error = answer(plan, vec![tensor(&[1, width], &vec![1.; width])]).unwrap_err();
        assert!(matches!(error, EngineError::InvalidShape(_)), "{width}: {error}");
    }
    let plan = load(&["n", "k"], product(), square(), &["n", "2"]);
    assert_eq!(plan.signature().inputs[0].shown_dims(), "[n,2]");
    assert_eq!(values(&answer(plan, vec![tensor(&[1, 2], &[3., 4.])]).unwrap()[0]), [3., 4.]);
}

#[test]
fn axes_of_one_element_are_answered() {
    let nodes =
        vec![node("Unsqueeze", &["x", "two"], &["u"], vec![]), node("Unsqueeze", &["u", "one"], &["y"], vec![])];
    let constants = vec![longs("two", &[1], &[2]), longs("one", &[1], &[1])];
    let plan = load(&["n", "3"], nodes, constants, &["n", "1", "3", "1"]);
    let share = answer(plan, vec![tensor(&[2, 3], &[1., 2., 3., 4., 5., 6.])]).unwrap();
    assert_eq!((share[0].shape(), values(&share[0])), (&Shape::new(&[2, 1, 3, 1]), vec![1., 2., 3., 4., 5., 6.]));
}

#[test]
fn models_that_may_mix_rows_run_alone() {
    let nodes =
        vec![node("ReduceMean", &["x"], &["m"], vec![ints("axes", &[0])]), node("Sub", &["x", "m"], &["y"], vec![])];
    let plan = load(&["n", "2"], nodes, vec![], &["n", "2"]);
    assert!(matches!(plan.merging(), Merging::Alone { operator, .. } if operator == "ReduceMean m"));
    let entry = vec![tensor(&[2, 2], &[1., 2., 3., 6.])];
    assert_eq!(values(&answer(plan, entry).unwrap()[0]), [-1., -2., 1., 2.]);
}

#[test]
fn models_nobody_can_serve_say_why() {
    let refused = |nodes: Vec<NodeProto>, data_type: DataType| {
        let (x, y) = (value_free("x", data_type, &["n", "2"]), value_free("y", data_type, &["n", "2"]));
        plan(model(vec![x], nodes, vec![y], vec![]), &options())
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    let relu = || vec![node("Relu", &["x"], &["y"], vec![])];
    assert_eq!(refused(relu(), DataType::String), "tensor \"x\" has type BYTES, which is not served");
    let unknown = refused(vec![node("Relu", &["nothing"], &["y"], vec![])], DataType::Float);
    assert!(unknown.contains("value \"nothing\" is read but never made"), "{unknown}");
    let wrong = refused(vec![node("Squeeze", &["x", "x"], &["y"], vec![])], DataType::Float);
    assert!(wrong.starts_with("operator Squeeze y is not served: tract cannot prepare it"), "{wrong}");
    let lie = vec![node("Cast", &["x"], &["y"], vec![int("to", DataType::Double as i64)])];
    assert!(refused(lie, DataType::Float).contains("output \"y\" declares FP32, its operator makes F64"));
}
