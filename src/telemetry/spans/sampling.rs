//! Which requests are recorded: as configured, as clients have set it for all models, and as they have set it for one.
//!
//! Rules change seldom and are read for sampled requests alone: what turns all others away is one number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::TracingConfig;
use super::settings::{Change, Level, TraceSettingError, TraceSettings};
use crate::infer::ModelName;
use crate::telemetry::trace::TraceContext;

/// Of one server.
#[derive(Debug)]
pub struct Sampling {
    rules: ArcSwap<Rules>,
    /// Traces that begin here may be recorded where their draw is below it.
    threshold: AtomicU64,
    /// Held by who changes the rules.
    changing: Mutex<()>,
}

/// A call whose trace is sampled, until it is known whether it is recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampled {
    pub(super) draw: u64,
    /// Its client has decided, and no draw counts.
    pub(super) by_client: bool,
}

/// What is to become of it when its head has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Recorded,
    Dropped,
    /// Its model decides, which only its body may tell.
    Open,
}

#[derive(Clone, Debug)]
struct Rules {
    /// Without a collector nothing is recorded, whatever else is set.
    has_collector: bool,
    is_settable: bool,
    ratio: f64,
    all: Rule,
    models: HashMap<ModelName, Rule>,
}

/// What was set; what was not is as for all models, or as configured.
#[derive(Clone, Debug, Default)]
struct Rule {
    level: Option<Level>,
    rate: Option<u32>,
    count: Option<Count>,
}

/// How many more are recorded.
#[derive(Clone, Debug)]
enum Count {
    Unlimited,
    Left(Arc<AtomicU64>),
}

/// A rule with nothing left open.
struct Resolved<'a> {
    is_on: bool,
    threshold: u64,
    count: Option<&'a AtomicU64>,
}

impl Default for Sampling {
    fn default() -> Self {
        let rules = Rules {
            has_collector: false,
            is_settable: false,
            ratio: 0.0,
            all: Rule::default(),
            models: HashMap::new(),
        };
        Self { rules: ArcSwap::from_pointee(rules), threshold: AtomicU64::new(0), changing: Mutex::new(()) }
    }
}

impl Sampling {
    /// Takes over what the configuration says. What clients have set stays.
    pub fn configure(&self, config: &TracingConfig) {
        self.change(|rules| {
            rules.has_collector = config.endpoint.is_some();
            rules.is_settable = config.settings_over_network;
            rules.ratio = config.sample_ratio;
        });
    }

    /// The settings of one model, or of all that have none of their own.
    pub fn settings(&self, model: Option<&ModelName>) -> TraceSettings {
        let rules = self.rules.load();
        let layers = rules.layers(model);
        let rate = layers.iter().find_map(|rule| rule.rate);
        let level = layers.iter().find_map(|rule| rule.level).unwrap_or(Level::Timestamps);
        let count = layers.iter().find_map(|rule| rule.count.as_ref());
        TraceSettings {
            level: if rules.has_collector { level } else { Level::Off },
            rate: rate.unwrap_or_else(|| rate_of(rules.ratio)),
            count: count.and_then(Count::left).map(|left| left.load(Ordering::Relaxed)),
        }
    }

    /// Changes settings of one model, or of all that have none of their own: all of them, or none where one is refused.
    ///
    /// # Errors
    /// When changes are not allowed, or nothing can be recorded.
    pub fn update(&self, model: Option<&ModelName>, changes: &[Change]) -> Result<(), TraceSettingError> {
        let changing = self.lock();
        let rules = self.rules.load();
        if !rules.is_settable {
            return Err(TraceSettingError::Closed);
        }
        if !rules.has_collector && changes.contains(&Change::Level(Some(Level::Timestamps))) {
            return Err(TraceSettingError::NoCollector);
        }
        self.change_held(&changing, |rules| match model {
            None => changes.iter().for_each(|change| rules.all.set(*change)),
            Some(model) => {
                let mut rule = rules.models.remove(model).unwrap_or_default();
                changes.iter().for_each(|change| rule.set(*change));
                if !rule.is_empty() {
                    rules.models.insert(model.clone(), rule);
                }
            }
        });
        Ok(())
    }

    /// To be called when a model is no longer known: another one of its name is another model.
    pub fn forget_model(&self, model: &str) {
        let has = |rules: &Rules| rules.models.keys().any(|name| name.as_str() == model);
        if has(&self.rules.load()) {
            self.change(|rules| rules.models.retain(|name, _| name.as_str() != model));
        }
    }

    /// Whether any model has settings of its own.
    pub(super) fn is_by_model(&self) -> bool {
        !self.rules.load().models.is_empty()
    }

    pub(super) fn threshold(&self) -> u64 {
        self.threshold.load(Ordering::Relaxed)
    }

    pub(super) fn at_head(&self, sampled: Sampled) -> Verdict {
        if self.is_by_model() {
            return Verdict::Open;
        }
        if self.takes(None, sampled) { Verdict::Recorded } else { Verdict::Dropped }
    }

