//! Branches, loops, and shapes that follow from contents, against values worked out by hand.

use super::*;
use crate::engine::proto::{int, ints, node};
use crate::engine::{Merging, Plan};
use crate::proto::onnx::attribute_proto::AttributeType;
use crate::proto::onnx::{AttributeProto, GraphProto};
use crate::tensor::{DType, Shape};

/// A model of nodes over typed inputs and outputs.
#[derive(Default)]
struct Program {
    inputs: Vec<ValueInfoProto>,
    nodes: Vec<NodeProto>,
    outputs: Vec<ValueInfoProto>,
    constants: Vec<TensorProto>,
}

impl Program {
    fn load(&self) -> Result<Box<dyn Plan>, EngineError> {
        self.load_with(&options())
    }

    fn load_with(&self, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
        let (inputs, outputs) = (self.inputs.clone(), self.outputs.clone());
        plan(&model(inputs, self.nodes.clone(), outputs, self.constants.clone()), options)
    }

    fn answer(&self, given: Vec<Tensor>) -> Result<Vec<Tensor>, EngineError> {
        answer(self.load().unwrap(), given)
    }
}

fn float(name: &str, dims: &[&str]) -> ValueInfoProto {
    value_free(name, DataType::Float, dims)
}

fn long(name: &str, dims: &[&str]) -> ValueInfoProto {
    value_free(name, DataType::Int64, dims)
}

fn truth(name: &str) -> ValueInfoProto {
    value_free(name, DataType::Bool, &[])
}

