//! What the start prints: models, addresses, and one request that works.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::Door;
use crate::engine::{Dim, Merging, TensorSpec};
use crate::repository::config::{Control, RepositoryConfig};
use crate::repository::{Catalog, State, Variant};
use crate::tensor::DType;

/// The summary of a server that has just become ready.
pub(super) fn start(
    catalog: &Catalog,
    doors: &[Door],
    took: Duration,
    colour: bool,
    config: &RepositoryConfig,
) -> String {
    let (bold, plain) = if colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    let mut text = format!("{bold}kinglet {}{plain} ready in {} ms\n\n", env!("CARGO_PKG_VERSION"), took.as_millis());
    text.push_str(&models(catalog));
    text.push('\n');
    for door in doors {
        let what = match (door.name, doors.len()) {
            ("http", 2) => "REST and gRPC",
            ("http", _) => "REST",
            ("grpc", _) => "gRPC",
            _ => "metrics, admin",
        };
        let _ = writeln!(text, "  {what:<16} http://{}", door.address);
    }
    if let Some(line) = try_it(catalog, doors) {
        let _ = writeln!(text, "\nTry it:\n  {line}");
    }
    if let Some(reason) = unserved(catalog, config) {
        let _ = writeln!(text, "\n{bold}no model is served{plain}: {reason}");
    }
    text
}

/// One line per version.
pub(super) fn models(catalog: &Catalog) -> String {
    let mut text = String::new();
    for line in catalog.index() {
        let version = line.version.map(|version| version.to_string()).unwrap_or_default();
        let state = line.state.map_or("UNAVAILABLE", State::as_str);
        let _ = write!(text, "  {:<20} {version:<3} {state:<8}", line.name.as_str());
        match catalog.find(&line.name, line.version) {
            Ok(variant) => {
                let _ = writeln!(text, " {}", shape(variant));
            }
            Err(_) => {
                let _ = writeln!(text, " {}", line.reason);
            }
        }
    }
    if text.is_empty() { "  no models\n".into() } else { text }
}

/// Why no model is served, where none is.
pub(super) fn unserved(catalog: &Catalog, config: &RepositoryConfig) -> Option<String> {
    if catalog.ready().next().is_some() {
        return None;
    }
    if config.control == Control::Explicit {
        return Some("repository.control is \"explicit\", models are loaded by request".into());
    }
    if !catalog.models.is_empty() {
        return Some("every model failed to load, the reasons stand above".into());
    }
    let paths: Vec<String> = config.paths.iter().map(|path| path.display().to_string()).collect();
    Some(format!("expected <model>/<version>/model.onnx or .onnx files in {}, got none", paths.join(", ")))
}

fn shape(variant: &Variant) -> String {
    let list = |specs: &[TensorSpec]| {
        let shown: Vec<String> =
            specs.iter().map(|spec| format!("{} {}{}", spec.name, spec.dtype, spec.shown_dims())).collect();
        shown.join(", ")
    };
    let batching = match variant.plan.merging() {
        Merging::Rows => format!("batches up to {}", variant.batch_size_max()),
        Merging::Alone { operator, .. } => format!("one request at a time ({operator})"),
    };
    format!("{} -> {} ({batching})", list(&variant.signature.inputs), list(&variant.signature.outputs))
}

/// A request to the model with the smallest input; its metadata where every input is too long for a line.
fn try_it(catalog: &Catalog, doors: &[Door]) -> Option<String> {
    let address = doors.iter().find(|door| door.name == "http")?.address;
    let variant = catalog.ready().min_by_key(|variant| (elements(variant), &variant.model))?;
    let url = format!("http://{address}/v2/models/{}", variant.model);
    if elements(variant) > ELEMENTS_SHOWN_MAX || variant.signature.inputs.iter().any(|spec| !has_json(spec.dtype)) {
        return Some(format!("curl {url}"));
    }
    let inputs: Vec<Value> = variant.signature.inputs.iter().map(zeros).collect();
    Some(format!("curl {url}/infer -d '{}'", json!({ "inputs": inputs })))
}

fn elements(variant: &Variant) -> usize {
    variant.signature.inputs.iter().map(|spec| sample_shape(spec).iter().product::<usize>()).sum()
}

/// One row, and 1 for whatever else is free.
fn sample_shape(spec: &TensorSpec) -> Vec<usize> {
    let extent = |dim: &Dim| match dim {
        Dim::Fixed(extent) => *extent,
        Dim::Free(_) => 1,
    };
    spec.dims.iter().map(extent).collect()
}

fn zeros(spec: &TensorSpec) -> Value {
    let shape = sample_shape(spec);
    let zero = match spec.dtype {
        DType::Bool => json!(false),
        DType::Bytes => json!(""),
        _ => json!(0),
    };
    let count = shape.iter().product();
    json!({ "name": spec.name, "shape": shape, "datatype": spec.dtype.name(), "data": vec![zero; count] })
}

fn has_json(dtype: DType) -> bool {
    !matches!(dtype, DType::F16 | DType::Bf16)
}

/// Longer inputs make no line that one would paste.
const ELEMENTS_SHOWN_MAX: usize = 64;
