//! Picks the engine for a model: the first that can serve it, from the most to the least specialised.

use super::identity;
use super::model_file::{self, OnnxModel};
use super::{Engine, EngineError, Identity, LoadOptions, ModelFile, Native, Plan, Tract};
use super::{native, tract};

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

/// An engine that lacks an operator passes the model on; the last one's refusal is what the user reads.
fn choose(model: OnnxModel, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
    match identity::plan(&model) {
        Err(EngineError::UnsupportedOperator { .. }) => {}
        decided => return decided,
    }
    match native::plan(&model, options) {
        Ok(plan) => Ok(plan),
        Err(_) => tract::plan(model, options),
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
                .map(|plan| plan.parts()[0].engine)
        };
        assert_eq!(served_by("Identity", DataType::Bfloat16).unwrap(), "identity");
        assert_eq!(served_by("Relu", DataType::Float).unwrap(), "tract");
        let refused = served_by("Relu", DataType::Bfloat16).unwrap_err();
        assert!(matches!(refused, EngineError::UnsupportedType { .. }), "{refused}");
        let refused = served_by("Loop", DataType::Float).unwrap_err();
        assert!(refused.to_string().starts_with("operator Loop y is not served"), "{refused}");
    }

    #[test]
    fn engines_have_names() {
        assert_eq!(["auto", "identity", "tract", "gpu"].map(|name| by_name(name).is_some()), [true, true, true, false]);
    }
}
