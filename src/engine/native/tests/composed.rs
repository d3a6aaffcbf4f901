//! Operators that are written with others, against what they mean.

use super::*;
use crate::engine::proto::{int, ints, node, text};
use crate::proto::onnx::AttributeProto;

/// What an operator of this name computes.
type Function = (&'static str, fn(f32) -> f32);
type Reduction = (&'static str, fn(&[f32]) -> f32);

fn float(name: &str, f: f32) -> AttributeProto {
    let r#type = crate::proto::onnx::attribute_proto::AttributeType::Float as i32;
    AttributeProto { name: name.into(), r#type, f, ..AttributeProto::default() }
}

/// Answers at every level to rows of 17 elements.
fn answers(op_type: &str, attributes: Vec<AttributeProto>, more: &[TensorProto]) -> Vec<(Vec<f32>, Tensor)> {
    let inputs: Vec<&str> = ["x"].into_iter().chain(more.iter().map(|constant| constant.name.as_str())).collect();
    let nodes = vec![node(op_type, &inputs, &["y"], attributes)];
    let case = Case { x: vec!["n", "17"], nodes, constants: more.to_vec(), rank: 2 };
    let given = made_up(3 * 17, 1);
    let at = |level: Level| {
        let mut model = case.model();
        model.opset_import[0].version = 20;
        let plan = plan(&model, &LoadOptions { isa_max: level.set(), ..options() }).unwrap();
        (given.clone(), answer(plan, vec![tensor(&[3, 17], &given)]).unwrap().remove(0))
    };
    Level::all().map(at).collect()
}

fn near(got: f32, expected: f32, told: &str) {
    assert!((got - expected).abs() <= 1e-5 + 1e-5 * expected.abs(), "{told}: {got} {expected}");
}

fn each(op_type: &str, attributes: Vec<AttributeProto>, meaning: impl Fn(f32) -> f32) {
    for (x, y) in answers(op_type, attributes, &[]) {
        x.iter().zip(values(&y)).for_each(|(&x, y)| near(y, meaning(x), op_type));
    }
}

#[test]
fn functions_of_one_operand() {
    let functions: [Function; 9] = [
        ("Tan", f32::tan),
        ("Asin", f32::asin),
        ("Acos", f32::acos),
        ("Atan", f32::atan),
        ("Sinh", f32::sinh),
        ("Cosh", f32::cosh),
        ("Asinh", f32::asinh),
        ("Softsign", |x| x / (1.0 + x.abs())),
        ("Mish", |x| x * x.exp().ln_1p().tanh()),
    ];
    functions.into_iter().for_each(|(name, meaning)| each(name, vec![], meaning));
    let elu = |x: f32, alpha: f32| if x < 0.0 { alpha * x.exp_m1() } else { x };
    each("Elu", vec![float("alpha", 0.5)], |x| elu(x, 0.5));
    each("Celu", vec![float("alpha", 2.0)], |x| if x < 0.0 { 2.0 * (x / 2.0).exp_m1() } else { x });
    each("Selu", vec![float("alpha", 2.0), float("gamma", 3.0)], |x| 3.0 * elu(x, 2.0));
    each("ThresholdedRelu", vec![float("alpha", 0.25)], |x| if x > 0.25 { x } else { 0.0 });
    let shrunk = |x: f32| if x < -0.25 { x + 0.125 } else { (x - 0.125) * f32::from(x > 0.25) };
    each("Shrink", vec![float("lambd", 0.25), float("bias", 0.125)], shrunk);
    let tanh = |x: f32| 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh());
    each("Gelu", vec![text("approximate", "tanh")], tanh);
    // The two forms are this close to each other.
    for (x, y) in answers("Gelu", vec![], &[]) {
        x.iter().zip(values(&y)).for_each(|(&x, y)| assert!((y - tanh(x)).abs() < 5e-4, "{x} {y}"));
    }
}

#[test]
fn several_operands() {
    let more = [weights("a", &[17]), weights("b", &[1, 17])];
    let [a, b] = [0, 1].map(|at| made_up(17, more[at].name.len() + 17));
    for (x, y) in answers("Mean", vec![], &more) {
        let mean = |at: usize| (x[at] + a[at % 17] + b[at % 17]) / 3.0;
        values(&y).into_iter().enumerate().for_each(|(at, y)| near(y, mean(at), "Mean"));
    }
    for (x, y) in answers("PRelu", vec![], &more[..1]) {
        let meaning = |at: usize| if x[at] < 0.0 { x[at] * a[at % 17] } else { x[at] };
        values(&y).into_iter().enumerate().for_each(|(at, y)| near(y, meaning(at), "PRelu"));
    }
}

#[test]
fn reductions() {
    let meanings: [Reduction; 4] = [
        ("ReduceL1", |x| x.iter().map(|x| x.abs()).sum()),
        ("ReduceL2", |x| x.iter().map(|x| x * x).sum::<f32>().sqrt()),
        ("ReduceSumSquare", |x| x.iter().map(|x| x * x).sum()),
        ("ReduceLogSumExp", |x| x.iter().map(|x| x.exp()).sum::<f32>().ln()),
    ];
    for (name, meaning) in meanings {
        for (x, y) in answers(name, vec![int("keepdims", 1)], &[list("axes", &[-1])]) {
            assert_eq!(y.shape()[..], [3, 1]);
            x.chunks(17).zip(values(&y)).for_each(|(x, y)| near(y, meaning(x), name));
        }
    }
}

#[test]
fn normalisations() {
    let nodes = vec![node("InstanceNormalization", &["x", "s", "b"], &["y"], vec![])];
    let constants = vec![weights("s", &[4]), weights("b", &[4])];
    Case { x: vec!["n", "4", "5", "6"], nodes, constants, rank: 4 }.check(&[2, 4, 5, 6]);
    for (x, y) in answers("MeanVarianceNormalization", vec![ints("axes", &[1])], &[]) {
        for (x, y) in x.chunks(17).zip(values(&y).chunks(17)) {
            let mean = x.iter().sum::<f32>() / 17.0;
            let deviation = (x.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / 17.0).sqrt();
            x.iter().zip(y).for_each(|(x, &y)| near(y, (x - mean) / deviation, "MeanVarianceNormalization"));
        }
    }
}
