//! The settings of the logs, as the protocol's logging extension names them. Knows neither wire nor subscriber.

use std::fmt;

use tracing::Level;

use crate::telemetry::config::LogLevel;

/// What the protocol's logging extension shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    pub errors: bool,
    pub warnings: bool,
    pub messages: bool,
    /// 0: none; 1: debug; 2: trace; from 3 on also what the libraries underneath say at these levels.
    pub verbose_level: u32,
    pub stamp: Stamp,
}

/// How an event's time is written, always in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// To the microsecond: `2026-01-31T12:00:00.123456Z`.
    Default,
    /// To the second, as other servers of this protocol write it: `2026-01-31T12:00:00Z`.
    Iso8601,
}

/// A setting's value on either wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogValue {
    Flag(bool),
    Number(i64),
    Text(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogSettingError {
    #[error("unknown log setting {name:?}, expected one of {}", NAMES.join(", "))]
    Unknown { name: String },
    #[error("expected {expected} for {name}, got {got}")]
    Mistyped { name: &'static str, expected: &'static str, got: LogValue },
    #[error("expected log_file to stay empty, got {got:?}; where logs go cannot be set over the network")]
    FileReadOnly { got: String },
}

impl LogSettings {
    /// Every setting by its name in the protocol.
    pub fn entries(&self) -> [(&'static str, LogValue); 6] {
        let stamp = match self.stamp {
            Stamp::Default => "default",
            Stamp::Iso8601 => "ISO8601",
        };
        [
            (LOG_FILE, LogValue::Text(String::new())),
            (LOG_INFO, LogValue::Flag(self.messages)),
            (LOG_WARNING, LogValue::Flag(self.warnings)),
            (LOG_ERROR, LogValue::Flag(self.errors)),
            (LOG_VERBOSE_LEVEL, LogValue::Number(i64::from(self.verbose_level))),
            (LOG_FORMAT, LogValue::Text(stamp.to_owned())),
        ]
    }

    pub(super) fn of_level(level: LogLevel) -> Self {
        let verbose_level = match level {
            LogLevel::Error | LogLevel::Warn | LogLevel::Info => 0,
            LogLevel::Debug => 1,
            LogLevel::Trace => 2,
        };
        Self {
            errors: true,
            warnings: !matches!(level, LogLevel::Error),
            messages: !matches!(level, LogLevel::Error | LogLevel::Warn),
            verbose_level,
            stamp: Stamp::Default,
        }
    }

    pub(super) fn set(&mut self, name: &str, value: LogValue) -> Result<(), LogSettingError> {
        let mistyped = |name, expected, got| Err(LogSettingError::Mistyped { name, expected, got });
        match (name, value) {
            (LOG_INFO, LogValue::Flag(on)) => self.messages = on,
            (LOG_WARNING, LogValue::Flag(on)) => self.warnings = on,
            (LOG_ERROR, LogValue::Flag(on)) => self.errors = on,
            (LOG_INFO, got) => return mistyped(LOG_INFO, "true or false", got),
            (LOG_WARNING, got) => return mistyped(LOG_WARNING, "true or false", got),
            (LOG_ERROR, got) => return mistyped(LOG_ERROR, "true or false", got),
            (LOG_VERBOSE_LEVEL, LogValue::Number(level)) => match u32::try_from(level) {
                Ok(level) => self.verbose_level = level,
                Err(_) => return mistyped(LOG_VERBOSE_LEVEL, VERBOSE_LEVELS, LogValue::Number(level)),
            },
            (LOG_VERBOSE_LEVEL, got) => return mistyped(LOG_VERBOSE_LEVEL, VERBOSE_LEVELS, got),
            (LOG_FORMAT, LogValue::Text(text)) if text == "default" => self.stamp = Stamp::Default,
            (LOG_FORMAT, LogValue::Text(text)) if text == "ISO8601" => self.stamp = Stamp::Iso8601,
            (LOG_FORMAT, got) => return mistyped(LOG_FORMAT, "\"default\" or \"ISO8601\"", got),
            // Clients send back what they read.
            (LOG_FILE, LogValue::Text(file)) if file.is_empty() => {}
            (LOG_FILE, got) => return Err(LogSettingError::FileReadOnly { got: got.to_string() }),
            (name, _) => return Err(LogSettingError::Unknown { name: name.to_owned() }),
        }
        Ok(())
    }

    pub(super) fn wants(&self, level: Level, ours: bool) -> bool {
        match level {
            Level::ERROR => self.errors,
            Level::WARN => self.warnings,
            Level::INFO => self.messages,
            Level::DEBUG => self.verbose_level >= if ours { 1 } else { LIBRARIES },
            _ => self.verbose_level >= if ours { 2 } else { LIBRARIES },
        }
    }
}

impl fmt::Display for LogValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(on) => write!(f, "{on}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

const LOG_FILE: &str = "log_file";
const LOG_INFO: &str = "log_info";
const LOG_WARNING: &str = "log_warning";
const LOG_ERROR: &str = "log_error";
const LOG_VERBOSE_LEVEL: &str = "log_verbose_level";
const LOG_FORMAT: &str = "log_format";
const NAMES: [&str; 6] = [LOG_FILE, LOG_INFO, LOG_WARNING, LOG_ERROR, LOG_VERBOSE_LEVEL, LOG_FORMAT];
const VERBOSE_LEVELS: &str = "a whole number from 0 to 4294967295";
/// The verbose level from which the libraries underneath are heard: HTTP/2 alone says dozens of lines a request.
const LIBRARIES: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::logs::Logs;

    #[test]
    fn an_update_is_whole_or_nothing() {
        let logs = Logs::new(LogLevel::Info);
        let before = logs.settings();
        let text = |text: &str| LogValue::Text(text.to_owned());
        for (name, value, says) in [
            ("log_file", text("/etc/passwd"), "cannot be set over the network"),
            ("log_info", LogValue::Number(1), "expected true or false for log_info, got 1"),
            ("log_error", text("true"), "expected true or false for log_error, got \"true\""),
            ("log_verbose_level", LogValue::Number(-1), "expected a whole number from 0 to 4294967295"),
            ("log_verbose_level", LogValue::Flag(true), "got true"),
            ("log_format", text("iso"), "expected \"default\" or \"ISO8601\" for log_format, got \"iso\""),
            ("log_colour\n", LogValue::Flag(true), "unknown log setting \"log_colour\\n\", expected one of log_file"),
        ] {
            let changes = [("log_warning", LogValue::Flag(false)), (name, value)];
            let error = logs.update(changes).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            assert_eq!(logs.settings(), before, "{name}");
        }
        let all = before.entries();
        assert_eq!(logs.update(all.clone()).unwrap(), before, "what was read can be sent back");
        assert_eq!(all.map(|(name, _)| name), NAMES);
    }
}
