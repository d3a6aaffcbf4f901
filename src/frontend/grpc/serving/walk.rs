//! Which model a call asks for, and its way through the pipeline.

use std::sync::Arc;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use crate::access::{Caller, Verb};
use crate::frontend::grpc::arrival;
use crate::frontend::{Frontend, Refusal, guard, parameters};
use crate::infer::{InferRequest, ModelName, Schedule, VersionId, Wanted};
use crate::pipeline::{Answer, Outcome};
use crate::proto::tensorflow::serving::ModelSpec;
use crate::proto::tensorflow::serving::model_spec::VersionChoice;
use crate::repository::Variant;
use crate::tensor::NamedTensor;

/// A model specification that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) model: ModelName,
    /// `None` lets the server choose.
    pub(super) version: Option<VersionId>,
    /// As it came: what it must be, each call says itself.
    pub(super) signature: String,
}

/// What runs, once it is decoded.
#[derive(Debug, Default)]
pub(super) struct Tensors {
    pub(super) inputs: Vec<NamedTensor>,
    /// Empty: all of them.
    pub(super) outputs: Vec<String>,
}

impl Asked {
    /// # Errors
    /// When there is no specification, its name or version cannot be one, the caller may not do that to the model, or it
    /// does not have its label.
    pub(super) async fn read(
        frontend: &Frontend,
        (caller, verb): (&Caller, Verb),
        spec: Option<ModelSpec>,
    ) -> Result<Self, Refusal> {
        let (mut asked, label) = Self::parse(spec)?;
        guard::check(caller, verb, asked.model.as_str())?;
        if let Some(label) = label {
            asked.version = Some(frontend.present(&asked.model, None).await?.labelled(&asked.model, &label)?);
        }
        Ok(asked)
    }

    /// With the label that is still to be looked for.
    fn parse(spec: Option<ModelSpec>) -> Result<(Self, Option<String>), Refusal> {
        let spec = spec.ok_or_else(|| Refusal::invalid("expected a model_spec, got none"))?;
        let model: ModelName = spec.name.parse()?;
        let (version, label) = match spec.version_choice {
            None => (None, None),
            Some(VersionChoice::Version(number)) => {
                let version = u64::try_from(number);
                let wrong = |_| Refusal::invalid(format!("model_spec expects a version of at least 0, got {number}"));
                (Some(VersionId(version.map_err(wrong)?)), None)
            }
            Some(VersionChoice::VersionLabel(label)) => (None, Some(label)),
        };
        Ok((Self { model, version, signature: spec.signature_name }, label))
    }

    /// Whether it asks for the signature that every model has.
    pub(super) fn names_our_signature(&self) -> bool {
        self.signature.is_empty() || self.signature == SIGNATURE
    }

    /// What is told of a signature that no model has.
    pub(super) fn no_signature(&self) -> Refusal {
        let Self { model, signature, .. } = self;
        Refusal::invalid(format!(
            "model {model:?} has the signature {SIGNATURE:?}, expected it or none, got {signature:?}"
        ))
    }

    /// The version's own build. The call counts for it from here on.
    pub(super) async fn find(&self, frontend: &Frontend, outcome: &mut Outcome) -> Result<Arc<Variant>, Refusal> {
        let variant = frontend.own_build(&self.model, self.version, None).await?;
        outcome.found(&variant);
        Ok(variant)
    }
}

/// From decoded tensors to an answer's, within what the call's metadata allows. `at` is when its message was whole.
pub(super) async fn walk(
    frontend: &Frontend,
    metadata: &MetadataMap,
    (asked, Tensors { inputs, outputs }): (Asked, Tensors),
    at: Instant,
    outcome: &mut Outcome,
) -> Result<Answer, Refusal> {
    let deadline = arrival::deadline(metadata, outcome.began())?;
    let request = InferRequest {
        model: asked.model,
        version: asked.version,
        variant: Wanted::Any,
        budget: parameters::budget(metadata.as_ref())?,
        id: None,
        inputs,
        outputs,
        schedule: Schedule { deadline, ..Schedule::default() },
        received_at: at,
        decode: at.elapsed(),
    };
    frontend.pipeline.infer(request, None, outcome).await.map_err(|error| frontend.refusal(&error))
}

/// The specification of what has answered.
pub(super) fn answered_by(variant: &Variant) -> ModelSpec {
    ModelSpec {
        name: variant.model.to_string(),
        version_choice: Some(VersionChoice::Version(i64::try_from(variant.version.0).unwrap_or(i64::MAX))),
        signature_name: SIGNATURE.to_owned(),
    }
}

pub(super) const SIGNATURE: &str = "serving_default";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: Option<ModelSpec>, expected: Result<(&str, Option<u64>), &str>) {
        let got = Asked::parse(spec).map_err(|refusal| refusal.message);
        let got = got.as_ref().map(|(asked, _)| (asked.model.as_str(), asked.version.map(|version| version.0)));
        assert_eq!(got.map_err(String::as_str), expected);
    }

    #[test]
    fn a_specification_names_model_and_version() {
        let spec = |name: &str, version_choice| {
            Some(ModelSpec { name: name.into(), version_choice, signature_name: String::new() })
        };
        check(spec("m", None), Ok(("m", None)));
        check(spec("m", Some(VersionChoice::Version(3))), Ok(("m", Some(3))));
        check(None, Err("expected a model_spec, got none"));
        let negative = "model_spec expects a version of at least 0, got -1";
        check(spec("m", Some(VersionChoice::Version(-1))), Err(negative));
        let labelled = Asked::parse(spec("m", Some(VersionChoice::VersionLabel("stable".into()))));
        assert_eq!(labelled.unwrap().1.as_deref(), Some("stable"));
        assert!(Asked::parse(spec("", None)).is_err() && Asked::parse(spec("../m", None)).is_err());
    }

    #[test]
    fn a_model_has_one_signature() {
        let asked = |signature: &str| Asked { model: "m".parse().unwrap(), version: None, signature: signature.into() };
        assert!(asked("").names_our_signature() && asked(SIGNATURE).names_our_signature());
        assert!(!asked("classify").names_our_signature());
        let told = "model \"m\" has the signature \"serving_default\", expected it or none, got \"classify\"";
        assert_eq!(asked("classify").no_signature().message, told);
    }
}
