//! Models in bf16: near what they answer exactly, the same for every batch and number of threads, in half the memory.

use kinglet_kernels::isa::Set;

use super::*;
use crate::engine::proto::{int, ints, node};
use crate::engine::testing::on_cores;
use crate::engine::{Batch, Precision};

/// Convolutions of every kind, and a product.
fn nodes() -> Vec<NodeProto> {
    let padded = || ints("pads", &[1, 1, 1, 1]);
    vec![
        node("Conv", &["x", "first"], &["a"], vec![padded()]),
        node("Relu", &["a"], &["b"], vec![]),
        node("Conv", &["b", "across"], &["c"], vec![]),
        node("Conv", &["c", "window"], &["d"], vec![padded(), ints("strides", &[2, 2])]),
        node("Conv", &["d", "even"], &["e"], vec![int("group", 2)]),
        node("Add", &["d", "e"], &["f"], vec![]),
        node("Conv", &["f", "odd"], &["g"], vec![int("group", 10)]),
        node("GlobalAveragePool", &["g"], &["h"], vec![]),
        node("Flatten", &["h"], &["i"], vec![int("axis", 1)]),
        node("Gemm", &["i", "last", "bias"], &["y"], vec![]),
    ]
}

pub(super) fn case() -> Case {
    let constants = vec![
        weights("first", &[24, 3, 3, 3]),
        weights("across", &[31, 24, 1, 1]),
        weights("window", &[40, 31, 3, 3]),
        weights("even", &[40, 20, 1, 1]),
        weights("odd", &[20, 4, 1, 1]),
        weights("last", &[20, 7]),
        weights("bias", &[7]),
    ];
    Case { x: vec!["N", "3", "H", "W"], nodes: nodes(), constants, rank: 2 }
}

fn load(case: &Case, level: Level, precision: Precision) -> Box<dyn Plan> {
    case.load(&LoadOptions { isa_max: level.set(), precision, ..options() }).unwrap()
}

#[test]
fn products_in_bf16_are_near_exact_ones() {
    let (case, shape) = (case(), [2, 3, 13, 17]);
    let given = tensor(&shape, &made_up(shape.iter().product(), 1));
    for level in Level::all() {
        let rounded = load(&case, level, Precision::Bf16);
        let kernels: Vec<String> = layers_of(&*rounded, &given).into_iter().map(|layer| layer.kernel).collect();
        let count = kernels.iter().filter(|kernel| kernel.starts_with("bf16_gemm")).count();
        assert_eq!(count, 5, "{level}: {kernels:?}");
        assert!(rounded.parts()[0].reason.contains("bf16"), "{:?}", rounded.parts()[0]);
        let [got, exact] = [rounded, load(&case, level, Precision::Exact)]
            .map(|plan| values(&answer(plan, vec![given.clone()]).unwrap().remove(0)));
        let size = exact.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        assert_ne!(got, exact);
        let is_near = got.iter().zip(&exact).all(|(got, exact)| (got - exact).abs() < 0.01 * size);
        assert!(is_near, "{level}: {got:?} {exact:?}");
    }
}

#[test]
fn answers_do_not_depend_on_company_or_threads() {
    let (case, images) = (case(), 5);
    let given = tensor(&[images, 3, 13, 17], &made_up(images * 3 * 13 * 17, 1));
    let one = |at: usize| tensor(&[1, 3, 13, 17], &values(&given)[at * 3 * 13 * 17..][..3 * 13 * 17]);
    for level in Level::all() {
        let alone: Vec<f32> = (0..images)
            .flat_map(|at| {
                let plan = load(&case, level, Precision::Bf16);
                values(&answer(plan, vec![one(at)]).unwrap().remove(0))
            })
            .collect();
        for threads in 1..=3 {
            let plan = load(&case, level, Precision::Bf16);
            let batch = Batch::merge(&[vec![given.clone()]], vec![images]);
            let got = on_cores(threads, move |cores| plan.run(&batch, cores).unwrap().shares.remove(0));
            assert_eq!(values(&got[0]), alone, "{level}, {threads} threads");
        }
    }
}

