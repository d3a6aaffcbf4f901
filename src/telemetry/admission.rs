//! Handles of the refusals at the door.

use prometheus::{IntCounter, IntCounterVec};

/// Refusals at the door, by reason.
#[derive(Clone, Debug)]
pub struct AdmissionRefused {
    /// Too many requests in flight.
    pub requests: IntCounter,
    /// Too many bytes in flight.
    pub bytes: IntCounter,
    /// Too many bytes arriving, and too many of answers that nobody has taken.
    pub receiving: IntCounter,
    pub leaving: IntCounter,
}

impl AdmissionRefused {
    pub(super) fn of(family: &IntCounterVec) -> Self {
        let reason = |name| family.with_label_values(&[name]);
        let [requests, bytes, receiving, leaving] = ["requests", "bytes", "receiving", "leaving"].map(reason);
        Self { requests, bytes, receiving, leaving }
    }
}
