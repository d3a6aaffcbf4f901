//! What is told of callers that were not let: a count of all, and a line in the audit log for as many as a log can take.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use super::caller::Denied;
use super::quota::{Allowance, Spent};
use crate::telemetry::AccessMetrics;

#[derive(Debug)]
pub(super) struct Audit {
    metrics: AccessMetrics,
    /// Whoever is refused chooses how often.
    told: Allowance,
}

/// A call as its head has it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub peer: Option<SocketAddr>,
}

impl Audit {
    pub(super) fn new(metrics: AccessMetrics) -> Self {
        let told = Allowance::new(TOLD_PER_SECOND, Duration::from_secs(1), Spent::nothing(Instant::now()));
        Self { metrics, told }
    }

    /// `call` where it is known; else the message has said what was wrong.
    pub(super) fn refused(&self, denied: &Denied, call: Option<Call<'_>>) {
        self.metrics.refused(denied.reason());
        if self.told.take(Instant::now(), 1.0).is_ok() {
            let (method, path) = (call.map(|call| call.method.as_str()), call.map(|call| call.path));
            let peer = call.and_then(|call| call.peer).map(tracing::field::display);
            tracing::info!(target: AUDIT, reason = denied.reason(), error = %denied, method, path, peer, "call refused");
        }
    }
}

/// The target of events that say who changed what, and who was not let.
pub const AUDIT: &str = "kinglet::audit";
/// Lines a second.
const TOLD_PER_SECOND: f64 = 10.0;
