//! Schemas of a model's requests and answers, made of its signature.

use serde_json::{Map, Value, json};

use super::operation::reference;
use crate::engine::{Dim, Signature, TensorSpec};
use crate::repository::Variant;
use crate::tensor::DType;

/// The schemas that a model's document has beside those of all.
pub(super) fn schemas(build: &Variant) -> Map<String, Value> {
    let rows_max = build.rows_max().or(build.settings.rows_alone_max);
    of_signature(&build.signature, rows_max)
}

fn of_signature(signature: &Signature, rows_max: Option<usize>) -> Map<String, Value> {
    let rows = signature.is_batched().then_some(Rows { max: rows_max });
    let all = [
        ("OwnRequest", request(signature, rows)),
        ("OwnResponse", response(signature)),
        ("OwnV1Request", v1_request(signature)),
        ("OwnV1Examples", v1_examples(signature)),
    ];
    all.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

/// Whether v2's JSON has a form for the elements of all of them.
pub(super) fn is_json(specs: &[TensorSpec]) -> bool {
    specs.iter().all(|spec| !matches!(spec.dtype, DType::F16 | DType::Bf16))
}

/// What axis 0 is, where it has the rows of a request.
#[derive(Clone, Copy)]
struct Rows {
    max: Option<usize>,
}

/// The inputs, each once, in any order.
fn request(signature: &Signature, rows: Option<Rows>) -> Value {
    let count = signature.inputs.len();
    let each = signature.inputs.iter().map(|spec| json!({ "contains": named(&spec.name) }));
    let mut inputs = json!({ "type": "array", "minItems": count, "maxItems": count });
    if count > 0 {
        inputs["items"] = any_of(signature.inputs.iter().map(|spec| input(spec, rows)));
        inputs["allOf"] = each.collect();
    }
    let names: Vec<&str> = signature.outputs.iter().map(|spec| spec.name.as_str()).collect();
    json!({
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": { "type": ["string", "null"] },
            "parameters": reference("schemas", "RequestParameters"),
            "inputs": inputs,
            "outputs": {
                "type": ["array", "null"],
                "description": "Those that are wanted; all of them where none is named.",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": { "name": { "enum": names }, "parameters": reference("schemas", "OutputParameters") },
                },
            },
        },
    })
}

fn input(spec: &TensorSpec, rows: Option<Rows>) -> Value {
    let mut properties = json!({
        "name": { "const": spec.name },
        "datatype": { "const": spec.dtype.name() },
        "shape": shape(spec, rows),
        "parameters": reference("schemas", "InputParameters"),
    });
    let mut required = vec!["name", "datatype", "shape"];
    if is_json(std::slice::from_ref(spec)) {
        properties["data"] = elements(spec);
        required.push("data");
    }
    json!({ "type": "object", "required": required, "properties": properties })
}

fn shape(spec: &TensorSpec, rows: Option<Rows>) -> Value {
    let rank = spec.dims.len();
    let extent = |(axis, dim): (usize, &Dim)| match (dim, rows.filter(|_| axis == 0)) {
        (Dim::Fixed(extent), _) => json!({ "const": extent }),
        (Dim::Free(_), Some(Rows { max: Some(max) })) => {
            json!({ "type": "integer", "minimum": 0, "maximum": max, "description": "Rows." })
        }
        (Dim::Free(_), Some(_)) => json!({ "type": "integer", "minimum": 0, "description": "Rows." }),
        (Dim::Free(Some(name)), None) => json!({ "type": "integer", "minimum": 0, "description": name }),
        (Dim::Free(None), None) => json!({ "type": "integer", "minimum": 0 }),
    };
    let extents: Vec<Value> = spec.dims.iter().enumerate().map(extent).collect();
    let mut schema = json!({ "type": "array", "minItems": rank, "maxItems": rank });
    if rank > 0 {
        schema["prefixItems"] = extents.into();
    }
    schema
}

/// All elements of a tensor, flat or nested as its shape.
fn elements(spec: &TensorSpec) -> Value {
    let flat = array(count(&spec.dims), element(spec.dtype));
    match spec.dims.len() {
        0 => array(Some(1), element(spec.dtype)),
        1 => flat,
        _ => json!({ "anyOf": [flat, nested(&spec.dims, element(spec.dtype))] }),
    }
}

/// Arrays within arrays, as the axes are.
fn nested(dims: &[Dim], element: Value) -> Value {
    dims.iter().rev().fold(element, |inner, dim| array(fixed(dim), inner))
}

fn array(extent: Option<usize>, items: Value) -> Value {
    match extent {
        Some(extent) => json!({ "type": "array", "minItems": extent, "maxItems": extent, "items": items }),
        None => json!({ "type": "array", "items": items }),
    }
}

fn fixed(dim: &Dim) -> Option<usize> {
    match dim {
        Dim::Fixed(extent) => Some(*extent),
        Dim::Free(_) => None,
    }
}

/// Elements in all, where no axis is free.
fn count(dims: &[Dim]) -> Option<usize> {
    dims.iter().map(fixed).try_fold(1usize, |product, extent| product.checked_mul(extent?))
}

