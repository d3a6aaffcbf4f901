//! Settings of the repository room.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use crate::units::{ByteSize, Span};

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RepositoryConfig {
    pub paths: Vec<PathBuf>,
    pub control: Control,
    pub poll_interval: Span,
    pub settle_time: Span,
    pub load_at_start: Vec<String>,
    pub loads_max: usize,
    pub loads_waiting_max: usize,
    pub variants_max: usize,
    pub ensemble_steps_max: usize,
    pub temporary_path: PathBuf,
    pub model_name: String,
    pub start_with_failures: bool,
    pub pinned: Vec<String>,
    pub demand_bytes_max: ByteSize,
    pub demand_waiting_max: usize,
    pub demand_wait_max: Span,
}

/// Who decides what is loaded.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Control {
    None,
    Poll,
    Explicit,
    Demand,
}

/// As it is written in a configuration.
impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Poll => "poll",
            Self::Explicit => "explicit",
            Self::Demand => "demand",
        })
    }
}