/// Layers of every kind that take and make bf16, over images, rows, and heads of attention.
fn of_halves() -> Vec<(Case, Vec<usize>, Vec<&'static str>)> {
    let (same, relu) = (|| ints("pads", &[1, 1, 1, 1]), |from, to| node("Relu", &[from], &[to], vec![]));
    let image = Case {
        x: vec!["N", "3", "16", "16"],
        nodes: vec![
            node("Conv", &["x", "first"], &["a"], vec![same(), ints("strides", &[2, 2])]),
            relu("a", "b"),
            node("MaxPool", &["b"], &["c"], vec![ints("kernel_shape", &[2, 2]), ints("strides", &[1, 1])]),
            node("Conv", &["c", "across"], &["d"], vec![]),
            node("Conv", &["d", "alone"], &["e"], vec![same(), int("group", 32)]),
            node("Conv", &["e", "back"], &["f"], vec![]),
            node("Add", &["f", "c"], &["g"], vec![]),
            node("Conv", &["g", "odd"], &["h"], vec![]),
            relu("h", "i"),
            node("Conv", &["i", "last"], &["j"], vec![]),
            node("GlobalAveragePool", &["j"], &["y"], vec![]),
        ],
        constants: vec![
            weights("first", &[16, 3, 3, 3]),
            weights("across", &[32, 16, 1, 1]),
            weights("alone", &[32, 1, 3, 3]),
            weights("back", &[16, 32, 1, 1]),
            weights("odd", &[7, 16, 1, 1]),
            weights("last", &[8, 7, 1, 1]),
        ],
        rank: 4,
    };
    // The image is moved first; seven channels make no pairs; what is answered is declared as floats.
    let types = ["FP32", "BF16", "BF16", "BF16", "BF16", "BF16", "FP32", "FP32", "FP32"];
    let rows = Case {
        x: vec!["N", "12"],
        nodes: vec![
            node("MatMul", &["x", "in"], &["z"], vec![]),
            node("LayerNormalization", &["z", "scale", "shift"], &["a"], vec![]),
            node("MatMul", &["a", "up"], &["b"], vec![]),
            node("HardSwish", &["b"], &["c"], vec![]),
            node("MatMul", &["c", "down"], &["d"], vec![]),
            node("Add", &["d", "a"], &["e"], vec![]),
            node("LayerNormalization", &["e", "scale", "shift"], &["y"], vec![]),
        ],
        constants: vec![
            weights("scale", &[12]),
            weights("shift", &[12]),
            weights("in", &[12, 12]),
            weights("up", &[12, 40]),
            weights("down", &[40, 12]),
        ],
        rank: 2,
    };
    let but_the_last = vec!["BF16", "BF16", "BF16", "BF16", "FP32"];
    vec![
        (image, vec![2, 3, 16, 16], types.to_vec()),
        (rows, vec![6, 12], but_the_last.clone()),
        (recovered::attention(), vec![3, 7, 12], but_the_last),
    ]
}

#[test]
fn values_between_layers_that_round_them_lie_as_bf16() {
    for (case, shape, expected) in of_halves() {
        let given = tensor(&shape, &made_up(shape.iter().product(), 1));
        for level in Level::all() {
            let rounded = load(&case, level, Precision::Bf16);
            let layers = layers_of(&*rounded, &given);
            let types: Vec<&str> = layers.iter().map(|layer| layer.dtype.name()).collect();
            let is_here = level.set() >= Set::Avx512Bf16;
            let in_pairs = |layer: &LayerReport| layer.operator != "Attention" || layer.kernel.starts_with("bf16");
            assert!(!is_here || layers.iter().all(in_pairs), "{layers:?}");
            assert_eq!(
                types,
                if is_here { expected.clone() } else { vec!["FP32"; expected.len()] },
                "{level} {layers:?}"
            );
            let [got, exact] = [rounded, load(&case, level, Precision::Exact)]
                .map(|plan| values(&answer(plan, vec![given.clone()]).unwrap().remove(0)));
            let size = exact.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let is_near = got.iter().zip(&exact).all(|(got, exact)| (got - exact).abs() < 0.02 * size);
            assert!(is_near, "{level}: {got:?} {exact:?}");
        }
    }
}

/// What a sample has many elements of a request may have few of, or none.
fn unlike_samples() -> Vec<(Case, Vec<usize>)> {
    let reduced = |kind: &str, x: &[&'static str]| Case {
        x: x.to_vec(),
        nodes: vec![
            node("MatMul", &["x", "in"], &["a"], vec![]),
            node(kind, &["a"], &["b"], vec![ints("axes", &[1]), int("keepdims", 0)]),
            node("MatMul", &["b", "out"], &["y"], vec![]),
        ],
        constants: vec![weights("in", &[8, 2]), weights("out", &[2, 3])],
        rank: x.len() - 1,
    };
    // In a sample the row is longer than what is computed from shapes alone.
    let known = || Case {
        x: vec!["N", "96"],
        nodes: vec![
            node("Shape", &["x"], &["shape"], vec![]),
            node("Expand", &["row", "shape"], &["rows"], vec![]),
            node("MatMul", &["rows", "in"], &["a"], vec![]),
            node("MatMul", &["x", "in"], &["b"], vec![]),
            node("Add", &["b", "a"], &["c"], vec![]),
            node("MatMul", &["c", "out"], &["y"], vec![]),
        ],
        constants: vec![weights("row", &[1, 96]), weights("in", &[96, 16]), weights("out", &[16, 5])],
        rank: 2,
    };
    let mut cases: Vec<_> = ["ReduceMean", "ReduceMax"]
        .into_iter()
        .flat_map(|kind| {
            let case = || reduced(kind, &["N", "3", "T", "8"]);
            [(case(), vec![2, 3, 1, 8]), (case(), vec![2, 3, 9, 8])]
        })
        .collect();
    cases.extend([(known(), vec![20, 96]), (known(), vec![50, 96])]);
    cases
}

