//! The outside of the process: its variables and the file. Nothing else in the server reads the environment.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::ConfigError;

/// The variables that are meant for this server, by name; a value that is not UTF-8 is `None`. An empty one that others define
/// is none, as OpenTelemetry's specification has it.
#[allow(clippy::disallowed_methods, reason = "this room is the one that reads the environment")]
pub(super) fn variables() -> Vec<(String, Option<String>)> {
    let mut variables: Vec<_> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, value)| name.starts_with(PREFIX) || key_of_standard(name).is_some() && !value.is_empty())
        .map(|(name, value): (String, OsString)| (name, value.into_string().ok()))
        .collect();
    variables.sort();
    variables
}

/// The configuration file of a process that was given none, where an image or a unit names it. An empty name is none.
#[allow(clippy::disallowed_methods, reason = "this room is the one that reads the environment")]
pub(super) fn file() -> Option<PathBuf> {
    std::env::var_os(FILE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

pub(super) fn read_file(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
}

/// The variable that sets a key: `KINGLET__ROOM__FIELD`. Two underscores, because fields contain one, and because
/// orchestrators set `KINGLET_PORT` and its like for a service of this name.
pub(super) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// The key that a variable which others define sets, where it is one that is known here.
pub(super) fn key_of_standard(variable: &str) -> Option<&'static str> {
    STANDARD.iter().find(|(name, _)| *name == variable).map(|(_, key)| *key)
}

/// The variable that others define and that sets a key.
pub(super) fn standard_of(key: &str) -> Option<&'static str> {
    STANDARD.iter().find(|(_, known)| *known == key).map(|(name, _)| *name)
}

pub(super) const PREFIX: &str = "KINGLET__";
const FILE: &str = "KINGLET_CONFIG";
/// Of OpenTelemetry and Vertex AI. Ours go before them.
const STANDARD: &[(&str, &str)] = &[
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "tracing.endpoint"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "tracing.protocol"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "tracing.headers"),
    ("OTEL_SERVICE_NAME", "tracing.service_name"),
    ("OTEL_RESOURCE_ATTRIBUTES", "tracing.resource_attributes"),
    ("AIP_HEALTH_ROUTE", "dialects.vertex_health_route"),
    ("AIP_PREDICT_ROUTE", "dialects.vertex_predict_route"),
];
