//! From a request to the build that answers it: candidates with what they will cost now, the rule, and the power that is left.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::config::BudgetsConfig;
use super::governor::{Cause, Governor, Limits, STAGES, Seen, Setting};
use super::ledger::{Demand, Ledger};
use super::variant_rule::{self, Candidate, Stage};
use super::{RouteError, Unmet};
use crate::engine::pool::lock;
use crate::infer::{Budget, InferRequest, VariantReason};
use crate::metering::Latest;
use crate::repository::Variant;
use crate::telemetry::budgets::BudgetMetrics;
use crate::units::Nanojoules;

/// What holds for every request of this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// How long a request waits for a core.
    pub wait: Duration,
    /// What a CPU second takes beyond idling, where that is known.
    pub per_cpu_second: Option<Nanojoules>,
}

/// The build that answers, and why it and no other.
#[derive(Clone, Debug)]
pub struct Choice {
    pub variant: Arc<Variant>,
    /// Nothing where there was no other.
    pub reason: Option<VariantReason>,
    /// What it would take, where power is limited.
    pub(super) wants: Option<Wants>,
}

/// Joules that a request may take. Given back when it is dropped before it ran.
#[derive(Debug)]
pub struct Grant {
    choosing: Arc<Choosing>,
    joules: f64,
}

/// Joules of a request at every stage, and the stage that holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Wants {
    joules: [f64; STAGES],
    stage: usize,
}

/// What the server goes by now where requests leave a choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// "accuracy", "balanced", "eco" or "cheapest".
    pub stage: &'static str,
    /// Why that one: "mode", "`power_cap`" or "carbon".
    pub cause: &'static str,
    pub power_watts_max: Option<f64>,
    /// What batches may take, at the stage at which requests are refused for more.
    pub allowance_watts: Option<f64>,
}

/// The state that choices depend on.
#[derive(Debug)]
pub(super) struct Choosing {
    config: ArcSwap<BudgetsConfig>,
    setting: ArcSwap<Setting>,
    governor: Mutex<Governor>,
    ledger: Mutex<Ledger>,
    metrics: BudgetMetrics,
}

impl Choosing {
    pub(super) fn new(config: BudgetsConfig, metrics: BudgetMetrics) -> Self {
        let choosing = Self {
            config: ArcSwap::from_pointee(config.clone()),
            setting: ArcSwap::default(),
            governor: Mutex::default(),
            ledger: Mutex::new(Ledger::new(Instant::now())),
            metrics,
        };
        choosing.configure(config);
        choosing
    }

    pub(super) fn configure(&self, config: BudgetsConfig) {
        let mut governor = lock(&self.governor);
        let (watts_max, intensity_max) = (config.watts_max(), config.intensity_max());
        let setting = governor.limit(Limits { mode: config.mode.stage(), watts_max, intensity_max });
        self.config.store(Arc::new(config));
        self.metrics.limit(watts_max);
        self.apply(setting);
    }

    /// Takes a window that has just ended.
    pub(super) fn settle(&self, latest: &Latest) {
        let Demand { wanted, granted, span } = lock(&self.ledger).settle(Instant::now());
        let span = span.as_secs_f64().max(SPAN_MIN);
        let watts = |energy: Nanojoules| energy.as_joules() / latest.span.as_secs_f64().max(SPAN_MIN);
        let seen = Seen {
            elsewhere: watts(latest.idle) + watts(latest.other),
            overhead: watts(latest.overhead),
            attributed: watts(latest.attributed),
            wanted: wanted.map(|joules| joules / span),
            granted: granted / span,
            intensity: latest.intensity,
        };
        let mut governor = lock(&self.governor);
        let setting = governor.step(&seen);
        self.apply(setting);
    }

    fn apply(&self, setting: Setting) {
        let before = self.setting.swap(Arc::new(setting));
        lock(&self.ledger).allow(setting.allowance.map(|watts| watts / setting.bias), Instant::now());
        if before.stage != setting.stage {
            let (from, to, cause) = (before.stage.as_str(), setting.stage.as_str(), cause(setting.cause));
            tracing::info!(from, to, cause, "variants are chosen by another stage");
            self.metrics.changes.inc();
        }
        for stage in Stage::ALL {
            self.metrics.stage(stage.as_str(), stage == setting.stage);
        }
        self.metrics.allowance(setting.allowance);
    }

    pub(super) fn standing(&self) -> Standing {
        let setting = self.setting();
        Standing {
            stage: setting.stage.as_str(),
            cause: cause(setting.cause),
            power_watts_max: self.config.load().watts_max(),
            allowance_watts: setting.allowance,
        }
    }

    fn setting(&self) -> Setting {
        **self.setting.load()
    }

