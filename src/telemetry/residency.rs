//! Handles of the metrics of models that load on demand. No series before a server does that.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec, Registry};

use super::catalogue;
use super::metrics::{register, register_histogram};

#[derive(Clone, Debug)]
pub struct ResidencyMetrics {
    loaded: IntGaugeVec,
    bytes: IntGaugeVec,
    bytes_max: IntGaugeVec,
    evictions: IntCounterVec,
    waits: HistogramVec,
    refused: IntCounterVec,
}

impl ResidencyMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            loaded: register(registry, &catalogue::RESIDENT_MODELS, IntGaugeVec::new),
            bytes: register(registry, &catalogue::RESIDENT_BYTES, IntGaugeVec::new),
            bytes_max: register(registry, &catalogue::RESIDENT_BYTES_MAX, IntGaugeVec::new),
            evictions: register(registry, &catalogue::EVICTIONS, IntCounterVec::new),
            waits: register_histogram(registry, &catalogue::LOAD_WAIT),
            refused: register(registry, &catalogue::LOAD_WAIT_REFUSED, IntCounterVec::new),
        }
    }

    /// What is in memory now.
    pub fn tell(&self, models: usize, bytes: u64, bytes_max: u64) {
        self.loaded.with_label_values(NONE).set(i64::try_from(models).unwrap_or(i64::MAX));
        self.bytes.with_label_values(NONE).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.bytes_max.with_label_values(NONE).set(i64::try_from(bytes_max).unwrap_or(i64::MAX));
        // It begins with the others.
        self.evictions.with_label_values(NONE);
    }

    pub fn evicted(&self) {
        self.evictions.with_label_values(NONE).inc();
    }

    /// A request has waited for its model, and has it.
    pub fn waited(&self, time: Duration) {
        self.waits.with_label_values(NONE).observe(time.as_secs_f64());
    }

    /// A request has not got its model.
    pub fn refused(&self, reason: &'static str) {
        self.refused.with_label_values(&[reason]).inc();
    }
}

const NONE: &[&str] = &[];
