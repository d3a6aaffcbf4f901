//! Settings of the engine room.

use serde::Deserialize;

use crate::units::{ByteSize, Span};

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// 0 takes what the system allows this process.
    pub cores: usize,
    pub inline_time_max: Span,
    pub model_bytes_max: ByteSize,
    pub shape_plans_max: usize,
    pub warm_up_time_max: Span,
}
