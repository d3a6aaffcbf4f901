//! Each operator alone, and those that passes make one of.

use super::*;
use crate::engine::Merging;
use crate::engine::proto::{int, ints, node, text};

#[test]
fn convolutions_of_every_kind() {
    for (channels, out, groups, kernel, stride, dilation, pads) in [
        (3, 8, 1, [3, 3], [1, 1], [1, 1], [1, 1, 1, 1]),
        (3, 8, 1, [5, 3], [2, 1], [1, 1], [2, 0, 1, 3]),
        (1, 20, 1, [5, 5], [1, 1], [1, 1], [2, 2, 2, 2]),
        (6, 8, 1, [3, 2], [1, 2], [2, 3], [1, 3, 1, 0]),
        (20, 24, 1, [3, 3], [1, 1], [1, 1], [1, 1, 1, 1]),
        (8, 8, 8, [3, 3], [2, 2], [1, 1], [1, 1, 1, 1]),
        (8, 12, 4, [3, 3], [1, 1], [1, 1], [0, 0, 0, 0]),
        (8, 16, 8, [3, 1], [1, 1], [1, 1], [1, 0, 1, 0]),
        (5, 7, 1, [1, 1], [2, 2], [1, 1], [0, 0, 0, 0]),
    ] {
        let attributes = vec![
            ints("kernel_shape", &kernel),
            ints("strides", &stride),
            ints("dilations", &dilation),
            ints("pads", &pads),
            int("group", groups),
        ];
        let case = Case {
            x: vec!["n", if channels == 1 { "1" } else { "c" }, "13", "14"],
            nodes: vec![node("Conv", &["x", "w", "b"], &["y"], attributes)],
            constants: vec![weights("w", &[out, channels / groups, kernel[0], kernel[1]]), weights("b", &[out])],
            rank: 4,
        };
        let channels = usize::try_from(channels).unwrap();
        let case = Case { x: vec!["n", NUMBERS[channels], "13", "14"], ..case };
        case.check(&[2, channels, 13, 14]);
    }
}

#[test]
fn large_images_go_through_transformed_tiles() {
    let attributes = vec![ints("pads", &[1, 1, 1, 1])];
    let case = Case {
        x: vec!["n", "16", "h", "w"],
        nodes: vec![node("Conv", &["x", "w"], &["y"], attributes)],
        constants: vec![weights("w", &[17, 16, 3, 3])],
        rank: 4,
    };
    for size in [[20, 21], [3, 4], [1, 30]] {
        let layers = case.check(&[3, 16, size[0], size[1]]);
        assert!(layers.iter().any(|layer| layer.kernel.starts_with("f32_winograd")), "{layers:?}");
    }
}

#[test]
fn images_of_one_axis() {
    let attributes = vec![ints("pads", &[4, 4]), ints("dilations", &[2])];
    let case = Case {
        x: vec!["n", "3", "t"],
        nodes: vec![node("Conv", &["x", "w"], &["y"], attributes)],
        constants: vec![weights("w", &[5, 3, 5])],
        rank: 3,
    };
    case.check(&[2, 3, 9]);
    case.check(&[1, 3, 40]);
}

#[test]
fn pools() {
    for (kind, more) in
        [("MaxPool", vec![]), ("AveragePool", vec![]), ("AveragePool", vec![int("count_include_pad", 1)])]
    {
        for ceil in [0, 1] {
            let mut attributes = vec![
                ints("kernel_shape", &[3, 2]),
                ints("strides", &[2, 2]),
                ints("pads", &[1, 0, 1, 1]),
                int("ceil_mode", ceil),
            ];
            // With both, tract counts zeros beyond the padding.
            if ceil == 1 && !more.is_empty() {
                continue;
            }
            attributes.extend(more.clone());
            let nodes = vec![node(kind, &["x"], &["y"], attributes)];
            Case { x: vec!["n", "5", "8", "9"], nodes, constants: vec![], rank: 4 }.check(&[2, 5, 8, 9]);
        }
    }
    for kind in ["GlobalAveragePool", "GlobalMaxPool"] {
        let nodes = vec![node(kind, &["x"], &["y"], vec![])];
        Case { x: vec!["n", "5", "8", "9"], nodes, constants: vec![], rank: 4 }.check(&[2, 5, 8, 9]);
    }
}

