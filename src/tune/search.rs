//! Successive halving (Jamieson and Talwalkar, AISTATS 2016), with quarters: all settings are tried for a short time, the
//! best quarter for longer, the best of those for the longest. What noise threw out early was not much better.

use std::time::Duration;

use super::space::Setting;
use crate::metering::Estimate;

/// What one trial showed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Measured {
    pub(super) requests: usize,
    /// Refused, failed, or not answered long after the time.
    pub(super) failed: usize,
    /// From when a request was due to its answer.
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    /// Of all batches' threads.
    pub(super) cpu: Duration,
    pub(super) batches: usize,
    pub(super) energy: Option<Estimate>,
}

/// A setting with what it showed when it was tried for the longest.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tried {
    pub(super) setting: Setting,
    pub(super) measured: Measured,
    /// Whether it was one of those that were tried to the end.
    pub(super) is_finalist: bool,
}

impl Measured {
    /// CPU seconds of a request; energy is in proportion on one machine, and this is the steadier figure.
    pub(super) fn cpu_each(&self) -> f64 {
        let answered = self.requests.saturating_sub(self.failed);
        if answered == 0 { f64::INFINITY } else { self.cpu.as_secs_f64() / answered as f64 }
    }

    /// Whether answers keep to the time. One in a hundred may not.
    pub(super) fn keeps(&self, p99: Duration) -> bool {
        self.requests > 0 && self.p99 <= p99
    }
}

/// Trials that a search of so many settings takes.
pub(super) fn trials(settings: usize) -> usize {
    rounds(settings).iter().map(|(count, _)| count).sum()
}

/// Tries settings for a time in all, and gives back each, the best first.
pub(super) async fn search(
    settings: Vec<Setting>,
    p99: Duration,
    time: Duration,
    measure: &mut impl AsyncFnMut(&Setting, Duration) -> Measured,
) -> Vec<Tried> {
    let rounds = rounds(settings.len());
    let untried = |setting| Tried { setting, measured: Measured::default(), is_finalist: false };
    let mut all: Vec<Tried> = settings.into_iter().map(untried).collect();
    for (round, (count, share)) in rounds.iter().enumerate() {
        let each = time.mul_f64(share / *count as f64).max(TRIAL_MIN);
        for tried in &mut all[..*count] {
            tried.measured = measure(&tried.setting, each).await;
            tried.is_finalist = round + 1 == rounds.len();
        }
        all[..*count].sort_by(|a, b| rank(a, p99).partial_cmp(&rank(b, p99)).expect("ranks are numbers"));
    }
    all
}

/// Those that keep to the time by their cost, then the others by how far they are off.
fn rank(tried: &Tried, p99: Duration) -> (bool, f64) {
    let measured = &tried.measured;
    let keeps = measured.keeps(p99);
    (!keeps, if keeps { measured.cpu_each() } else { measured.p99.as_secs_f64() })
}

/// How many are tried in each round, and the share of the time that they get.
fn rounds(settings: usize) -> [(usize, f64); 3] {
    let second = settings.div_ceil(4).max(FINALISTS.min(settings));
    let third = second.div_ceil(4).max(FINALISTS.min(second));
    [(settings, 0.4), (second, 0.3), (third, 0.3)]
}

const FINALISTS: usize = 4;
/// Shorter trials see too few requests.
const TRIAL_MIN: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Vec<Setting> {
        let of = |batch_size_max, delay: u64| Setting {
            build: 0,
            batch_size_max,
            queue_delay_max: Duration::from_millis(delay),
            cores_max: 1,
        };
        [1, 2, 4, 8, 16, 32].into_iter().flat_map(|size| [0, 2, 4, 8].map(|delay| of(size, delay))).collect()
    }

    /// Larger batches cost less, and delays make them larger and answers late.
    fn model(setting: &Setting, noise: f64) -> Measured {
        let delay = setting.queue_delay_max;
        let size = (1.0 + delay.as_secs_f64() * 1e3).min(setting.batch_size_max as f64);
        let cpu = Duration::from_secs_f64((0.2 + 0.8 / size) * (1.0 + noise));
        let p99 = Duration::from_millis(3)
            + delay
            + Duration::from_micros(100) * u32::try_from(setting.batch_size_max).unwrap();
        Measured { requests: 1000, p99, cpu, ..Measured::default() }
    }

    #[tokio::test]
    async fn the_cheapest_that_keeps_to_the_time_is_found() {
        let mut tried = 0;
        let mut spent = Duration::ZERO;
        let p99 = Duration::from_millis(8);
        let mut measure = async |setting: &Setting, time: Duration| {
            tried += 1;
            spent += time;
            // Short trials are noisy.
            let noise = f64::from(u32::try_from(tried * 37 % 11).unwrap()) / 100.0 / time.as_secs_f64().max(1.0);
            model(setting, noise)
        };
        let found = search(settings(), p99, Duration::from_secs(120), &mut measure).await;
        let best = &found[0];
        assert_eq!((best.setting.batch_size_max, best.setting.queue_delay_max.as_millis()), (8, 4));
        assert!(best.is_finalist && best.measured.keeps(p99));
        assert_eq!((tried, found.len()), (trials(24), 24));
        assert!(spent <= Duration::from_secs(121), "{spent:?}");
    }

    #[tokio::test]
    async fn where_none_keeps_to_the_time_the_nearest_comes_first() {
        let mut measure = async |setting: &Setting, _: Duration| model(setting, 0.0);
        let found = search(settings(), Duration::from_millis(1), Duration::ZERO, &mut measure).await;
        assert_eq!((found[0].setting.batch_size_max, found[0].setting.queue_delay_max), (1, Duration::ZERO));
        assert!(!found[0].measured.keeps(Duration::from_millis(1)));
    }

    #[test]
    fn who_answers_nobody_costs_too_much() {
        let none = Measured { requests: 5, failed: 5, ..Measured::default() };
        assert_eq!(none.cpu_each(), f64::INFINITY);
        assert_eq!(rounds(1), [(1, 0.4), (1, 0.3), (1, 0.3)]);
        assert_eq!(rounds(100).map(|(count, _)| count), [100, 25, 7]);
    }
}