    /// Whether a call is recorded, which then counts.
    pub(super) fn takes(&self, model: Option<&ModelName>, sampled: Sampled) -> bool {
        let rules = self.rules.load();
        let rule = rules.resolve(model);
        if !rule.wants(sampled) {
            return false;
        }
        let Some(count) = rule.count else { return true };
        let took = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if took == Ok(1) {
            // That was the last one: from now on nobody need ask.
            self.change(|_| {});
        }
        took.is_ok()
    }

    /// The same of a part of a call that has counted.
    pub(super) fn takes_part(&self, model: &ModelName, sampled: Sampled) -> bool {
        self.rules.load().resolve(Some(model)).wants(sampled)
    }

    fn change(&self, change: impl FnOnce(&mut Rules)) {
        self.change_held(&self.lock(), change);
    }

    fn change_held(&self, _: &MutexGuard<'_, ()>, change: impl FnOnce(&mut Rules)) {
        let mut rules = Rules::clone(&self.rules.load());
        change(&mut rules);
        self.threshold.store(rules.threshold_max(), Ordering::Relaxed);
        self.rules.store(Arc::new(rules));
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rules {
    /// What counts first stands first.
    fn layers(&self, model: Option<&ModelName>) -> [&Rule; 2] {
        [model.and_then(|model| self.models.get(model)).unwrap_or(&self.all), &self.all]
    }

    fn resolve(&self, model: Option<&ModelName>) -> Resolved<'_> {
        let layers = self.layers(model);
        let level = layers.iter().find_map(|rule| rule.level).unwrap_or(Level::Timestamps);
        let rate = layers.iter().find_map(|rule| rule.rate);
        let count = layers.into_iter().find_map(|rule| rule.count.as_ref()).and_then(Count::left);
        let is_left = count.is_none_or(|left| left.load(Ordering::Relaxed) > 0);
        Resolved {
            is_on: self.has_collector && level == Level::Timestamps && is_left,
            threshold: rate.map_or_else(|| threshold(self.ratio), one_in),
            count: count.map(Arc::as_ref),
        }
    }

    fn threshold_max(&self) -> u64 {
        let rules = self.models.keys().map(Some).chain([None]).map(|model| self.resolve(model));
        rules.filter(|rule| rule.is_on).map(|rule| rule.threshold).max().unwrap_or(0)
    }
}

impl Resolved<'_> {
    fn wants(&self, sampled: Sampled) -> bool {
        self.is_on && (sampled.by_client || sampled.draw < self.threshold)
    }
}

impl Rule {
    fn set(&mut self, change: Change) {
        match change {
            Change::Level(level) => self.level = level,
            Change::Rate(rate) => self.rate = rate,
            Change::Count(None) => self.count = None,
            Change::Count(Some(None)) => self.count = Some(Count::Unlimited),
            Change::Count(Some(Some(left))) => self.count = Some(Count::Left(Arc::new(AtomicU64::new(left)))),
        }
    }

    fn is_empty(&self) -> bool {
        self.level.is_none() && self.rate.is_none() && self.count.is_none()
    }
}

impl Count {
    fn left(&self) -> Option<&Arc<AtomicU64>> {
        match self {
            Self::Unlimited => None,
            Self::Left(left) => Some(left),
        }
    }
}

/// The part of all draws that is recorded.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a ratio is from 0 to 1")]
#[expect(clippy::cast_precision_loss, reason = "a power of two is exact")]
fn threshold(ratio: f64) -> u64 {
    (ratio * TraceContext::DRAWS as f64) as u64
}

/// The same for one in so many; for 0 it is none.
fn one_in(rate: u32) -> u64 {
    TraceContext::DRAWS.checked_div(u64::from(rate)).unwrap_or(0)
}

