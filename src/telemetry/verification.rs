//! Handles of the metrics of signatures and digests. No series before a model is held against some.

use std::time::Duration;

use prometheus::{CounterVec, IntCounterVec, Registry};

use super::catalogue;
use super::metrics::register;

#[derive(Clone, Debug)]
pub struct VerificationMetrics {
    outcomes: IntCounterVec,
    bytes: IntCounterVec,
    seconds: CounterVec,
}

impl VerificationMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            outcomes: register(registry, &catalogue::MODEL_VERIFICATIONS, IntCounterVec::new),
            bytes: register(registry, &catalogue::MODEL_VERIFICATION_BYTES, IntCounterVec::new),
            seconds: register(registry, &catalogue::MODEL_VERIFICATION_TIME, CounterVec::new),
        }
    }

    /// A build was held against what vouches for it.
    pub fn ended(&self, outcome: &'static str) {
        self.outcomes.with_label_values(&[outcome]).inc();
    }

    /// Files were read and their digests taken.
    pub fn read(&self, bytes: u64, time: Duration) {
        self.bytes.with_label_values(NONE).inc_by(bytes);
        self.seconds.with_label_values(NONE).inc_by(time.as_secs_f64());
    }
}

const NONE: &[&str] = &[];
