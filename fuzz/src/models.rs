//! Models of both formats: what loads is run on zeros.

use std::time::Duration;

use bytes::Bytes;
use kinglet::engine::{Batch, Dim, LoadOptions, ModelFile, by_name};
use kinglet::tensor::{Shape, Tensor};

use crate::files::Scratch;

pub fn onnx(bytes: &[u8]) {
    load(bytes, "model.onnx");
}

pub fn native(bytes: &[u8]) {
    load(bytes, "model.safetensors");
}

fn load(bytes: &[u8], name: &'static str) {
    let Some(folder) = Scratch::written(name, bytes) else { return };
    let model = ModelFile { folder, file: name.into() };
    let options = LoadOptions {
        model_bytes_max: 1 << 20,
        arena_bytes_max: 16 << 20,
        loop_rounds_max: 100,
        warm_up_time_max: Duration::from_millis(1),
        ..LoadOptions::default()
    };
    let engine = by_name("auto").expect("the server has it");
    let Ok(plan) = engine.load(&model, &options) else { return };
    let inputs: Option<Vec<Tensor>> = plan
        .signature()
        .inputs
        .iter()
        .map(|spec| {
            let extent = |dim: &Dim| if let Dim::Fixed(extent) = dim { *extent } else { 2 };
            let shape: Shape = spec.dims.iter().map(extent).collect();
            let elements = shape.iter().try_fold(1usize, |all, extent| all.checked_mul(*extent))?;
            let bytes = elements.checked_mul(spec.dtype.size()?).filter(|bytes| *bytes <= 1 << 20)?;
            Tensor::new(spec.dtype, shape, Bytes::from(vec![0; bytes])).ok()
        })
        .collect();
    let Some(inputs) = inputs else { return };
    let rows = inputs.first().map_or(1, |input| input.shape().rows());
    // Whether it runs or says why not is all the same: it must not panic.
    let _ = plan.layers(&Batch::merge(&[inputs], vec![rows]), 1);
}
