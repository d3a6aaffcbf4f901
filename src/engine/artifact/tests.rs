//! Native model files: models as before, and files that are none.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::engine::proto::{int, node, value_free};
use crate::engine::testing::{answer, model, options, tensor, values};
use crate::engine::{Automatic, Engine, EngineError, LoadOptions, ModelFile, convert};
use crate::proto::onnx::attribute_proto::AttributeType;
use crate::proto::onnx::{AttributeProto, ModelProto, TensorProto};

/// Weights of `30 x 10` and a bias, of which the second is too small for a place of its own.
fn linear() -> ModelProto {
    let tensor = |name: &str, dims: &[i64]| {
        let count: i64 = dims.iter().product();
        let elements: Vec<u8> = (0..count).flat_map(|at| (at as f32 * 0.25 - 7.0).to_le_bytes()).collect();
        TensorProto {
            name: name.into(),
            dims: dims.to_vec(),
            data_type: DataType::Float as i32,
            raw_data: elements.into(),
            ..TensorProto::default()
        }
    };
    let inputs = vec![value_free("x", DataType::Float, &["N", "30"])];
    let outputs = vec![value_free("y", DataType::Float, &["N", "12"])];
    let nodes = vec![
        node("Gemm", &["x", "first", "bias"], &["h"], vec![]),
        node("Gemm", &["h", "second"], &["y"], vec![int("transB", 1)]),
    ];
    let constants = vec![tensor("first", &[30, 10]), tensor("bias", &[10]), tensor("second", &[12, 10])];
    model(inputs, nodes, outputs, constants)
}

/// A folder with the model as ONNX wrote it and as a native file.
fn written(model: &ModelProto) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.onnx"), prost::Message::encode_to_vec(model)).unwrap();
    let source = ModelFile { folder: folder.path().into(), file: "model.onnx".into() };
    let path = folder.path().join("model.safetensors");
    convert(&source, &options(), &path).unwrap();
    (folder, path)
}

fn load(folder: &TempDir, file: &str, options: &LoadOptions) -> Result<Vec<f32>, EngineError> {
    let plan = Automatic.load(&ModelFile { folder: folder.path().into(), file: file.into() }, options)?;
    let x: Vec<f32> = (0..90).map(|at| (at % 7) as f32).collect();
    Ok(values(&answer(plan, vec![tensor(&[3, 30], &x)]).unwrap().remove(0)))
}

/// The header of a file as JSON, and what stands behind it.
fn parts(bytes: &[u8]) -> (Value, &[u8]) {
    let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), &bytes[8 + length..])
}

fn joined(header: &Value, behind: &[u8]) -> Vec<u8> {
    let text = header.to_string();
    [&(text.len() as u64).to_le_bytes(), text.as_bytes(), behind].concat()
}

#[test]
fn a_native_file_answers_as_its_source_mapped_or_not() {
    let (folder, _) = written(&linear());
    let expected = load(&folder, "model.onnx", &options()).unwrap();
    for mapped in [true, false] {
        let options = LoadOptions { mapped, ..options() };
        assert_eq!(load(&folder, "model.safetensors", &options).unwrap(), expected);
    }
}

#[test]
fn integers_of_four_bits_are_two_in_a_byte() {
    let mut model = linear();
    let graph = model.graph.as_mut().unwrap();
    let codes = TensorProto {
        name: "codes".into(),
        dims: vec![30, 40],
        data_type: DataType::Int4 as i32,
        raw_data: (0..600u16).map(|at| (at * 37 % 256).to_le_bytes()[0]).collect(),
        ..TensorProto::default()
    };
    let scales = TensorProto {
        name: "scales".into(),
        dims: vec![40],
        data_type: DataType::Float as i32,
        raw_data: (0..40u8).flat_map(|at| (f32::from(at) * 0.01 + 0.1).to_le_bytes()).collect(),
        ..TensorProto::default()
    };
    graph.initializer = vec![codes, scales];
    let attributes = vec![int("axis", 1)];
    graph.node = vec![
        node("DequantizeLinear", &["codes", "scales"], &["w"], attributes),
        node("MatMul", &["x", "w"], &["y"], vec![]),
    ];
    graph.output = vec![value_free("y", DataType::Float, &["N", "40"])];
    let (folder, path) = written(&model);
    let options = options();
    assert_eq!(load(&folder, "model.safetensors", &options).unwrap(), load(&folder, "model.onnx", &options).unwrap());
    let bytes = fs::read(path).unwrap();
    let stored = &parts(&bytes).0["codes"];
    assert_eq!((&stored["dtype"], &stored["shape"]), (&json!("U8"), &json!([600])));
}

