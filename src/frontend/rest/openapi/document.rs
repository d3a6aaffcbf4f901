//! Documents put together: paths from the table, and of the components those that they refer to.
//!
//! What only the settings decide is written once, when it is first asked for; models add their name and an example.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, OnceLock};

use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use super::example::{self, Examples};
use super::model::Own;
use super::operation::Operation;
use super::{Served, table};
use crate::access::Caller;
use crate::frontend::SERVER_VERSION;
use crate::infer::VersionId;
use crate::repository::{Catalog, Variant};

/// The documents of one listener.
#[derive(Debug)]
pub(super) struct Documents {
    served: Served,
    server: OnceLock<Fixed>,
}

/// The parts of a document that do not change.
#[derive(Debug)]
struct Fixed {
    tags: BTreeSet<&'static str>,
    paths: Box<RawValue>,
    schemas: Box<RawValue>,
    responses: Box<RawValue>,
    headers: Box<RawValue>,
    parameters: Map<String, Value>,
    /// Names of those that are referred to.
    examples: BTreeSet<String>,
}

#[derive(Serialize)]
pub(super) struct Document<'a> {
    openapi: &'static str,
    info: Value,
    servers: [Value; 1],
    tags: Vec<Value>,
    paths: &'a RawValue,
    components: Components<'a>,
    /// The ways to say who calls, where that is asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    security: Vec<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Components<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    security_schemes: Option<Value>,
    schemas: &'a RawValue,
    responses: &'a RawValue,
    headers: &'a RawValue,
    parameters: Map<String, Value>,
    examples: BTreeMap<&'a str, Shown>,
}

#[derive(Serialize)]
struct Shown {
    value: Box<RawValue>,
}

/// Paths in the order of the table, each with its verbs.
#[derive(Debug, Default)]
pub(super) struct Paths {
    all: Vec<(String, Map<String, Value>)>,
    tags: BTreeSet<&'static str>,
}

impl Documents {
    pub(super) fn new(served: Served) -> Self {
        Self { served, server: OnceLock::new() }
    }

    /// The whole listener's, with examples of the first model that the caller may read and that has a short one.
    pub(super) fn server(&self, catalog: &Catalog, caller: &Caller) -> Document<'_> {
        let fixed = self.server.get_or_init(|| Fixed::new(&server_paths(&self.served), &Map::new()));
        let shown = example::shown(catalog, caller);
        let build = shown.as_ref().map(|(build, _)| *build);
        let examples = shown.map_or_else(Examples::form, |(_, examples)| examples);
        let what = if self.served.is_admin { "the admin listener" } else { "REST" };
        let description = format!("What {what} answers. Each model has a document of its own, at {MODEL_PATH}.");
        fixed.document("Kinglet", &description, build, &examples).guarded(self.served.is_guarded)
    }

    /// The calls of one model, or of one version of it, as they stand at its own paths.
    pub(super) fn model(&self, build: &Variant, version: Option<VersionId>) -> Box<RawValue> {
        let own = Own::new(build, version);
        let mut paths = Paths::default();
        for operation in table::operations(&self.served) {
            let Some((path, written)) = own.operation(operation, refused_everywhere(&self.served)) else { continue };
            // A model may have a name that is the end of another call's path.
            if !table::operations(&self.served).any(|other| other.paths.contains(&path.as_str())) {
                paths.add(path, operation, written);
            }
        }
        let fixed = Fixed::new(&paths, &own.schemas());
        let title = format!("Kinglet: {}", own.title());
        let description = &build.settings.description;
        let document = fixed.document(&title, description, Some(build), own.examples());
        let document = document.guarded(self.served.is_guarded);
        to_raw_value(&document).expect("writing JSON into memory succeeds")
    }
}

/// Any head may be too large; the admin listener refuses whatever pages of other sites ask, and a guarded one callers whom
/// nobody knows, who may not, or who had enough.
fn refused_everywhere(served: &Served) -> &'static [u16] {
    match (served.is_guarded, served.is_admin) {
        (true, _) => &[401, 403, 429, 431],
        (false, true) => &[403, 431],
        (false, false) => &[431],
    }
}

/// All calls of a listener.
pub(super) fn server_paths(served: &Served) -> Paths {
    let also = refused_everywhere(served);
    let mut paths = Paths::default();
    for (operation, path) in table::operations(served).flat_map(|row| row.paths.iter().map(move |path| (row, *path))) {
        paths.add(path.to_owned(), operation, operation.written(path, path, also));
    }
    // They go before whatever else stands at their paths.
    for (operation, path) in table::VERTEX.iter().zip(served.vertex.iter().flatten()) {
        paths.all.retain(|(other, _)| other != path);
        paths.add(path.clone(), operation, operation.written(path, path, also));
    }
    paths
}

impl Paths {
    fn add(&mut self, path: String, operation: &Operation, written: Value) {
        let at = self.all.iter().position(|(known, _)| *known == path).unwrap_or_else(|| {
            self.all.push((path, Map::new()));
            self.all.len() - 1
        });
        self.all[at].1.insert(operation.verb.to_owned(), written);
        self.tags.insert(operation.tag);
    }

    /// Paths with their verbs.
    #[cfg(test)]
    pub(super) fn calls(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all.iter().flat_map(|(path, verbs)| verbs.keys().map(move |verb| (path.as_str(), verb.as_str())))
    }
}

impl Serialize for Paths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.all.iter().map(|(path, verbs)| (path, verbs)))
    }
}

