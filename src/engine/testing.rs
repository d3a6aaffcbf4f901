//! Tiny ONNX models and a core to run them on, for the tests of this room.

use std::sync::mpsc::sync_channel;

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto};

use super::model_file::OnnxModel;
use super::value_kinds::ValueKinds;
use super::{Cores, LoadOptions, Pool};

pub(super) fn model(
    inputs: Vec<ValueInfoProto>,
    nodes: Vec<NodeProto>,
    outputs: Vec<ValueInfoProto>,
    constants: Vec<TensorProto>,
) -> OnnxModel {
    let graph =
        GraphProto { input: inputs, node: nodes, output: outputs, initializer: constants, ..GraphProto::default() };
    let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
    let proto = ModelProto {
        ir_version: 8,
        graph: Some(graph),
        opset_import: vec![opset("", 17), opset("ai.onnx.ml", 3), opset("com.microsoft", 1)],
        ..ModelProto::default()
    };
    OnnxModel { proto, kinds: ValueKinds::new(), bytes: 0 }
}

pub(super) fn options() -> LoadOptions {
    LoadOptions { batch_size_max: 8, ..LoadOptions::default() }
}

/// Runs a job as the pool would.
pub(super) fn on_a_core<T: Send + 'static>(job: impl FnOnce(&Cores) -> T + Send + 'static) -> T {
    let pool = Pool::start(Some(2));
    let (send, receive) = sync_channel(1);
    let core = pool.try_acquire().unwrap();
    pool.spawn(core, 2, move |cores| send.send(job(&cores)).unwrap());
    receive.recv().unwrap()
}
