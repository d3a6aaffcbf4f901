//! Names, datatypes and shapes of an ONNX graph's inputs and outputs, and the choice of its batch axis.
//!
//! Only what the file declares is read here; what the operators do with it is the engines' to find out.

use std::collections::HashSet;

use super::{Dim, EngineError, Merging, Signature, TensorSpec};
use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::onnx::tensor_shape_proto::dimension::Value as DimValue;
use crate::proto::onnx::type_proto::{Tensor as TensorType, Value as TypeValue};
use crate::proto::onnx::{GraphProto, ValueInfoProto};
use crate::tensor::DType;

/// The signature that a graph declares. Outputs may lack a shape, which is `None` beside them.
pub(super) struct Declared {
    pub(super) inputs: Vec<TensorSpec>,
    pub(super) outputs: Vec<(String, DType, Option<Vec<Dim>>)>,
}

/// Reads inputs (initializers are none) and outputs.
pub(super) fn declared(graph: &GraphProto) -> Result<Declared, EngineError> {
    let constants: HashSet<&str> = graph
        .initializer
        .iter()
        .map(|tensor| tensor.name.as_str())
        .chain(graph.sparse_initializer.iter().filter_map(|sparse| Some(sparse.values.as_ref()?.name.as_str())))
        .collect();
    let mut inputs = Vec::new();
    for value in graph.input.iter().filter(|value| !constants.contains(value.name.as_str())) {
        let tensor = tensor_type(value)?;
        let dims = dims(tensor)
            .ok_or_else(|| EngineError::InvalidModel(format!("input {:?} declares no shape", value.name)))?;
        inputs.push(TensorSpec { name: value.name.clone(), dtype: dtype(value, tensor)?, dims });
    }
    let mut outputs = Vec::new();
    for value in &graph.output {
        let tensor = tensor_type(value)?;
        outputs.push((value.name.clone(), dtype(value, tensor)?, dims(tensor)));
    }
    let mut names = HashSet::new();
    let all = inputs.iter().map(|spec| &spec.name).chain(outputs.iter().map(|output| &output.0));
    match all.into_iter().find(|name| name.is_empty()) {
        Some(_) => return Err(EngineError::InvalidModel("an input or output has no name".into())),
        None if outputs.is_empty() => return Err(EngineError::InvalidModel("the graph has no outputs".into())),
        None => {}
    }
    match inputs.iter().map(|spec| &spec.name).find(|name| !names.insert(name.as_str())) {
        Some(twice) => Err(EngineError::InvalidModel(format!("two inputs are named {twice:?}"))),
        None => Ok(Declared { inputs, outputs }),
    }
}

/// The first condition for merging requests: axis 0 is free on every input and output, all inputs mean the same rows
/// by it, and it is no other axis too. Says what stands against it, if anything.
pub(super) fn batch_obstacle(signature: &Signature) -> Option<Merging> {
    let alone = |what: &str, spec: &TensorSpec, reason: &str| {
        Some(Merging::Alone { operator: format!("{what} {}", spec.name), reason: reason.to_owned() })
    };
    let mut batch: Option<&String> = None;
    let inputs = signature.inputs.iter().map(|spec| ("input", spec));
    for (what, spec) in inputs.chain(signature.outputs.iter().map(|spec| ("output", spec))) {
        match spec.dims.first() {
            None => return alone(what, spec, "it is a scalar"),
            Some(Dim::Fixed(extent)) => return alone(what, spec, &format!("its axis 0 is fixed at {extent}")),
            Some(Dim::Free(Some(name))) if what == "input" => match batch {
                Some(other) if other != name => {
                    return alone(what, spec, &format!("its axis 0 is {name:?}, that of another input is {other:?}"));
                }
                _ => batch = Some(name),
            },
            Some(Dim::Free(_)) => {}
        }
    }
    if signature.inputs.is_empty() {
        return Some(Merging::Alone { operator: "the graph".into(), reason: "it has no inputs".into() });
    }
    let other_axes = signature
        .inputs
        .iter()
        .filter(|spec| spec.dims.iter().skip(1).any(|dim| matches!(dim, Dim::Free(Some(name)) if Some(name) == batch)));
    other_axes.into_iter().next().and_then(|spec| alone("input", spec, "another of its axes has the batch's name"))
}

