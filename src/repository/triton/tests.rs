//! Configurations as Triton's users write them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::declared::{BatchAxis, Labels};
use super::super::fake::FakeEngine;
use super::super::resolve::{Defaults, resolve};
use super::super::settings::{TimeoutAction, WarmUpContent};
use super::super::variant::Variant;
use super::super::versions::VersionPolicy;
use super::super::{BatchingConfig, manifest};
use super::*;
use crate::infer::VersionId;
use crate::units::{ByteSize, Span};

fn read(text: &str) -> Result<Declared, String> {
    read_text(&"densenet_onnx".parse().unwrap(), text).map_err(|error| error.to_string())
}

/// As in Triton's own examples: lists and repeated blocks, comments, both kinds of quotes.
const EXAMPLE: &str = r#"
name: "densenet_onnx"
platform: "onnxruntime_onnx"   # a comment
max_batch_size : 8
input [
  {
    name: "data_0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 224, 224 ]
    reshape { shape: [ 1, 3, 224, 224 ] }
  }
]
output [ { name: 'fc6_1' data_type: TYPE_FP32, dims: [ 1000 ], label_filename: "labels.txt" } ]
version_policy: { specific: { versions: [ 1, 3 ] } }
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0 ] }, { count: 1, kind: KIND_CPU } ]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
  preserve_ordering: true
  priority_levels: 2
  default_priority_level: 1
  default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 5000 max_queue_size: 10 }
  priority_queue_policy { key: 2 value { timeout_action: REJECT } }
}
optimization { graph { level: 1 } execution_accelerators { } }
parameters { key: "intra_op_thread_count" value { string_value: "2" } }
parameters: { key: "x" value: { string_value: "y" } }
model_warmup [
  {
    name: "sample" batch_size: 4 count: 2
    inputs { key: "data_0" value { data_type: TYPE_FP32 dims: [ 3, 224, 224 ] random_data: true } }
  }
]
response_cache { enable: true }
default_model_filename: "net.onnx"
"#;

#[test]
fn a_triton_configuration_is_read() {
    let declared = read(EXAMPLE).unwrap();
    assert_eq!(declared.batch, Some(BatchAxis::UpTo(8)));
    assert_eq!(declared.inputs[0].dims, [3, 224, 224]);
    assert_eq!(declared.inputs[0].reshape.as_deref(), Some(&[1, 3, 224, 224][..]));
    assert_eq!(declared.inputs[0].dtype, Some(DType::F32));
    assert_eq!(declared.labels["fc6_1"], Labels::File("labels.txt".into()));
    assert_eq!(declared.version_policy, Some(VersionPolicy::Specific([VersionId(1), VersionId(3)].into())));
    assert_eq!(declared.instances_max, Some(3));
    assert_eq!(declared.batching.preferred, Some(vec![4, 8]));
    assert_eq!(declared.batching.queue_delay_max, Some(Duration::from_micros(100)));
    assert_eq!(declared.batching.queue.timeout_action, Some(TimeoutAction::Delay));
    assert_eq!(declared.batching.priority_queues[&2].timeout_action, Some(TimeoutAction::Reject));
    assert_eq!(declared.parameters["intra_op_thread_count"], "2");
    assert_eq!((declared.warm_up[0].rows, declared.warm_up[0].count), (4, 2));
    assert_eq!(declared.warm_up[0].inputs["data_0"].content, WarmUpContent::Random);
    assert_eq!(declared.model_file.as_deref(), Some("net.onnx"));
    let warned = |field: &str| declared.warnings.iter().any(|line| line.starts_with(&format!("config.pbtxt: {field}")));
    assert_eq!(declared.response_cache, Some(true));
    let fields = ["input.format", "instance_group.kind", "instance_group.gpus", "optimization"];
    for field in fields.into_iter().chain(["parameters.intra_op_thread_count is not honoured"]) {
        assert!(warned(field), "{field}: {:?}", declared.warnings);
    }
    assert_eq!(declared.warnings.len(), 5, "{:?}", declared.warnings);
}

#[test]
fn json_says_the_same() {
    let name = "densenet_onnx".parse().unwrap();
    let json = json!({
        "name": "densenet_onnx",
        "backend": "onnxruntime",
        "max_batch_size": 8,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["3", -1]}],
        "dynamic_batching": {"preferred_batch_size": [2], "max_queue_delay_microseconds": "100"},
        "parameters": {"a": {"string_value": "b"}},
        "versionPolicy": {"latest": {"numVersions": 2}},
    });
    let text = r#"
        backend: "onnxruntime" max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [ 3, -1 ] }
        dynamic_batching { preferred_batch_size: 2 max_queue_delay_microseconds: 100 }
        parameters { key: "a" value { string_value: "b" } } version_policy { latest { num_versions: 2 } }
    "#;
    let from_json = read_json(&name, &json.to_string()).unwrap();
    assert_eq!(from_json.origin, Some("config"));
    assert_eq!(Declared { origin: Some("config"), ..read(text).unwrap() }, from_json);
}