/// The nearest rate to a ratio.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a ratio is from 0 to 1; the largest rate is the largest"
)]
fn rate_of(ratio: f64) -> u32 {
    if ratio > 0.0 { (1.0 / ratio).round() as u32 } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampling(ratio: f64) -> Sampling {
        let endpoint = Some("http://localhost:4318".parse().unwrap());
        let own = crate::config::Config::default().tracing;
        let sampling = Sampling::default();
        let config = TracingConfig { endpoint, sample_ratio: ratio, settings_over_network: true, ..own };
        sampling.configure(&config);
        sampling
    }

    fn model(name: &str) -> ModelName {
        name.parse().unwrap()
    }

    const DRAWN: Sampled = Sampled { draw: TraceContext::DRAWS / 10, by_client: false };
    const ASKED: Sampled = Sampled { draw: TraceContext::DRAWS - 1, by_client: true };

    #[test]
    fn what_is_set_goes_before_what_is_configured() {
        let sampling = sampling(0.5);
        let told = |model: Option<&ModelName>| sampling.settings(model);
        assert_eq!(told(None), TraceSettings { level: Level::Timestamps, rate: 2, count: None });
        let a = model("a");
        sampling.update(Some(&a), &[Change::Rate(Some(20)), Change::Count(Some(Some(7)))]).unwrap();
        assert_eq!(told(Some(&a)), TraceSettings { level: Level::Timestamps, rate: 20, count: Some(7) });
        assert_eq!(told(Some(&model("b"))), told(None));
        sampling.update(None, &[Change::Level(Some(Level::Off)), Change::Rate(Some(4))]).unwrap();
        assert_eq!(told(None), TraceSettings { level: Level::Off, rate: 4, count: None });
        assert_eq!((told(Some(&a)).level, told(Some(&a)).rate), (Level::Off, 20), "what it has not set is as for all");
        sampling.update(Some(&a), &[Change::Rate(None), Change::Count(None)]).unwrap();
        assert_eq!(told(Some(&a)), told(None));
        assert!(!sampling.is_by_model(), "nothing is left behind");
        sampling.update(None, &[Change::Level(None), Change::Rate(None)]).unwrap();
        assert_eq!(told(None).rate, 2);
    }

    #[test]
    fn a_model_decides_for_itself() {
        let sampling = sampling(0.5);
        assert_eq!(sampling.at_head(DRAWN), Verdict::Recorded);
        let (never, often) = (model("never"), model("often"));
        sampling.update(Some(&never), &[Change::Level(Some(Level::Off))]).unwrap();
        sampling.update(Some(&often), &[Change::Rate(Some(1))]).unwrap();
        sampling.update(None, &[Change::Rate(Some(100))]).unwrap();
        assert_eq!(sampling.threshold(), TraceContext::DRAWS, "some model may record it");
        assert_eq!(sampling.at_head(DRAWN), Verdict::Open);
        for (name, drawn, asked) in [(None, false, true), (Some(&never), false, false), (Some(&often), true, true)] {
            assert_eq!((sampling.takes(name, DRAWN), sampling.takes(name, ASKED)), (drawn, asked), "{name:?}");
        }
        sampling.forget_model("often");
        assert_eq!(sampling.threshold(), TraceContext::DRAWS / 100);
        assert!(!sampling.takes(Some(&often), DRAWN), "another model of this name has none of it");
    }

    #[test]
    fn a_count_counts_down_and_ends() {
        let sampling = sampling(1.0);
        sampling.update(None, &[Change::Count(Some(Some(2)))]).unwrap();
        assert!(sampling.takes(None, DRAWN));
        assert_eq!(sampling.settings(None).count, Some(1));
        assert_eq!(sampling.at_head(ASKED), Verdict::Recorded);
        assert_eq!(sampling.threshold(), 0);
        assert_eq!(sampling.at_head(ASKED), Verdict::Dropped);
        let a = model("a");
        sampling.update(Some(&a), &[Change::Count(Some(None))]).unwrap();
        assert!(sampling.takes(Some(&a), DRAWN) && !sampling.takes(None, DRAWN));
        assert_eq!(sampling.threshold(), TraceContext::DRAWS);
        sampling.update(None, &[Change::Count(None)]).unwrap();
        assert!(sampling.takes(None, DRAWN));
    }

    #[test]
    fn changes_need_leave_and_a_collector() {
        let config = |endpoint: bool, is_settable| {
            let endpoint = endpoint.then(|| "http://localhost:4318".parse().unwrap());
            let own = crate::config::Config::default().tracing;
            TracingConfig { endpoint, settings_over_network: is_settable, ..own }
        };
        let sampling = Sampling::default();
        let on = [Change::Rate(Some(5)), Change::Level(Some(Level::Timestamps))];
        sampling.configure(&config(true, false));
        assert_eq!(sampling.update(None, &on), Err(TraceSettingError::Closed));
        sampling.configure(&config(false, true));
        assert_eq!(sampling.update(None, &on), Err(TraceSettingError::NoCollector));
        assert_eq!(sampling.settings(None), TraceSettings { level: Level::Off, rate: 1, count: None });
        sampling.update(None, &[Change::Level(Some(Level::Off)), Change::Rate(Some(5))]).unwrap();
        assert_eq!(sampling.settings(None).rate, 5);
        assert_eq!((sampling.threshold(), sampling.at_head(ASKED)), (0, Verdict::Dropped));
        sampling.configure(&config(true, true));
        sampling.update(None, &on).unwrap();
        assert_eq!(sampling.threshold(), TraceContext::DRAWS / 5);
    }

    proptest! {
        #[test]
        fn thresholds_follow_ratios(low in 0.0..1.0f64, high in 0.0..1.0f64) {
            let (low, high) = (low.min(high), low.max(high));
            prop_assert!(threshold(low) <= threshold(high) && threshold(high) <= TraceContext::DRAWS);
        }

        #[test]
        fn rates_are_told_as_they_were_set(rate in 1..10_000u32) {
            prop_assert_eq!(rate_of(1.0 / f64::from(rate)), rate);
            prop_assert!(one_in(rate).abs_diff(threshold(1.0 / f64::from(rate))) <= 1 << 4);
        }
    }
}