/// Gives axis 0 of all inputs and outputs one name, so that the check of a request makes sure that its inputs have the
/// same rows. Only for signatures without an obstacle.
pub(super) fn name_batch(signature: &mut Signature) {
    let named = |spec: &TensorSpec| match spec.dims.first() {
        Some(Dim::Free(Some(name))) => Some(name.clone()),
        _ => None,
    };
    let name = signature.inputs.iter().find_map(named).unwrap_or_else(|| BATCH_NAME.to_owned());
    for spec in signature.inputs.iter_mut().chain(&mut signature.outputs) {
        if let Some(first) = spec.dims.first_mut() {
            *first = Dim::Free(Some(name.clone()));
        }
    }
}

fn tensor_type(value: &ValueInfoProto) -> Result<&TensorType, EngineError> {
    let dtype = match value.r#type.as_ref().and_then(|kind| kind.value.as_ref()) {
        Some(TypeValue::TensorType(tensor)) => return Ok(tensor),
        Some(TypeValue::SequenceType(_)) => "sequence",
        Some(TypeValue::MapType(_)) => "map",
        Some(TypeValue::OpaqueType(_)) => "opaque",
        Some(TypeValue::SparseTensorType(_)) => "sparse tensor",
        Some(TypeValue::OptionalType(_)) => "optional",
        None => "undefined",
    };
    Err(EngineError::UnsupportedType { tensor: value.name.clone(), dtype: dtype.to_owned() })
}

fn dtype(value: &ValueInfoProto, tensor: &TensorType) -> Result<DType, EngineError> {
    let unsupported = |dtype: String| EngineError::UnsupportedType { tensor: value.name.clone(), dtype };
    let known = DataType::try_from(tensor.elem_type).map_err(|_| unsupported(format!("{}", tensor.elem_type)))?;
    Ok(match known {
        DataType::Bool => DType::Bool,
        DataType::Uint8 => DType::U8,
        DataType::Uint16 => DType::U16,
        DataType::Uint32 => DType::U32,
        DataType::Uint64 => DType::U64,
        DataType::Int8 => DType::I8,
        DataType::Int16 => DType::I16,
        DataType::Int32 => DType::I32,
        DataType::Int64 => DType::I64,
        DataType::Float16 => DType::F16,
        DataType::Bfloat16 => DType::Bf16,
        DataType::Float => DType::F32,
        DataType::Double => DType::F64,
        DataType::String => DType::Bytes,
        DataType::Undefined
        | DataType::Complex64
        | DataType::Complex128
        | DataType::Float8e4m3fn
        | DataType::Float8e4m3fnuz
        | DataType::Float8e5m2
        | DataType::Float8e5m2fnuz
        | DataType::Uint4
        | DataType::Int4
        | DataType::Float4e2m1 => return Err(unsupported(known.as_str_name().to_lowercase())),
    })
}

fn dims(tensor: &TensorType) -> Option<Vec<Dim>> {
    let dim = |value: &Option<DimValue>| match value {
        Some(DimValue::DimValue(extent)) => usize::try_from(*extent).map_or(Dim::Free(None), Dim::Fixed),
        Some(DimValue::DimParam(name)) if !ANONYMOUS.contains(&name.as_str()) => Dim::Free(Some(name.clone())),
        _ => Dim::Free(None),
    };
    Some(tensor.shape.as_ref()?.dim.iter().map(|d| dim(&d.value)).collect())
}

/// What exporters write for an axis that has no name.
const ANONYMOUS: [&str; 4] = ["", "?", "-1", "None"];

