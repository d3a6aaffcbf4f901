//! The model's manifest with the settings that were found.

use std::path::Path;

use toml::{Table, Value};

use super::TuneError;
use super::report::{Report, Row};

/// The text of a manifest: the model's own where it has one, without its comments, and what was found in it.
pub(super) fn with(model: &Path, best: &Row, report: &Report) -> Result<String, TuneError> {
    let path = model.join(FILE);
    let own = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            String::new()
        }
        Err(error) => return Err(unreadable(&path, &error)),
    };
    let mut table: Table = own.parse().map_err(|error| unreadable(&path, &error))?;
    match &best.variant {
        Some(name) => table.insert("variant".into(), Value::String(name.clone())),
        None => table.remove("variant"),
    };
    let rows = i64::try_from(best.batch_size_max).unwrap_or(i64::MAX);
    set(&mut table, "batching", "batch_size_max", Value::Integer(rows));
    set(&mut table, "batching", "queue_delay_max", Value::String(format!("{}us", best.queue_delay_us)));
    // Also above a `config.pbtxt` that prefers sizes: none was preferred when this was tried.
    set(&mut table, "batching", "preferred", Value::Array(Vec::new()));
    let cores = i64::try_from(best.cores_max).unwrap_or(i64::MAX);
    set(&mut table, "instances", "cores_max", Value::Integer(cores));
    Ok(format!("# By kinglet tune: {}\n{table}", report.found()))
}

fn set(table: &mut Table, section: &str, key: &str, value: Value) {
    let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(section) = section {
        section.insert(key.into(), value);
    }
}

fn unreadable(path: &Path, reason: &dyn std::fmt::Display) -> TuneError {
    TuneError::Manifest { path: path.display().to_string(), reason: reason.to_string() }
}

pub(super) const FILE: &str = "manifest.toml";
