//! Operators that put elements elsewhere, or make them from their places, and losses: against what they mean.

use super::typed::{Graph, constant, counted, near, of, some};
use super::*;
use crate::engine::proto::{int, ints, node, text};
use crate::tensor::DType;

fn graph<'a>(
    operator: &str,
    attributes: Vec<crate::proto::onnx::AttributeProto>,
    x: &'a [Tensor],
    more: &[(&str, Tensor)],
    y: &'a [(&'static str, DType, usize)],
) -> Graph<'a> {
    let names = ["x", "x1", "x2"];
    let inputs: Vec<&str> = names[..x.len()].iter().copied().chain(more.iter().map(|(name, _)| *name)).collect();
    let outputs: Vec<&str> = y.iter().map(|(name, ..)| *name).collect();
    let constants = more.iter().map(|(name, tensor)| constant(name, tensor)).collect();
    Graph { version: 18, nodes: vec![node(operator, &inputs, &outputs, attributes)], constants, inputs: x, outputs: y }
}

const FLOATS: DType = DType::F32;
const LONGS: DType = DType::I64;

#[test]
fn triangles() {
    let x = [some(DType::I32, &[2, 2, 3], &counted(12))];
    let y = [("y", DType::I32, 3)];
    let diagonal = |offset: f64| ("k", some(LONGS, &[], &[offset]));
    assert_eq!(graph("Trilu", vec![], &x, &[], &y).answer(), [0., 1., 2., 0., 4., 5., 6., 7., 8., 0., 10., 11.]);
    let upper = graph("Trilu", vec![], &x, &[diagonal(1.0)], &y);
    assert_eq!(upper.answer(), [0., 1., 2., 0., 0., 5., 0., 7., 8., 0., 0., 11.]);
    let lower = graph("Trilu", vec![int("upper", 0)], &x, &[diagonal(-1.0)], &y);
    assert_eq!(lower.answer(), [0., 0., 0., 3., 0., 0., 0., 0., 0., 9., 0., 0.]);
    let far = graph("Trilu", vec![int("upper", 0)], &x, &[diagonal(9.0)], &y);
    assert_eq!(far.answer(), counted(12));
}

#[test]
fn tiles_ranges_and_diagonals() {
    let x = [some(DType::U8, &[2, 2], &[1., 2., 3., 4.])];
    let tile = graph("Tile", vec![], &x, &[("r", some(LONGS, &[2], &[2., 3.]))], &[("y", DType::U8, 2)]);
    let rows = [[1., 2., 1., 2., 1., 2.], [3., 4., 3., 4., 3., 4.]].concat();
    assert_eq!(tile.answer(), [rows.clone(), rows].concat());
    let eye = graph("EyeLike", vec![int("k", -1), int("dtype", 1)], &x, &[], &[("y", FLOATS, 2)]);
    assert_eq!(eye.answer(), [0., 0., 1., 0.]);
    for (dtype, bounds, expected) in [
        (LONGS, [3., 9., 3.], vec![3., 6.]),
        (LONGS, [10., 4., -2.], vec![10., 8., 6.]),
        (FLOATS, [1., 0., -0.375], vec![1., 0.625, 0.25]),
        (DType::I16, [5., 5., 1.], vec![]),
    ] {
        let bounds = bounds.map(|bound| constant("b", &some(dtype, &[], &[bound])));
        let names = ["start", "limit", "delta"];
        let constants = bounds.into_iter().zip(names).map(|(bound, name)| TensorProto { name: name.into(), ..bound });
        let nodes = vec![node("Range", &names, &["y"], vec![])];
        let graph =
            Graph { version: 18, nodes, constants: constants.collect(), inputs: &x, outputs: &[("y", dtype, 1)] };
        assert_eq!(graph.answer(), expected);
    }
}

