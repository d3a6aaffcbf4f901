//! Settings of the integrity room.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use crate::units::ByteSize;

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SignaturesConfig {
    pub policy: Policy,
    pub file: String,
    pub keys: Vec<PathBuf>,
    pub certificates: Vec<PathBuf>,
    pub identities: Vec<String>,
    pub expired: bool,
    pub names: bool,
    pub ignored: Vec<String>,
    pub bytes_max: ByteSize,
    pub resources_max: usize,
}

/// What becomes of a model that nobody vouches for.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Nothing is looked at.
    Off,
    /// It is served; the log says why it should not be.
    Warn,
    /// It is refused.
    Require,
}

/// As it is written in a configuration.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Warn => "warn",
            Self::Require => "require",
        })
    }
}
