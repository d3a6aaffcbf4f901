//! In place of the tokenizers where they are not compiled in: no text step is served.

use std::path::Path;

use super::super::{Built, StepLimits};
use super::TextSettings;
use crate::engine::EngineError;

pub(in crate::engine::steps) fn build(_: &TextSettings, _: &Path, _: &StepLimits) -> Result<Built, EngineError> {
    Err(EngineError::InvalidStep("tokenizers are not part of this build".into()))
}