#[test]
fn classes_become_ones() {
    let x = [some(DType::I32, &[2, 2], &[0., 2., -1., 5.])];
    let depth = ("depth", some(FLOATS, &[], &[3.0]));
    let values = ("values", some(DType::I8, &[2], &[2., 7.]));
    let last = graph("OneHot", vec![], &x, &[depth.clone(), values.clone()], &[("y", DType::I8, 3)]);
    assert_eq!(last.answer(), [7., 2., 2., 2., 2., 7., 2., 2., 7., 2., 2., 2.]);
    let first = graph("OneHot", vec![int("axis", 0)], &x, &[depth, values], &[("y", DType::I8, 3)]);
    assert_eq!(first.answer(), [7., 2., 2., 2., 2., 2., 2., 2., 2., 7., 7., 2.]);
    let x = [some(FLOATS, &[2, 3], &[1., 3., 3., 2., 1., 0.])];
    let hard = graph("Hardmax", vec![], &x, &[], &[("y", FLOATS, 2)]);
    assert_eq!(hard.answer(), [0., 1., 0., 1., 0., 0.]);
    let hard = graph("Hardmax", vec![int("axis", 0)], &x, &[], &[("y", FLOATS, 2)]);
    assert_eq!(hard.answer(), [0., 1., 1., 1., 0., 0.]);
    // Up to opset 12 axes behind the given one are one.
    let x = [some(FLOATS, &[1, 2, 2], &[1., 3., 9., 2.])];
    let hard = Graph { version: 12, ..graph("Hardmax", vec![], &x, &[], &[("y", FLOATS, 3)]) };
    assert_eq!(hard.answer(), [0., 0., 1., 0.]);
}

#[test]
fn tuples_of_indices() {
    let x = [some(FLOATS, &[2, 2, 2], &counted(8))];
    let indices = |shape: &[usize], all: &[f64]| ("i", some(LONGS, shape, all));
    let y = [("y", FLOATS, 2)];
    let rows = graph("GatherND", vec![], &x, &[indices(&[2, 2], &[0., 1., -1., 0.])], &y);
    assert_eq!(rows.answer(), [2., 3., 4., 5.]);
    let batched = graph("GatherND", vec![int("batch_dims", 1)], &x, &[indices(&[2, 1], &[1., 0.])], &y);
    assert_eq!(batched.answer(), [2., 3., 4., 5.]);
    let given = ("u", some(FLOATS, &[2, 2], &[10., 20., 30., 40.]));
    let y = [("y", FLOATS, 3)];
    let put = graph("ScatterND", vec![], &x, &[indices(&[2, 2], &[0., 1., 1., 1.]), given.clone()], &y);
    assert_eq!(put.answer(), [0., 1., 10., 20., 4., 5., 30., 40.]);
    let twice = indices(&[2, 2], &[0., 0., 0., 0.]);
    for (reduction, expected) in [("add", [40., 61.]), ("mul", [0., 800.]), ("max", [30., 40.]), ("min", [0., 1.])] {
        let scattered = graph("ScatterND", vec![text("reduction", reduction)], &x, &[twice.clone(), given.clone()], &y);
        assert_eq!(scattered.answer()[..2], expected, "{reduction}");
    }
}