#[test]
fn requests_unlike_samples_are_near_exact_ones() {
    for (case, shape) in unlike_samples() {
        let given = tensor(&shape, &made_up(shape.iter().product(), 1));
        for level in Level::all() {
            let [got, exact] = [Precision::Bf16, Precision::Exact].map(|precision| {
                values(&answer(load(&case, level, precision), vec![given.clone()]).unwrap().remove(0))
            });
            let size = exact.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let is_near = got.iter().zip(&exact).all(|(got, exact)| (got - exact).abs() < 0.02 * size);
            assert!(is_near, "{level} {shape:?}: {got:?} {exact:?}");
        }
    }
}

#[test]
fn layers_in_bf16_take_half_the_memory() {
    let nodes = vec![node("MatMul", &["x", "w"], &["y"], vec![])];
    let case = Case { x: vec!["N", "512"], nodes, constants: vec![weights("w", &[512, 512])], rank: 2 };
    for level in Level::all() {
        let [exact, rounded] =
            [Precision::Exact, Precision::Bf16].map(|precision| load(&case, level, precision).memory_bytes());
        assert!(rounded < exact * 6 / 10, "{level}: {rounded} bytes, exactly {exact}");
    }
}

#[test]
fn lines_of_few_channels_come_in_pairs() {
    for (channels, kernel, stride, pads) in [
        (3, 7, 2, [3, 3, 3, 3]),
        (3, 3, 2, [0, 0, 1, 1]),
        (1, 4, 2, [1, 2, 1, 0]),
        (4, 3, 1, [1, 1, 1, 1]),
        (2, 2, 3, [0; 4]),
    ] {
        let attributes = vec![ints("pads", &pads), ints("strides", &[stride, stride])];
        let given = tensor(&[2, channels, 13, 17], &made_up(2 * channels * 13 * 17, 1));
        let case = Case {
            x: vec!["N", ["1", "2", "3", "4"][channels - 1], "H", "W"],
            nodes: vec![node("Conv", &["x", "w", "b"], &["y"], attributes)],
            constants: vec![weights("w", &[9, i64::try_from(channels).unwrap(), kernel, kernel]), weights("b", &[9])],
            rank: 4,
        };
        for level in Level::all() {
            let rounded = load(&case, level, Precision::Bf16);
            let in_pairs = layers_of(&*rounded, &given).iter().any(|layer| layer.kernel.starts_with("bf16_gemm"));
            assert_eq!(in_pairs, level.set() >= Set::Avx512Bf16, "{level}");
            let [got, exact] = [rounded, load(&case, level, Precision::Exact)]
                .map(|plan| values(&answer(plan, vec![given.clone()]).unwrap().remove(0)));
            let size = exact.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let is_near = got.iter().zip(&exact).all(|(got, exact)| (got - exact).abs() < 0.01 * size);
            assert!(is_near, "{level} {channels} {kernel} {stride}: {got:?} {exact:?}");
        }
    }
}

#[test]
fn an_image_of_no_width_shows_its_padding() {
    let attributes = vec![ints("pads", &[1, 1, 1, 1]), ints("strides", &[2, 2])];
    let case = Case {
        x: vec!["N", "3", "H", "W"],
        nodes: vec![node("Conv", &["x", "w", "b"], &["y"], attributes)],
        constants: vec![weights("w", &[5, 3, 2, 2]), weights("b", &[5])],
        rank: 4,
    };
    for (level, precision) in Level::all().flat_map(|level| [(level, Precision::Exact), (level, Precision::Bf16)]) {
        let plan = load(&case, level, precision);
        // The run before leaves its contents where the next one finds its room.
        let plan = [[1, 3, 4, 4], [1, 3, 4, 0]].into_iter().fold(plan, |plan, shape| {
            let given = tensor(&shape, &vec![9.0; shape.iter().product()]);
            let batch = Batch::merge(&[vec![given]], vec![1]);
            on_cores(1, move |cores| {
                let shares = plan.run(&batch, cores).unwrap().shares;
                if shape[3] == 0 {
                    let bias = made_up(5, "b".len() + 5);
                    let expected: Vec<f32> = bias.iter().flat_map(|&bias| [bias; 3]).collect();
                    assert_eq!(values(&shares[0][0]), expected, "{level}");
                }
                plan
            })
        });
        drop(plan);
    }
}
