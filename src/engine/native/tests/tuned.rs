//! Kernels that are chosen by measurement: whichever it is, the answer is the same bit for bit.

use std::fs;
use std::time::Duration;

use prost::Message;

use super::precision;
use super::*;
use crate::engine::native::Native;
use crate::engine::{Engine, ModelFile, Precision};

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