#[test]
fn a_residual_block_is_its_convolutions() {
    let pads = || vec![ints("pads", &[1, 1, 1, 1])];
    let normalised = |x: &str, y: &str| node("BatchNormalization", &[x, "s", "t", "m", "v"], &[y], vec![]);
    let nodes = vec![
        node("Conv", &["x", "w1"], &["a"], pads()),
        normalised("a", "b"),
        node("Relu", &["b"], &["c"], vec![]),
        node("Conv", &["c", "w2"], &["d"], pads()),
        normalised("d", "e"),
        node("Add", &["e", "x"], &["f"], vec![]),
        node("Relu", &["f"], &["g"], vec![]),
        node("GlobalAveragePool", &["g"], &["h"], vec![]),
        node("Flatten", &["h"], &["i"], vec![]),
        node("Gemm", &["i", "w3", "b3"], &["y"], vec![int("transB", 1)]),
    ];
    let constants = vec![
        weights("w1", &[6, 6, 3, 3]),
        weights("w2", &[6, 6, 3, 3]),
        weights("s", &[6]),
        weights("t", &[6]),
        weights("m", &[6]),
        floats("v", &[6], &[0.5, 1.0, 1.5, 2.0, 0.1, 3.0]),
        weights("w3", &[4, 6]),
        weights("b3", &[4]),
    ];
    let layers = Case { x: vec!["n", "6", "5", "7"], nodes, constants, rank: 2 }.check(&[3, 6, 5, 7]);
    assert_eq!(operators(&layers), ["Transpose", "Conv", "Conv", "Reduce", "Linear"]);
}

#[test]
fn flattened_images_meet_permuted_weights() {
    let nodes = vec![
        node("Conv", &["x", "w1"], &["a"], vec![]),
        node("Flatten", &["a"], &["b"], vec![]),
        node("MatMul", &["b", "w2"], &["c"], vec![]),
        node("Add", &["c", "b2"], &["d"], vec![]),
        node("Sigmoid", &["d"], &["y"], vec![]),
    ];
    let constants = vec![weights("w1", &[3, 1, 2, 2]), weights("w2", &[60, 7]), weights("b2", &[7])];
    let layers = Case { x: vec!["n", "1", "5", "6"], nodes, constants, rank: 2 }.check(&[2, 1, 5, 6]);
    assert_eq!(operators(&layers), ["Conv", "Linear"]);
}

#[test]
fn what_moves_elements() {
    let nodes = vec![
        node("Transpose", &["x"], &["a"], vec![ints("perm", &[0, 2, 1, 3])]),
        node("Slice", &["a", "from", "to", "axes", "steps"], &["b"], vec![]),
        node("Concat", &["b", "b"], &["c"], vec![int("axis", -1)]),
        node("Gather", &["c", "at"], &["d"], vec![int("axis", 1)]),
        node("Unsqueeze", &["d", "last"], &["e"], vec![]),
        node("Squeeze", &["e", "last"], &["f"], vec![]),
        node("Shape", &["f"], &["s"], vec![]),
        node("Expand", &["one", "s"], &["g"], vec![]),
        node("Add", &["f", "g"], &["h"], vec![]),
        node("Reshape", &["h", "flat"], &["y"], vec![]),
    ];
    let constants = vec![
        list("from", &[1, -1]),
        list("to", &[9, -100]),
        list("axes", &[1, 3]),
        list("steps", &[1, -2]),
        list("at", &[2, 0, -1]),
        list("last", &[-1]),
        floats("one", &[1], &[0.5]),
        list("flat", &[0, -1]),
    ];
    Case { x: vec!["n", "3", "5", "6"], nodes, constants, rank: 2 }.check(&[2, 3, 5, 6]);
}

