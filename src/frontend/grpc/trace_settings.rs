//! The trace extension: reads the settings of all models or of one, and changes those that a request names.

use crate::frontend::{Frontend, Refusal};
use crate::proto::inference::trace_setting_response::SettingValue;
use crate::proto::inference::{TraceSettingRequest, TraceSettingResponse};
use crate::telemetry::spans::settings::TraceValue;

/// # Errors
/// When there is no such model, or a change is refused.
pub(super) fn settings(frontend: &Frontend, request: TraceSettingRequest) -> Result<TraceSettingResponse, Refusal> {
    let TraceSettingRequest { settings, model_name } = request;
    let asked: Vec<_> = settings.into_iter().map(|(name, setting)| (name, setting.value)).collect();
    let told = frontend.set_trace_settings(&model_name, &asked)?;
    let value = |value| match value {
        TraceValue::Text(text) => SettingValue { value: vec![text] },
        TraceValue::List(value) => SettingValue { value },
    };
    let entries = told.entries().into_iter().map(|(name, setting)| (name.to_owned(), value(setting)));
    Ok(TraceSettingResponse { settings: entries.collect() })
}