#[test]
fn indices_outside_an_axis_are_told() {
    let x = some(FLOATS, &[2, 3], &counted(6));
    let indices = |shape: &[usize], all: &[f64]| some(LONGS, shape, all);
    let y = [("y", FLOATS, 2)];
    let told = |operator, attributes, inputs: &[Tensor]| graph(operator, attributes, inputs, &[], &y).unfit();
    assert_eq!(told("Gather", vec![], &[x.clone(), indices(&[1], &[2.])]), "y: index 2 is outside an axis of 2");
    let last = told("Gather", vec![int("axis", 1)], &[x.clone(), indices(&[2], &[2., -4.])]);
    assert_eq!(last, "y: index -4 is outside an axis of 3");
    let far = told("Gather", vec![], &[x.clone(), bytes_of(LONGS, &[1], i64::MIN.to_le_bytes().to_vec())]);
    assert_eq!(far, format!("y: index {} is outside an axis of 2", i64::MIN));
    let elements = told("GatherElements", vec![], &[x.clone(), indices(&[1, 3], &[0., 1., -3.])]);
    assert_eq!(elements, "y: index -3 is outside an axis of 2");
    let update = some(FLOATS, &[1, 1], &[5.]);
    let put = told("ScatterElements", vec![int("axis", 1)], &[x.clone(), indices(&[1, 1], &[3.]), update]);
    assert_eq!(put, "y: index 3 is outside an axis of 3");
    let tuples = told("GatherND", vec![], &[x.clone(), indices(&[2, 2], &[1., 2., 2., 1.])]);
    assert_eq!(tuples, "y: index 2 is outside an axis of 2");
    let batched = told("GatherND", vec![int("batch_dims", 1)], &[x.clone(), indices(&[2, 1], &[2., 3.])]);
    assert_eq!(batched, "y: index 3 is outside an axis of 3");
    let rows = some(FLOATS, &[1, 3], &[5.; 3]);
    let put = told("ScatterND", vec![], &[x.clone(), indices(&[1, 1], &[-3.]), rows]);
    assert_eq!(put, "y: index -3 is outside an axis of 2");
    assert_eq!(told("CumSum", vec![], &[x.clone(), indices(&[], &[2.])]), "y: 2 is no axis of [2,3]");
    // Step by step as well: the shape of a list of places follows from contents.
    let nodes = vec![node("NonZero", &["x1"], &["n"], vec![]), node("Gather", &["x", "n"], &["y"], vec![])];
    let ones = some(FLOATS, &[4], &[0., 1., 1., 0.]);
    let y = [("y", FLOATS, 3)];
    let inputs = [x, ones];
    let stepwise = Graph { version: 18, nodes, constants: vec![], inputs: &inputs, outputs: &y };
    assert_eq!(stepwise.unfit(), "y: index 2 is outside an axis of 2");
}

#[test]
fn lines_are_turned_and_centres_kept() {
    let x = [some(FLOATS, &[3, 2], &counted(6))];
    let lengths = ("l", some(LONGS, &[2], &[2., 3.]));
    let by_columns = graph("ReverseSequence", vec![], &x, std::slice::from_ref(&lengths), &[("y", FLOATS, 2)]);
    assert_eq!(by_columns.answer(), [2., 5., 0., 3., 4., 1.]);
    let x = [some(FLOATS, &[2, 3], &counted(6))];
    let attributes = vec![int("batch_axis", 0), int("time_axis", 1)];
    let by_rows = graph("ReverseSequence", attributes, &x, &[lengths], &[("y", FLOATS, 2)]);
    assert_eq!(by_rows.answer(), [1., 0., 2., 5., 4., 3.]);
    let shape = ("s", some(LONGS, &[2], &[4., 1.]));
    let centre = graph("CenterCropPad", vec![], &x, &[shape], &[("y", FLOATS, 2)]);
    assert_eq!(centre.answer(), [0., 1., 4., 0.]);
    let axes = vec![ints("axes", &[-1])];
    let centre = graph("CenterCropPad", axes, &x, &[("s", some(LONGS, &[1], &[5.]))], &[("y", FLOATS, 2)]);
    assert_eq!(centre.answer(), [0., 0., 1., 2., 0., 0., 3., 4., 5., 0.]);
    // Without axes a transposition turns them all.
    let turned = graph("Transpose", vec![], &x, &[], &[("y", FLOATS, 2)]);
    assert_eq!(turned.answer(), [0., 3., 1., 4., 2., 5.]);
}