#[test]
fn reductions_softmax_and_broadcasts() {
    let nodes = vec![
        node("ReduceMean", &["x"], &["m"], vec![ints("axes", &[2]), int("keepdims", 1)]),
        node("Sub", &["x", "m"], &["a"], vec![]),
        node("Softmax", &["a"], &["b"], vec![int("axis", 1)]),
        node("Mul", &["b", "w"], &["c"], vec![]),
        node("ReduceMax", &["c"], &["d"], vec![ints("axes", &[1]), int("keepdims", 0)]),
        node("Exp", &["d"], &["e"], vec![]),
        node("LeakyRelu", &["e"], &["y"], vec![]),
    ];
    Case { x: vec!["n", "4", "9"], nodes, constants: vec![weights("w", &[4, 1])], rank: 2 }.check(&[3, 4, 9]);
}

#[test]
fn pads_of_every_kind() {
    for (mode, fill) in [("constant", Some(1.5)), ("constant", None), ("edge", None), ("reflect", None)] {
        let mut inputs = vec!["x", "pads"];
        let mut constants = vec![list("pads", &[0, 0, 2, 1, 0, 0, 3, 0])];
        if let Some(fill) = fill {
            inputs.push("fill");
            constants.push(floats("fill", &[], &[fill]));
        }
        let nodes = vec![node("Pad", &inputs, &["y"], vec![text("mode", mode)])];
        Case { x: vec!["n", "3", "5", "6"], nodes, constants, rank: 4 }.check(&[2, 3, 5, 6]);
    }
}

#[test]
fn transposed_convolutions() {
    for (kernel, stride, pads, dilation) in [
        ([2, 2], [2, 2], [0, 0, 0, 0], [1, 1]),
        ([3, 1], [3, 1], [0, 0, 0, 0], [1, 1]),
        ([2, 3], [2, 3], [1, 0, 0, 1], [1, 1]),
        ([2, 2], [3, 1], [1, 0, 1, 1], [1, 2]),
    ] {
        let attributes = vec![ints("strides", &stride), ints("pads", &pads), ints("dilations", &dilation)];
        let case = Case {
            x: vec!["n", "3", "5", "6"],
            nodes: vec![
                node("ConvTranspose", &["x", "w", "b"], &["a"], attributes),
                node("HardSwish", &["a"], &["y"], vec![]),
            ],
            constants: vec![weights("w", &[3, 4, kernel[0], kernel[1]]), weights("b", &[4])],
            rank: 4,
        };
        case.check(&[2, 3, 5, 6]);
    }
}

#[test]
fn images_of_other_extents() {
    for (mode, place) in [("nearest", "asymmetric"), ("linear", "half_pixel"), ("linear", "align_corners")] {
        let attributes =
            vec![text("mode", mode), text("coordinate_transformation_mode", place), text("nearest_mode", "floor")];
        let case = Case {
            x: vec!["n", "3", "5", "6"],
            nodes: vec![node("Resize", &["x", "", "scales"], &["y"], attributes)],
            constants: vec![floats("scales", &[4], &[1.0, 1.0, 2.0, 3.0])],
            rank: 4,
        };
        case.check(&[2, 3, 5, 6]);
    }
}

#[test]
fn truth_values() {
    let nodes = vec![
        node("Greater", &["x", "w"], &["a"], vec![]),
        node("Less", &["x", "half"], &["b"], vec![]),
        node("And", &["a", "b"], &["c"], vec![]),
        node("Not", &["c"], &["d"], vec![]),
        node("Where", &["d", "x", "half"], &["e"], vec![]),
        node("Cast", &["a"], &["f"], vec![int("to", 1)]),
        node("Erf", &["e"], &["g"], vec![]),
        node("Add", &["f", "g"], &["y"], vec![]),
    ];
    let constants = vec![weights("w", &[4, 1]), floats("half", &[], &[0.5])];
    Case { x: vec!["n", "4", "9"], nodes, constants, rank: 3 }.check(&[3, 4, 9]);
}