/// With weights of which nine in ten are zero.
fn pruned() -> ModelProto {
    let mut model = linear();
    let first = &mut model.graph.as_mut().unwrap().initializer[0];
    let mut elements = first.raw_data.to_vec();
    elements.chunks_mut(4).enumerate().filter(|(at, _)| at % 10 != 3).for_each(|(_, element)| element.fill(0));
    first.raw_data = elements.into();
    model
}

#[test]
fn zeros_take_a_bit_each() {
    let (folder, path) = written(&pruned());
    let bytes = fs::read(path).unwrap();
    let (header, _) = parts(&bytes);
    assert_eq!((&header["first"]["shape"], &header["first"]["dtype"]), (&json!([30]), &json!("F32")));
    assert_eq!((&header["first.places"]["shape"], &header["first.places"]["dtype"]), (&json!([38]), &json!("U8")));
    let expected = load(&folder, "model.onnx", &options()).unwrap();
    for mapped in [true, false] {
        let options = LoadOptions { mapped, ..options() };
        assert_eq!(load(&folder, "model.safetensors", &options).unwrap(), expected);
    }
    // What is put together counts.
    let options = LoadOptions { model_bytes_max: bytes.len() as u64 + 1000, ..options() };
    assert!(matches!(load(&folder, "model.safetensors", &options), Err(EngineError::TooLarge { .. })));
}