#[test]
fn channels_and_blocks_of_pixels() {
    let block = || int("blocksize", 2);
    let x = [some(FLOATS, &[1, 4, 1, 2], &counted(8))];
    let y = [("y", FLOATS, 4)];
    for mode in ["DCR", "CRD"] {
        let spread = graph("DepthToSpace", vec![block(), text("mode", mode)], &x, &[], &y);
        assert_eq!(spread.answer(), [0., 2., 1., 3., 4., 6., 5., 7.]);
    }
    let x = [some(FLOATS, &[1, 8, 1, 1], &counted(8))];
    let apart = |mode| graph("DepthToSpace", vec![block(), text("mode", mode)], &x, &[], &y).answer();
    assert_eq!(apart("DCR"), [0., 2., 4., 6., 1., 3., 5., 7.]);
    assert_eq!(apart("CRD"), counted(8));
    let x = [some(FLOATS, &[1, 1, 2, 4], &counted(8))];
    assert_eq!(graph("SpaceToDepth", vec![block()], &x, &[], &y).answer(), [0., 2., 1., 3., 4., 6., 5., 7.]);
}

#[test]
fn paddings_of_some_axes_and_round_the_other_side() {
    let x = [some(DType::I64, &[2, 3], &counted(6))];
    let pads = |all: &[f64]| ("pads", some(LONGS, &[all.len()], all));
    let value = ("v", some(LONGS, &[], &[9.0]));
    let axes = ("axes", some(DType::I32, &[1], &[-1.0]));
    let padded = graph("Pad", vec![], &x, &[pads(&[1., 2.]), value, axes], &[("y", LONGS, 2)]);
    assert_eq!(padded.answer(), [9., 0., 1., 2., 9., 9., 9., 3., 4., 5., 9., 9.]);
    let wrapped = graph("Pad", vec![text("mode", "wrap")], &x, &[pads(&[0., 4., 0., 1.])], &[("y", LONGS, 2)]);
    assert_eq!(wrapped.answer(), [2., 0., 1., 2., 0., 1., 2., 0., 5., 3., 4., 5., 3., 4., 5., 3.]);
}

#[test]
fn losses() {
    let x = [some(FLOATS, &[2, 3, 2], &counted(12)), some(DType::I32, &[2, 2], &[0., 2., 1., 1.])];
    let weights = ("w", some(FLOATS, &[3], &[1., 10., 100.]));
    let loss = |attributes, more: &[(&str, Tensor)], rank| {
        graph("NegativeLogLikelihoodLoss", attributes, &x, more, &[("y", FLOATS, rank)]).answer()
    };
    let kind = |kind| text("reduction", kind);
    assert_eq!(loss(vec![kind("none")], &[], 2), [-0., -5., -8., -9.]);
    assert_eq!(loss(vec![kind("sum")], &[], 0), [-22.]);
    assert_eq!(loss(vec![], &[], 0), [-5.5]);
    let weighted = std::slice::from_ref(&weights);
    assert_eq!(loss(vec![kind("none")], weighted, 2), [-0., -500., -80., -90.]);
    near(&loss(vec![], weighted, 0), &[-670. / 121.]);
    let ignoring = |more, rank, reduction| loss(vec![kind(reduction), int("ignore_index", 1)], more, rank);
    assert_eq!(ignoring(&[], 2, "none"), [-0., -5., 0., 0.]);
    assert_eq!(ignoring(&[], 0, "mean"), [-2.5]);
    near(&ignoring(weighted, 0, "mean"), &[-500. / 101.]);
    // A class that is none may be ignored.
    let x = [some(FLOATS, &[2, 2], &[0., 0., 1., 1.]), some(LONGS, &[2], &[-5., 1.])];
    let attributes = vec![int("ignore_index", -5), kind("sum")];
    let outputs = [("y", FLOATS, 0), ("p", FLOATS, 2)];
    let both = graph("SoftmaxCrossEntropyLoss", attributes, &x, &[], &outputs).answers();
    let log = 2f64.ln();
    near(&of(&both[0]), &[log]);
    near(&of(&both[1]), &[-log; 4]);
}
