//! Settings of the admission room.

use serde::Deserialize;

use crate::units::{ByteSize, Span};

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct AdmissionConfig {
    pub requests_max: usize,
    pub bytes_max: ByteSize,
    pub receiving_bytes_max: ByteSize,
    pub leaving_bytes_max: ByteSize,
    pub retry_after: Span,
}
