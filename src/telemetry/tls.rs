//! Handles of the metrics of TLS.

use prometheus::{IntCounter, IntGaugeVec, Registry};

use super::catalogue;
use super::metrics::register;

#[derive(Clone, Debug)]
pub struct TlsMetrics {
    /// Has no value while no certificate is served.
    not_after: IntGaugeVec,
    pub reloads_failed: IntCounter,
}

impl TlsMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            not_after: register(registry, &catalogue::TLS_NOT_AFTER, IntGaugeVec::new),
            reloads_failed: register(registry, &catalogue::TLS_RELOADS_FAILED, |opts, _| IntCounter::with_opts(opts)),
        }
    }

    /// Until when the certificate that is served holds, in seconds since 1970, where it can be read so far.
    pub fn ends(&self, at: Option<i64>) {
        match at {
            Some(at) => self.not_after.with_label_values::<&str>(&[]).set(at),
            None => self.not_after.reset(),
        }
    }
}
