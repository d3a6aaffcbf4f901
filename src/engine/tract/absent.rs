//! In place of the adapter where it is not compiled in: no operator has a program.

use std::sync::Arc;

use super::graph::foreign::Program;
use crate::engine::LoadOptions;
use crate::proto::onnx::ModelProto;

#[derive(Clone, Debug)]
pub(super) struct Settings;

impl Settings {
    pub(super) fn of(_options: &LoadOptions) -> Self {
        Self
    }
}

pub(super) fn program(_model: &ModelProto, _settings: Settings) -> Result<Arc<dyn Program>, String> {
    Err("tract is not part of this build".into())
}
