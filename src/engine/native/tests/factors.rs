//! Two products in a row: as one where that is faster, and with the same answer either way.

use std::fs;
use std::time::Duration;

use prost::Message;

use super::*;
use crate::engine::native::Native;
use crate::engine::proto::{int, ints, node};
use crate::engine::{Engine, ModelFile};

/// Two products with so many values between, and biases.
fn products(rank: i64) -> Case {
    let nodes = vec![
        node("Gemm", &["x", "a", "ab"], &["p"], vec![]),
        node("Gemm", &["p", "b", "bb"], &["q"], vec![int("transB", 1)]),
        node("Relu", &["q"], &["y"], vec![]),
    ];
    let constants =
        vec![weights("a", &[24, rank]), weights("ab", &[rank]), weights("b", &[18, rank]), weights("bb", &[18])];
    Case { x: vec!["N", "24"], nodes, constants, rank: 2 }
}

/// A convolution and one of single pixels, of some groups, with a sum and a function behind.
fn convolutions(rank: i64, [first, second]: [i64; 2]) -> Case {
    let nodes = vec![
        node("Conv", &["x", "a", "ab"], &["p"], vec![ints("pads", &[1, 0, 2, 1]), int("group", first)]),
        node("Conv", &["p", "b"], &["q"], vec![int("group", second)]),
        node("Conv", &["x", "c"], &["r"], vec![ints("pads", &[1, 0, 2, 1])]),
        node("Add", &["q", "r"], &["s"], vec![]),
        node("Relu", &["s"], &["y"], vec![]),
    ];
    let constants = vec![
        weights("a", &[rank, 8 / first, 3, 2]),
        weights("ab", &[rank]),
        weights("b", &[12, rank / second, 1, 1]),
        weights("c", &[12, 8, 3, 2]),
    ];
    Case { x: vec!["N", "8", "H", "W"], nodes, constants, rank: 4 }
}

#[test]
fn many_values_between_products_are_not_made() {
    for (rank, expected) in [(4, 2), (10, 2), (11, 1), (30, 1)] {
        let layers = products(rank).check(&[5, 24]);
        let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(operators(&layers), vec!["Linear"; expected], "{rank}");
        assert_eq!(names.contains(&"Gemm p * Gemm q"), expected == 1, "{names:?}");
    }
}

#[test]
fn many_values_between_convolutions_are_not_made() {
    for (rank, groups, expected) in
        [(6, [1, 1], 3), (12, [1, 1], 2), (12, [2, 1], 3), (32, [2, 1], 2), (8, [1, 4], 3), (16, [1, 4], 2)]
    {
        let layers = convolutions(rank, groups).check_within(&[2, 8, 7, 9], 1e-3);
        let count = operators(&layers).iter().filter(|operator| **operator == "Conv").count();
        assert_eq!(count, expected, "{rank} {groups:?}");
    }
}

#[test]
fn what_is_seen_between_is_made() {
    let kept = |between: &str, attributes: Vec<_>| {
        let nodes = vec![
            node("Conv", &["x", "a"], &["p"], vec![]),
            node(between, &["p"], &["q"], vec![]),
            node("Conv", &["q", "b"], &["y"], attributes),
        ];
        let constants = vec![weights("a", &[9, 4, 1, 1]), weights("b", &[4, 9, 1, 1])];
        let layers = Case { x: vec!["N", "4", "H", "W"], nodes, constants, rank: 4 }.check(&[2, 4, 5, 6]);
        operators(&layers).iter().filter(|operator| **operator == "Conv").count() == 2
    };
    assert!(!kept("Identity", vec![]));
    assert!(kept("Relu", vec![]));
    assert!(kept("Identity", vec![ints("strides", &[2, 1])]));
    assert!(kept("Identity", vec![ints("pads", &[0, 1, 0, 0])]));
    let (mut asked, given) = (products(30).model(), tensor(&[2, 24], &made_up(48, 1)));
    asked.graph.as_mut().unwrap().output.push(value_free("p", DataType::Float, &["N", "r"]));
    assert_eq!(operators(&layers_of(&*plan(&asked, &options()).unwrap(), &given)), ["Linear"; 2]);
}

#[test]
fn zeros_between_many_groups_are_not_made() {
    // As one, the first would have 20,000 x 20,000 places.
    let channels = 20_000;
    let nodes = vec![
        node("Conv", &["x", "each"], &["p"], vec![int("group", channels)]),
        node("Conv", &["p", "across"], &["y"], vec![]),
    ];
    let constants = vec![weights("each", &[channels, 1, 1, 3]), weights("across", &[1, channels, 1, 1])];
    let plan = Case { x: vec!["N", "20000", "1", "W"], nodes, constants, rank: 4 }.load(&options()).unwrap();
    let layers = layers_of(&*plan, &tensor(&[1, 20_000, 1, 3], &made_up(60_000, 1)));
    assert_eq!(operators(&layers).iter().filter(|operator| **operator == "Conv").count(), 2, "{layers:?}");
}

#[test]
fn what_is_measured_decides_between() {
    let given = tensor(&[3, 24], &made_up(72, 1));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.onnx"), products(9).model().encode_to_vec()).unwrap();
    let file = ModelFile { folder: folder.path().to_owned(), file: "model.onnx".into() };
    let measured = LoadOptions { tuning_time_max: Duration::from_secs(60), keep_choices: true, ..options() };
    let expected = answer(Native.load(&file, &options()).unwrap(), vec![given.clone()]).unwrap().remove(0);
    drop(Native.load(&file, &measured).unwrap());
    let kept = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let kept = kept.into_iter().find(|path| path.extension().is_some_and(|end| end == "json")).unwrap();
    let text = fs::read_to_string(&kept).unwrap();
    for (choice, count) in [(1, 2), (2, 1)] {
        let mut choices: serde_json::Value = serde_json::from_str(&text).unwrap();
        let kernels = choices["kernels"].as_object_mut().unwrap();
        let (_, chosen) = kernels.iter_mut().find(|(name, _)| name.contains(" then ")).unwrap();
        *chosen = choice.into();
        fs::write(&kept, choices.to_string()).unwrap();
        let plan = Native.load(&file, &LoadOptions { keep_choices: false, ..measured.clone() }).unwrap();
        assert_eq!(operators(&layers_of(&*plan, &given)), vec!["Linear"; count]);
        let got = answer(plan, vec![given.clone()]).unwrap().remove(0);
        assert!(values(&got).iter().zip(values(&expected)).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}
