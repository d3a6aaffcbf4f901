//! The document of one model: the calls that it has, at its own paths, with schemas of its signature.

use serde_json::{Map, Value};

use super::example::{self, Examples};
use super::operation::{Operation, placeholders, reference};
use super::tensors;
use crate::frontend::rest::v1::{self, Verb};
use crate::infer::VersionId;
use crate::repository::Variant;

/// What a model makes of the calls that all have.
pub(super) struct Own<'a> {
    build: &'a Variant,
    /// Where the paths name it.
    version: Option<VersionId>,
    examples: Examples,
}

impl<'a> Own<'a> {
    pub(super) fn new(build: &'a Variant, version: Option<VersionId>) -> Self {
        Self { build, version, examples: example::of_model(build) }
    }

    pub(super) fn examples(&self) -> &Examples {
        &self.examples
    }

    pub(super) fn title(&self) -> String {
        match self.version {
            None => self.build.model.to_string(),
            Some(version) => format!("{} version {version}", self.build.model),
        }
    }

    /// A call as it stands at this model's path; nothing where it is not the model's, or the model cannot answer it.
    pub(super) fn operation(&self, operation: &Operation, also: &[u16]) -> Option<(String, Value)> {
        let wanted = if self.version.is_some() { &["model", "version"][..] } else { &["model"] };
        let is_own =
            |path: &&&str| placeholders(path).eq(wanted.iter().copied()) && OWN.iter().any(|own| path.starts_with(own));
        let path = operation.paths.iter().find(is_own)?;
        let verb = match operation.id {
            "v1Classify" => Verb::Classify,
            "v1Regress" => Verb::Regress,
            _ => Verb::Predict,
        };
        if !v1::suits(verb, &self.build.signature) {
            return None;
        }
        let mut named = path.replace("{model}", self.build.model.as_str());
        if let Some(version) = self.version {
            named = named.replace("{version}", &version.to_string());
        }
        let mut written = operation.written(path, &named, also);
        self.adapt(operation.id, &mut written);
        Some((named, written))
    }

    /// Schemas that only this model has.
    pub(super) fn schemas(&self) -> Map<String, Value> {
        tensors::schemas(self.build)
    }

    fn adapt(&self, id: &str, written: &mut Value) {
        let (request, response, example) = match id {
            "infer" => ("OwnRequest", "OwnResponse", "Infer"),
            "v1Predict" => ("OwnV1Request", "V1PredictResponse", "V1Predict"),
            "v1Classify" | "v1Regress" => ("OwnV1Examples", "V1Results", "V1Examples"),
            _ => return,
        };
        let asked = &mut written["requestBody"]["content"];
        if id == "infer" && !tensors::is_json(&self.build.signature.inputs) {
            // Its numbers have no form in v2's JSON.
            if let Some(asked) = asked.as_object_mut() {
                asked.remove(JSON);
            }
        } else {
            asked[JSON]["schema"] = reference("schemas", request);
            if let Some(asked) = asked[JSON].as_object_mut() {
                asked.remove("examples");
                if self.examples.get(example).is_some() {
                    asked.insert("examples".into(), serde_json::json!({ "example": reference("examples", example) }));
                }
            }
        }
        written["responses"]["200"]["content"][JSON]["schema"] = reference("schemas", response);
    }
}

/// Where a model's own calls begin: not those that load it, nor a platform's.
const OWN: [&str; 2] = ["/v2/models/", "/v1/models/"];
const JSON: &str = "application/json";
