//! Kernels that are chosen by measurement: whichever it is, the answer is the same bit for bit.

use std::fs;
use std::time::Duration;

use prost::Message;

use super::precision;
use super::sparse::thinned;
use super::*;
use crate::engine::native::Native;
use crate::engine::proto::{int, ints, node};
use crate::engine::{Engine, ModelFile, Precision};

/// Whichever kernel leaves zeros out, and however operands are rounded for it, the answer is near the exact one. Groups of a
/// convolution, which share an image, agree on whether it is rounded, though each is chosen for by itself.
#[test]
fn every_choice_of_what_leaves_zeros_out_answers_alike() {
    let mut grouped = thinned("grouped", &[40, 10, 3, 3], 90, 1);
    let dense = weights("dense", &[20, 10, 3, 3]).raw_data;
    grouped.raw_data = [&grouped.raw_data[..dense.len()], &dense].concat().into();
    let case = Case {
        x: vec!["N", "16", "H", "W"],
        nodes: vec![
            // Of an output that does not fill whole cache lines.
            node("Conv", &["x", "window"], &["a"], vec![ints("pads", &[1, 1, 1, 1])]),
            node("Relu", &["a"], &["b"], vec![]),
            node("Conv", &["b", "across"], &["c"], vec![]),
            node("Conv", &["c", "grouped"], &["d"], vec![int("group", 2)]),
            node("GlobalAveragePool", &["d"], &["e"], vec![]),
            node("Flatten", &["e"], &["f"], vec![int("axis", 1)]),
            node("Gemm", &["f", "last"], &["y"], vec![int("transB", 1)]),
        ],
        constants: vec![
            thinned("window", &[23, 16, 3, 3], 85, 1),
            thinned("across", &[20, 23, 1, 1], 90, 2),
            grouped,
            thinned("last", &[9, 40], 90, 1),
        ],
        rank: 2,
    };
    let given = tensor(&[2, 16, 13, 17], &made_up(2 * 16 * 13 * 17, 1));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.onnx"), case.model().encode_to_vec()).unwrap();
    let file = ModelFile { folder: folder.path().to_owned(), file: "model.onnx".into() };
    for level in Level::all() {
        let exact = LoadOptions { isa_max: level.set(), ..options() };
        let expected = values(&answer(Native.load(&file, &exact).unwrap(), vec![given.clone()]).unwrap()[0]);
        let size = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for (precision, near) in [(Precision::Exact, 1e-5), (Precision::Bf16, 0.01)] {
            let measured = LoadOptions {
                precision,
                tuning_time_max: Duration::from_secs(60),
                keep_choices: true,
                ..exact.clone()
            };
            let check = |of: &str, options: &LoadOptions| {
                let plan = Native.load(&file, options).unwrap();
                let kernels: Vec<String> = layers_of(&*plan, &given).into_iter().map(|layer| layer.kernel).collect();
                let got = values(&answer(plan, vec![given.clone()]).unwrap()[0]);
                let is_near = got.iter().zip(&expected).all(|(got, exact)| (got - exact).abs() <= near * size);
                assert!(is_near, "{level} {precision:?} {of}: {got:?} {expected:?} {kernels:?}");
                kernels
            };
            check("measured", &measured);
            let mut kept = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
            let kept = kept.find(|path| path.extension().is_some_and(|end| end == "json")).unwrap();
            let text = fs::read_to_string(&kept).unwrap();
            let mut seen = Vec::new();
            for candidate in 1..=10 {
                let mut choices: serde_json::Value = serde_json::from_str(&text).unwrap();
                let choices_of = choices["kernels"].as_object_mut().unwrap();
                for (name, choice) in choices_of.iter_mut().filter(|(name, _)| name.contains("zeros")) {
                    // Transformed tiles or a product: the product.
                    *choice = if name.starts_with("f32_winograd") { 2 } else { candidate }.into();
                }
                fs::write(&kept, choices.to_string()).unwrap();
                seen.extend(check(&candidate.to_string(), &LoadOptions { keep_choices: false, ..measured.clone() }));
            }
            fs::remove_file(kept).unwrap();
            let any = |kernel: &str| seen.iter().any(|seen| seen.starts_with(kernel));
            assert!(any("f32_sparse_1x") && any("f32_sparse_2x"), "{level} {seen:?}");
            assert_eq!(
                any("bf16_sparse_1x") && any("bf16_sparse_2x"),
                precision == Precision::Bf16,
                "{level} {seen:?}"
            );
        }
    }
}

#[test]
fn every_choice_answers_alike() {
    let case = precision::case();
    let given = tensor(&[3, 3, 13, 17], &made_up(3 * 3 * 13 * 17, 1));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.onnx"), case.model().encode_to_vec()).unwrap();
    let file = ModelFile { folder: folder.path().to_owned(), file: "model.onnx".into() };
    for level in Level::all() {
        for precision in [Precision::Exact, Precision::Bf16] {
            let by_rule = LoadOptions { isa_max: level.set(), precision, ..options() };
            let expected = answer(Native.load(&file, &by_rule).unwrap(), vec![given.clone()]).unwrap();
            let measured =
                LoadOptions { tuning_time_max: Duration::from_secs(60), keep_choices: true, ..by_rule.clone() };
            let got = answer(Native.load(&file, &measured).unwrap(), vec![given.clone()]).unwrap();
            assert_eq!(got[0].bytes(), expected[0].bytes(), "{level}");
            let mut kept = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
            let kept = kept.find(|path| path.extension().is_some_and(|end| end == "json"));
            // Where there is one width there is nothing to measure.
            let Some(kept) = kept else {
                assert_ne!(precision, Precision::Exact, "{level}");
                continue;
            };
            let text = fs::read_to_string(&kept).unwrap();
            for width in 1..=4 {
                let mut choices: serde_json::Value = serde_json::from_str(&text).unwrap();
                choices["kernels"].as_object_mut().unwrap().values_mut().for_each(|choice| *choice = width.into());
                fs::write(&kept, choices.to_string()).unwrap();
                let plan = Native.load(&file, &LoadOptions { keep_choices: false, ..measured.clone() }).unwrap();
                let got = answer(plan, vec![given.clone()]).unwrap();
                assert_eq!(got[0].bytes(), expected[0].bytes(), "{level} {width}");
            }
            fs::remove_file(kept).unwrap();
        }
    }
}
