//! The outside of the process: its variables and the file. Nothing else in the server reads the environment.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::ConfigError;

/// The variables that are meant for this server, by name; a value that is not UTF-8 is `None`.
#[allow(clippy::disallowed_methods, reason = "this room is the one that reads the environment")]
pub(super) fn variables() -> Vec<(String, Option<String>)> {
    let mut variables: Vec<_> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .map(|(name, value): (String, OsString)| (name, value.into_string().ok()))
        .collect();
    variables.sort();
    variables
}

pub(super) fn read_file(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
}

/// The variable that sets a key: `KINGLET__ROOM__FIELD`. Two underscores, because fields contain one, and because
/// orchestrators set `KINGLET_PORT` and its like for a service of this name.
pub(super) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

pub(super) const PREFIX: &str = "KINGLET__";
