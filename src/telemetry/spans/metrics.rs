//! Handles of the metrics of traces.

use prometheus::{IntCounter, IntCounterVec, Registry};

use crate::telemetry::catalogue;
use crate::telemetry::metrics::register;

/// What became of spans.
#[derive(Clone, Debug)]
pub struct SpanMetrics {
    pub sent: IntCounter,
    /// There was no room for them, or no time at the end.
    pub dropped: IntCounter,
    /// By the collector.
    pub refused: IntCounter,
}

impl SpanMetrics {
    pub(in crate::telemetry) fn new(registry: &Registry) -> Self {
        let family: IntCounterVec = register(registry, &catalogue::TRACE_SPANS, IntCounterVec::new);
        let result = |name| family.with_label_values(&[name]);
        Self { sent: result("sent"), dropped: result("dropped"), refused: result("refused") }
    }
}
