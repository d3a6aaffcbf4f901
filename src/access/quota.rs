//! What a tenant may take a second: requests, rows, joules. Pure but for one number, and the time is an argument.
//!
//! The rule is that of a bucket which may run into debt: whoever has something left may go on, and pays what it comes to
//! even where that is more. So no request is too large for its tenant, and the mean is held all the same. It is kept as the moment up to which
//! everything is spent, as in the generic cell rate algorithm (ITU-T I.371).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// One of a tenant's allowances. Outlives a reload of the tenants, so that reloading gives nothing back.
#[derive(Clone, Debug)]
pub(super) struct Allowance {
    per_second: f64,
    /// What one unit takes of the time.
    nanos_each: f64,
    burst: Duration,
    spent: Spent,
}

/// Up to when everything is spent, in nanoseconds since `base`.
#[derive(Clone, Debug)]
pub(super) struct Spent {
    base: Instant,
    until: Arc<AtomicU64>,
}

impl Spent {
    pub(super) fn nothing(now: Instant) -> Self {
        Self { base: now, until: Arc::default() }
    }

    fn nanos(&self, now: Instant) -> u64 {
        whole(now.saturating_duration_since(self.base).as_nanos())
    }
}

impl Allowance {
    /// `burst` is how much time's worth may be taken at once.
    pub(super) fn new(per_second: f64, burst: Duration, spent: Spent) -> Self {
        Self { per_second, nanos_each: 1e9 / per_second, burst, spent }
    }

    /// Takes `units`, however many, where anything is left.
    ///
    /// # Errors
    /// When nothing is: how long it takes until something is.
    pub(super) fn take(&self, now: Instant, units: f64) -> Result<(), Duration> {
        let (now, taken, limit) = (self.spent.nanos(now), self.nanos(units), self.limit(now));
        let take = |until: u64| (until < limit).then(|| until.max(now).saturating_add(taken));
        match self.spent.until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(()),
            Err(until) => Err(Duration::from_nanos(until.saturating_sub(limit)).max(SHORTEST_WAIT)),
        }
    }

    /// Takes `units`, whether they are left or not.
    pub(super) fn charge(&self, now: Instant, units: f64) {
        let (now, taken) = (self.spent.nanos(now), self.nanos(units));
        self.update(|until| until.max(now).saturating_add(taken));
    }

    pub(super) fn give_back(&self, units: f64) {
        let given = self.nanos(units);
        self.update(|until| until.saturating_sub(given));
    }

    fn limit(&self, now: Instant) -> u64 {
        self.spent.nanos(now).saturating_add(whole(self.burst.as_nanos()))
    }

    /// Floats saturate as they become whole.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is never negative")]
    fn nanos(&self, units: f64) -> u64 {
        (units.max(0.0) * self.nanos_each) as u64
    }

    fn update(&self, change: impl Fn(u64) -> u64) {
        let _ = self.spent.until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| Some(change(until)));
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.per_second)
    }
}

fn whole(nanos: u128) -> u64 {
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// A client that is told to come back at once would.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        let allowance = Allowance::new(10.0, seconds(2.0), Spent::nothing(start));
        let take = |now| allowance.take(now, 1.0);
        assert_eq!((0..100).filter(|_| take(start).is_ok()).count(), 20);
        assert_eq!(take(start), Err(SHORTEST_WAIT));
        assert_eq!((0..100).filter(|_| take(start + seconds(0.5)).is_ok()).count(), 5);
        assert_eq!((0..100).filter(|_| take(start + seconds(60.0)).is_ok()).count(), 20);
    }

    #[test]
    fn a_debt_is_paid_by_waiting() {
        let start = Instant::now();
        let allowance = Allowance::new(10.0, seconds(1.0), Spent::nothing(start));
        allowance.charge(start, 50.0);
        assert_eq!(allowance.take(start, 0.0), Err(seconds(4.0)));
        assert_eq!(allowance.take(start + seconds(4.5), 0.0), Ok(()));
        allowance.give_back(50.0);
        assert_eq!(allowance.take(start, 0.0), Ok(()));
    }

    proptest! {
        #[test]
        fn the_mean_is_held(rate in 1.0..1000.0f64, burst in 0.1..5.0f64, steps in prop::collection::vec((0.0..0.5f64, 0.0..20.0f64), 1..200)) {
            let start = Instant::now();
            let allowance = Allowance::new(rate, seconds(burst), Spent::nothing(start));
            let (mut now, mut taken, mut largest) = (start, 0.0, 0.0f64);
            for (pause, units) in steps {
                now += seconds(pause);
                if allowance.take(now, units).is_ok() {
                    taken += units;
                    largest = largest.max(units);
                }
            }
            let time = (now - start).as_secs_f64();
            prop_assert!(taken <= rate * (time + burst) + largest + 1e-3);
        }
    }
}
