//! Settings of the engine room.

use kinglet_kernels::isa::Set;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::pool::cores_available;
use crate::units::{ByteSize, Span};

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    pub arena_bytes_max: ByteSize,
    /// 0 takes what the system allows this process.
    pub cores: usize,
    pub image_bytes_max: ByteSize,
    pub image_pixels_max: usize,
    pub inline_time_max: Span,
    #[serde(deserialize_with = "instruction_set")]
    pub isa_max: Set,
    pub loop_rounds_max: u64,
    /// Whether native model files are mapped, or else copied.
    pub mapped: bool,
    pub model_bytes_max: ByteSize,
    pub shape_plans_max: usize,
    pub spin_time_max: Span,
    pub step_file_bytes_max: ByteSize,
    pub text_bytes_max: ByteSize,
    pub tuning_time_max: Span,
    pub warm_up_time_max: Span,
}

impl EngineConfig {
    /// How many threads compute.
    pub fn cores(&self) -> usize {
        if self.cores == 0 { cores_available() } else { self.cores }
    }
}

fn instruction_set<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Set, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}
