//! In place of the tokenizers where they are not compiled in: no text step is served.

use super::super::{Built, StepLimits};
use super::TextSettings;
use crate::engine::EngineError;
use crate::engine::sealed::Within;

pub(in crate::engine::steps) fn build(_: &TextSettings, _: Within<'_>, _: &StepLimits) -> Result<Built, EngineError> {
    Err(EngineError::InvalidStep("tokenizers are not part of this build".into()))
}