#[test]
fn places_that_are_not_the_elements_are_refused() {
    let (folder, path) = written(&pruned());
    let bytes = fs::read(&path).unwrap();
    let (header, behind) = parts(&bytes);
    let places = usize::try_from(header["first.places"]["data_offsets"][0].as_u64().unwrap()).unwrap();
    let mut moved = behind.to_vec();
    moved[places] ^= 0b1001;
    let mut more = behind.to_vec();
    more[places] |= 1;
    for (behind, expected) in [(moved, "digest"), (more, "places")] {
        fs::write(&path, joined(&header, &behind)).unwrap();
        let error = load(&folder, "model.safetensors", &options()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn weights_stand_on_cache_lines_beside_the_graph() {
    let (_folder, path) = written(&linear());
    let bytes = fs::read(path).unwrap();
    let (header, behind) = parts(&bytes);
    assert!((bytes.len() - behind.len()).is_multiple_of(64));
    let names: Vec<&String> = header.as_object().unwrap().keys().collect();
    assert_eq!(names, ["__filler__", "__metadata__", "first", "second"].iter().collect::<Vec<_>>());
    for name in ["first", "second"] {
        assert!(header[name]["data_offsets"][0].as_u64().unwrap().is_multiple_of(64), "{name}");
    }
    let graph: Value = serde_json::from_str(header["__metadata__"][GRAPH].as_str().unwrap()).unwrap();
    assert_eq!(graph["graph"]["node"][0]["opType"], "Gemm");
    assert_eq!(graph["graph"]["initializer"][0]["externalData"], json!([{ "key": "tensor", "value": "first" }]));
    assert_eq!(header["__metadata__"][SOURCE], "model.onnx");
}

#[test]
fn a_native_file_becomes_the_same_native_file() {
    let (folder, path) = written(&linear());
    let again = folder.path().join("again.safetensors");
    let source = ModelFile { folder: folder.path().into(), file: "model.safetensors".into() };
    convert(&source, &options(), &again).unwrap();
    let [mut first, mut second] = [path, again].map(|path| parts(&fs::read(path).unwrap()).0["__metadata__"].clone());
    for words in [&mut first, &mut second] {
        words[SOURCE] = Value::Null;
    }
    assert_eq!(first, second);
}

#[test]
fn tensors_of_one_name_and_the_header_s_own_get_others() {
    let mut model = linear();
    let graph = model.graph.as_mut().unwrap();
    let twin = graph.initializer[0].clone();
    let value = AttributeProto {
        name: "value".into(),
        r#type: AttributeType::Tensor as i32,
        t: Some(twin.clone()),
        ..AttributeProto::default()
    };
    graph.node.push(node("Constant", &[], &["unused"], vec![value]));
    graph.initializer.push(TensorProto { name: "__metadata__".into(), ..twin });
    let (folder, path) = written(&model);
    let bytes = fs::read(path).unwrap();
    let header = parts(&bytes).0;
    for name in ["first", "first#2", "__metadata__#2"] {
        assert_eq!(header[name]["shape"], json!([30, 10]), "{name}");
    }
    let [native, source] = ["model.safetensors", "model.onnx"].map(|file| load(&folder, file, &options()).unwrap());
    assert_eq!(native, source);
}

#[test]
fn files_that_are_none_are_refused() {
    let (folder, path) = written(&linear());
    let good = fs::read(path).unwrap();
    let (header, behind) = parts(&good);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut header = header.clone();
        change(&mut header);
        joined(&header, behind)
    };
    let word = |key: &'static str, value: Value| with(&move |header| header["__metadata__"][key] = value.clone());
    let graph = |from: &str, to: &str| {
        let text = header["__metadata__"][GRAPH].as_str().unwrap();
        assert!(text.contains(from), "{text}");
        word(GRAPH, text.replacen(from, to, 1).into())
    };
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "not a safetensors file"),
        (b"12345678".to_vec(), "not a safetensors file"),
        (good[..good.len() - 1].to_vec(), "not a safetensors file"),
        ([&good[..], &[0]].concat(), "not a safetensors file"),
        (u64::MAX.to_le_bytes().to_vec(), "not a safetensors file"),
        (with(&|header| header["first"]["data_offsets"] = json!([0, 4])), "not a safetensors file"),
        (with(&|header| header["second"]["data_offsets"][0] = json!(0)), "not a safetensors file"),
        (with(&|header| _ = header.as_object_mut().unwrap().remove("__metadata__")), "it holds weights and no model"),
        (word(FORMAT, "2".into()), "kinglet.format is \"2\", expected \"1\""),
        (with(&|header| _ = header["__metadata__"].as_object_mut().unwrap().remove(GRAPH)), "has no kinglet.graph"),
        (word(GRAPH, "{".into()), "kinglet.graph: "),
        (word(GRAPH, "{\"graph\": {}} x".into()), "kinglet.graph: "),
        (word(GRAPH, "{\"nodes\": 3}".into()), "kinglet.graph: "),
        (word(GRAPH, "{}".into()), "the file has no graph"),
        (word(DIGESTS, "3".into()), "kinglet.digests: "),
        (word(DIGESTS, "{}".into()), "has no digest"),
        (graph("\"value\":\"first\"", "\"value\":\"third\""), "the file has no tensor \"third\""),
        (graph("\"value\":\"first\"", "\"value\":\"second\""), "has shape [12, 10], expected [30, 10]"),
        (graph("\"key\":\"tensor\"", "\"key\":\"location\""), "it has no tensor"),
        (graph("\"dataType\":1", "\"dataType\":6"), "has type F32, expected I32"),
        (graph("\"dims\":[\"30\",\"10\"]", "\"dims\":[\"-30\",\"10\"]"), "is negative"),
        (flipped, "has the digest"),
    ];
    for (bytes, why) in cases {
        fs::write(folder.path().join("bad.safetensors"), &bytes).unwrap();
        for mapped in [true, false] {
            let options = LoadOptions { mapped, ..options() };
            let refused = load(&folder, "bad.safetensors", &options).unwrap_err().to_string();
            assert!(refused.contains(why), "expected {why:?}, got {refused}");
        }
    }
}

/// No length that a file may be cut to, and no byte that may be another, ends in a panic.
#[test]
fn any_file_is_read_or_refused() {
    let (_folder, path) = written(&linear());
    let good = fs::read(path).unwrap();
    for end in 0..good.len().min(4096) {
        assert!(read(&Bytes::copy_from_slice(&good[..end]), 1, &mut |_| Ok(())).is_err(), "{end}");
    }
    for at in 0..good.len() {
        let mut other = good.clone();
        other[at] ^= 0x41;
        let _ = read(&Bytes::from(other), 1, &mut |_| Ok(()));
    }
}

#[test]
fn limits_hold_for_native_files() {
    let (folder, path) = written(&linear());
    let size = fs::metadata(path).unwrap().len();
    let load = |model_bytes_max| load(&folder, "model.safetensors", &LoadOptions { model_bytes_max, ..options() });
    assert!(load(size).is_ok());
    assert!(matches!(load(size - 1), Err(EngineError::TooLarge { needed, .. }) if needed == size));
}
