//! The steps of a load: import, run the passes, prove that rows stay apart, pack, try.

use std::sync::OnceLock;

use kinglet_kernels::Level;

use super::NAME;
use super::model::{self, Limits, Model};
use super::plan::NativePlan;
use super::prepared::Prepared;
use super::run::Arenas;
use super::spare::Spare;
use super::stepwise_plan::StepwisePlan;
use super::tuning::Tuning;
use crate::engine::graph::rows;
use crate::engine::graph::samples::{Inputs, Others, Samples};
use crate::engine::graph::{Fact, Graph};
use crate::engine::onnx_signature::{self, Declared};
use crate::engine::{Dim, EngineError, LoadOptions, Merging, Plan, Precision, Signature, TensorSpec, onnx, onnx_parts};
use crate::proto::onnx::ModelProto;
use crate::tensor::DType;

/// A plan for the model, or why there is none. The model goes while it is packed, so that weights are not there twice.
pub(in crate::engine) fn plan(model: ModelProto, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
    let source = model.graph.as_ref().ok_or_else(|| EngineError::InvalidModel("the file has no graph".into()))?;
    let declared = onnx_signature::declared(source)?;
    served_types(&declared)?;
    let tuning = Tuning::begin(options, Level::detect(options.isa_max));
    let mut part = onnx_parts::count(source);
    let imported = onnx::import(&model, &declared.inputs, options)?;
    drop(model);
    let inputs = Inputs::Declared(&declared.inputs);
    let (model, samples) = Model::compile(imported, &inputs, Limits::of(options), &tuning)?;
    tuning.keep();
    let level = model.limits.level;
    let precision = match options.precision {
        Precision::Exact => "",
        Precision::Bf16 => "; products in bf16",
    };
    let reason = format!("every operator has a kernel ({level}){precision}{}", tuning.told());
    if let Some(undecided) = samples.undecided(&model.graph) {
        let operator = undecided.name.clone();
        let merging = Merging::Alone { operator, reason: "the shape of what it makes depends on contents".into() };
        let signature = signature(declared, &model.graph, &samples)?;
        let programs = model.graph.programs();
        let operators: Vec<&str> = programs.iter().map(|program| program.operator()).collect();
        let taken = part.split(&operators);
        let others = programs.first().map(|program| {
            taken.into_part(program.engine(), None, "the native engine has no row for its operators".into())
        });
        let part = part.into_part(NAME, None, format!("{reason}, one after the other"));
        let parts = [part].into_iter().chain(others).collect();
        return Ok(Box::new(StepwisePlan { model, signature, merging, parts, spare: Spare::default() }));
    }
    let apart = match model::samples(&model.graph, &inputs, Others::Same, level) {
        Ok(samples) => match rows::analyse(&model.graph, &samples) {
            Ok(()) => Merging::Rows,
            Err(obstacle) => Merging::Alone { operator: obstacle.operator, reason: obstacle.reason },
        },
        Err(error) => Merging::Alone { operator: error.node, reason: error.source.to_string() },
    };
    let mut signature = signature(declared, &model.graph, &samples)?;
    let merging = onnx_signature::batch_obstacle(&signature).unwrap_or(apart);
    if merging == Merging::Rows {
        onnx_signature::name_batch(&mut signature);
    }
    let part = part.into_part(NAME, macs(&model, &signature), reason);
    let dtypes = signature.inputs.iter().map(|spec| spec.dtype).collect();
    let limit = options.shape_plans_max.max(options.batch_size_max);
    Ok(Box::new(NativePlan {
        model,
        signature,
        merging,
        parts: [part],
        prepared: Prepared::new(dtypes, limit),
        arenas: Arenas::default(),
        times: OnceLock::new(),
        warm_up_time_max: options.warm_up_time_max,
    }))
}

/// All types but strings and BF16.
fn served_types(declared: &Declared) -> Result<(), EngineError> {
    let inputs = declared.inputs.iter().map(|spec| (&spec.name, spec.dtype));
    let all = inputs.chain(declared.outputs.iter().map(|(name, dtype, _)| (name, *dtype)));
    match all.into_iter().find(|(_, dtype)| matches!(dtype, DType::Bytes | DType::Bf16)) {
        Some((tensor, dtype)) => {
            Err(EngineError::UnsupportedType { tensor: tensor.clone(), dtype: dtype.name().to_owned() })
        }
        None => Ok(()),
    }
}

/// The signature with the shapes that outputs do not declare, or declare otherwise than they come out.
fn signature(declared: Declared, graph: &Graph, samples: &Samples) -> Result<Signature, EngineError> {
    let mut outputs = Vec::new();
    for ((name, dtype, dims), &value) in declared.outputs.into_iter().zip(&graph.outputs) {
        let made = samples.0[0].get(value).map(|fact| fact.dtype);
        if let Some(made) = made.filter(|made| *made != dtype) {
            return Err(EngineError::InvalidModel(format!(
                "output {name:?} declares {dtype}, its operator makes {made}"
            )));
        }
        let fixed = samples.fixed(value);
        let inferred =
            fixed.map(|dims| dims.into_iter().map(|dim| dim.map_or(Dim::Free(None), Dim::Fixed)).collect::<Vec<_>>());
        let dims = match (dims, inferred) {
            (Some(declared), Some(inferred)) if declared.len() == inferred.len() => {
                declared.into_iter().zip(inferred).map(|(declared, inferred)| corrected(declared, inferred)).collect()
            }
            (_, Some(inferred)) => inferred,
            (Some(declared), None) => declared,
            (None, None) if made.is_none() => {
                return Err(EngineError::InvalidModel(format!(
                    "output {name:?} declares no shape, and the one it has depends on contents"
                )));
            }
            (None, None) => return Err(EngineError::InvalidModel(format!("output {name:?} has no one rank"))),
        };
        outputs.push(TensorSpec { name, dtype, dims });
    }
    Ok(Signature { inputs: declared.inputs, outputs })
}

/// An extent as it is declared, but for one that comes out fixed and is another.
fn corrected(declared: Dim, inferred: Dim) -> Dim {
    match (&declared, &inferred) {
        (Dim::Fixed(a), Dim::Fixed(b)) if a != b => inferred,
        _ => declared,
    }
}

/// Multiply-accumulates of one row, where they do not depend on the request's shapes.
fn macs(model: &Model, signature: &Signature) -> Option<u64> {
    let one = |spec: &TensorSpec| {
        let extent = |(axis, dim): (usize, &Dim)| match dim {
            Dim::Fixed(extent) => Some(*extent),
            Dim::Free(_) => (axis == 0).then_some(1),
        };
        Some(Fact::new(spec.dtype, spec.dims.iter().enumerate().map(extent).collect::<Option<_>>()?))
    };
    let inputs = signature.inputs.iter().map(one).collect::<Option<Vec<_>>>()?;
    let facts = model.infer(inputs).ok()?;
    model.graph.nodes.iter().map(|node| facts.macs(node)).sum()
}
