//! From an ONNX message to tract's typed model, with some extents fixed and some symbolic, and to a plan.
//!
//! tract is called through [`guarded`]: it panics on some broken models, and a model is untrusted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tract_onnx::Onnx;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::SymbolScope;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_hir::internal::{
    DatumType, InferenceFact, InferenceModelExt, IntoArcTensor, IntoTensor, ShapeFactoid, SimplePlan, TDim, Tensor,
    ToDim, TractResult, TypedModel, TypedSimplePlan,
};

use crate::engine::{Dim, TensorSpec};
use crate::tensor::DType;

/// An ONNX graph that tract can read, and the inputs it declares.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) proto: ModelProto,
    pub(super) inputs: Vec<TensorSpec>,
}

/// What an input's axis is to be in a typed model.
#[derive(Clone, Copy, Debug)]
pub(super) enum Extents<'a> {
    /// As declared: free axes are symbols.
    Symbolic,
    /// Axis 0 of every input has this extent, other free axes are symbols.
    Batch(usize),
    /// Axis 0 has the first extent, all other free axes the second.
    BatchAndOthers(usize, usize),
    /// The whole shape of each input.
    Concrete(&'a [crate::tensor::Shape]),
}

impl Source {
    /// The typed model, before any optimisation.
    pub(super) fn typed(&self, extents: Extents<'_>) -> Result<TypedModel, String> {
        guarded(|| self.parse(extents))
    }

    /// Sets every axis of that symbol; false where there is none.
    pub(super) fn set_axes(&mut self, named: &str, dim: &Dim) -> bool {
        let mut is_set = false;
        for spec in &mut self.inputs {
            for axis in 0..spec.dims.len() {
                if matches!(&spec.dims[axis], Dim::Free(name) if symbol(spec, axis, name.as_ref()) == named) {
                    spec.dims[axis] = dim.clone();
                    is_set = true;
                }
            }
        }
        is_set
    }

    fn parse(&self, extents: Extents<'_>) -> TractResult<TypedModel> {
        let onnx: Onnx = tract_onnx::onnx().with_ignore_value_info(true);
        let parsed = onnx.parse(&self.proto, None)?;
        if let Some(missing) = parsed.unresolved_inputs.first() {
            return Err(TractError::msg(format!("value {missing:?} is read but never made")));
        }
        let mut model = parsed.model;
        let count = model.inputs.len();
        if count != self.inputs.len() {
            return Err(TractError::msg(format!("{} inputs are declared, the graph has {count}", self.inputs.len())));
        }
        for (position, spec) in self.inputs.iter().enumerate() {
            let shape = shape(spec, position, extents, &model.symbols);
            let datum_type = datum_type(spec.dtype)
                .ok_or_else(|| TractError::msg(format!("input {:?} is {}", spec.name, spec.dtype)))?;
            model.set_input_fact(position, InferenceFact::dt_shape(datum_type, ShapeFactoid::from(shape)))?;
        }
        model.into_typed()
    }
}

/// Optimises a typed model and prepares it for running.
pub(super) fn compiled(typed: TypedModel) -> Result<Arc<TypedSimplePlan>, String> {
    guarded(|| {
        let mut model = typed.into_decluttered()?;
        straighten_constants(&mut model)?;
        SimplePlan::new(model.into_optimized()?)
    })
}

/// tract adds axes to constants without putting their strides right, and then takes its slow path for every operator
/// that reads one: five times slower for a bias.
fn straighten_constants(model: &mut TypedModel) -> TractResult<()> {
    for node in model.nodes_mut() {
        let Some(tensor) = node.op_as::<Const>().map(|constant| constant.val().clone()) else { continue };
        if !tensor.is_plain_ram() || *tensor.strides() == *Tensor::natural_strides(tensor.shape()) {
            continue;
        }
        let rank = tensor.rank();
        let straight = tensor.into_tensor().broadcast_into_rank(rank)?.into_arc_tensor();
        node.op = Box::new(Const::new(straight.clone())?);
        node.outputs[0].fact.konst = Some(straight);
    }
    Ok(())
}

/// Calls tract; a panic becomes an error like any other.
pub(super) fn guarded<T>(call: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(shortened(&format!("{error:#}"))),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(shortened(&format!("tract panicked: {said}")))
        }
    }
}

/// tract's errors can print whole weights.
fn shortened(message: &str) -> String {
    let line = message.replace('\n', " ");
    match line.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// The name of a free axis, of its own where none is declared.
fn symbol(spec: &TensorSpec, axis: usize, declared: Option<&String>) -> String {
    declared.cloned().unwrap_or_else(|| format!("axis {axis} of {}", spec.name))
}

fn shape(spec: &TensorSpec, input: usize, extents: Extents<'_>, symbols: &SymbolScope) -> Vec<TDim> {
    let extent = |(axis, dim): (usize, &Dim)| match (dim, extents) {
        (_, Extents::Concrete(shapes)) => shapes[input][axis].to_dim(),
        (Dim::Fixed(extent), _) => extent.to_dim(),
        (Dim::Free(_), Extents::Batch(batch) | Extents::BatchAndOthers(batch, _)) if axis == 0 => batch.to_dim(),
        (Dim::Free(_), Extents::BatchAndOthers(_, other)) => other.to_dim(),
        (Dim::Free(name), _) => TDim::from(symbols.sym(&symbol(spec, axis, name.as_ref()))),
    };
    spec.dims.iter().enumerate().map(extent).collect()
}

/// tract's type for a datatype, if it has one.
pub(super) fn datum_type(dtype: DType) -> Option<DatumType> {
    Some(match dtype {
        DType::Bool => DatumType::Bool,
        DType::U8 => DatumType::U8,
        DType::U16 => DatumType::U16,
        DType::U32 => DatumType::U32,
        DType::U64 => DatumType::U64,
        DType::I8 => DatumType::I8,
        DType::I16 => DatumType::I16,
        DType::I32 => DatumType::I32,
        DType::I64 => DatumType::I64,
        DType::F16 => DatumType::F16,
        DType::F32 => DatumType::F32,
        DType::F64 => DatumType::F64,
        DType::Bf16 | DType::Bytes => return None,
    })
}

type TractError = tract_onnx::prelude::TractError;

/// Characters of tract's message that are passed on.
const MESSAGE_CHARS_MAX: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_and_long_messages_are_tamed() {
        let panicked = guarded::<()>(|| panic!("index {} is out of range", 7));
        assert_eq!(panicked, Err("tract panicked: index 7 is out of range".into()));
        let long = guarded::<()>(|| Err(TractError::msg("é\n".repeat(1000)))).unwrap_err();
        assert_eq!(long.chars().count(), MESSAGE_CHARS_MAX + 3);
    }
}
