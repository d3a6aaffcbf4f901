//! Handles of the metrics of who calls: what tenants take, and who was refused.

use prometheus::{Counter, CounterVec, IntCounter, IntCounterVec, Registry};

use super::catalogue;
use super::metrics::register;

/// The families.
#[derive(Clone, Debug)]
pub struct AccessMetrics {
    refused: IntCounterVec,
    pub reloads_failed: IntCounter,
    requests: IntCounterVec,
    rows: CounterVec,
    joules: CounterVec,
}

/// The handles of one tenant.
#[derive(Clone, Debug)]
pub struct TenantMetrics {
    pub requests: IntCounter,
    pub rows: Counter,
    pub joules: Counter,
}

impl AccessMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            refused: register(registry, &catalogue::ACCESS_REFUSED, IntCounterVec::new),
            reloads_failed: register(registry, &catalogue::ACCESS_RELOADS_FAILED, |opts, _| {
                IntCounter::with_opts(opts)
            }),
            requests: register(registry, &catalogue::TENANT_REQUESTS, IntCounterVec::new),
            rows: register(registry, &catalogue::TENANT_ROWS, CounterVec::new),
            joules: register(registry, &catalogue::TENANT_ENERGY, CounterVec::new),
        }
    }

    /// Families that belong to no server.
    pub fn apart() -> Self {
        Self::new(&Registry::new())
    }

    /// `reason` is one of a closed set.
    pub fn refused(&self, reason: &'static str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    pub fn tenant(&self, name: &str) -> TenantMetrics {
        TenantMetrics {
            requests: self.requests.with_label_values(&[name]),
            rows: self.rows.with_label_values(&[name]),
            joules: self.joules.with_label_values(&[name]),
        }
    }

    /// Takes the series of a tenant away that is there no longer.
    pub fn forget(&self, name: &str) {
        // Absent already is what was wanted.
        let _ = self.requests.remove_label_values(&[name]);
        let _ = self.rows.remove_label_values(&[name]);
        let _ = self.joules.remove_label_values(&[name]);
    }
}
