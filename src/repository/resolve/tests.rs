//! Settings against models of several shapes.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::super::declared::DeclaredQueue;
use super::super::fake::FakeEngine;
use super::super::settings::TimeoutAction;
use super::super::{manifest, triton};
use super::*;
use crate::engine::Dim;
use crate::infer::ModelName;
use crate::units::{ByteSize, Span};

fn defaults() -> BatchingConfig {
    BatchingConfig {
        batch_size_max: 32,
        queue_delay_max: Span(Duration::from_millis(1)),
        queue_requests_max: 512,
        queue_bytes_max: ByteSize(1 << 20),
    }
}

fn resolve_declared(model: &str, declared: Declared, folder: Option<&Path>) -> Result<Resolved, String> {
    let plan = Box::new(FakeEngine::default().plan(model));
    let batching = defaults();
    let folder = folder.map(|folder| Source::of(folder, None));
    resolve(declared, plan, folder.as_ref(), Defaults { batching: &batching, cores: 4 })
        .map_err(|error| error.to_string())
}

fn with_pbtxt(model: &str, text: &str) -> Result<Resolved, String> {
    let name: ModelName = "m".parse().unwrap();
    resolve_declared(model, triton::read_text(&name, text).map_err(|error| error.to_string())?, None)
}

fn with_manifest(model: &str, text: &str) -> Result<Resolved, String> {
    resolve_declared(model, manifest::read(text).map_err(|error| error.to_string())?.settled(), None)
}

fn refused(result: Result<Resolved, String>, expected: &str) {
    assert_eq!(result.map(|resolved| resolved.settings).unwrap_err(), expected);
}

#[test]
fn silence_means_the_servers_defaults() {
    let resolved = resolve_declared("rows n,2", Declared::default(), None).unwrap();
    assert_eq!(resolved.settings.batching, defaults().settings());
    assert_eq!((resolved.settings.instances_max, resolved.settings.cores_max), (4, 4));
    assert!(resolved.merges() && resolved.notes.is_empty());
    assert_eq!(resolved.signature, *resolved.plan.signature());
}

#[test]
fn answers_are_kept_where_a_file_asks_and_equal_requests_have_equal_answers() {
    let keeps = |resolved: Result<Resolved, String>| resolved.unwrap().settings.response_cache;
    assert!(keeps(with_manifest("rows n,2", "response_cache = true")));
    assert!(keeps(with_pbtxt("rows n,2", "response_cache { enable: true }")));
    for quiet in ["", "response_cache { }", "response_cache { enable: false }"] {
        assert!(!keeps(with_pbtxt("rows n,2", quiet)), "{quiet}");
    }
    let wrong = "manifest.toml:1: response_cache: invalid type: string \"yes\", expected a boolean";
    assert_eq!(with_manifest("rows n,2", "response_cache = 'yes'").map(|_| ()), Err(wrong.to_owned()));
    let draws = with_manifest("alone n,2 draws", "response_cache = true").unwrap();
    let note = "answers are not kept: response_cache expects the same answer to equal requests, and Multinomial draws random \
                numbers";
    assert_eq!((draws.settings.response_cache, draws.notes), (false, vec![note.to_owned()]));
    assert!(with_manifest("alone n,2 draws", "").unwrap().notes.is_empty());
}

#[test]
fn a_batch_size_needs_a_free_axis() {
    let resolved =
        with_pbtxt("rows n,2", "max_batch_size: 8 input { name: 'x' dims: 2 data_type: TYPE_FP32 }").unwrap();
    assert_eq!(resolved.settings.batching.batch_size_max, 8);
    assert_eq!(resolved.signature.inputs[0].dims, [Dim::Free(Some("n".into())), Dim::Fixed(2)]);
    refused(
        with_pbtxt("alone 1,2", "max_batch_size: 8"),
        "config.pbtxt: max_batch_size: expected 0, because axis 0 of the model is not free (\"x\" has shape [1,2]), got 8",
    );
}

#[test]
fn no_batch_size_beside_whole_shapes_means_alone() {
    let resolved = with_pbtxt("rows n,2", "input { name: 'x' dims: [ -1, 2 ] data_type: TYPE_FP32 }").unwrap();
    assert!(!resolved.merges());
    assert!(resolved.notes.is_empty(), "{:?}", resolved.notes);
    let resolved = with_pbtxt("rows n,2", "backend: 'onnxruntime'").unwrap();
    assert!(resolved.merges(), "a configuration that says nothing of shapes leaves it to the model");
    let manifest = manifest::read("[batching]\nbatch_size_max = 4").unwrap();
    let name = "m".parse().unwrap();
    let config = triton::read_text(&name, "input { name: 'x' dims: [ -1, 2 ] }").unwrap();
    assert!(!resolve_declared("rows n,2", manifest.over(config), None).unwrap().merges());
}

