//! Tiny models through the whole adapter: what is served, how rows are kept apart, and that the answers are right.

mod golden;
mod merging;
mod rewrites;
mod running;

use bytes::Bytes;

use super::load::plan;
use crate::engine::testing::{on_a_core, options};
use crate::engine::{Batch, EngineError, Executed, Plan, Share};
use crate::tensor::{DType, Shape, Tensor};

fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(DType::F32, Shape::new(shape), bytes.into()).unwrap()
}

fn bytes_of(dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Tensor {
    Tensor::new(dtype, Shape::new(shape), Bytes::from(bytes)).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    assert_eq!(tensor.dtype(), DType::F32);
    tensor.bytes().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Runs entries as one batch, after a warm-up if asked for.
fn execute(
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
fn answer(plan: Box<dyn Plan>, entry: Vec<Tensor>) -> Result<Share, EngineError> {
    execute(plan, vec![entry], false).1.map(|mut executed| executed.shares.remove(0))
}
