//! Picks the engine for a model: the first that can serve it, from the most to the least specialised.

use std::str::FromStr;

use serde::Deserialize;

use super::{Engine, EngineError, Identity, LoadOptions, ModelFile, Native, Plan, identity, model_file, native};
use crate::proto::onnx::ModelProto;

/// Which engines may run a model, as its settings say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// The native one, and tract for operators that it does not have.
    #[default]
    Auto,
    /// The native one alone.
    Native,
}

/// How exactly the native engine computes, as a model's settings say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As the model's types say.
    #[default]
    Exact,
    /// Operands of `f32` products with constant weights are rounded to bf16, and values between layers where pairs of it are
    /// multiplied; sums stay `f32`.
    Bf16,
}

/// A name that is no precision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown precision {0:?}, expected exact or bf16")]
pub struct UnknownPrecision(String);

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, UnknownPrecision> {
        match name {
            "exact" => Ok(Self::Exact),
            "bf16" => Ok(Self::Bf16),
            _ => Err(UnknownPrecision(name.to_owned())),
        }
    }
}

/// Reads the model once and offers it to every engine in turn.
#[derive(Clone, Copy, Debug)]
pub struct Automatic;

impl Engine for Automatic {
    fn name(&self) -> &'static str {
        "auto"
    }

    fn load(&self, model: &ModelFile, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
        choose(model_file::read(model, options)?, &options.beside(model))
    }
}

/// The engine of a name that configuration or the command line gave.
pub fn by_name(name: &str) -> Option<&'static dyn Engine> {
    let engines: [&'static dyn Engine; 3] = [&Automatic, &Identity, &Native];
    engines.into_iter().find(|engine| engine.name() == name)
}

/// The first that can serve the model, of those that it asks for.
pub(super) fn choose(model: ModelProto, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
    match identity::plan(&model) {
        Err(EngineError::UnsupportedOperator { .. }) => native::plan(model, options),
        decided => decided,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::proto::{node, value_free};
    use crate::engine::testing::{answer, model, options, tensor, values};
    use crate::proto::onnx::tensor_proto::DataType;

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
        let refused = served_by("Relu", DataType::Bfloat16).unwrap_err();
        assert!(matches!(refused, EngineError::UnsupportedType { .. }), "{refused}");
        let refused = served_by("StringConcat", DataType::Float).unwrap_err().to_string();
        let why =
            "operator StringConcat y is not served: there is no row for it at opset 17, and tract does not have it";
        assert_eq!(refused, why);
    }

    #[test]
    fn operators_without_a_row_go_to_another_engine() {
        let value = |name: &str| value_free(name, DataType::Float, &["n", "2"]);
        let nodes = vec![node("Relu", &["x"], &["a"], vec![]), node("Gelu", &["a"], &["y"], vec![])];
        let model = model(vec![value("x")], nodes, vec![value("y")], vec![]);
        let plan = choose(model.clone(), &options()).unwrap();
        let parts = plan.parts();
        assert_eq!(parts.iter().map(|part| part.engine).collect::<Vec<_>>(), ["native", "tract"]);
        assert_eq!(parts[0].operators, [("Relu".to_owned(), 1)]);
        assert_eq!(parts[1].operators, [("Gelu".to_owned(), 1)]);
        let made = answer(plan, vec![tensor(&[1, 2], &[-1.0, 1.0])]).unwrap();
        assert!(values(&made[0]).iter().zip([0.0, 0.841_345]).all(|(got, expected)| (got - expected).abs() < 1e-3));
        let refused = choose(model, &LoadOptions { engine: EngineChoice::Native, ..options() }).unwrap_err();
        let why = "operator Gelu y is not served: there is no row for it at opset 17";
        assert_eq!(refused.to_string(), why);
    }

    #[test]
    fn engines_have_names() {
        assert_eq!(
            ["auto", "identity", "native", "gpu"].map(|name| by_name(name).is_some()),
            [true, true, true, false]
        );
    }
}