impl Fixed {
    /// The paths with what they refer to; `own` are schemas beside those that all documents share.
    fn new(paths: &Paths, own: &Map<String, Value>) -> Self {
        let mut named = Named { own, found: BTreeSet::new() };
        paths.all.iter().flat_map(|(_, verbs)| verbs.values()).for_each(|operation| named.follow(operation));
        let raw = |kind| to_raw_value(&named.part(kind)).expect("writing JSON into memory succeeds");
        Self {
            tags: paths.tags.clone(),
            paths: to_raw_value(paths).expect("writing JSON into memory succeeds"),
            schemas: raw("schemas"),
            responses: raw("responses"),
            headers: raw("headers"),
            parameters: named
                .part("parameters")
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.clone()))
                .collect(),
            examples: named.of("examples").map(str::to_owned).collect(),
        }
    }

    fn document(&self, title: &str, description: &str, build: Option<&Variant>, examples: &Examples) -> Document<'_> {
        let mut parameters = self.parameters.clone();
        let shown = build.map(|build| [("model", build.model.to_string()), ("version", build.version.to_string())]);
        for (name, value) in shown.into_iter().flatten() {
            if let Some(parameter) = parameters.get_mut(name) {
                parameter["example"] = value.into();
            }
        }
        let fixed = |name: &str| {
            to_raw_value(&COMPONENTS["examples"][name]["value"]).expect("writing JSON into memory succeeds")
        };
        let example = |name: &str| examples.get(name).map_or_else(|| fixed(name), ToOwned::to_owned);
        let tags = table::TAGS.iter().filter(|(tag, _)| self.tags.contains(tag));
        let tags = tags.map(|(name, says)| json!({ "name": name, "description": says }));
        Document {
            openapi: OPENAPI,
            info: json!({ "title": title, "version": SERVER_VERSION, "description": description }),
            servers: [json!({ "url": "/" })],
            tags: tags.collect(),
            paths: &self.paths,
            security: Vec::new(),
            components: Components {
                security_schemes: None,
                schemas: &self.schemas,
                responses: &self.responses,
                headers: &self.headers,
                parameters,
                examples: self.examples.iter().map(|name| (name.as_str(), Shown { value: example(name) })).collect(),
            },
        }
    }
}

impl Document<'_> {
    /// With how callers say who they are, where they have to.
    fn guarded(mut self, is_guarded: bool) -> Self {
        if is_guarded {
            self.components.security_schemes = Some(json!({
                "bearer": { "type": "http", "scheme": "bearer", "description": "An API key, or a token (JWT)." },
                "key": { "type": "apiKey", "in": "header", "name": "x-api-key", "description": "An API key." },
            }));
            self.security = vec![json!({ "bearer": [] }), json!({ "key": [] })];
        }
        self
    }
}

/// Components by kind and name, as they are referred to.
#[derive(Debug)]
struct Named<'a> {
    own: &'a Map<String, Value>,
    found: BTreeSet<(String, String)>,
}

impl Named<'_> {
    /// Takes note of what a value refers to, and of what that refers to.
    fn follow(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                let target = fields.get("$ref").and_then(Value::as_str);
                if let Some((kind, name)) = target.and_then(|to| to.strip_prefix("#/components/")?.split_once('/'))
                    && self.found.insert((kind.to_owned(), name.to_owned()))
                    && let Some(component) = self.component(kind, name).cloned()
                {
                    self.follow(&component);
                }
                fields.values().for_each(|field| self.follow(field));
            }
            Value::Array(items) => items.iter().for_each(|item| self.follow(item)),
            _ => {}
        }
    }

    fn component(&self, kind: &str, name: &str) -> Option<&Value> {
        let own = if kind == "schemas" { self.own.get(name) } else { None };
        own.or_else(|| COMPONENTS[kind].get(name))
    }

    fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a str> {
        self.found.iter().filter(move |(of, _)| of == kind).map(|(_, name)| name.as_str())
    }

    fn part<'a>(&'a self, kind: &'a str) -> BTreeMap<&'a str, &'a Value> {
        self.of(kind).filter_map(|name| Some((name, self.component(kind, name)?))).collect()
    }
}

/// All components that no model makes, by kind and name.
pub(super) static COMPONENTS: LazyLock<Value> = LazyLock::new(|| {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).expect("a test reads the files");
    let mut all = parsed(include_str!("components.json"));
    let mut schemas = parsed(include_str!("schemas.json"));
    if let (Some(schemas), Value::Object(others)) =
        (schemas.as_object_mut(), parsed(include_str!("schemas_other.json")))
    {
        schemas.extend(others);
    }
    all["schemas"] = schemas;
    let refusals = all["refusals"].as_object().into_iter().flatten();
    all["responses"] = refusals.map(|(status, says)| (status.clone(), refusal(status, says))).collect();
    all
});

/// The answer to a call that is refused.
fn refusal(status: &str, says: &Value) -> Value {
    let schema = json!({ "$ref": "#/components/schemas/Error" });
    let mut written = json!({ "description": says, "content": { "application/json": { "schema": schema } } });
    if matches!(status, "429" | "503") {
        written["headers"] = json!({ "Retry-After": { "$ref": "#/components/headers/Retry-After" } });
    }
    written
}

/// Its schemas are JSON Schema as such, which 3.0's are not: a model's inputs, in any order and each once, take `contains`.
const OPENAPI: &str = "3.1.0";
const MODEL_PATH: &str = "/v2/models/{model}/openapi.json";
