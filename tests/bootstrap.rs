//! Holds the committed protocol code to `proto/`: compiles the protocol anew, without protoc, and
//! compares. With `KINGLET_UPDATE=1` it writes the files instead. Knows no message by name.
#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

#[path = "support/generated.rs"]
mod generated;

use std::fs;
use std::path::Path;

use prost::Message;
use prost_types::FileDescriptorSet;
use protox::Compiler;

#[test]
fn committed_protocol_code_equals_its_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let protocol = compile(&root.join("proto"), &["inference.proto", "model_config.proto", "model_repository.proto"]);
    let serving = compile(&root.join("proto"), &["tensorflow_serving.proto"]);
    let models = compile(&root.join("proto"), &["onnx.proto"]);
    let traces = compile(&root.join("proto"), &["otlp.proto"]);
    let files = [
        (DESCRIPTORS, encode_without_comments(&protocol)),
        (SERVER, generate_server(&protocol)),
        (CLIENT, generate_client(&protocol)),
        (SERVING_DESCRIPTORS, encode_without_comments(&serving)),
        (SERVING, generate_serving(&serving)),
        (MODELS, generate_models(&models)),
        (MODELS_DESCRIPTORS, encode_without_comments(&models)),
        (TRACES, generate_traces(&traces)),
    ];
    generated::hold(&files, "just proto");
}

fn compile(folder: &Path, files: &[&str]) -> FileDescriptorSet {
    let mut compiler = Compiler::new([folder]).unwrap();
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(files).unwrap().file_descriptor_set()
}

fn encode_without_comments(protocol: &FileDescriptorSet) -> Vec<u8> {
    let mut bare = protocol.clone();
    for file in &mut bare.file {
        file.source_code_info = None;
    }
    bare.encode_to_vec()
}

fn generate_server(protocol: &FileDescriptorSet) -> Vec<u8> {
    let builder = tonic_prost_build::configure()
        .build_client(false)
        // Every bytes field is a slice of the message it came in, so no tensor is copied.
        .bytes(".");
    generate(builder, SERVER_HEADER, protocol, "inference.rs")
}

/// The messages are the library's own: a test speaks of the same types as the server.
fn generate_client(protocol: &FileDescriptorSet) -> Vec<u8> {
    let builder = tonic_prost_build::configure().build_server(false).extern_path(".inference", MESSAGES);
    generate(builder, CLIENT_HEADER, protocol, "inference.rs")
}

/// Three packages, each within the one whose name begins its own, as the generated code expects.
fn generate_serving(serving: &FileDescriptorSet) -> Vec<u8> {
    let builder = || tonic_prost_build::configure().build_client(false).bytes(".");
    let package = |header, name| String::from_utf8(generate(builder(), header, serving, name)).unwrap();
    let tensorflow = package(SERVING_HEADER, "tensorflow.rs");
    let (error, serving) = (package("", "tensorflow.error.rs"), package("", "tensorflow.serving.rs"));
    format!("{tensorflow}\npub mod error {{{error}}}\n\npub mod serving {{{serving}}}\n").into_bytes()
}

fn generate_models(models: &FileDescriptorSet) -> Vec<u8> {
    let builder = tonic_prost_build::configure().build_client(false).build_server(false);
    // Weights are slices of the file they came in.
    generate(builder.bytes(".onnx.TensorProto.raw_data"), MODELS_HEADER, models, "onnx.rs")
}

fn generate_traces(traces: &FileDescriptorSet) -> Vec<u8> {
    let builder = tonic_prost_build::configure().build_client(false).build_server(false);
    generate(builder, TRACES_HEADER, traces, "otlp.rs")
}

fn generate(builder: tonic_prost_build::Builder, header: &str, protocol: &FileDescriptorSet, file: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    builder.out_dir(folder.path()).emit_rerun_if_changed(false).compile_fds(protocol.clone()).unwrap();
    let code = fs::read_to_string(folder.path().join(file)).unwrap();
    format!("{header}\n{code}").into_bytes()
}

const DESCRIPTORS: &str = "src/proto/descriptor.bin";
const SERVER: &str = "src/proto/inference.rs";
const CLIENT: &str = "tests/support/inference_client.rs";
const SERVING_DESCRIPTORS: &str = "src/proto/serving_descriptor.bin";
const SERVING: &str = "src/proto/tensorflow.rs";
const MODELS_DESCRIPTORS: &str = "src/proto/onnx_descriptor.bin";
const MODELS: &str = "src/proto/onnx.rs";
const TRACES: &str = "src/proto/otlp.rs";
const MESSAGES: &str = "::kinglet::proto::inference";

const SERVER_HEADER: &str = "\
//! Messages and server of package `inference`, made from `proto/` by `tests/bootstrap.rs`.
//! Knows the wire and nothing of its meaning.
";

const SERVING_HEADER: &str = "\
//! Messages of package `tensorflow` with `tensorflow.serving` and its servers, made from `proto/` by `tests/bootstrap.rs`.
//! Knows the wire and nothing of its meaning.
";

const MODELS_HEADER: &str = "\
//! Messages of package `onnx`, made from `proto/` by `tests/bootstrap.rs`. Knows the file and nothing of its meaning.
";

const TRACES_HEADER: &str = "\
//! Messages of package `otlp`, made from `proto/` by `tests/bootstrap.rs`. Knows the wire and nothing of its meaning.
";

const CLIENT_HEADER: &str = "\
//! Client of `inference.GRPCInferenceService` for tests, made from `proto/` by
//! `tests/bootstrap.rs`. Its messages are the library's; it knows nothing of their meaning.
#![allow(
    clippy::all,
    clippy::nursery,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    dead_code,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    reason = \"generated code keeps its generator's style, and no test makes every call\"
)]
";