#[test]
fn rows_that_meet_are_told() {
    let merging = |nodes: Vec<NodeProto>, constants| {
        let case = Case { x: vec!["n", "64"], nodes, constants, rank: 2 };
        match case.load(&options()).unwrap().merging() {
            Merging::Rows => "rows".to_owned(),
            Merging::Alone { operator, reason } => format!("{operator}: {reason}"),
        }
    };
    let softmax = |axis| vec![node("Softmax", &["x"], &["y"], vec![int("axis", axis)])];
    assert_eq!(merging(softmax(1), vec![]), "rows");
    assert_eq!(merging(softmax(0), vec![]), "Softmax y: it may mix rows");
    // The columns that are taken depend on how many rows there are, their number does not.
    let sliced = vec![
        node("Shape", &["x"], &["s"], vec![]),
        node("Gather", &["s", "zero"], &["n"], vec![]),
        node("Add", &["n", "two"], &["m"], vec![]),
        node("Slice", &["x", "n", "m", "one"], &["y"], vec![]),
    ];
    let constants = vec![list("zero", &[0]), list("two", &[2]), list("one", &[1])];
    assert_eq!(merging(sliced, constants), "Slice y: its bounds depend on the number of rows");
    let rows = vec![node("Slice", &["x", "zero", "one", "zero"], &["y"], vec![])];
    let told = merging(rows, vec![list("zero", &[0]), list("one", &[1])]);
    assert_eq!(told, "Slice y: it takes some of the rows");
    let mean =
        vec![node("ReduceMean", &["x"], &["m"], vec![ints("axes", &[0])]), node("Sub", &["x", "m"], &["y"], vec![])];
    assert_eq!(merging(mean, vec![]), "ReduceMean m: it may mix rows");
}

#[test]
fn scales_and_shifts_go_into_the_layer_behind_them() {
    let binaries = |pads: i64, groups: i64, scale: &[f32]| {
        let conv = vec![ints("pads", &[pads; 4]), int("group", groups)];
        let nodes = vec![
            node("Conv", &["x", "before"], &["c"], vec![]),
            node("Relu", &["c"], &["r"], vec![]),
            node("Mul", &["r", "s"], &["a"], vec![]),
            node("Add", &["t", "a"], &["b"], vec![]),
            node("Conv", &["b", "w"], &["y"], conv),
        ];
        let shift: Vec<f32> = scale.iter().map(|x| 0.3 - x).collect();
        let dims = [1, i64::try_from(scale.len()).unwrap(), 1, 1];
        let constants = vec![
            floats("s", &dims, scale),
            floats("t", &dims, &shift),
            weights("before", &[4, 4, 1, 1]),
            weights("w", &[6, 4 / groups, 3, 3]),
        ];
        let case = Case { x: vec!["n", "4", "8", "9"], nodes, constants, rank: 4 };
        operators(&case.check(&[2, 4, 8, 9])).into_iter().filter(|operator| *operator == "Binary").count()
    };
    for (groups, scale) in [(1, vec![0.7]), (2, vec![0.7, -2.0, 1.5, 0.1])] {
        assert_eq!(binaries(0, groups, &scale), 0);
        assert_eq!(binaries(1, groups, &scale), 1, "zeros around an image are not shifted");
    }
    assert_eq!(binaries(1, 1, &[1e-6]), 2, "a shift is not divided by next to nothing");
    let nodes = vec![node("Div", &["x", "s"], &["a"], vec![]), node("MatMul", &["a", "w"], &["y"], vec![])];
    let constants = vec![floats("s", &[3], &[2.0, 4.0, 8.0]), weights("w", &[3, 5])];
    let layers = Case { x: vec!["n", "3"], nodes, constants, rank: 2 }.check(&[4, 3]);
    assert_eq!(operators(&layers), ["Linear"]);
}

#[test]
fn a_bias_that_is_computed_is_kept() {
    let reduced = vec![ints("axes", &[0, 2, 3]), int("keepdims", 0)];
    let nodes = vec![
        node("ReduceMax", &["x"], &["b"], reduced),
        node("Conv", &["x", "w", "b"], &["c"], vec![]),
        node("Mul", &["c", "s"], &["y"], vec![]),
    ];
    let constants = vec![weights("w", &[4, 4, 1, 1]), floats("s", &[1], &[3.0])];
    Case { x: vec!["n", "4", "8", "9"], nodes, constants, rank: 4 }.check(&[2, 4, 8, 9]);
}

