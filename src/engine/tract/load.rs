//! The steps of a load: rewrite, refuse, type, prove that rows stay apart, compile, try.

use std::sync::OnceLock;

use tract_onnx::pb::GraphProto;
use tract_onnx::tract_hir::internal::{TDim, TypedModel};

use super::merging::{self, BATCHES, Obstacle};
use super::plan::{Form, Model, TractPlan};
use super::runner::Runner;
use super::shapes::{PerShape, Shapes};
use super::typed::{Extents, Source, compiled, datum_type};
use super::{NAME, parts};
use super::{agreement, convert, refuse, rewrite, warm_up};
use crate::engine::model_file::OnnxModel;
use crate::engine::onnx_signature::{self, Declared};
use crate::engine::{Dim, EngineError, LoadOptions, Merging, Plan, Signature, TensorSpec, onnx_parts, proto};
use crate::tensor::DType;

/// A plan for the model, or why there is none.
pub(in crate::engine) fn plan(model: OnnxModel, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
    plan_instead(model, None, options)
}

/// As `plan`; `refused` is what a faster engine had against the model.
pub(in crate::engine) fn plan_instead(
    model: OnnxModel,
    refused: Option<&EngineError>,
    options: &LoadOptions,
) -> Result<Box<dyn Plan>, EngineError> {
    let OnnxModel { mut proto, kinds, bytes } = model;
    let no_graph = || EngineError::InvalidModel("the file has no graph".into());
    let graph = proto.graph.as_mut().ok_or_else(no_graph)?;
    let counted = onnx_parts::count(graph);
    // Rewrites keep their nodes' domains; those they make are of the standard one.
    let original = names(graph);
    rewrite::apply(graph, options.model_bytes_max)?;
    refuse::check(graph, &tract_onnx::onnx(), options.model_bytes_max / 4)?;
    let mut declared = onnx_signature::declared(graph, &kinds)?;
    served_types(&declared)?;
    proto.functions.clear();
    let mut source = Source { proto, inputs: declared.inputs };
    let symbolic = agreement::settled(&mut source);
    declared.inputs = source.inputs.clone();
    let mut signature = signature(declared, &source, symbolic.as_ref().ok())?;
    let merging = merging(&source, &signature, &original);
    if merging == Merging::Rows {
        onnx_signature::name_batch(&mut signature);
    }
    let macs = parts::macs(&source);
    let (model, reason) = prepared(source, symbolic, (signature, merging), &original, options)?;
    let why = refused.map(|refused| format!("; native: {refused}")).unwrap_or_default();
    Ok(Box::new(TractPlan {
        model,
        parts: [counted.into_part(NAME, macs, reason + &why)],
        bytes,
        forms: OnceLock::new(),
        warm_up_time_max: options.warm_up_time_max,
    }))
}

/// Types that tract takes and makes: all but strings and BF16.
fn served_types(declared: &Declared) -> Result<(), EngineError> {
    let unserved = |tensor: &str, dtype: DType| {
        Err(EngineError::UnsupportedType { tensor: tensor.to_owned(), dtype: dtype.name().to_owned() })
    };
    if let Some(spec) = declared.inputs.iter().find(|spec| datum_type(spec.dtype).is_none()) {
        return unserved(&spec.name, spec.dtype);
    }
    match declared.outputs.iter().find(|(_, dtype, _)| datum_type(*dtype).is_none()) {
        Some((name, dtype, _)) => unserved(name, *dtype),
        None => Ok(()),
    }
}

/// The signature with the shapes that outputs do not declare.
fn signature(declared: Declared, source: &Source, symbolic: Option<&TypedModel>) -> Result<Signature, EngineError> {
    let sample = match symbolic {
        Some(_) => None,
        None => sample(source, 1),
    };
    let sample = symbolic.or(sample.as_ref());
    let mut outputs = Vec::new();
    for (position, (name, dtype, dims)) in declared.outputs.into_iter().enumerate() {
        let fact = sample.and_then(|typed| typed.output_fact(position).ok());
        if let Some(fact) = fact.filter(|fact| !convert::agrees(fact.datum_type, dtype)) {
            let made = fact.datum_type;
            return Err(EngineError::InvalidModel(format!(
                "output {name:?} declares {dtype}, its operator makes {made:?}"
            )));
        }
        // Only a symbolic model says which extents are free.
        let inferred = symbolic.and_then(|typed| typed.output_fact(position).ok());
        let inferred = inferred.map(|fact| fact.shape.iter().map(dim).collect::<Vec<_>>());
        let dims = match (dims, inferred) {
            (Some(declared), Some(inferred)) if declared.len() != inferred.len() => inferred,
            (Some(declared), _) => declared,
            (None, Some(inferred)) => inferred,
            (None, None) => return Err(EngineError::InvalidModel(format!("output {name:?} declares no shape"))),
        };
        outputs.push(TensorSpec { name, dtype, dims });
    }
    Ok(Signature { inputs: declared.inputs, outputs })
}

fn dim(extent: &TDim) -> Dim {
    match (extent.as_i64().and_then(|extent| usize::try_from(extent).ok()), extent) {
        (Some(extent), _) => Dim::Fixed(extent),
        (None, TDim::Sym(symbol)) => Dim::Free(Some(symbol.to_string())),
        (None, _) => Dim::Free(None),
    }
}