/// A value of JSON that becomes an element.
fn element(dtype: DType) -> Value {
    let whole = |low: i64, high: u64| json!({ "type": "integer", "minimum": low, "maximum": high });
    let float = |most: f64| json!({ "type": "number", "minimum": -most, "maximum": most });
    match dtype {
        DType::Bool => json!({ "type": ["boolean", "integer"], "minimum": 0, "maximum": 1 }),
        DType::U8 => whole(0, u8::MAX.into()),
        DType::U16 => whole(0, u16::MAX.into()),
        DType::U32 => whole(0, u32::MAX.into()),
        DType::U64 => whole(0, u64::MAX),
        DType::I8 => whole(i8::MIN.into(), i8::MAX.unsigned_abs().into()),
        DType::I16 => whole(i16::MIN.into(), i16::MAX.unsigned_abs().into()),
        DType::I32 => whole(i32::MIN.into(), i32::MAX.unsigned_abs().into()),
        DType::I64 => whole(i64::MIN, i64::MAX.unsigned_abs()),
        DType::F16 => float(half::f16::MAX.into()),
        DType::Bf16 => float(half::bf16::MAX.into()),
        DType::F32 => float(f32::MAX.into()),
        DType::F64 => json!({ "type": "number" }),
        DType::Bytes => json!({ "type": "string" }),
    }
}

/// An output comes as it is, in binary form, or as the classes that were asked for.
fn response(signature: &Signature) -> Value {
    let outputs = signature.outputs.iter().flat_map(|spec| [output(spec), classes(spec)]);
    json!({
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": { "type": "string" },
            "model_version": { "type": "string" },
            "id": { "type": "string" },
            "parameters": reference("schemas", "ResponseParameters"),
            "outputs": { "type": "array", "items": any_of(outputs) },
        },
    })
}

fn output(spec: &TensorSpec) -> Value {
    json!({
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": { "const": spec.name },
            "datatype": { "const": spec.dtype.name() },
            "shape": shape(spec, None),
            "data": array(count(&spec.dims), answered(spec.dtype)),
            "parameters": { "type": "object", "properties": { "binary_data_size": { "type": "integer" } } },
        },
    })
}

fn classes(spec: &TensorSpec) -> Value {
    json!({
        "type": "object",
        "description": "score:index:label of each class, where classes were asked for.",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": { "const": spec.name },
            "datatype": { "const": DType::Bytes.name() },
            "shape": { "type": "array", "items": { "type": "integer", "minimum": 0 } },
            "data": { "type": "array", "items": { "type": "string" } },
        },
    })
}

/// A value of JSON that an element becomes.
fn answered(dtype: DType) -> Value {
    match dtype {
        DType::Bool => json!({ "type": "boolean" }),
        DType::Bytes => json!({ "type": "string" }),
        DType::F16 | DType::Bf16 | DType::F32 | DType::F64 => json!({ "type": "number" }),
        _ => json!({ "type": "integer" }),
    }
}

/// Rows where every tensor has them, or columns.
fn v1_request(signature: &Signature) -> Value {
    let columns = any_of(
        [by_name(&signature.inputs, &|spec| v1_value(&spec.dims, spec.dtype))]
            .into_iter()
            .chain(sole(signature).map(|spec| v1_value(&spec.dims, spec.dtype))),
    );
    let mut properties = json!({ "signature_name": signature_name(), "inputs": columns });
    let mut forms = vec![json!({ "required": ["inputs"] })];
    if let Some(row) = v1_row(signature) {
        properties["instances"] = json!({ "type": "array", "minItems": 1, "items": row });
        forms.insert(0, json!({ "required": ["instances"] }));
    }
    json!({ "type": "object", "properties": properties, "oneOf": forms })
}

fn v1_examples(signature: &Signature) -> Value {
    let row = by_name(&signature.inputs, &|spec| v1_value(spec.dims.get(1..).unwrap_or_default(), spec.dtype));
    json!({
        "type": "object",
        "required": ["examples"],
        "properties": {
            "signature_name": signature_name(),
            "examples": { "type": "array", "minItems": 1, "items": row },
        },
    })
}

/// One row: the value of the only input, or an object with a value for every input.
fn v1_row(signature: &Signature) -> Option<Value> {
    let of = |spec: &TensorSpec| v1_value(spec.dims.get(1..).unwrap_or_default(), spec.dtype);
    signature.is_batched().then(|| any_of([by_name(&signature.inputs, &of)].into_iter().chain(sole(signature).map(of))))
}

fn v1_value(dims: &[Dim], dtype: DType) -> Value {
    let element = match dtype {
        DType::Bytes => {
            let properties = json!({ "b64": { "type": "string", "contentEncoding": "base64" } });
            let base64 = json!({
                "type": "object", "required": ["b64"], "properties": properties, "additionalProperties": false,
            });
            json!({ "anyOf": [{ "type": "string" }, base64] })
        }
        dtype => element(dtype),
    };
    nested(dims, element)
}

fn by_name(specs: &[TensorSpec], of: &dyn Fn(&TensorSpec) -> Value) -> Value {
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let properties: Map<String, Value> = specs.iter().map(|spec| (spec.name.clone(), of(spec))).collect();
    json!({ "type": "object", "required": names, "properties": properties, "additionalProperties": false })
}

fn sole(signature: &Signature) -> Option<&TensorSpec> {
    match signature.inputs.as_slice() {
        [only] => Some(only),
        _ => None,
    }
}

fn signature_name() -> Value {
    json!({ "enum": ["serving_default", "", null] })
}

fn named(name: &str) -> Value {
    json!({ "type": "object", "required": ["name"], "properties": { "name": { "const": name } } })
}

/// One of several, or the only one as it is.
fn any_of(schemas: impl IntoIterator<Item = Value>) -> Value {
    let mut all: Vec<Value> = schemas.into_iter().collect();
    match all.len() {
        1 => all.remove(0),
        _ => json!({ "anyOf": all }),
    }
}

#[cfg(test)]
mod tests;