#[test]
fn what_follows_a_transposed_convolution_goes_into_it() {
    for groups in [1, 2] {
        let normalised = node("BatchNormalization", &["c", "s", "t", "m", "v"], &["z"], vec![]);
        let spread = vec![ints("strides", &[2, 2]), int("group", groups)];
        let nodes =
            vec![node("ConvTranspose", &["x", "w"], &["c"], spread), normalised, node("Relu", &["z"], &["y"], vec![])];
        let row = |name: &str, seed: usize| {
            floats(name, &[6], &made_up(6, seed).iter().map(|x| x.abs() + 0.5).collect::<Vec<_>>())
        };
        let constants = vec![weights("w", &[4, 6 / groups, 3, 2]), row("s", 1), row("t", 2), row("m", 3), row("v", 4)];
        let layers = Case { x: vec!["n", "4", "5", "7"], nodes, constants, rank: 4 }.check(&[2, 4, 5, 7]);
        let ran = operators(&layers);
        assert!(ran.contains(&"ConvTranspose") && !ran.contains(&"Affine") && !ran.contains(&"Activation"), "{ran:?}");
    }
}

#[test]
fn sparse_constants_are_made_dense() {
    let nodes = vec![node("MatMul", &["x", "w"], &["y"], vec![])];
    let mut model = Case { x: vec!["n", "2"], nodes, constants: vec![], rank: 2 }.model();
    let (values, indices) = (Some(floats("w", &[2], &[5.0, 7.0])), Some(longs("i", &[2], &[1, 5])));
    let sparse = crate::proto::onnx::SparseTensorProto { values, indices, dims: vec![2, 3] };
    model.graph.as_mut().unwrap().sparse_initializer.push(sparse);
    let answered = |options: &LoadOptions| answer(plan(&model, options)?, vec![tensor(&[1, 2], &[1.0, 2.0])]);
    assert_eq!(super::values(&answered(&options()).unwrap()[0]), [0.0, 5.0, 14.0]);
    let refused = answered(&LoadOptions { model_bytes_max: 23, ..options() }).unwrap_err().to_string();
    assert!(refused.ends_with("sparse tensor \"w\": dense it needs more than the 23 bytes that are left"), "{refused}");
}

#[test]
fn shapes_that_do_not_fit_are_told() {
    let case = Case {
        x: vec!["n", "c"],
        nodes: vec![node("MatMul", &["x", "w"], &["y"], vec![])],
        constants: vec![weights("w", &[3, 2])],
        rank: 2,
    };
    let refused = case.load(&options()).unwrap_err().to_string();
    assert!(refused.starts_with("operator MatMul y is not served: shapes"), "{refused}");
}

/// Extents as a declaration writes them.
const NUMBERS: [&str; 21] = [
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19", "20",
];

#[test]
fn large_operands_are_combined_in_tiles() {
    for shape in [vec![], vec![1], vec![20], vec![30, 1], vec![40, 1, 20], vec![3, 40, 30, 20], vec![3, 1, 1, 1]] {
        for operands in [["x", "w"], ["w", "x"]] {
            let nodes = vec![
                node("Sub", &operands, &["a"], vec![]),
                node("Greater", &["a", "x"], &["b"], vec![]),
                node("Where", &["b", "a", "x"], &["c"], vec![]),
                // An operand that is broadcast over the outermost axis, and a result with one.
                node("ReduceMean", &["c"], &["d"], vec![ints("axes", &[0])]),
                node("Mul", &["d", "c"], &["y"], vec![]),
            ];
            let constants = vec![weights("w", &shape)];
            Case { x: vec!["3", "40", "30", "20"], nodes, constants, rank: 4 }.check(&[3, 40, 30, 20]);
        }
    }
}
