//! Handles of the metrics of shared memory.

use prometheus::{IntGauge, Registry};

use super::catalogue;
use super::metrics::register;

/// What is registered.
#[derive(Clone, Debug)]
pub struct SharedMemoryMetrics {
    regions: IntGauge,
    bytes: IntGauge,
}

impl SharedMemoryMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauge = |metric| register(registry, metric, |opts, _| IntGauge::with_opts(opts));
        Self { regions: gauge(&catalogue::SHARED_MEMORY_REGIONS), bytes: gauge(&catalogue::SHARED_MEMORY_BYTES) }
    }

    pub fn tell(&self, regions: usize, bytes: u64) {
        self.regions.set(i64::try_from(regions).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
