//! Handles of the metrics of the response cache: what it holds, and what came of looking answers up.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry};

use super::catalogue;
use super::metrics::{forget_in, register, register_histogram};
use crate::infer::CacheOutcome;

/// The families.
#[derive(Clone, Debug)]
pub struct CacheMetrics {
    pub bytes: IntGauge,
    pub bytes_max: IntGauge,
    pub entries: IntGauge,
    /// Entries that made room for others.
    pub evictions: IntCounter,
    lookups: IntCounterVec,
    duration: HistogramVec,
}

/// The handles of one build. There are none, and no series, of builds whose answers are not kept.
#[derive(Debug)]
pub struct LookupMetrics {
    outcomes: [IntCounter; CacheOutcome::ALL.len()],
    pub duration: Histogram,
}

impl CacheMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauge = |metric| register(registry, metric, |opts, _| IntGauge::with_opts(opts));
        Self {
            bytes: gauge(&catalogue::CACHE_BYTES),
            bytes_max: gauge(&catalogue::CACHE_BYTES_MAX),
            entries: gauge(&catalogue::CACHE_ENTRIES),
            evictions: register(registry, &catalogue::CACHE_EVICTIONS, |opts, _| IntCounter::with_opts(opts)),
            lookups: register(registry, &catalogue::CACHE_LOOKUPS, IntCounterVec::new),
            duration: register_histogram(registry, &catalogue::CACHE_LOOKUP_DURATION),
        }
    }

    pub fn build(&self, labels: [&str; 3]) -> LookupMetrics {
        let [model, version, variant] = labels;
        let counter =
            |outcome: CacheOutcome| self.lookups.with_label_values(&[model, version, variant, outcome.as_str()]);
        LookupMetrics { outcomes: CacheOutcome::ALL.map(counter), duration: self.duration.with_label_values(&labels) }
    }

    pub(super) fn forget_model(&self, model: &str) {
        forget_in(&self.lookups, model);
        forget_in(&self.duration, model);
    }
}

impl LookupMetrics {
    pub fn count(&self, outcome: CacheOutcome) {
        self.outcomes[outcome as usize].inc();
    }
}
