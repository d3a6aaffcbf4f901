//! The logging extension: reads the settings, and changes those that a request names.

use crate::frontend::Refusal;
use crate::proto::inference::{LogSettingsRequest, LogSettingsResponse, log_settings_request, log_settings_response};
use crate::telemetry::logs::{LogValue, Logs};

/// # Errors
/// When a setting is unknown, has the wrong type, or cannot be changed over the network.
pub(super) fn settings(logs: &Logs, request: LogSettingsRequest) -> Result<LogSettingsResponse, Refusal> {
    use log_settings_request::setting_value::ParameterChoice;
    let changes = request.settings.into_iter().filter_map(|(name, setting)| {
        // A setting without a value is one that is only read.
        let value = match setting.parameter_choice? {
            ParameterChoice::BoolParam(flag) => LogValue::Flag(flag),
            ParameterChoice::Uint32Param(number) => LogValue::Number(i64::from(number)),
            ParameterChoice::StringParam(text) => LogValue::Text(text),
        };
        Some((name, value))
    });
    let changes: Vec<_> = changes.collect();
    let settings = if changes.is_empty() {
        logs.settings()
    } else {
        logs.update(changes).map_err(|error| Refusal::invalid(error.to_string()))?
    };
    let told = settings.entries().into_iter().map(|(name, value)| (name.to_owned(), told(value)));
    Ok(LogSettingsResponse { settings: told.collect() })
}

fn told(value: LogValue) -> log_settings_response::SettingValue {
    use log_settings_response::setting_value::ParameterChoice;
    let choice = match value {
        LogValue::Flag(flag) => ParameterChoice::BoolParam(flag),
        LogValue::Number(number) => ParameterChoice::Uint32Param(u32::try_from(number).unwrap_or(u32::MAX)),
        LogValue::Text(text) => ParameterChoice::StringParam(text),
    };
    log_settings_response::SettingValue { parameter_choice: Some(choice) }
}

#[cfg(test)]
mod tests {
    use super::log_settings_request::SettingValue;
    use super::log_settings_request::setting_value::ParameterChoice;
    use super::*;
    use crate::telemetry::config::LogLevel;

    fn asked(name: &str, choice: ParameterChoice) -> LogSettingsRequest {
        let setting = SettingValue { parameter_choice: Some(choice) };
        LogSettingsRequest { settings: [(name.to_owned(), setting)].into() }
    }

    #[test]
    fn settings_are_read_and_changed() {
        let logs = Logs::new(LogLevel::Info);
        let answer = settings(&logs, asked("log_verbose_level", ParameterChoice::Uint32Param(2))).unwrap();
        assert_eq!(answer.settings["log_verbose_level"], told(LogValue::Number(2)));
        let read = settings(&logs, LogSettingsRequest::default()).unwrap();
        assert_eq!(read, answer);
        assert_eq!(read.settings.len(), 6);
        let refused = settings(&logs, asked("log_file", ParameterChoice::StringParam("/tmp/x".into()))).unwrap_err();
        assert!(refused.message.contains("log_file"), "{refused}");
    }
}
