//! Picks the engine for a model: the first that can serve it, from the most to the least specialised.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Deserialize;

use super::identity;
use super::model_file::{self, OnnxModel};
use super::{Engine, EngineError, Identity, LoadOptions, ModelFile, Native, Plan, Tract};
use super::{native, tract};

/// Which engine runs a model, as its settings say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// The native one where it covers the whole model, tract elsewhere.
    #[default]
    Auto,
    Native,
    Tract,
}

/// Reads the model once and offers it to every engine in turn.
#[derive(Clone, Copy, Debug)]
pub struct Automatic;

impl Engine for Automatic {
    fn name(&self) -> &'static str {
        "auto"
    }

    fn load(&self, model: &ModelFile, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
        choose(model_file::read(model, options.model_bytes_max)?, options)
    }
}

/// The engine of a name that configuration or the command line gave.
pub fn by_name(name: &str) -> Option<&'static dyn Engine> {
    let engines: [&'static dyn Engine; 4] = [&Automatic, &Identity, &Native, &Tract];
    engines.into_iter().find(|engine| engine.name() == name)
}

/// The first that can serve the model, of those that it asks for.
fn choose(model: OnnxModel, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
    match identity::plan(&model) {
        Err(EngineError::UnsupportedOperator { .. }) => {}
        decided => return decided,
    }
    match options.engine {
        EngineChoice::Native => native::plan(&model, options),
        EngineChoice::Tract => tract::plan(model, options),
        EngineChoice::Auto => {
            // A bug of the one engine is no reason not to serve.
            let native = catch_unwind(AssertUnwindSafe(|| native::plan(&model, options)));
            match native.unwrap_or_else(|_| Err(EngineError::Failed("it panicked while it loaded the model".into()))) {
                Ok(plan) => Ok(plan),
                // A model that is broken is so to the other too.
                Err(refused) => tract::plan_instead(model, Some(&refused), options),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::tensor_proto::DataType;

    use super::*;
    use crate::engine::proto::{node, value_free};
    use crate::engine::testing::{model, options};

    #[test]
    fn the_most_specialised_engine_serves() {
        let served_by = |op_type: &str, data_type: DataType| {
            let value = |name: &str| value_free(name, data_type, &["n", "2"]);
            let nodes = vec![node(op_type, &["x"], &["y"], vec![])];
            choose(model(vec![value("x")], nodes, vec![value("y")], vec![]), &options())
                .map(|plan| plan.parts()[0].clone())
        };
        assert_eq!(served_by("Identity", DataType::Bfloat16).unwrap().engine, "identity");
        assert_eq!(served_by("Relu", DataType::Float).unwrap().engine, "native");
        let other = served_by("Gelu", DataType::Float).unwrap();
        assert_eq!(other.engine, "tract");
        assert!(
            other.reason.ends_with("operator Gelu y is not served: there is no row for it at opset 17"),
            "{other:?}"
        );
        let refused = served_by("Relu", DataType::Bfloat16).unwrap_err();
        assert!(matches!(refused, EngineError::UnsupportedType { .. }), "{refused}");
        let refused = served_by("Loop", DataType::Float).unwrap_err();
        assert!(refused.to_string().starts_with("operator Loop y is not served"), "{refused}");
    }

    #[test]
    fn a_model_may_ask_for_an_engine() {
        let engine_of = |engine| {
            let value = |name: &str| value_free(name, DataType::Float, &["n", "2"]);
            let nodes = vec![node("Relu", &["x"], &["y"], vec![])];
            let options = LoadOptions { engine, ..options() };
            choose(model(vec![value("x")], nodes, vec![value("y")], vec![]), &options).unwrap().parts()[0].engine
        };
        let asked = [EngineChoice::Auto, EngineChoice::Native, EngineChoice::Tract];
        assert_eq!(asked.map(engine_of), ["native", "native", "tract"]);
    }

    #[test]
    fn engines_have_names() {
        assert_eq!(
            ["auto", "identity", "native", "tract", "gpu"].map(|name| by_name(name).is_some()),
            [true, true, true, true, false]
        );
    }
}
