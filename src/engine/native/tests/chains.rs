//! Layers run depth first: as right as one after the other, and bit for bit the same.

use super::*;
use crate::engine::proto::{int, ints, node};
use crate::engine::testing::on_cores;
use crate::engine::{Batch, Precision};

/// Channels-last images of a MiB and more lie between the layers of these nodes: 1x1, 3x3 and 5x5 channel by channel, a
/// stride, a sum with what another line reads too, and padding on every side.
fn nodes() -> Vec<NodeProto> {
    let by_channel = |x: &str, w: &str, y: &str, kernel: i64, stride: i64| {
        let pads = vec![kernel / 2; 4];
        let attributes = vec![
            int("group", 24),
            ints("kernel_shape", &[kernel, kernel]),
            ints("pads", &pads),
            ints("strides", &[stride, stride]),
        ];
        node("Conv", &[x, w], &[y], attributes)
    };
    vec![
        node("Conv", &["x", "first"], &["a"], vec![ints("pads", &[0, 1, 2, 0])]),
        node("Relu", &["a"], &["b"], vec![]),
        by_channel("b", "three", "c", 3, 1),
        node("HardSwish", &["c"], &["d"], vec![]),
        node("Conv", &["d", "across"], &["e"], vec![]),
        node("Add", &["e", "b"], &["f"], vec![]),
        by_channel("f", "five", "g", 5, 2),
        node("MaxPool", &["g"], &["h"], vec![ints("kernel_shape", &[2, 2]), ints("strides", &[1, 1])]),
        node("Conv", &["h", "last"], &["y"], vec![]),
    ]
}

fn constants() -> Vec<TensorProto> {
    vec![
        weights("first", &[24, 3, 3, 2]),
        weights("three", &[24, 1, 3, 3]),
        weights("across", &[24, 24, 1, 1]),
        weights("five", &[24, 1, 5, 5]),
        weights("last", &[5, 24, 1, 1]),
    ]
}

#[test]
fn chains_answer_as_tract() {
    let case = Case { x: vec!["N", "3", "H", "W"], nodes: nodes(), constants: constants(), rank: 4 };
    let layers = case.check_within(&[2, 3, 109, 113], 1e-3);
    assert!(operators(&layers).contains(&"Chain"), "{layers:?}");
}

#[test]
fn chains_answer_as_their_layers_do() {
    let (shape, input) = ([2, 3, 211, 107], value_free("x", DataType::Float, &["N", "3", "H", "W"]));
    let given = tensor(&shape, &made_up(shape.iter().product(), 1));
    // What is asked for is in no chain.
    let plan = |asked: &[&str], level: Level, precision: Precision| {
        let outputs = asked.iter().map(|name| value_free(name, DataType::Float, &["N", "c", "h", "w"])).collect();
        let model = model(vec![input.clone()], nodes(), outputs, constants());
        plan(&model, &LoadOptions { isa_max: level.set(), precision, ..options() }).unwrap()
    };
    for (level, precision) in Level::all().flat_map(|level| [(level, Precision::Exact), (level, Precision::Bf16)]) {
        let apart = plan(&["y", "a", "b", "c", "d", "e", "f", "g", "h"], level, precision);
        assert!(!operators(&layers_of(&*apart, &given)).contains(&"Chain"));
        let expected = answer(apart, vec![given.clone()]).unwrap().remove(0);
        for threads in 1..=3 {
            let chained = plan(&["y"], level, precision);
            assert!(operators(&layers_of(&*chained, &given)).contains(&"Chain"));
            let batch = Batch::merge(&[vec![given.clone()]], vec![2]);
            let got = on_cores(threads, move |cores| chained.run(&batch, cores).unwrap().shares.remove(0));
            assert_eq!(got[0].bytes(), expected.bytes(), "{level}, {precision:?}, {threads} threads");
        }
    }
}

#[test]
fn lines_of_nothing_but_padding() {
    let (pads, wide) = (vec![ints("pads", &[3, 0, 40, 0])], vec![ints("pads", &[0, 1, 0, 1])]);
    let nodes = vec![
        node("Conv", &["x", "a"], &["b"], wide),
        node("Conv", &["b", "c"], &["d"], vec![]),
        node("Conv", &["d", "e"], &["y"], pads),
    ];
    let constants = vec![weights("a", &[64, 3, 1, 3]), weights("c", &[64, 64, 1, 1]), weights("e", &[5, 64, 1, 1])];
    let case = Case { x: vec!["N", "3", "H", "W"], nodes, constants, rank: 4 };
    let layers = case.check_within(&[1, 3, 30, 448], 1e-3);
    assert!(operators(&layers).contains(&"Chain"), "{layers:?}");
}

#[test]
fn images_without_channels() {
    let nodes = vec![node("Conv", &["x", "a"], &["b"], vec![]), node("Conv", &["b", "c"], &["y"], vec![])];
    let constants = vec![weights("a", &[64, 3, 1, 1]), weights("c", &[0, 64, 1, 1])];
    let case = Case { x: vec!["N", "3", "H", "W"], nodes, constants, rank: 4 };
    let plan = case.load(&options()).unwrap();
    let got = answer(plan, vec![tensor(&[1, 3, 70, 80], &made_up(3 * 70 * 80, 1))]).unwrap().remove(0);
    assert_eq!(got.shape()[..], [1, 0, 70, 80]);
}