#[test]
fn a_manifest_can_say_what_a_triton_configuration_says() {
    let config = "max_batch_size: 8 default_model_filename: 'net.onnx'
        input { name: 'x' data_type: TYPE_FP32 dims: [ 1, 2 ] reshape { shape: 2 } } output { name: 'y' dims: 2 }
        version_policy { specific { versions: [ 1, 3 ] } } instance_group { count: 2 }
        dynamic_batching {
            preferred_batch_size: 4 max_queue_delay_microseconds: 2000 preserve_ordering: true
            priority_levels: 2 default_priority_level: 2
            default_queue_policy {
                timeout_action: DELAY default_timeout_microseconds: 1000000 allow_timeout_override: true
                max_queue_size: 10
            }
            priority_queue_policy { key: 1 value { default_timeout_microseconds: 5000 max_queue_size: 3 } }
        }
        parameters { key: 'a' value { string_value: 'b' } }
        model_warmup { name: 'w' batch_size: 2 count: 3
            inputs { key: 'x' value { data_type: TYPE_FP32 dims: [ 1, 2 ] random_data: true } } }";
    let manifest = r#"
        model_file = "net.onnx"
        inputs = [{ name = "x", datatype = "FP32", dims = [1, 2], reshape = [2] }]
        outputs = [{ name = "y", dims = [2] }]
        versions = { policy = "specific", specific = [1, 3] }
        instances.max = 2
        parameters.a = "b"
        [batching]
        batch_size_max = 8
        preferred = [4]
        queue_delay_max = "2ms"
        preserve_ordering = true
        priority_levels = 2
        default_priority = 2
        timeout_action = "delay"
        queue_timeout = "1s"
        allow_timeout_override = true
        queue_requests_max = 10
        [batching.priority_queues.1]
        timeout_action = "reject"
        queue_timeout = "5ms"
        allow_timeout_override = false
        queue_requests_max = 3
        [[warm_up]]
        name = "w"
        rows = 2
        count = 3
        inputs.x = { datatype = "FP32", dims = [1, 2], content = "random" }
    "#;
    let (ours, theirs) = (with_manifest("rows n,2", manifest).unwrap(), with_pbtxt("rows n,2", config).unwrap());
    assert_eq!(ours.settings, theirs.settings);
    assert_eq!(ours.settings.batching.queue_requests_max(), 3 + 10);
    assert_eq!((&ours.signature, ours.merges()), (&theirs.signature, true));
    assert_eq!(ours.signature.inputs[0].shown_dims(), "[n,1,2]");
    let name = "m".parse().unwrap();
    let files = [manifest::read(manifest).unwrap().model_file, triton::read_text(&name, config).unwrap().model_file];
    assert_eq!(files, [Some("net.onnx".into()), Some("net.onnx".into())]);
}

#[test]
fn shapes_of_a_manifest_are_whole_without_a_batch_size() {
    let whole = "[[inputs]]\nname = 'x'\ndims = [-1, 2]\n";
    assert!(!with_manifest("rows n,2", whole).unwrap().merges());
    let name = "m".parse().unwrap();
    let config = triton::read_text(&name, "max_batch_size: 8 input { name: 'x' dims: 2 }").unwrap();
    let rows = manifest::read("[[outputs]]\nname = 'y'\ndims = [2]").unwrap();
    let both = resolve_declared("rows n,2", rows.over(config).settled(), None).unwrap();
    assert!(both.merges(), "a size in either file holds for the shapes of both");
    for (model, text, expected) in [
        (
            "rows n,2",
            format!("{whole}datatype = 'INT64'"),
            "manifest.toml: inputs[0].datatype: \"x\": expected FP32, got INT64",
        ),
        (
            "rows n,2",
            format!("{whole}reshape = [2, 2]"),
            "manifest.toml: inputs[0].reshape: \"x\": expected as many -1 as in dims and at most one, got [2,2]",
        ),
        (
            "alone 1,2",
            "[batching]\nbatch_size_max = 4\n[[inputs]]\nname = 'x'\ndims = [2]".into(),
            "manifest.toml: batching.batch_size_max: expected none, because axis 0 of the model is not free \
             (\"x\" has shape [1,2]), got 4",
        ),
    ] {
        refused(with_manifest(model, &text), expected);
    }
}

#[test]
fn a_written_batch_size_bounds_requests_that_run_alone() {
    let rows = |resolved: Result<Resolved, String>| resolved.unwrap().settings.rows_alone_max;
    assert_eq!(rows(with_pbtxt("alone n,2", "max_batch_size: 8")), Some(8));
    assert_eq!(rows(with_pbtxt("alone n,2", "backend: 'onnxruntime'")), None);
    // A manifest's limit is one of batches, and says nothing of what axis 0 is.
    assert_eq!(rows(with_manifest("alone n,2", "[batching]\nbatch_size_max = 1")), None);
}

