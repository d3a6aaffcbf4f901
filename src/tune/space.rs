//! The settings that are tried.

use std::sync::Arc;
use std::time::Duration;

use super::{Job, TuneError};
use crate::metering::costs::powers_of_two;
use crate::repository::variant::{Attachments, Presence};
use crate::repository::{ModelSettings, Variant};

/// How one build may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Which of the builds.
    pub(super) build: usize,
    pub(super) batch_size_max: usize,
    pub(super) queue_delay_max: Duration,
    /// Cores that one batch may use.
    pub(super) cores_max: usize,
}

impl Setting {
    /// For people.
    pub(super) fn told(&self, builds: &[Arc<Variant>]) -> String {
        let Self { build, batch_size_max, queue_delay_max, cores_max } = self;
        format!("{} batch {batch_size_max}, delay {queue_delay_max:?}, cores {cores_max}", name(&builds[*build]))
    }

    /// A build with these settings, a queue of its own, and nothing counted yet.
    pub(super) fn apply(&self, build: &Variant) -> Variant {
        let mut settings: ModelSettings = build.settings.clone();
        settings.batching.batch_size_max = self.batch_size_max;
        settings.batching.queue_delay_max = self.queue_delay_max;
        settings.batching.preferred.clear();
        settings.cores_max = self.cores_max;
        Variant {
            model: build.model.clone(),
            version: build.version,
            name: build.name.clone(),
            plan: Arc::clone(&build.plan),
            ensemble: None,
            signer: build.signer.clone(),
            signature: build.signature.clone(),
            settings,
            metrics: Arc::clone(&build.metrics),
            statistics: Arc::default(),
            profile: Arc::new(build.profile.again()),
            account: Arc::default(),
            attachments: Attachments::default(),
            presence: Presence::default(),
        }
    }
}

/// A build's name, for people.
pub(super) fn name(build: &Variant) -> &str {
    build.name.as_ref().map_or("(own)", |name| name.as_str())
}

/// Every batch size in powers of two, with delays that leave time to run, on one core and on all.
pub(super) fn settings(builds: &[Arc<Variant>], job: &Job, cores: usize) -> Result<Vec<Setting>, TuneError> {
    let times: Vec<Duration> = builds.iter().map(|build| single(build)).collect();
    let mut settings = Vec::new();
    for (build, variant) in builds.iter().enumerate().filter(|(build, _)| times[*build] <= job.p99) {
        for batch_size_max in powers_of_two(variant.batch_size_max().min(BATCH_MAX)) {
            let parts: &[u32] = if batch_size_max == 1 { &[] } else { &DELAYS };
            let delays = [Duration::ZERO].into_iter().chain(parts.iter().map(|part| job.p99 / *part));
            for queue_delay_max in delays.filter(|delay| *delay + times[build] <= job.p99) {
                let most = variant.settings.cores_max.min(cores);
                let mut on = vec![1, most];
                on.dedup();
                settings.extend(on.into_iter().map(|cores_max| Setting {
                    build,
                    batch_size_max,
                    queue_delay_max,
                    cores_max,
                }));
            }
        }
    }
    let fastest = times.into_iter().min().unwrap_or_default();
    if settings.is_empty() { Err(TuneError::TooSlow { p99: job.p99, fastest }) } else { Ok(settings) }
}

/// Requests a second: half of what a build does on all cores when each has one of its own.
pub(super) fn half_of_all(build: &Variant, cores: usize) -> f64 {
    cores as f64 / single(build).as_secs_f64().max(1e-6) / 2.0
}

fn single(build: &Variant) -> Duration {
    build.profile.costs(|costs| costs.wall_of(1)).unwrap_or_default()
}

/// Larger batches save little more on processors.
const BATCH_MAX: usize = 64;
/// Delays, as parts of the time that answers may take.
const DELAYS: [u32; 3] = [16, 8, 4];
