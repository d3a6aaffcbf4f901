//! The trace extension on either wire: the settings of a model, or of all; changed where that is allowed.

use super::{Frontend, Refusal};
use crate::error::ErrorCode;
use crate::infer::ModelName;
use crate::repository::catalog::LookupError;
use crate::telemetry::spans::settings::{Change, TraceSettingError, TraceSettings};

/// A setting and its values as they came; no values take back what was set.
pub type Asked = (String, Vec<String>);

impl Frontend {
    /// An empty name stands for all models.
    ///
    /// # Errors
    /// When there is no such model.
    pub(super) fn trace_settings(&self, model: &str) -> Result<TraceSettings, Refusal> {
        Ok(self.metrics.sampling.settings(self.known(model)?.as_ref()))
    }

    /// Changes settings and gives all of them.
    ///
    /// # Errors
    /// When there is no such model, or a change is refused; then nothing is changed.
    pub(super) fn set_trace_settings(&self, model: &str, asked: &[Asked]) -> Result<TraceSettings, Refusal> {
        let known = self.known(model)?;
        let changes = asked.iter().map(|(name, values)| Change::read(name, values));
        let changes: Vec<Change> = changes.filter_map(Result::transpose).collect::<Result<_, _>>()?;
        let sampling = &self.metrics.sampling;
        if !changes.is_empty() {
            sampling.update(known.as_ref(), &changes)?;
            // It may have gone meanwhile, and would leave them behind.
            self.known(model).inspect_err(|_| sampling.forget_model(model))?;
            tracing::info!(model, ?changes, "trace settings were changed");
        }
        Ok(sampling.settings(known.as_ref()))
    }

    fn known(&self, model: &str) -> Result<Option<ModelName>, Refusal> {
        if model.is_empty() {
            return Ok(None);
        }
        let name: ModelName = model.parse()?;
        if !self.repository.catalog().models.contains_key(&name) {
            return Err(LookupError::UnknownModel(name).into());
        }
        Ok(Some(name))
    }
}

impl From<TraceSettingError> for Refusal {
    fn from(error: TraceSettingError) -> Self {
        let code = match error {
            TraceSettingError::Unknown { .. } | TraceSettingError::Wrong { .. } | TraceSettingError::NoCollector => {
                ErrorCode::InvalidArgument
            }
            TraceSettingError::Tensors | TraceSettingError::ReadOnly { .. } => ErrorCode::Unsupported,
            TraceSettingError::Closed => ErrorCode::PermissionDenied,
        };
        Self::new(code, error.to_string())
    }
}

pub const EXTENSION: &str = "trace";
