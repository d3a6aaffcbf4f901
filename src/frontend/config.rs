//! Settings of the front ends: where they listen, which pages may ask them and what one client may send.

use serde::Deserialize;

use super::address::{Address, Mode};
use super::cors::Origin;
use crate::units::{ByteSize, Span};

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    pub listen: Address,
    pub socket_mode: Mode,
    /// Whether `/openapi.json` and the page at `/docs/` are served.
    pub docs: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct GrpcConfig {
    pub listen: Address,
    pub socket_mode: Mode,
    /// Whether gRPC-Web is spoken too.
    pub web: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    pub listen: Address,
    pub socket_mode: Mode,
    /// Whether the page at `/ui/` is served, and inference for it.
    pub ui: bool,
    /// Whether `/openapi.json` and the page at `/docs/` are served.
    pub docs: bool,
    pub browser_hosts: Vec<String>,
    /// Whether metrics stand under Triton's names too.
    pub triton_metrics: bool,
}

/// Pages of other sites whose scripts may ask the REST and gRPC listeners.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct CorsConfig {
    pub origins: Vec<Origin>,
}

/// Other words for inference than the Open Inference Protocol's, over REST.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct DialectsConfig {
    /// Whether TensorFlow Serving's and KServe's v1 is served.
    pub v1: bool,
    pub inputs_as: InputsAs,
    /// Of calls whose path names none; empty for the only one that there is.
    pub default_model: String,
    pub sagemaker: bool,
    /// Models that are loaded may take this when another is asked for; zero sets no bound.
    pub sagemaker_memory_max: ByteSize,
    pub vertex: bool,
    pub vertex_health_route: String,
    pub vertex_predict_route: String,
}

impl DialectsConfig {
    /// Whether a path is that of predictions which Vertex AI has chosen.
    pub fn is_vertex_prediction(&self, path: &str) -> bool {
        self.vertex && path == self.vertex_predict_route
    }
}

/// What an array of `inputs` is in v1.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum InputsAs {
    /// The value of the only input, as TensorFlow Serving has it.
    Columns,
    /// What `instances` is, as KServe has it.
    Rows,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    pub body_bytes_max: ByteSize,
    pub control_bytes_max: ByteSize,
    pub inflate_ratio_max: u64,
    pub tensors_max: usize,
    pub rank_max: usize,
    pub parameters_max: usize,
    pub json_depth_max: usize,
    pub header_bytes_max: ByteSize,
    pub headers_max: usize,
    pub header_timeout: Span,
    pub body_timeout: Span,
    pub body_rate_min: ByteSize,
    pub body_rate_window: Span,
    pub idle_timeout: Span,
    pub write_timeout: Span,
    pub connections_max: usize,
    pub http2_streams_max: u32,
    pub http2_resets_max: usize,
    pub http2_keepalive_interval: Span,
    pub http2_keepalive_timeout: Span,
    pub stream_in_flight_max: usize,
}

impl LimitsConfig {
    /// The same for a control call without files: its body is smaller.
    pub fn of_control(&self) -> Self {
        Self { body_bytes_max: self.control_bytes_max.min(self.body_bytes_max), ..self.clone() }
    }
}