#[test]
fn what_cannot_be_served_is_refused_by_name() {
    for (text, expected) in [
        ("sequence_batching { }", "config.pbtxt: sequence_batching: not served: "),
        ("ensemble_scheduling { }", "config.pbtxt: ensemble_scheduling.step: expected at least one step, got none"),
        ("platform: 'ensemble'", "config.pbtxt: ensemble_scheduling: expected the steps of the ensemble, got none"),
        (
            "ensemble_scheduling { step { model_name: '../x' model_version: -1 } }",
            "config.pbtxt: ensemble_scheduling.step[0].model_name: model name \"../x\" is not allowed",
        ),
        (
            "ensemble_scheduling { step { model_name: 'x' } }",
            "config.pbtxt: ensemble_scheduling.step[0].model_version: expected -1, or 1 or more, got 0",
        ),
        (
            "platform: 'onnxruntime_onnx' ensemble_scheduling { step { model_name: 'x' model_version: 1 } }",
            "config.pbtxt: platform: expected \"ensemble\", got \"onnxruntime_onnx\"",
        ),
        (
            "model_transaction_policy { decoupled: true }",
            "config.pbtxt: model_transaction_policy.decoupled: not served: ",
        ),
        ("input { name: 'x' allow_ragged_batch: true }", "config.pbtxt: input.allow_ragged_batch: not served: "),
        ("batch_input { target_name: 'x' }", "config.pbtxt: batch_input: not served: "),
        ("model_operations { op_library_filename: 'x.so' }", "config.pbtxt: model_operations: not served: "),
        ("backend: 'python'", "config.pbtxt: backend: expected \"onnxruntime\", got \"python\""),
        ("platform: 'tensorrt_plan'", "config.pbtxt: platform: expected \"onnxruntime_onnx\", got \"tensorrt_plan\""),
        ("name: 'other'", "config.pbtxt: name: expected \"densenet_onnx\", the name of its folder, got \"other\""),
        ("max_batch_size: -1", "config.pbtxt: max_batch_size: expected 0 or more, got -1"),
        ("default_model_filename: '../x'", "config.pbtxt: default_model_filename: expected a plain file name"),
        ("input { name: 'x' dims: 0 }", "config.pbtxt: input[0].dims: expected extents of 1 or more, or -1, got 0"),
        ("version_policy { latest { } }", "config.pbtxt: version_policy.latest.num_versions: expected 1 or more"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
    assert!(read("model_transaction_policy { decoupled: false }").is_ok());
    assert!(read("sequence_batching { } dynamic_batching { }").unwrap_err().contains("oneof"));
}

#[test]
fn malformed_text_names_its_line() {
    for (text, expected) in [
        ("name: 'x'\nmax_batch: 3", "config.pbtxt:2: field 'max_batch' not found"),
        ("input {\n  name: 'x'\n  dims: three\n}", "config.pbtxt:3: expected"),
        ("input {\n  data_type: TYPE_FP31\n}", "config.pbtxt:2: value 'TYPE_FP31' was not found"),
        ("input {\n  name: 'x'\n", "config.pbtxt:2: expected"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
    let name = "m".parse().unwrap();
    let error = read_json(&name, "{\n\"max_batch\": 3}").unwrap_err().to_string();
    assert!(error.starts_with("config:2: unrecognized field name 'max_batch'"), "{error}");
    assert!(read_json(&name, "{} x").unwrap_err().to_string().starts_with("config:1: trailing characters"));
}

fn variant(model: &str, declared: Declared) -> Variant {
    let batching = BatchingConfig {
        batch_size_max: 32,
        queue_delay_max: Span::default(),
        queue_requests_max: 512,
        queue_bytes_max: ByteSize(1 << 20),
    };
    let plan = Box::new(FakeEngine::default().plan(model));
    let resolved = resolve(declared, plan, None, Defaults { batching: &batching, cores: 2 }).unwrap();
    Variant { signature: resolved.signature, ..Variant::bare(Arc::from(resolved.plan), resolved.settings) }
}

#[test]
fn a_build_is_described_as_it_is_served() {
    let manifest = manifest::read("[batching]\nbatch_size_max = 8\n[parameters]\na = 'b'").unwrap();
    let described = to_json(&model_config(&variant("rows n,t,2", manifest)));
    assert_eq!(described["name"], "m");
    assert_eq!(described["platform"], "onnxruntime_onnx");
    assert_eq!(described["max_batch_size"], 8);
    assert_eq!(described["input"][0]["data_type"], "TYPE_FP32");
    assert_eq!(described["input"][0]["dims"], json!([-1, 2]));
    assert_eq!(described["dynamic_batching"]["max_queue_delay_microseconds"], 0);
    assert_eq!(described["version_policy"]["latest"]["num_versions"], 1);
    assert_eq!(described["instance_group"][0]["count"], 2);
    assert_eq!(described["parameters"]["a"]["string_value"], "b");
    let alone = model_config(&variant("alone n,2", Declared::default()));
    assert_eq!((alone.max_batch_size, &alone.output[0].dims[..]), (0, &[-1, 2][..]));
    assert_eq!(alone.scheduling_choice, None);
}

#[test]
fn what_is_described_reads_back_as_the_same() {
    let name: ModelName = "m".parse().unwrap();
    let text = r#"
        max_batch_size: 8 input { name: "x" dims: 2 } version_policy { all { } } instance_group { count: 3 }
        dynamic_batching {
            preferred_batch_size: 4 max_queue_delay_microseconds: 100 priority_levels: 2 default_priority_level: 2
            priority_queue_policy { key: 1 value { max_queue_size: 5 } }
        }
        model_warmup { name: "w" batch_size: 2 inputs { key: "x" value { data_type: TYPE_FP32 dims: 2 zero_data: true } } }
    "#;
    let first = variant("rows n,2", read_text(&name, text).unwrap());
    let again = read_json(&name, &to_json(&model_config(&first)).to_string()).unwrap();
    assert!(again.warnings.iter().all(|line| line.contains("instance_group.name")), "{:?}", again.warnings);
    let second = variant("rows n,2", again);
    assert_eq!((&first.signature, &first.settings), (&second.signature, &second.settings));
    assert_eq!(BTreeMap::from([(1, 5)]), [(1, second.settings.batching.queue_policy(1).requests_max)].into());
}