#[test]
fn batching_in_vain_is_explained() {
    let expected = ["requests are run one at a time: ReduceMean mean: it mixes rows"];
    assert_eq!(with_pbtxt("alone n,2", "max_batch_size: 8").unwrap().notes, expected);
    assert_eq!(with_manifest("alone n,2", "[batching]\nbatch_size_max = 8").unwrap().notes, expected);
    assert!(with_manifest("alone n,2", "[batching]\nbatch_size_max = 1").unwrap().notes.is_empty());
    assert!(with_manifest("alone n,2", "").unwrap().notes.is_empty());
}

#[test]
fn contradictions_say_what_was_expected_and_what_came() {
    for (config, expected) in [
        (
            "max_batch_size: 8 input { name: 'z' dims: 2 }",
            "config.pbtxt: input[0].name: \"z\": expected one of the model's: \"x\"",
        ),
        (
            "max_batch_size: 8 input { name: 'x' dims: 2 data_type: TYPE_INT64 }",
            "config.pbtxt: input[0].data_type: \"x\": expected FP32, got INT64",
        ),
        (
            "max_batch_size: 8 input { name: 'x' dims: 2 } output { name: 'y' dims: 3 }",
            "config.pbtxt: output[0].dims: \"y\": expected [2], got [3]",
        ),
        ("input { name: 'x' dims: 2 }", "config.pbtxt: input[0].dims: \"x\": expected [n,2], got [2]"),
        (
            "max_batch_size: 8 input [ { name: 'x' dims: 2 }, { name: 'x' dims: 2 } ]",
            "config.pbtxt: input[1].name: \"x\": it is described twice",
        ),
        (
            "max_batch_size: 8 dynamic_batching { preferred_batch_size: [ 4, 16 ] }",
            "preferred batch size: expected 1 to 8, the largest batch, got 16",
        ),
        (
            "max_batch_size: 8 dynamic_batching { priority_levels: 2 }",
            "default priority: expected 1 to 2, the number of levels, got 0",
        ),
        (
            "max_batch_size: 8 dynamic_batching { priority_levels: 2 default_priority_level: 2 \
             priority_queue_policy { key: 3 value {} } }",
            "priority queue policy: expected levels 1 to 2, got 3",
        ),
        ("output { name: 'y' dims: [ -1, 2 ] label_filename: 'l.txt' }", "l.txt: the labels file is missing"),
    ] {
        refused(with_pbtxt("rows n,2", config), expected);
    }
    refused(
        with_manifest("rows n,2", "[[outputs]]\nname = 'z'\nlabels = []"),
        "labels: expected one of the model's outputs, \"y\", got \"z\"",
    );
}

#[test]
fn reshapes_change_what_clients_see() {
    let config = "input { name: 'x' dims: 2 reshape { shape: [ 1, 2 ] } }";
    let resolved = with_pbtxt("alone 1,2", config).unwrap();
    assert_eq!(resolved.signature.inputs[0].dims, [Dim::Fixed(2)]);
    assert_eq!(resolved.signature.outputs[0].dims, [Dim::Fixed(1), Dim::Fixed(2)]);
    assert_eq!(resolved.settings.reshapes["x"], Reshape { client: vec![2], model: vec![1, 2] });
    assert_eq!(resolved.plan.signature().inputs[0].dims, [Dim::Fixed(1), Dim::Fixed(2)]);
}

#[test]
fn queue_policies_fall_back_level_by_level() {
    let config = "max_batch_size: 8 dynamic_batching {
        priority_levels: 2 default_priority_level: 1
        default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 500 max_queue_size: 7 }
        priority_queue_policy { key: 2 value { allow_timeout_override: true } }
    }";
    let batching = with_pbtxt("rows n,2", config).unwrap().settings.batching;
    assert_eq!(batching.queue.timeout_action, TimeoutAction::Delay);
    assert_eq!(batching.queue.default_timeout, Some(Duration::from_micros(500)));
    assert_eq!((batching.queue.requests_max, batching.queue.bytes_max), (7, 1 << 20));
    assert!(!batching.queue.allow_timeout_override);
    let second = batching.queue_policy(2);
    assert_eq!((second.timeout_action, second.default_timeout), (TimeoutAction::Reject, None));
    assert!(second.allow_timeout_override);
    assert_eq!(DeclaredQueue::default().complete(batching.queue), batching.queue);
}

#[test]
fn labels_come_from_the_models_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("labels.txt"), "cat \r\ndog\n").unwrap();
    let declared = manifest::read("[[outputs]]\nname = 'y'\nlabels_file = 'labels.txt'").unwrap();
    let resolved = resolve_declared("rows n,2", declared, Some(folder.path())).unwrap();
    let labels: BTreeSet<&str> = resolved.settings.labels["y"].names.iter().map(String::as_str).collect();
    assert_eq!(labels, ["cat", "dog"].into());
}
