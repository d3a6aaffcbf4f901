//! Elements chosen by their values, combined, and quantized by what they are: expected values by hand, compared with those
//! of ONNX Runtime 1.32.

use super::typed::{Graph, constant, counted, of, some};
use super::*;
use crate::engine::proto::{int, node, text};
use crate::proto::onnx::AttributeProto;
use crate::tensor::DType;

/// The answers of an operator, each of a type and a rank.
fn answers(
    operator: &str,
    attributes: Vec<AttributeProto>,
    x: &[Tensor],
    outputs: &[(&'static str, DType, usize)],
) -> Vec<Vec<f64>> {
    let names: Vec<&str> = outputs.iter().map(|(name, ..)| *name).collect();
    let nodes = vec![node(operator, &["x", "x1", "x2"][..x.len()], &names, attributes)];
    Graph { version: 18, nodes, constants: vec![], inputs: x, outputs }.answers().iter().map(of).collect()
}

/// The one answer, of the first operand's type and rank.
fn answered(operator: &str, attributes: Vec<AttributeProto>, x: &[Tensor]) -> Vec<f64> {
    let outputs = [("y", x[0].dtype(), x[0].shape().len())];
    answers(operator, attributes, x, &outputs).remove(0)
}

fn is_same(got: &[f64], expected: &[f64]) {
    let same = |(a, b): (&f64, &f64)| a == b || a.is_nan() && b.is_nan();
    assert!(got.len() == expected.len() && got.iter().zip(expected).all(same), "{got:?} {expected:?}");
}

fn doubles(numbers: &[f64]) -> Tensor {
    some(DType::F64, &[numbers.len()], numbers)
}

fn singles(numbers: &[f64]) -> Tensor {
    some(DType::F32, &[numbers.len()], numbers)
}

const NAN: f64 = f64::NAN;
const INFINITY: f64 = f64::INFINITY;

/// TopK of so many: elements and places.
fn top(x: &Tensor, count: i64, attributes: &[(&str, i64)]) -> [Vec<f64>; 2] {
    let rank = x.shape().len();
    let attributes = attributes.iter().map(|(name, value)| int(name, *value)).collect();
    let graph = Graph {
        version: 18,
        nodes: vec![node("TopK", &["x", "k"], &["y", "places"], attributes)],
        constants: vec![list("k", &[count])],
        inputs: std::slice::from_ref(x),
        outputs: &[("y", x.dtype(), rank), ("places", DType::I64, rank)],
    };
    let answers = graph.answers();
    [of(&answers[0]), of(&answers[1])]
}

#[test]
fn the_greatest_of_some_numbers() {
    let mixed = [3., 1., NAN, 3., -INFINITY, 2., INFINITY];
    for x in [singles(&mixed), doubles(&mixed)] {
        for (count, greatest, elements, places) in [
            (4, 1, &[NAN, INFINITY, 3., 3.][..], &[2., 6., 0., 3.][..]),
            (7, 1, &[NAN, INFINITY, 3., 3., 2., 1., -INFINITY], &[2., 6., 0., 3., 5., 1., 4.]),
            (4, 0, &[-INFINITY, 1., 2., 3.], &[4., 1., 5., 0.]),
            (7, 0, &[-INFINITY, 1., 2., 3., 3., INFINITY, NAN], &[4., 1., 5., 0., 3., 6., 2.]),
            (1, 1, &[NAN], &[2.]),
            (0, 1, &[], &[]),
        ] {
            for sorted in [0, 1] {
                let got = top(&x, count, &[("largest", greatest), ("sorted", sorted)]);
                is_same(&got[0], elements);
                is_same(&got[1], places);
            }
        }
    }
    // Of equal ones those in front.
    assert_eq!(top(&singles(&[2., 2., 2., 1., 1.]), 2, &[]), [[2., 2.], [0., 1.]]);
    assert_eq!(top(&singles(&[2., 2., 2., 1., 1.]), 3, &[("largest", 0)]), [[1., 1., 2.], [3., 4., 0.]]);
    let whole = some(DType::U8, &[5], &[255., 0., 255., 7., 0.]);
    assert_eq!(top(&whole, 3, &[]), [[255., 255., 7.], [0., 2., 3.]]);
    let low = some(DType::I64, &[3], &[-3., 4., -5.]);
    assert_eq!(top(&low, 2, &[("largest", 0)]), [[-5., -3.], [2., 0.]]);
}

#[test]
fn the_greatest_along_axes() {
    let x = some(DType::F32, &[2, 3], &[1., 5., 2., 4., 3., 6.]);
    for axis in [1, -1] {
        assert_eq!(top(&x, 2, &[("axis", axis)]), [[5., 2., 6., 4.], [1., 2., 2., 0.]]);
    }
    for axis in [0, -2] {
        assert_eq!(top(&x, 1, &[("axis", axis)]), [[4., 5., 6.], [1., 0., 1.]]);
    }
    let none = some(DType::F32, &[0, 3], &[]);
    assert_eq!(top(&none, 2, &[]), [[0.; 0]; 2]);
    let refused = |x: &[Tensor], count| {
        let nodes = vec![node("TopK", &["x", "k"], &["y", "places"], vec![])];
        let outputs = [("y", DType::F32, 1), ("places", DType::I64, 1)];
        Graph { version: 18, nodes, constants: vec![list("k", &[count])], inputs: x, outputs: &outputs }.refused()
    };
    assert!(refused(&[singles(&[1., 2.])], 3).ends_with("index 3 is outside an axis of 2"));
    assert!(refused(&[singles(&[1., 2.])], -1).ends_with("index -1 is outside an axis of 2"));
}

#[test]
fn places_of_extremes() {
    let x = some(DType::F32, &[2, 3], &[1., 5., 5., 7., 7., 0.]);
    for (operator, axis, last, expected) in [
        ("ArgMax", 0, 0, &[1., 1., 0.][..]),
        ("ArgMax", -1, 0, &[1., 0.]),
        ("ArgMax", -1, 1, &[2., 1.]),
        ("ArgMax", -2, 1, &[1., 1., 0.]),
        ("ArgMin", 0, 0, &[0., 0., 1.]),
        ("ArgMin", -1, 0, &[0., 2.]),
        ("ArgMin", 1, 1, &[0., 2.]),
    ] {
        let attributes = || vec![int("axis", axis), int("select_last_index", last)];
        let kept = answers(operator, attributes(), std::slice::from_ref(&x), &[("y", DType::I64, 2)]);
        let short = [attributes(), vec![int("keepdims", 0)]].concat();
        let dropped = answers(operator, short, std::slice::from_ref(&x), &[("y", DType::I64, 1)]);
        assert_eq!([&kept[0][..], &dropped[0][..]], [expected; 2], "{operator} {axis} {last}");
    }
    // What is no number is neither less nor greater.
    let place = |operator, numbers: &[f64]| {
        let x = [singles(numbers)];
        answers(operator, vec![], &x, &[("y", DType::I64, 1)]).remove(0)[0]
    };
    assert_eq!([place("ArgMax", &[1., NAN, 3., NAN]), place("ArgMin", &[1., NAN, 3., NAN])], [2., 0.]);
    assert_eq!([place("ArgMax", &[NAN, 1., 3.]), place("ArgMin", &[NAN, 1., 3.])], [0., 0.]);
    assert_eq!([place("ArgMax", &[-INFINITY, -0.0, 0.0]), place("ArgMin", &[0.0, -0.0])], [1., 0.]);
    // An axis of nothing has no place; other axes may have none.
    let none = |shape: &[usize]| {
        let nodes = vec![node("ArgMax", &["x"], &["y"], vec![])];
        let (inputs, outputs) = ([some(DType::F32, shape, &[])], [("y", DType::I64, 2)]);
        Graph { version: 18, nodes, constants: vec![], inputs: &inputs, outputs: &outputs }.refused()
    };
    assert!(none(&[0, 3]).ends_with("index 0 is outside an axis of 0"), "{}", none(&[0, 3]));
    assert_eq!(none(&[3, 0]), "");
}

#[test]
fn sums_along_an_axis() {
    let x = some(DType::F32, &[2, 3], &[1., 2., 3., 4., 5., 6.]);
    let sums = |axis: f64, exclusive, reverse| {
        let given = [x.clone(), some(DType::I64, &[], &[axis])];
        answered("CumSum", vec![int("exclusive", exclusive), int("reverse", reverse)], &given)
    };
    assert_eq!(sums(-1., 0, 0), [1., 3., 6., 4., 9., 15.]);
    assert_eq!(sums(1., 1, 0), [0., 1., 3., 0., 4., 9.]);
    assert_eq!(sums(1., 1, 1), [5., 3., 0., 11., 6., 0.]);
    assert_eq!(sums(-2., 0, 1), [5., 7., 9., 4., 5., 6.]);
    let wraps = [some(DType::I32, &[2], &[2_147_483_647., 1.]), some(DType::I64, &[], &[0.])];
    assert_eq!(answered("CumSum", vec![], &wraps), [2_147_483_647., -2_147_483_648.]);
    let none = [some(DType::F64, &[0], &[]), some(DType::I32, &[], &[0.])];
    assert_eq!(answered("CumSum", vec![], &none), [0.; 0]);
}

#[test]
fn elements_gathered_and_scattered() {
    let x = some(DType::I16, &[2, 3], &counted(6));
    let gathered = |axis, shape: &[usize], indices: &[f64]| {
        answered("GatherElements", vec![int("axis", axis)], &[x.clone(), some(DType::I64, shape, indices)])
    };
    assert_eq!(gathered(-1, &[2, 2], &[-1., 0., 1., -3.]), [2., 0., 4., 3.]);
    assert_eq!(gathered(0, &[3, 1], &[1., 0., -1.]), [3., 0., 3.]);
    let scattered = |reduction: &str| {
        let given = [singles(&[1., 2., 3.]), some(DType::I64, &[3], &[-1., 0., -1.]), singles(&[10., 20., 30.])];
        answered("ScatterElements", vec![text("reduction", reduction)], &given)
    };
    // The last of those that are put in one place stays there.
    assert_eq!(scattered("none"), [20., 2., 30.]);
    assert_eq!(scattered("add"), [21., 2., 43.]);
    assert_eq!(scattered("mul"), [20., 2., 900.]);
    assert_eq!(scattered("max"), [20., 2., 30.]);
    assert_eq!(scattered("min"), [1., 2., 3.]);
}

#[test]
fn whole_numbers_combined() {
    let two = |operator: &str, dtype, a: &[f64], b: &[f64], attributes| {
        answered(operator, attributes, &[some(dtype, &[a.len()], a), some(dtype, &[b.len()], b)])
    };
    let (a, b) = ([-7., 7., -7., 7., 6.], [3., -3., -3., 3., 3.]);
    for dtype in [DType::I8, DType::I16, DType::I32, DType::I64] {
        assert_eq!(two("Div", dtype, &a, &b, vec![]), [-2., -2., 2., 2., 2.]);
        assert_eq!(two("Mod", dtype, &a, &b, vec![]), [2., -2., -1., 1., 0.]);
        assert_eq!(two("Mod", dtype, &a, &b, vec![int("fmod", 1)]), [-1., 1., -1., 1., 0.]);
        assert_eq!(two("Max", dtype, &a, &b, vec![]), [3., 7., -3., 7., 6.]);
        // What has no answer is zero.
        assert_eq!(two("Div", dtype, &[5.], &[0.], vec![]), [0.]);
        assert_eq!(two("Mod", dtype, &[5.], &[0.], vec![]), [0.]);
    }
    assert_eq!(two("Add", DType::I8, &[127., -128.], &[1., -1.], vec![]), [-128., 127.]);
    assert_eq!(two("Mul", DType::U8, &[16., 255.], &[16., 255.], vec![]), [0., 1.]);
    assert_eq!(two("Sub", DType::U16, &[0.], &[1.], vec![]), [65_535.]);
    assert_eq!(two("Div", DType::I8, &[-128.], &[-1.], vec![]), [-128.]);
    assert_eq!(two("Pow", DType::I32, &[2., -3., 2.], &[10., 3., -1.], vec![]), [1024., -27., 0.]);
    let shifted =
        |direction| two("BitShift", DType::U8, &[1., 255., 255.], &[7., 1., 8.], vec![text("direction", direction)]);
    assert_eq!((shifted("LEFT"), shifted("RIGHT")), (vec![128., 254., 0.], vec![0., 127., 0.]));
}

#[test]
fn floats_combined() {
    for of in [singles, doubles] {
        let two = |operator: &str, a: &[f64], b: &[f64], attributes| answered(operator, attributes, &[of(a), of(b)]);
        for operator in ["Min", "Max"] {
            is_same(&two(operator, &[NAN, 1.], &[1., NAN], vec![]), &[NAN, NAN]);
        }
        is_same(&two("Mod", &[-7.5, 7.5, NAN], &[2., -2., 1.], vec![int("fmod", 1)]), &[-1.5, 1.5, NAN]);
        is_same(&two("Div", &[1., -1., 0.], &[0., 0., 0.], vec![]), &[INFINITY, -INFINITY, NAN]);
        is_same(&two("Pow", &[2., -2., 0., 4., -8.], &[-1., 3., 0., 0.5, 0.5], vec![]), &[0.5, -8., 1., 2., NAN]);
        // One exponent for all.
        is_same(&two("Pow", &[3., -4., NAN], &[2.], vec![]), &[9., 16., NAN]);
    }
}

#[test]
fn bytes_by_what_numbers_are() {
    let quantized = |numbers: &[f64]| {
        let x = [singles(numbers)];
        let outputs = [("q", DType::U8, 1), ("scale", DType::F32, 0), ("zero", DType::U8, 0)];
        answers("DynamicQuantizeLinear", vec![], &x, &outputs)
    };
    // Halves to the even one of two, in bytes and in the zero point; what does not fit is the nearest that does.
    for (numbers, bytes, zero) in [
        (&[0.5, 1.5, 2.5, 255.][..], &[0., 2., 2., 255.][..], 0.),
        (&[-0.5, 254.5, 0.5, 1.], &[0., 254., 0., 1.], 0.),
        (&[-1.5, 253.5, 0., 1.], &[0., 255., 2., 3.], 2.),
        (&[-2.5, 252.5, 0.], &[0., 254., 2.], 2.),
        (&[-255., 0., -0.5, -1.5], &[0., 255., 255., 253.], 255.),
    ] {
        assert_eq!(quantized(numbers), [bytes.to_vec(), vec![1.], vec![zero]], "{numbers:?}");
    }
    // Zero is always among the numbers.
    let step = f64::from(4f32 / 255.0);
    assert_eq!(quantized(&[1., 2., 4.]), [vec![64., 127., 255.], vec![step], vec![0.]]);
    assert_eq!(quantized(&[-1., -2., -4.]), [vec![191., 128., 0.], vec![step], vec![255.]]);
    assert_eq!(quantized(&[0., 0.]), [vec![0., 0.], vec![1.], vec![0.]]);
    // Read again, they are numbers rounded to steps.
    let product = Graph {
        version: 18,
        nodes: vec![
            node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], vec![]),
            node("DequantizeLinear", &["q", "s", "z"], &["y"], vec![]),
        ],
        constants: vec![],
        inputs: &[some(DType::F32, &[2, 2], &[-255., 0., -0.5, -1.5])],
        outputs: &[("y", DType::F32, 2)],
    };
    assert_eq!(product.answer(), [-255., 0., 0., -2.]);
    let zeros = constant("w", &some(DType::F32, &[1], &[0.]));
    let nodes =
        vec![node("Mul", &["x", "w"], &["m"], vec![]), node("DynamicQuantizeLinear", &["m"], &["y", "s", "z"], vec![])];
    let x = [singles(&[1., -1.])];
    let of_zeros = Graph { version: 18, nodes, constants: vec![zeros], inputs: &x, outputs: &[("y", DType::U8, 1)] };
    assert_eq!(of_zeros.answer(), [0., 0.]);
}
