//! The model_repository extension: what is there, load, unload.

use crate::access::{Caller, Verb};
use crate::frontend::parameters::Value;
use crate::frontend::{Frontend, Refusal, guard};
use crate::infer::ModelName;
use crate::proto::inference::model_repository_parameter::ParameterChoice;
use crate::proto::inference::repository_index_response::ModelIndex;
use crate::proto::inference::{
    ModelRepositoryParameter, RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
};
use crate::repository::LoadOverride;

pub(super) fn index(frontend: &Frontend, caller: &Caller, request: &RepositoryIndexRequest) -> RepositoryIndexResponse {
    let line = |entry: crate::repository::IndexEntry| ModelIndex {
        name: entry.name.to_string(),
        version: entry.version.map(|version| version.to_string()).unwrap_or_default(),
        state: entry.state.map_or("UNAVAILABLE", |state| state.as_str()).to_owned(),
        // The message has no place for variants.
        reason: entry.told(),
    };
    let entries = frontend.repository.index(request.ready).into_iter();
    RepositoryIndexResponse { models: entries.filter(|entry| caller.may_read(entry.name.as_str())).map(line).collect() }
}

/// Gives back the model's name.
pub(super) async fn load(
    frontend: &Frontend,
    caller: &Caller,
    request: RepositoryModelLoadRequest,
) -> Result<ModelName, Refusal> {
    let name = model(&request.model_name, &request.repository_name)?;
    guard::check(caller, Verb::Load, name.as_str())?;
    let mut wanted = LoadOverride::default();
    for (key, parameter) in request.parameters {
        match parameter.parameter_choice {
            Some(ParameterChoice::StringParam(text)) if key == "config" => wanted.config_json = Some(text),
            Some(ParameterChoice::BytesParam(bytes)) if key.starts_with(FILE) => {
                wanted.files.insert(key[FILE.len()..].to_owned(), bytes);
            }
            // Other parameters mean nothing to a load.
            Some(_) if key != "config" && !key.starts_with(FILE) => {}
            _ => {
                let message = format!("parameter {key:?} expects a string for config, bytes for a file");
                return Err(Refusal::invalid(message));
            }
        }
    }
    frontend.repository.load(name.clone(), wanted).await.map_err(|error| frontend.told_to_wait(error))?;
    Ok(name)
}

/// As `load`.
pub(super) async fn unload(
    frontend: &Frontend,
    caller: &Caller,
    mut request: RepositoryModelUnloadRequest,
) -> Result<ModelName, Refusal> {
    let name = model(&request.model_name, &request.repository_name)?;
    guard::check(caller, Verb::Load, name.as_str())?;
    let dependents = match request.parameters.remove(DEPENDENTS).and_then(value) {
        None => false,
        Some(value) => value.as_bool(DEPENDENTS)?,
    };
    frontend.repository.unload(name.clone(), dependents).await.map_err(|error| frontend.told_to_wait(error))?;
    Ok(name)
}

/// Clients of KServe's protocol have the model's name in the field that here is the repository's.
fn model(name: &str, repository: &str) -> Result<ModelName, Refusal> {
    let name = if name.is_empty() { repository } else { name };
    Ok(name.parse()?)
}

fn value(parameter: ModelRepositoryParameter) -> Option<Value> {
    Some(match parameter.parameter_choice? {
        ParameterChoice::BoolParam(value) => Value::Bool(value),
        ParameterChoice::Int64Param(value) => Value::Int(value),
        ParameterChoice::StringParam(value) => Value::Text(value),
        ParameterChoice::BytesParam(bytes) => Value::Text(String::from_utf8_lossy(&bytes).into_owned()),
    })
}

const FILE: &str = "file:";
const DEPENDENTS: &str = "unload_dependents";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_protocols_name_the_model() {
        assert_eq!(model("a", "").unwrap().as_str(), "a");
        assert_eq!(model("", "b").unwrap().as_str(), "b");
        assert_eq!(model("a", "b").unwrap().as_str(), "a");
        assert!(model("", "").is_err());
        assert!(model("../a", "").is_err());
    }
}