/// Whether rows of different requests may share a run.
fn merging(source: &Source, signature: &Signature, original: &[(String, String)]) -> Merging {
    if let Some(alone) = onnx_signature::batch_obstacle(signature) {
        return alone;
    }
    let proof = match typed_twice(source) {
        Ok([first, second]) => merging::analyse(&first, &second),
        Err(error) => {
            let reason = format!("its shapes cannot be followed for different numbers of rows: {error}");
            Err(Obstacle { node: String::new(), operator: "the graph".into(), reason })
        }
    };
    match proof {
        Ok(()) => Merging::Rows,
        Err(Obstacle { node, operator, reason }) => {
            Merging::Alone { operator: onnx_name(&node, operator, original), reason }
        }
    }
}

/// The model with two batch sizes; other free axes stay symbolic, or get an extent that works.
fn typed_twice(source: &Source) -> Result<[TypedModel; 2], String> {
    let typed = |extents: [Extents<'_>; 2]| Ok([source.typed(extents[0])?, source.typed(extents[1])?]);
    let symbolic = typed(BATCHES.map(Extents::Batch));
    if symbolic.is_ok() || !has_other_free_axes(&source.inputs) {
        return symbolic;
    }
    let tried =
        OTHER_EXTENTS.iter().find_map(|&other| typed(BATCHES.map(|batch| Extents::BatchAndOthers(batch, other))).ok());
    tried.map_or(symbolic, Ok)
}

/// A typed model of the given batch size, with other free axes that work.
fn sample(source: &Source, batch: usize) -> Option<TypedModel> {
    let others: &[usize] = if has_other_free_axes(&source.inputs) { &OTHER_EXTENTS } else { &[1] };
    others.iter().find_map(|&other| source.typed(Extents::BatchAndOthers(batch, other)).ok())
}

/// Whether an axis besides the batch is decided by each request.
pub(super) fn has_other_free_axes(inputs: &[TensorSpec]) -> bool {
    inputs.iter().any(|spec| spec.dims.iter().skip(1).any(|dim| matches!(dim, Dim::Free(_))))
}

/// Compiles: one symbolic plan if tract can make and run it, else one plan per shape. Says why.
fn prepared(
    source: Source,
    symbolic: Result<TypedModel, String>,
    (signature, merging): (Signature, Merging),
    original: &[(String, String)],
    options: &LoadOptions,
) -> Result<(Model, String), EngineError> {
    let fixed = signature.inputs.iter().all(|spec| spec.dims.iter().all(|dim| matches!(dim, Dim::Fixed(_))));
    let tried = symbolic.and_then(|typed| Runner::new(compiled(typed)?)).and_then(|whole| {
        let row = source.typed(Extents::Batch(1)).and_then(|typed| Runner::new(compiled(typed)?));
        let row = row.ok().filter(|_| merging == Merging::Rows);
        let shapes = Shapes::Symbolic { whole, row };
        let model = Model { signature: signature.clone(), merging: merging.clone(), shapes };
        try_out(&model).map_err(|error| error.to_string())?;
        Ok(model)
    });
    let error = match tried {
        Ok(model) => {
            let reason = if fixed { "all shapes are fixed" } else { "one plan serves all shapes" };
            return Ok((model, reason.to_owned()));
        }
        Err(error) => error,
    };
    // Whether tract has a plan for any shape at all is found out now, not by the first request.
    if fixed || sample(&source, 1).is_none() {
        return Err(unprepared(&error, original));
    }
    let shapes = Shapes::PerShape(Box::new(PerShape::new(source, options)));
    let model = Model { signature, merging, shapes };
    try_out(&model)?;
    Ok((model, format!("one plan per input shape, because a plan for all fails: {error}")))
}

/// tract names the node it stumbled over first in its message.
fn unprepared(error: &str, original: &[(String, String)]) -> EngineError {
    let node = error.split_once("node #").and_then(|(_, rest)| rest.split('"').nth(1));
    match node {
        Some(node) => EngineError::UnsupportedOperator {
            operator: onnx_name(node, String::new(), original).trim().to_owned(),
            reason: format!("tract cannot prepare it: {error}"),
        },
        None => EngineError::InvalidModel(format!("tract cannot prepare it: {error}")),
    }
}

fn try_out(model: &Model) -> Result<(), EngineError> {
    warm_up::try_once(model, Form::Whole)?;
    match model.shapes {
        Shapes::Symbolic { row: Some(_), .. } => warm_up::try_once(model, Form::Row),
        _ => Ok(()),
    }
}

/// Nodes by the name tract gives them: the operator as a user knows it.
fn names(graph: &GraphProto) -> Vec<(String, String)> {
    let mut names: Vec<(String, String)> = graph
        .node
        .iter()
        .map(|node| {
            let name = if node.name.is_empty() { node.output.first() } else { Some(&node.name) };
            (name.cloned().unwrap_or_default(), proto::shown(node))
        })
        .filter(|(name, _)| !name.is_empty())
        .collect();
    // The longest first: tract's nodes are named after theirs with a suffix.
    names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    names
}

fn onnx_name(node: &str, operator: String, original: &[(String, String)]) -> String {
    let found = original.iter().find(|(name, _)| {
        node.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    match found {
        Some((_, shown)) => shown.clone(),
        None if node.is_empty() => operator,
        None => format!("{operator} {node}"),
    }
}

/// Extents tried for free axes besides the batch, where tract needs them concrete to follow the rest. Multiples of 32
/// first: images that are halved five times need them.
const OTHER_EXTENTS: [usize; 5] = [64, 320, 48, 100, 16];
