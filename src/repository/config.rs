//! Settings of the repository room.

use std::path::PathBuf;

use serde::Deserialize;

use crate::units::Span;

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RepositoryConfig {
    pub paths: Vec<PathBuf>,
    pub control: Control,
    pub poll_interval: Span,
    pub settle_time: Span,
    pub load_at_start: Vec<String>,
    pub loads_max: usize,
    pub model_name: String,
    pub start_with_failures: bool,
}

/// Who decides what is loaded.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Control {
    None,
    Poll,
    Explicit,
}
