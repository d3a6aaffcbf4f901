//! Handles of the metrics of budgets: which stage builds are chosen by, and what power allows.

use std::sync::OnceLock;

use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGaugeVec, Registry};

use super::catalogue;
use super::metrics::{forget_in, register};
use crate::infer::VariantReason;

/// The families that are the server's.
#[derive(Clone, Debug)]
pub struct BudgetMetrics {
    stages: IntGaugeVec,
    pub changes: IntCounter,
    /// Requests refused because the power was spent.
    pub refused: IntCounter,
    limit: GaugeVec,
    allowance: GaugeVec,
}

/// The families that are builds'.
#[derive(Clone, Debug)]
pub(super) struct ChoiceFamilies {
    choices: IntCounterVec,
    accuracy: GaugeVec,
}

/// The handles of one build. Most have no variants beside them, so series begin with the first choice.
#[derive(Debug)]
pub struct ChoiceMetrics {
    families: ChoiceFamilies,
    labels: [String; 3],
    counters: [OnceLock<IntCounter>; VariantReason::ALL.len()],
}

impl BudgetMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            stages: register(registry, &catalogue::BUDGET_STAGE, IntGaugeVec::new),
            changes: register(registry, &catalogue::BUDGET_STAGE_CHANGES, |opts, _| IntCounter::with_opts(opts)),
            refused: register(registry, &catalogue::POWER_REFUSED, |opts, _| IntCounter::with_opts(opts)),
            limit: register(registry, &catalogue::POWER_LIMIT, GaugeVec::new),
            allowance: register(registry, &catalogue::POWER_ALLOWANCE, GaugeVec::new),
        }
    }

    /// Whether it is the one that holds.
    pub fn stage(&self, name: &'static str, holds: bool) {
        self.stages.with_label_values(&[name]).set(i64::from(holds));
    }

    /// Absent without a limit.
    pub fn limit(&self, watts: Option<f64>) {
        set(&self.limit, watts);
    }

    /// Absent while nobody is refused for it.
    pub fn allowance(&self, watts: Option<f64>) {
        set(&self.allowance, watts);
    }
}

impl ChoiceFamilies {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            choices: register(registry, &catalogue::VARIANT_CHOICES, IntCounterVec::new),
            accuracy: register(registry, &catalogue::MODEL_ACCURACY, GaugeVec::new),
        }
    }

    pub(super) fn build(&self, labels: [&str; 3]) -> ChoiceMetrics {
        ChoiceMetrics { families: self.clone(), labels: labels.map(str::to_owned), counters: Default::default() }
    }

    pub(super) fn forget_build(&self, labels: [&str; 3]) {
        // Absent already is what was wanted.
        let _ = self.accuracy.remove_label_values(&labels);
    }

    pub(super) fn forget_model(&self, model: &str) {
        forget_in(&self.choices, model);
        forget_in(&self.accuracy, model);
    }
}

impl ChoiceMetrics {
    pub fn count(&self, reason: VariantReason) {
        let [model, version, variant] = &self.labels;
        let labels = [model, version, variant, reason.as_str()];
        self.counters[reason as usize].get_or_init(|| self.families.choices.with_label_values(&labels)).inc();
    }

    /// Told once it is known.
    pub fn accuracy(&self, share: f64) {
        self.families.accuracy.with_label_values(&self.labels).set(share);
    }
}

fn set(family: &GaugeVec, value: Option<f64>) {
    match value {
        Some(value) => family.with_label_values(&[] as &[&str]).set(value),
        None => family.reset(),
    }
}
