//! Steps take nothing from the allocator.

use kinglet_kernels::Aligned;

use super::super::model::{Limits, Model};
use super::super::specialise::specialise;
use super::super::tuning::Tuning;
use super::*;
use crate::engine::graph::Fact;
use crate::engine::graph::samples::Inputs;
use crate::engine::pool::Team;
use crate::engine::{onnx, onnx_signature};
use crate::proto::onnx::ModelProto;
use crate::tensor::DType;

/// Operators that make lists as long as their operands while they run.
const LISTS: [&str; 8] =
    ["Resample", "GridSample", "AffineGrid", "Fold", "Determinant", "Contract", "Fourier", "Windows"];

/// Checks every step of a model that runs from an arena.
pub(super) fn steps_take_none(model: &ModelProto, given: &[Tensor]) {
    let options = options();
    let declared = onnx_signature::declared(model.graph.as_ref().unwrap()).unwrap();
    let imported = onnx::import(model, &declared.inputs, &options).unwrap();
    let tuning = Tuning::begin(&options, Level::detect(options.isa_max));
    let (model, samples) =
        Model::compile(imported, &Inputs::Declared(&declared.inputs), Limits::of(&options), &tuning).unwrap();
    if samples.undecided(&model.graph).is_some() {
        return;
    }
    let facts = given.iter().map(|tensor| Fact::new(tensor.dtype(), tensor.shape().clone())).collect();
    let prepared = specialise(&model, facts).unwrap();
    let mut arena = Aligned::zeroed(prepared.arena_bytes);
    let memory: &mut [u8] = arena.elements_mut();
    for (tensor, place) in given.iter().zip(&prepared.inputs) {
        memory[place.clone()].copy_from_slice(tensor.bytes());
    }
    for step in &prepared.steps {
        let node = step.work.node();
        let operator = model.graph.nodes[node].op.name();
        let mut team = Team::alone();
        let taken = allocation_counter::measure(|| model.step(&prepared, step, memory, &mut team).unwrap());
        // Weights that the graph computes are packed in every run.
        let packs = ["Conv", "ConvTranspose", "Recurrent"].contains(&operator)
            && model.layers[node].layer.kernel(DType::F32).starts_with("f32_gemm_packed");
        assert!(taken.count_total == 0 || packs || LISTS.contains(&operator), "{operator} takes {taken:?}");
    }
}
