//! Settings of the metering room.

use std::path::PathBuf;

use serde::Deserialize;

use crate::units::Span;

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct MeteringConfig {
    pub source: SourceChoice,
    pub powercap_path: PathBuf,
    pub hwmon_path: PathBuf,
    /// Empty for none.
    pub file_path: PathBuf,
    pub window: Span,
    /// 0 for the least that was observed.
    pub idle_watts: f64,
    pub model_coefficients: String,
    pub model_idle_watts: f64,
    pub model_max_watts: f64,
    pub reply_headers: bool,
    pub reply_parameters: bool,
    pub quantum_microjoules: u64,
    /// Grams per kWh; 0 for unknown.
    pub carbon_intensity: f64,
    /// Empty for none.
    pub carbon_intensity_path: PathBuf,
    /// Grams; 0 for unknown.
    pub carbon_embodied: f64,
    pub carbon_lifetime: Span,
}

/// Where energy is read from.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SourceChoice {
    Auto,
    Powercap,
    Perf,
    Hwmon,
    File,
    Model,
    None,
}