fn graph(name: &str, inputs: &[ValueInfoProto], nodes: Vec<NodeProto>, outputs: &[ValueInfoProto]) -> AttributeProto {
    let graph = GraphProto { node: nodes, input: inputs.to_vec(), output: outputs.to_vec(), ..GraphProto::default() };
    AttributeProto { name: name.into(), r#type: AttributeType::Graph as i32, g: Some(graph), ..Default::default() }
}

fn longs_of(tensor: &Tensor) -> Vec<i64> {
    crate::engine::graph::integers(tensor).unwrap().to_vec()
}

fn integer(value: i64) -> Tensor {
    crate::engine::graph::tensor_of_integers(&[], &[value])
}

fn list(values: &[i64]) -> Tensor {
    crate::engine::graph::tensor_of_integers(&[values.len()], values)
}

fn is(value: bool) -> Tensor {
    Tensor::new(DType::Bool, Shape::new(&[]), vec![u8::from(value)].into()).unwrap()
}

/// `c ? x + x : [x, x]`, of different shapes.
fn either() -> Program {
    let double = vec![node("Add", &["x", "x"], &["t"], vec![])];
    let twice = vec![node("Concat", &["x", "x"], &["e"], vec![int("axis", 0)])];
    let branches = vec![
        graph("then_branch", &[], double, &[float("t", &["a", "2"])]),
        graph("else_branch", &[], twice, &[float("e", &["b", "2"])]),
    ];
    Program {
        inputs: vec![truth("c"), float("x", &["n", "2"])],
        nodes: vec![node("If", &["c"], &["y"], branches), node("Relu", &["y"], &["z"], vec![])],
        outputs: vec![float("z", &["m", "2"])],
        ..Program::default()
    }
}

#[test]
fn a_branch_is_taken_at_run_time() {
    let program = either();
    let plan = program.load().unwrap();
    assert!(matches!(plan.merging(), Merging::Alone { operator, .. } if operator == "If y"), "{:?}", plan.merging());
    let x = tensor(&[1, 2], &[3.0, -1.0]);
    let then = program.answer(vec![is(true), x.clone()]).unwrap();
    assert_eq!((then[0].shape().to_vec(), values(&then[0])), (vec![1, 2], vec![6.0, 0.0]));
    let other = program.answer(vec![is(false), x]).unwrap();
    assert_eq!((other[0].shape().to_vec(), values(&other[0])), (vec![2, 2], vec![3.0, 0.0, 3.0, 0.0]));
}

#[test]
fn a_branch_that_is_decided_leaves_no_trace() {
    let program = Program {
        inputs: vec![float("x", &["n", "2"])],
        nodes: [vec![node("Not", &["no"], &["c"], vec![])], either().nodes].concat(),
        constants: vec![TensorProto {
            name: "no".into(),
            data_type: DataType::Bool as i32,
            raw_data: vec![0].into(),
            ..TensorProto::default()
        }],
        ..either()
    };
    let plan = program.load().unwrap();
    assert_eq!(*plan.merging(), Merging::Rows);
    let layers = layers_of(&*plan, &tensor(&[1, 2], &[1.0, 2.0]));
    assert_eq!(operators(&layers), ["Binary", "Activation"]);
}

/// Adds `x` to what is carried and collects its halves, while the sum is less than `limit`.
fn sums() -> Program {
    let body = vec![
        node("Add", &["carried", "x"], &["next"], vec![]),
        node("Mul", &["next", "half"], &["collected"], vec![]),
        node("ReduceMax", &["next"], &["top"], vec![int("keepdims", 0)]),
        node("Less", &["top", "limit"], &["again"], vec![]),
    ];
    let body = graph(
        "body",
        &[long("round", &[]), truth("on"), float("carried", &["2"])],
        body,
        &[truth("again"), float("next", &["2"]), float("collected", &["2"])],
    );
    Program {
        inputs: vec![long("trips", &[]), float("x", &["2"])],
        nodes: vec![node("Loop", &["trips", "", "zero"], &["sum", "halves"], vec![body])],
        outputs: vec![float("sum", &["2"]), float("halves", &["r", "2"])],
        constants: vec![floats("zero", &[2], &[0.0; 2]), floats("half", &[], &[0.5]), floats("limit", &[], &[5.0])],
    }
}

#[test]
fn a_loop_carries_and_collects() {
    let run = |trips: i64| {
        let made = sums().answer(vec![integer(trips), tensor(&[2], &[1.0, 2.0])]).unwrap();
        (values(&made[0]), made[1].shape().to_vec(), values(&made[1]))
    };
    assert_eq!(run(2), (vec![2.0, 4.0], vec![2, 2], vec![0.5, 1.0, 1.0, 2.0]));
    // The sum is 6 after three rounds.
    assert_eq!(run(100), (vec![3.0, 6.0], vec![3, 2], vec![0.5, 1.0, 1.0, 2.0, 1.5, 3.0]));
    assert_eq!(run(0), (vec![0.0, 0.0], vec![0, 2], vec![]));
    assert_eq!(run(-3), (vec![0.0, 0.0], vec![0, 2], vec![]));
}

#[test]
fn a_loop_ends() {
    let plan = sums().load_with(&LoadOptions { loop_rounds_max: 1000, ..options() }).unwrap();
    let error = answer(plan, vec![integer(i64::MAX), tensor(&[2], &[0.0; 2])]).unwrap_err().to_string();
    assert_eq!(error, "the run failed: Loop sum: more than 1000 rounds");
}

#[test]
fn what_a_loop_collects_is_bounded() {
    let plan = sums().load_with(&LoadOptions { arena_bytes_max: 1 << 16, ..options() }).unwrap();
    let error = answer(plan, vec![integer(i64::MAX), tensor(&[2], &[0.0; 2])]).unwrap_err().to_string();
    assert!(error.contains("the run needs more than 65536 bytes"), "{error}");
}

#[test]
fn rounds_that_differ_are_told() {
    let body = vec![
        node("Concat", &["carried", "x"], &["next"], vec![int("axis", 0)]),
        node("Identity", &["on"], &["again"], vec![]),
        node("Identity", &["next"], &["collected"], vec![]),
    ];
    let body = graph(
        "body",
        &[long("round", &[]), truth("on"), float("carried", &["a"])],
        body,
        &[truth("again"), float("next", &["b"]), float("collected", &["b"])],
    );
    let program = Program {
        nodes: vec![node("Loop", &["trips", "", "x"], &["last", "all"], vec![body])],
        outputs: vec![float("last", &["n"]), float("all", &["r", "n"])],
        ..sums()
    };
    let error = program.answer(vec![integer(2), tensor(&[2], &[1.0; 2])]).unwrap_err().to_string();
    assert!(error.ends_with("Loop last: a round makes [6], expected [4]"), "{error}");
}

#[test]
fn a_scan_goes_both_ways() {
    let body = || {
        let nodes =
            vec![node("Add", &["state", "element"], &["sum"], vec![]), node("Identity", &["sum"], &["seen"], vec![])];
        let inputs = [float("state", &["2"]), float("element", &["2"])];
        graph("body", &inputs, nodes, &[float("sum", &["2"]), float("seen", &["2"])])
    };
    let run = |attributes: Vec<AttributeProto>| {
        let attributes = [vec![body(), int("num_scan_inputs", 1)], attributes].concat();
        let program = Program {
            inputs: vec![float("zero", &["2"]), float("x", &["a", "b"])],
            nodes: vec![node("Scan", &["zero", "x"], &["last", "all"], attributes)],
            outputs: vec![float("last", &["2"]), float("all", &["c", "d"])],
            ..Program::default()
        };
        let x = tensor(&[2, 2], &[1.0, 2.0, 10.0, 20.0]);
        let made = program.answer(vec![tensor(&[2], &[0.0; 2]), x]).unwrap();
        (values(&made[0]), values(&made[1]))
    };
    assert_eq!(run(vec![]), (vec![11.0, 22.0], vec![1.0, 2.0, 11.0, 22.0]));
    let backwards = vec![ints("scan_input_directions", &[1])];
    assert_eq!(run(backwards.clone()), (vec![11.0, 22.0], vec![10.0, 20.0, 11.0, 22.0]));
    let ends_first = [backwards, vec![ints("scan_output_directions", &[1])]].concat();
    assert_eq!(run(ends_first), (vec![11.0, 22.0], vec![11.0, 22.0, 10.0, 20.0]));
    let across = vec![ints("scan_input_axes", &[1]), ints("scan_output_axes", &[-1])];
    assert_eq!(run(across), (vec![3.0, 30.0], vec![1.0, 3.0, 10.0, 30.0]));
}

#[test]
fn branches_stand_in_loops() {
    // Rounds with an even number add x, others take it off.
    let even = |name: &str, op: &str, out: &str| {
        graph(name, &[], vec![node(op, &["carried", "x"], &[out], vec![])], &[float(out, &["2"])])
    };
    let body = vec![
        node("Mod", &["round", "two"], &["rest"], vec![]),
        node("Equal", &["rest", "none"], &["is_even"], vec![]),
        node(
            "If",
            &["is_even"],
            &["next"],
            vec![even("then_branch", "Add", "more"), even("else_branch", "Sub", "less")],
        ),
        node("Identity", &["on"], &["again"], vec![]),
    ];
    let inputs = [long("round", &[]), truth("on"), float("carried", &["2"])];
    let body = graph("body", &inputs, body, &[truth("again"), float("next", &["2"])]);
    let program = Program {
        nodes: vec![node("Loop", &["trips", "", "zero"], &["sum"], vec![body])],
        outputs: vec![float("sum", &["2"])],
        constants: vec![floats("zero", &[2], &[0.0; 2]), longs("two", &[], &[2]), longs("none", &[], &[0])],
        ..sums()
    };
    let sum = |trips| values(&program.answer(vec![integer(trips), tensor(&[2], &[1.0, 2.0])]).unwrap()[0]);
    assert_eq!([sum(2), sum(3)], [vec![0.0, 0.0], vec![1.0, 2.0]]);
}

#[test]
fn shapes_follow_from_contents() {
    let program = Program {
        inputs: vec![float("x", &["a", "b"]), long("shape", &["r"])],
        nodes: vec![node("Reshape", &["x", "shape"], &["y"], vec![])],
        outputs: vec![float("y", &["c", "d"])],
        ..Program::default()
    };
    let x = tensor(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let made = program.answer(vec![x.clone(), list(&[3, -1])]).unwrap();
    assert_eq!(made[0].shape().to_vec(), [3, 2]);
    let error = program.answer(vec![x, list(&[4, 4])]).unwrap_err().to_string();
    assert!(error.ends_with("Reshape y: shape [2,3] has not the elements of [4, 4]"), "{error}");
}

#[test]
fn sums_go_along_axes_that_are_given() {
    for (listed, keep, shape, expected) in [
        (&[0][..], 1, vec![1, 3], vec![5.0, 7.0, 9.0]),
        (&[-1], 0, vec![2], vec![6.0, 15.0]),
        (&[], 0, vec![], vec![21.0]),
    ] {
        let program = Program {
            inputs: vec![float("x", &["a", "b"]), long("axes", &["r"])],
            nodes: vec![node("ReduceSum", &["x", "axes"], &["y"], vec![int("keepdims", keep)])],
            outputs: vec![float("y", &["c", "d"][..shape.len()])],
            ..Program::default()
        };
        let made = program.answer(vec![tensor(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), list(listed)]).unwrap();
        assert_eq!((made[0].shape().to_vec(), values(&made[0])), (shape, expected));
    }
}

#[test]
fn pieces_have_extents_that_are_given() {
    let program = Program {
        inputs: vec![float("x", &["n"]), long("split", &["2"])],
        nodes: vec![node("Split", &["x", "split"], &["a", "b"], vec![])],
        outputs: vec![float("a", &["p"]), float("b", &["q"])],
        ..Program::default()
    };
    let made = program.answer(vec![tensor(&[3], &[1.0, 2.0, 3.0]), list(&[1, 2])]).unwrap();
    assert_eq!([values(&made[0]), values(&made[1])], [vec![1.0], vec![2.0, 3.0]]);
}

#[test]
fn elements_are_found_by_what_they_are() {
    let program = Program {
        inputs: vec![float("x", &["a", "b"])],
        nodes: vec![node("NonZero", &["x"], &["y"], vec![])],
        outputs: vec![long("y", &["2", "n"])],
        ..Program::default()
    };
    let made = program.answer(vec![tensor(&[2, 3], &[0.0, 1.0, -0.0, 2.0, 0.0, -3.0])]).unwrap();
    assert_eq!((made[0].shape().to_vec(), longs_of(&made[0])), (vec![2, 3], vec![0, 1, 1, 1, 0, 2]));
    // More elements than shapes look at otherwise.
    let many = tensor(&[100, 100], &vec![1.0; 10_000]);
    assert_eq!(program.answer(vec![many]).unwrap()[0].shape().to_vec(), [2, 10_000]);
}

#[test]
fn elements_that_differ_are_told() {
    let of = |attributes: Vec<AttributeProto>, x: Tensor, rank: usize| {
        let program = Program {
            inputs: vec![float("x", &["a", "b"][..x.shape().len()])],
            nodes: vec![node("Unique", &["x"], &["y", "first", "which", "counts"], attributes)],
            outputs: vec![
                float("y", &["c", "d"][..rank]),
                long("first", &["e"]),
                long("which", &["f"]),
                long("counts", &["g"]),
            ],
            ..Program::default()
        };
        let made = program.answer(vec![x]).unwrap();
        (values(&made[0]), longs_of(&made[1]), longs_of(&made[2]), longs_of(&made[3]))
    };
    let x = tensor(&[6], &[2.0, -1.0, 1.0, 3.0, 2.0, 2.0]);
    let sorted = (vec![-1.0, 1.0, 2.0, 3.0], vec![1, 2, 0, 3], vec![2, 0, 1, 3, 2, 2], vec![1, 1, 3, 1]);
    assert_eq!(of(vec![], x.clone(), 1), sorted);
    let first = (vec![2.0, -1.0, 1.0, 3.0], vec![0, 1, 2, 3], vec![0, 1, 2, 3, 0, 0], vec![3, 1, 1, 1]);
    assert_eq!(of(vec![int("sorted", 0)], x, 1), first);
    let columns = tensor(&[2, 3], &[5.0, 1.0, 5.0, 6.0, 2.0, 6.0]);
    let unique = (vec![1.0, 5.0, 2.0, 6.0], vec![1, 0], vec![1, 0, 1], vec![1, 2]);
    assert_eq!(of(vec![int("axis", 1)], columns, 2), unique);
}

#[test]
fn the_best_of_boxes_that_overlap_are_kept() {
    let boxes = [0.0, 0.0, 1.0, 1.0, 0.0, 0.1, 1.0, 1.1, 0.0, 10.0, 1.0, 11.0, 1.0, 10.9, 0.0, 9.9];
    let program = Program {
        inputs: vec![float("boxes", &["1", "4", "4"]), float("scores", &["1", "1", "4"]), long("count", &[])],
        nodes: vec![node("NonMaxSuppression", &["boxes", "scores", "count", "overlap", "least"], &["y"], vec![])],
        outputs: vec![long("y", &["n", "3"])],
        constants: vec![floats("overlap", &[], &[0.5]), floats("least", &[], &[0.2])],
    };
    let run = |scores: &[f32], count| {
        let given = vec![tensor(&[1, 4, 4], &boxes), tensor(&[1, 1, 4], scores), integer(count)];
        longs_of(&program.answer(given).unwrap()[0])
    };
    assert_eq!(run(&[0.9, 0.8, 0.7, 0.75], 9), [0, 0, 0, 0, 0, 3]);
    assert_eq!(run(&[0.9, 0.8, 0.7, 0.75], 1), [0, 0, 0]);
    assert_eq!(run(&[0.1, 0.8, 0.2, 0.1], 9), [0, 0, 1]);
    assert_eq!(run(&[0.9, 0.8, 0.7, 0.6], 0), [0i64; 0]);
}

#[test]
fn graphs_within_nodes_are_checked() {
    let branches = |other: &[ValueInfoProto]| {
        let nodes = || vec![node("Relu", &["x"], &["t"], vec![]), node("Neg", &["x"], &["u"], vec![])];
        let then = graph("then_branch", &[], nodes(), &[float("t", &["n"])]);
        let program = Program {
            inputs: vec![truth("c"), float("x", &["n"])],
            nodes: vec![node("If", &["c"], &["y"], vec![then, graph("else_branch", &[], nodes(), other)])],
            outputs: vec![float("y", &["n"])],
            ..Program::default()
        };
        program.load().err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(branches(&[float("u", &["n"])]), "");
    assert_eq!(branches(&[]), "invalid model: If y: its branches make 1 and 0 values");
    let missing = branches(&[float("nowhere", &["n"])]);
    assert_eq!(missing, "invalid model: value \"nowhere\" is used before anything makes it");
    let program = Program { nodes: vec![node("Loop", &["trips", "", "x"], &["sum"], vec![])], ..sums() };
    let told = program.load().unwrap_err().to_string();
    assert_eq!(told, "invalid model: Loop sum: its graph body is missing");
}

/// Answers of a model that draws must not be kept, wherever in it the drawing stands.
#[test]
fn random_operators_are_known() {
    let drawn = |nodes: Vec<NodeProto>| {
        let (inputs, outputs) = (vec![float("x", &["n"]), truth("c")], vec![float("y", &["n"])]);
        let plan = Program { inputs, nodes, outputs, ..Program::default() }.load().unwrap();
        plan.random_operator().map(ToOwned::to_owned)
    };
    let draws = || node("RandomUniformLike", &["x"], &["y"], vec![]);
    let branch = |name: &str, of: NodeProto| graph(name, &[], vec![of], &[float("y", &["n"])]);
    let plain = || node("Relu", &["x"], &["y"], vec![]);
    let if_of =
        |of: NodeProto| node("If", &["c"], &["y"], vec![branch("then_branch", of), branch("else_branch", plain())]);
    assert_eq!(drawn(vec![draws()]).as_deref(), Some("RandomUniformLike"));
    assert_eq!(drawn(vec![if_of(draws())]).as_deref(), Some("RandomUniformLike"));
    assert_eq!((drawn(vec![plain()]), drawn(vec![if_of(plain())])), (None, None));
}
