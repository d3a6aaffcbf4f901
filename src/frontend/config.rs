//! Settings of the front ends: where they listen and what one client may send.

use std::net::SocketAddr;

use serde::Deserialize;

use crate::units::{ByteSize, Span};

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ListenConfig {
    pub listen: SocketAddr,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    pub body_bytes_max: ByteSize,
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

/// Any body may inflate to this much, so that short repetitive ones are not refused by their ratio.
pub const INFLATE_FREE: u64 = 1 << 20;
