//! Handles of the metrics of plans, which count before anybody may read them: a name that never serves must leave no series.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{Counter, CounterVec, IntCounter, IntCounterVec, Opts, Registry};

use super::catalogue::{self, Metric};
use super::metrics::{forget_in, register};

/// The families of plans.
#[derive(Debug)]
pub(super) struct PlanFamilies {
    builds: IntCounterVec,
    seconds: CounterVec,
}

/// What an engine tells of one version while it loads and serves. Until it is exported it is read by nobody.
#[derive(Clone)]
pub struct PlanMetrics {
    own: PlanCounters,
    exported: Arc<OnceLock<PlanCounters>>,
}

#[derive(Clone)]
struct PlanCounters {
    builds: IntCounter,
    seconds: Counter,
}

impl PlanFamilies {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            builds: register(registry, &catalogue::PLAN_BUILDS, IntCounterVec::new),
            seconds: register(registry, &catalogue::PLAN_BUILD_SECONDS, CounterVec::new),
        }
    }

    pub(super) fn export(&self, plans: &PlanMetrics, labels: [&str; 3]) {
        let exported = PlanCounters {
            builds: self.builds.with_label_values(&labels),
            seconds: self.seconds.with_label_values(&labels),
        };
        exported.builds.inc_by(plans.own.builds.get());
        exported.seconds.inc_by(plans.own.seconds.get());
        // A second export would be a second life of the same plans.
        let _ = plans.exported.set(exported);
    }

    pub(super) fn forget_model(&self, model: &str) {
        forget_in(&self.builds, model);
        forget_in(&self.seconds, model);
    }
}

impl PlanMetrics {
    pub fn count_build(&self, took: Duration) {
        let counters = self.counters();
        counters.builds.inc();
        counters.seconds.inc_by(took.as_secs_f64());
    }

    /// Builds so far.
    pub fn builds(&self) -> u64 {
        self.counters().builds.get()
    }

    /// The time they took.
    pub fn seconds(&self) -> f64 {
        self.counters().seconds.get()
    }

    fn counters(&self) -> &PlanCounters {
        self.exported.get().unwrap_or(&self.own)
    }
}

impl Default for PlanMetrics {
    fn default() -> Self {
        let counter = |metric: &Metric| Opts::new(metric.name, metric.help);
        let own = PlanCounters {
            builds: IntCounter::with_opts(counter(&catalogue::PLAN_BUILDS)).expect("the catalogue's names are valid"),
            seconds: Counter::with_opts(counter(&catalogue::PLAN_BUILD_SECONDS)).expect("and so is this one"),
        };
        Self { own, exported: Arc::default() }
    }
}

impl fmt::Debug for PlanMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlanMetrics").field("builds", &self.builds()).finish_non_exhaustive()
    }
}
