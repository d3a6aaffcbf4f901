//! Manifests as they are written, and what is wrong with wrong ones.

use std::time::Duration;

use super::*;

const EVERY_KEY: &str = r#"
    description = "digits"
    license = "MIT"
    model_file = "net.onnx"
    engine = "native"
    precision = "bf16"
    instances = { max = 2, cores_max = 1 }
    [[inputs]]
    name = "image"
    datatype = "FP32"
    dims = [1024]
    reshape = [1, 32, 32]
    [[outputs]]
    name = "logits"
    dims = [-1]
    labels = ["zero", "one"]
    [[outputs]]
    name = "other"
    labels_file = "labels.txt"
    [batching]
    batch_size_max = 16
    queue_delay_max = "2ms"
    preferred = [4, 8]
    preserve_ordering = true
    priority_levels = 3
    default_priority = 2
    queue_timeout = "1s"
    timeout_action = "delay"
    allow_timeout_override = false
    queue_requests_max = 10
    queue_bytes_max = "1MiB"
    [batching.priority_queues.1]
    queue_timeout = "5ms"
    timeout_action = "reject"
    allow_timeout_override = true
    queue_requests_max = 2
    queue_bytes_max = "1KiB"
    [batching.priority_queues.3]
    queue_requests_max = 3
    [versions]
    policy = "specific"
    specific = [1, 3]
    labels = { stable = 1 }
    [parameters]
    threshold = "0.5"
    [[warm_up]]
    name = "one"
    rows = 4
    count = 2
    [warm_up.inputs.image]
    datatype = "FP32"
    dims = [1, 32, 32]
    content = "random"
"#;

#[test]
fn every_key_is_read() {
    let declared = read(EVERY_KEY).unwrap();
    assert_eq!(declared.labels["logits"], Labels::Given(vec!["zero".into(), "one".into()]));
    assert_eq!(declared.labels["other"], Labels::File("labels.txt".into()));
    assert_eq!(declared.batch, Some(BatchAxis::UpTo(16)));
    assert_eq!((declared.engine, declared.precision), (Some(EngineChoice::Native), Some(Precision::Bf16)));
    assert_eq!((declared.origin, declared.model_file.as_deref()), (Some("manifest.toml"), Some("net.onnx")));
    let image = DeclaredTensor {
        name: "image".into(),
        dtype: Some(DType::F32),
        dims: vec![1024],
        reshape: Some(vec![1, 32, 32]),
    };
    assert_eq!(declared.inputs, [image]);
    let logits = DeclaredTensor { name: "logits".into(), dtype: None, dims: vec![-1], reshape: None };
    assert_eq!(declared.outputs, [logits], "labels alone describe no shape");
    assert_eq!((declared.instances_max, declared.cores_max), (Some(2), Some(1)));
    assert_eq!(declared.version_policy, Some(VersionPolicy::Specific([VersionId(1), VersionId(3)].into())));
    assert_eq!(declared.version_labels, [("stable".to_owned(), VersionId(1))].into());
    assert_eq!(declared.warm_up[0].inputs["image"].content, WarmUpContent::Random);
    assert_eq!(read("").unwrap(), Declared::default());
}

#[test]
fn levels_have_queues_of_their_own() {
    let declared = read(EVERY_KEY).unwrap();
    let first = DeclaredQueue {
        timeout_action: Some(TimeoutAction::Reject),
        default_timeout: Some(Duration::from_millis(5)),
        allow_timeout_override: Some(true),
        requests_max: Some(2),
        bytes_max: Some(1 << 10),
    };
    let third = DeclaredQueue { requests_max: Some(3), ..DeclaredQueue::default() };
    assert_eq!(declared.batching.priority_queues, [(1, first), (3, third)].into());
    assert_eq!(declared.batching.queue_delay_max, Some(Duration::from_millis(2)));
    assert_eq!(declared.batching.queue.timeout_action, Some(TimeoutAction::Delay));
    assert_eq!(declared.batching.queue.bytes_max, Some(1 << 20));
}

#[test]
fn errors_name_line_and_field() {
    for (text, expected) in [
        ("\n[batching]\nbatch_size = 3", "manifest.toml:3: batching.batch_size: unknown field `batch_size`"),
        ("[batching]\nqueue_delay_max = \"5\"", "manifest.toml:2: batching.queue_delay_max: expected a duration"),
        ("[batching]\nbatch_size_max = 0", "manifest.toml:2: batching.batch_size_max: "),
        ("description = ", "manifest.toml:1: "),
        ("[versions]\nlatest = 2\npolicy = \"all\"", "manifest.toml: versions.latest: needs policy = \"latest\""),
        ("[versions]\nspecific = [2]", "manifest.toml: versions.specific: needs policy = \"specific\""),
        ("[versions]\npolicy = \"specific\"", "manifest.toml: versions.specific: expected at least one"),
        (
            "[[outputs]]\nname = \"y\"\nlabels = []\nlabels_file = \"f\"",
            "manifest.toml: outputs[0]: labels and labels_file exclude each other",
        ),
        ("model_file = \"../m.onnx\"", "manifest.toml: model_file: expected a plain file name, got"),
        ("[[inputs]]\nname = \"x\"", "manifest.toml:1: inputs[0]: missing field `dims`"),
        ("[[inputs]]\nname = \"x\"\ndims = [0]", "manifest.toml: inputs[0].dims: expected extents of 1 or more"),
        (
            "[[inputs]]\nname = \"x\"\ndims = [1]\nreshape = [-2]",
            "manifest.toml: inputs[0].reshape: expected extents of 1 or more, or -1, got -2",
        ),
        (
            "[[outputs]]\nname = \"y\"\ndatatype = \"FP32\"",
            "manifest.toml: outputs[0].dims: expected a shape beside datatype or reshape, got none",
        ),
        (
            "[batching.priority_queues.high]",
            "manifest.toml: batching.priority_queues: expected the number of a level, got \"high\"",
        ),
        (
            "[batching.priority_queues.1]\nqueue_delay_max = \"1s\"",
            "manifest.toml:2: batching.priority_queues.1.queue_delay_max: unknown field",
        ),
        (
            "[[warm_up]]\ninputs.x = { datatype = \"fp32\", dims = [] }",
            "manifest.toml: warm_up[0].inputs.x.datatype: unknown datatype",
        ),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}