    /// Refuses a request of which nobody knows yet what it takes, where nothing is left to take.
    pub(super) fn check_power(&self) -> Result<(), RouteError> {
        if self.config.load().watts_max().is_none() {
            return Ok(());
        }
        let left = lock(&self.ledger).expect(Instant::now());
        left.map_err(|retry_after| self.spent(retry_after))
    }

    /// One of the builds, of which the first answers by default.
    pub(super) fn among(
        &self,
        builds: &[&Arc<Variant>],
        request: &InferRequest,
        conditions: impl FnOnce() -> Conditions,
    ) -> Result<Choice, RouteError> {
        let setting = self.setting();
        let config = self.config.load();
        let is_limited = config.watts_max().is_some();
        if request.budget.is_empty() && !is_limited && (builds.len() == 1 || setting.stage == Stage::Accuracy) {
            let reason = (builds.len() > 1).then_some(VariantReason::Default);
            return Ok(Choice { variant: Arc::clone(builds[0]), reason, wants: None });
        }
        let (rows, conditions) = (rows(request, builds[0]), conditions());
        let candidates: Vec<Candidate> = builds.iter().map(|build| candidate(build, rows, &conditions)).collect();
        let rule = |stage| variant_rule::choose(&candidates, &request.budget, stage, config.loss_max(stage));
        let at = rule(setting.stage).map_err(|nearest| {
            RouteError::BudgetUnmet(Box::new(unmet(request, builds[nearest], candidates[nearest])))
        })?;
        let energy = |stage: Stage| candidates[rule(stage).unwrap_or(at)].energy.map_or(0.0, Nanojoules::as_joules);
        let wants = is_limited.then(|| Wants { joules: Stage::ALL.map(energy), stage: setting.stage as usize });
        let reason = (builds.len() > 1).then(|| reason(&setting, &request.budget));
        Ok(Choice { variant: Arc::clone(builds[at]), reason, wants })
    }

    /// Takes what a request wants, where there is a limit.
    pub(super) fn take(self: &Arc<Self>, wants: Option<Wants>) -> Result<Option<Grant>, RouteError> {
        let Some(Wants { joules, stage }) = wants else { return Ok(None) };
        let taken = lock(&self.ledger).take(joules, stage, Instant::now());
        taken.map_err(|retry_after| self.spent(retry_after))?;
        Ok(Some(Grant { choosing: Arc::clone(self), joules: joules[stage] }))
    }

    fn spent(&self, retry_after: Duration) -> RouteError {
        self.metrics.refused.inc();
        RouteError::PowerSpent { watts_max: self.config.load().power_watts_max, retry_after }
    }
}

impl Grant {
    /// To be called when the request runs.
    pub fn spend(mut self) {
        self.joules = 0.0;
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if self.joules > 0.0 {
            lock(&self.choosing.ledger).give_back(self.joules);
        }
    }
}

/// What a build is worth to a request and will cost it.
fn candidate(build: &Variant, rows: usize, conditions: &Conditions) -> Candidate {
    let (wall, cpu) = build.profile.costs(|costs| (costs.wall_of(rows), costs.cpu_of(rows)));
    Candidate {
        accuracy: build.profile.accuracy(),
        latency: wall.map(|run| conditions.wait.saturating_add(run)),
        cpu,
        energy: cpu.zip(conditions.per_cpu_second).map(|(cpu, price)| Nanojoules::of_power(price.0, cpu)),
    }
}

/// Before inputs are checked: a wrong request is refused later, whichever build it was meant for, and takes nothing.
fn rows(request: &InferRequest, own: &Variant) -> usize {
    let first = request.inputs.first().filter(|_| own.signature.is_batched());
    first.map_or(1, |input| input.tensor.shape().first().copied().unwrap_or(1)).max(1)
}

fn reason(setting: &Setting, budget: &Budget) -> VariantReason {
    match (setting.cause, setting.stage) {
        (Some(Cause::Power), _) => VariantReason::PowerCap,
        (Some(Cause::Carbon), _) => VariantReason::Carbon,
        (None, Stage::Balanced) => VariantReason::Balanced,
        (None, Stage::Eco | Stage::Cheapest) => VariantReason::Eco,
        (None, Stage::Accuracy) if budget.is_empty() => VariantReason::Default,
        (None, Stage::Accuracy) => VariantReason::Budget,
    }
}

fn unmet(request: &InferRequest, nearest: &Variant, candidate: Candidate) -> Unmet {
    Unmet {
        model: nearest.model.clone(),
        version: nearest.version,
        budget: request.budget,
        nearest: nearest.name.clone(),
        accuracy: candidate.accuracy,
        latency: candidate.latency,
        energy: candidate.energy,
    }
}

fn cause(cause: Option<Cause>) -> &'static str {
    match cause {
        None => "mode",
        Some(Cause::Power) => "power_cap",
        Some(Cause::Carbon) => "carbon",
    }
}

/// Seconds: no division by nothing.
const SPAN_MIN: f64 = 1e-3;