/// The name of a batch axis that the model left unnamed.
const BATCH_NAME: &str = "batch";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::proto::{unknown, value, value_free};
    use crate::proto::onnx::TypeProto;

    fn spec(name: &str, dims: &[&str]) -> TensorSpec {
        let dim = |text: &&str| match text.parse() {
            Ok(extent) => Dim::Fixed(extent),
            Err(_) => Dim::Free((!text.is_empty()).then(|| (*text).to_owned())),
        };
        TensorSpec { name: name.into(), dtype: DType::F32, dims: dims.iter().map(dim).collect() }
    }

    #[test]
    fn declared_types_and_axes_are_read() {
        let graph = GraphProto {
            input: vec![value_free("x", DataType::Int8, &["n", "?", "3", "-1"]), value("w", DataType::Float, &[2])],
            output: vec![value("y", DataType::String, &[])],
            initializer: vec![crate::proto::onnx::TensorProto { name: "w".into(), ..Default::default() }],
            ..GraphProto::default()
        };
        let declared = declared(&graph).unwrap();
        assert_eq!(declared.inputs.len(), 1, "an initializer is no input");
        assert_eq!(declared.inputs[0].shown_dims(), "[n,-1,3,-1]");
        assert_eq!(declared.inputs[0].dtype, DType::I8);
        assert_eq!(declared.outputs, [("y".into(), DType::Bytes, Some(vec![]))]);
    }

    #[test]
    fn types_nobody_has_are_refused_by_name() {
        let refused = |output: ValueInfoProto| {
            let graph = GraphProto { output: vec![output], ..GraphProto::default() };
            declared(&graph).err().map(|error| error.to_string()).unwrap_or_default()
        };
        for (data_type, name) in [
            (DataType::Complex64, "complex64"),
            (DataType::Float8e5m2, "float8e5m2"),
            (DataType::Int4, "int4"),
            (DataType::Undefined, "undefined"),
        ] {
            let expected = format!("tensor \"y\" has type {name}, which is not served");
            assert_eq!(refused(value("y", data_type, &[1])), expected);
        }
        let sequence = Some(TypeProto { value: Some(TypeValue::SequenceType(Box::default())) });
        assert_eq!(refused(unknown("y")), "tensor \"y\" has type undefined, which is not served");
        let sequence = ValueInfoProto { r#type: sequence, ..unknown("y") };
        assert_eq!(refused(sequence), "tensor \"y\" has type sequence, which is not served");
    }

    #[test]
    fn batch_axes_are_found_and_named() {
        let check = |inputs: &[TensorSpec], output: &[&str], obstacle: Option<&str>| {
            let mut signature = Signature { inputs: inputs.to_vec(), outputs: vec![spec("y", output)] };
            let found = batch_obstacle(&signature).map(|merging| match merging {
                Merging::Alone { operator, reason } => format!("{operator}: {reason}"),
                Merging::Rows => "rows".into(),
            });
            assert_eq!(found.as_deref(), obstacle);
            name_batch(&mut signature);
            signature
        };
        let named = check(&[spec("a", &["", "3"]), spec("b", &["n"])], &["m", "n"], None);
        assert_eq!(named.inputs[0].shown_dims(), "[n,3]");
        assert_eq!(named.outputs[0].shown_dims(), "[n,n]");
        assert_eq!(check(&[spec("a", &[""])], &[""], None).inputs[0].shown_dims(), "[batch]");
        check(&[spec("a", &["n"])], &["2"], Some("output y: its axis 0 is fixed at 2"));
        check(&[spec("a", &["n"]), spec("sr", &[])], &["n"], Some("input sr: it is a scalar"));
        let different = "input b: its axis 0 is \"m\", that of another input is \"n\"";
        check(&[spec("a", &["n"]), spec("b", &["m"])], &["n"], Some(different));
        check(&[spec("a", &["n", "n"])], &["n"], Some("input a: another of its axes has the batch's name"));
        check(&[], &["n"], Some("the graph: it has no inputs"));
    }
}
