//! Tiny ONNX models and a core to run them on, for the tests of this room.

use std::sync::mpsc::sync_channel;

use bytes::Bytes;

use super::{Batch, Cores, EngineError, Executed, LoadOptions, Plan, Pool, Share};
use crate::proto::onnx::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto};
use crate::tensor::{DType, Shape, Tensor};

pub(super) fn model(
    inputs: Vec<ValueInfoProto>,
    nodes: Vec<NodeProto>,
    outputs: Vec<ValueInfoProto>,
    constants: Vec<TensorProto>,
) -> ModelProto {
    let graph =
        GraphProto { input: inputs, node: nodes, output: outputs, initializer: constants, ..GraphProto::default() };
    let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
    ModelProto {
        ir_version: 8,
        graph: Some(graph),
        opset_import: vec![opset("", 17), opset("ai.onnx.ml", 3), opset("com.microsoft", 1)],
        ..ModelProto::default()
    }
}

pub(super) fn options() -> LoadOptions {
    LoadOptions { batch_size_max: 8, ..LoadOptions::default() }
}

/// Runs a job as the pool would.
pub(super) fn on_a_core<T: Send + 'static>(job: impl FnOnce(&Cores) -> T + Send + 'static) -> T {
    on_cores(2, job)
}

/// Runs a job as a pool of so many cores would.
pub(super) fn on_cores<T: Send + 'static>(count: usize, job: impl FnOnce(&Cores) -> T + Send + 'static) -> T {
    let pool = Pool::start(Some(count));
    let (send, receive) = sync_channel(1);
    let core = pool.try_acquire().unwrap();
    pool.spawn(core, count, move |cores| send.send(job(&cores)).unwrap());
    receive.recv().unwrap()
}

pub(super) fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(DType::F32, Shape::new(shape), bytes.into()).unwrap()
}

pub(super) fn bytes_of(dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Tensor {
    Tensor::new(dtype, Shape::new(shape), Bytes::from(bytes)).unwrap()
}

pub(super) fn values(tensor: &Tensor) -> Vec<f32> {
    assert_eq!(tensor.dtype(), DType::F32);
    tensor.bytes().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Runs entries as one batch, after a warm-up if asked for.
pub(super) fn execute(
    plan: Box<dyn Plan>,
    entries: Vec<Vec<Tensor>>,
    warm: bool,
) -> (Box<dyn Plan>, Result<Executed, EngineError>) {
    on_a_core(move |cores| {
        if warm {
            plan.warm_up(8, cores).unwrap();
        }
        let rows = entries.iter().map(|entry| entry.first().map_or(1, |tensor| tensor.shape().rows())).collect();
        let executed = plan.run(&Batch::merge(&entries, rows), cores);
        (plan, executed)
    })
}

/// Runs one entry.
pub(super) fn answer(plan: Box<dyn Plan>, entry: Vec<Tensor>) -> Result<Share, EngineError> {
    execute(plan, vec![entry], false).1.map(|mut executed| executed.shares.remove(0))
}
