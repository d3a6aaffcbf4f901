//! The steps of a load: import, run the passes, prove that rows stay apart, pack, try.

use std::sync::OnceLock;

use kinglet_kernels::Level;

use super::model::{Model, evaluate};
use super::plan::NativePlan;
use super::prepared::Prepared;
use super::run::Arenas;
use super::specialise::fact;
use super::{NAME, layers};
use crate::engine::graph::rows;
use crate::engine::graph::samples::{GraphFacts, Others, Samples};
use crate::engine::graph::{Fact, Graph};
use crate::engine::model_file::OnnxModel;
use crate::engine::onnx_signature::{self, Declared};
use crate::engine::{Dim, EngineError, LoadOptions, Merging, Plan, Signature, TensorSpec, onnx, onnx_parts, passes};

/// A plan for the model, or why there is none.
pub(in crate::engine) fn plan(model: &OnnxModel, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
    let source = model.proto.graph.as_ref().ok_or_else(|| EngineError::InvalidModel("the file has no graph".into()))?;
    let declared = onnx_signature::declared(source, &model.kinds)?;
    let level = Level::detect(options.isa_max);
    let imported = onnx::import(&model.proto, &declared.inputs)?;
    let stopped = |error: crate::engine::graph::samples::Stopped| EngineError::UnsupportedOperator {
        operator: error.node.clone(),
        reason: error.source.to_string(),
    };
    let graph =
        passes::run(imported, &declared.inputs, &move |graph, node, operands| evaluate(graph, node, operands, level))
            .map_err(stopped)?;
    let inferred = |others| {
        Samples::of(&graph, &declared.inputs, others, &|node, operands| evaluate(&graph, node, operands, level))
    };
    let samples = inferred(Others::Different).map_err(stopped)?;
    let apart = match inferred(Others::Same).map(|samples| rows::analyse(&graph, &samples)) {
        Ok(Ok(())) => Merging::Rows,
        Ok(Err(obstacle)) => Merging::Alone { operator: obstacle.operator, reason: obstacle.reason },
        Err(error) => Merging::Alone { operator: error.node, reason: error.source.to_string() },
    };
    let mut signature = signature(declared, &graph, &samples)?;
    let merging = onnx_signature::batch_obstacle(&signature).unwrap_or(apart);
    if merging == Merging::Rows {
        onnx_signature::name_batch(&mut signature);
    }
    let macs = macs(&graph, &signature, level);
    let model =
        Model::new(graph, &samples.0[0], level, usize::try_from(options.arena_bytes_max).unwrap_or(usize::MAX))?;
    let part = onnx_parts::count(source).into_part(NAME, macs, format!("every operator has a kernel ({level})"));
    let limit = options.shape_plans_max.max(options.batch_size_max);
    Ok(Box::new(NativePlan {
        model,
        signature,
        merging,
        parts: [part],
        prepared: Prepared::new(limit),
        arenas: Arenas::default(),
        times: OnceLock::new(),
        warm_up_time_max: options.warm_up_time_max,
    }))
}

/// The signature with the shapes that outputs do not declare, or declare otherwise than they come out.
fn signature(declared: Declared, graph: &Graph, samples: &Samples) -> Result<Signature, EngineError> {
    let mut outputs = Vec::new();
    for ((name, dtype, dims), &value) in declared.outputs.into_iter().zip(&graph.outputs) {
        let made = fact(&samples.0[0], value).dtype;
        if made != dtype {
            return Err(EngineError::InvalidModel(format!(
                "output {name:?} declares {dtype}, its operator makes {made}"
            )));
        }
        let fixed = samples.fixed(value);
        let inferred =
            fixed.map(|dims| dims.into_iter().map(|dim| dim.map_or(Dim::Free(None), Dim::Fixed)).collect::<Vec<_>>());
        let dims = match (dims, inferred) {
            (Some(declared), Some(inferred)) if declared.len() != inferred.len() => inferred,
            (Some(declared), _) => declared,
            (None, Some(inferred)) => inferred,
            (None, None) => return Err(EngineError::InvalidModel(format!("output {name:?} has no one rank"))),
        };
        outputs.push(TensorSpec { name, dtype, dims });
    }
    Ok(Signature { inputs: declared.inputs, outputs })
}

/// Multiply-accumulates of one row, where they do not depend on the request's shapes.
fn macs(graph: &Graph, signature: &Signature, level: Level) -> Option<u64> {
    let one = |spec: &TensorSpec| {
        let extent = |(axis, dim): (usize, &Dim)| match dim {
            Dim::Fixed(extent) => Some(*extent),
            Dim::Free(_) => (axis == 0).then_some(1),
        };
        Some(Fact::new(spec.dtype, spec.dims.iter().enumerate().map(extent).collect::<Option<_>>()?))
    };
    let inputs = signature.inputs.iter().map(one).collect::<Option<Vec<_>>>()?;
    let evaluate = |node: &_, operands: &[&_]| layers::evaluate(graph, node, operands, level);
    let facts = GraphFacts::infer(graph, inputs, &evaluate).ok()?;
    graph.nodes.iter().map(|node| facts.macs(node)).sum()
}
