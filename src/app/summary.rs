//! What the start prints: models, addresses, and one request that works.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::Door;
use crate::config::Config;
use crate::engine::{Dim, Merging, TensorSpec};
use crate::frontend::Address;
use crate::repository::config::{Control, RepositoryConfig};
use crate::repository::{Catalog, State, Variant};
use crate::tensor::{DType, Shape};

/// The summary of a server that has just become ready.
pub(super) fn start(catalog: &Catalog, doors: &[Door], took: Duration, colour: bool, config: &Config) -> String {
    let (bold, plain) = if colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    let mut text = format!("{bold}kinglet {}{plain} ready in {} ms\n\n", env!("CARGO_PKG_VERSION"), took.as_millis());
    match config.repository.control {
        Control::Demand => text.push_str(&on_demand(catalog, &config.repository)),
        Control::None | Control::Poll | Control::Explicit => text.push_str(&models(catalog)),
    }
    text.push('\n');
    for door in doors {
        let what = match (door.name, doors.len()) {
            ("http", 2) => "REST and gRPC",
            ("http", _) => "REST",
            ("grpc", _) => "gRPC",
            _ => "metrics, admin",
        };
        let _ = match &door.address {
            Address::Tcp(address) => writeln!(text, "  {what:<16} {}://{address}", door.scheme()),
            file @ Address::Unix(_) => writeln!(text, "  {what:<16} {file}"),
        };
    }
    let admin = doors.iter().find(|door| door.name == "admin" && config.admin.ui);
    if let Some((door, address)) = admin.and_then(|admin| admin.address.tcp().map(|address| (admin, address))) {
        let _ = writeln!(text, "  {:<16} {}://{address}/ui/", "page", door.scheme());
    }
    if let Some(line) = try_it(catalog, doors, config) {
        let _ = writeln!(text, "\nTry it:\n  {line}");
    }
    if let Some(reason) = unserved(catalog, &config.repository) {
        let _ = writeln!(text, "\n{bold}no model is served{plain}: {reason}");
    }
    text
}

/// There may be hundreds: those that are loaded, and how many there are.
fn on_demand(catalog: &Catalog, config: &RepositoryConfig) -> String {
    let count = catalog.models.len();
    let mut loaded = catalog.clone();
    loaded.models.retain(|_, model| model.is_ready());
    let pinned = if loaded.models.is_empty() { String::new() } else { models(&loaded) };
    format!(
        "{pinned}  {count} models in all, loaded when requests ask for them, up to {} together\n",
        config.demand_bytes_max
    )
}

/// One line per version, and per variant of it.
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
        for variant in &line.variants {
            let (name, state) = (variant.name.as_str(), variant.state.as_str());
            let _ = writeln!(text, "{}", format!("    variant {name:<16} {state:<8} {}", variant.reason).trim_end());
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
    if config.control == Control::Demand && !catalog.models.is_empty() {
        return None;
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
        visible(&shown.join(", "))
    };
    let batching = match variant.plan.merging() {
        _ if variant.ensemble.is_some() => {
            let steps = variant.ensemble.iter().flat_map(|ensemble| &ensemble.steps);
            let names: Vec<&str> = steps.map(|step| &*step.name).collect();
            format!("ensemble of {}", visible(&names.join(", ")))
        }
        Merging::Rows => format!("batches up to {}", variant.batch_size_max()),
        Merging::Alone { operator, reason } if operator.is_empty() => format!("one request at a time: {reason}"),
        Merging::Alone { operator, .. } => format!("one request at a time: {}", visible(operator)),
    };
    format!("{} -> {} ({batching})", list(&variant.signature.inputs), list(&variant.signature.outputs))
}

/// A request to the model with the smallest input, or a model's metadata where no request would surely be answered.
fn try_it(catalog: &Catalog, doors: &[Door], config: &Config) -> Option<String> {
    let door = doors.iter().find(|door| door.name == "http")?;
    if door.is_secure && config.tls.asks_clients() {
        return None;
    }
    let door = match &door.address {
        // Whom its certificate is for is not known here.
        Address::Tcp(address) if door.is_secure => format!("--insecure https://{address}"),
        Address::Tcp(address) => format!("http://{address}"),
        Address::Unix(path) => {
            let path = quoted(&visible(&path.display().to_string()));
            format!("--unix-socket {path} http://localhost")
        }
    };
    let url = |variant: &Variant| format!("{door}/v2/models/{}", variant.model);
    let smallest = catalog
        .ready()
        .filter_map(|variant| Some((elements(variant)?, &variant.model, variant)))
        .min_by_key(|(elements, name, _)| (*elements, *name));
    if let Some((_, _, variant)) = smallest {
        let inputs: Vec<Value> = variant.signature.inputs.iter().filter_map(zeros).collect();
        let body = visible(&json!({ "inputs": inputs }).to_string());
        return Some(format!("curl {}/infer -d {}", url(variant), quoted(&body)));
    }
    let variant = catalog.ready().min_by_key(|variant| &variant.model)?;
    Some(format!("curl {}", url(variant)))
}

/// Elements of a request of one row that fits a line. None where the model leaves more open than the number of rows: it
/// may not take the extents that one would guess.
fn elements(variant: &Variant) -> Option<usize> {
    let counts = variant.signature.inputs.iter().map(|spec| {
        let count = sample_shape(spec)?.element_count()?;
        has_json(spec.dtype).then_some(count)
    });
    counts.sum::<Option<usize>>().filter(|elements| *elements <= ELEMENTS_SHOWN_MAX)
}

/// One row, where nothing else is free.
fn sample_shape(spec: &TensorSpec) -> Option<Shape> {
    let extent = |(axis, dim): (usize, &Dim)| match dim {
        // A sum of such extents is no overflow either.
        Dim::Fixed(extent) => u32::try_from(*extent).is_ok().then_some(*extent),
        Dim::Free(_) => (axis == 0).then_some(1),
    };
    spec.dims.iter().enumerate().map(extent).collect()
}

fn zeros(spec: &TensorSpec) -> Option<Value> {
    let shape = sample_shape(spec)?;
    let zero = match spec.dtype {
        DType::Bool => json!(false),
        DType::Bytes => json!(""),
        _ => json!(0),
    };
    let data = vec![zero; shape.element_count()?];
    Some(json!({ "name": spec.name, "shape": shape.to_vec(), "datatype": spec.dtype.name(), "data": data }))
}

/// Text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Text that tells a terminal nothing: the names of tensors are the model's. JSON reads the escapes back.
fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => visible.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => visible.push(character),
        }
    }
    visible
}

fn has_json(dtype: DType) -> bool {
    !matches!(dtype, DType::F16 | DType::Bf16)
}

/// Longer inputs make no line that one would paste.
const ELEMENTS_SHOWN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_word_and_plain_text() {
        assert_eq!(quoted("it's; rm -r x"), r"'it'\''s; rm -r x'");
        assert_eq!(visible("a\u{9b}31mé"), "a\\u009b31mé");
    }

    #[test]
    fn only_the_number_of_rows_may_be_open() {
        let shape =
            |dims: &[Dim]| sample_shape(&TensorSpec { name: "x".into(), dtype: DType::F32, dims: dims.to_vec() });
        assert_eq!(shape(&[Dim::Free(None), Dim::Fixed(3)]), Some(Shape::new(&[1, 3])));
        assert_eq!(shape(&[Dim::Fixed(3), Dim::Free(None)]), None);
        assert_eq!(shape(&[Dim::Fixed(1 << 40)]), None);
    }
}
