//! What requests want and may take while the machine's power is limited: joules by stage, and an allowance that fills with
//! time.

use std::time::Duration;

use tokio::time::Instant;

use super::governor::STAGES;

/// In joules, since the last window.
#[derive(Debug)]
pub(super) struct Ledger {
    wanted: [f64; STAGES],
    granted: f64,
    requests: u32,
    /// What a request would have taken in the last window that had any.
    mean: [f64; STAGES],
    /// Watts that requests may take, where they must be refused beyond.
    allowance: Option<f64>,
    /// Joules that may be taken now; below zero where the last request took more than there was.
    balance: f64,
    filled_at: Instant,
    settled_at: Instant,
}

/// What was wanted and granted in a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Demand {
    pub(super) wanted: [f64; STAGES],
    pub(super) granted: f64,
    /// Since the demand was asked for last.
    pub(super) span: Duration,
}

impl Ledger {
    pub(super) fn new(now: Instant) -> Self {
        let none = [0.0; STAGES];
        Self {
            wanted: none,
            granted: 0.0,
            requests: 0,
            mean: none,
            allowance: None,
            balance: 0.0,
            filled_at: now,
            settled_at: now,
        }
    }

    /// Notes what a request would take at every stage, and lets it take what it takes at this one, as long as anything is
    /// left. Otherwise says after what time something will be.
    pub(super) fn take(&mut self, joules: [f64; STAGES], stage: usize, now: Instant) -> Result<(), Duration> {
        self.want(joules);
        self.check(now)?;
        self.granted += joules[stage];
        self.balance -= joules[stage];
        Ok(())
    }

    /// Takes back what a request was let take and did not.
    pub(super) fn give_back(&mut self, joules: f64) {
        self.granted = (self.granted - joules).max(0.0);
        self.balance += joules;
    }

    /// For a request of which nobody knows yet what it takes: whether anything is left. Who finds nothing has wanted what
    /// others do.
    pub(super) fn expect(&mut self, now: Instant) -> Result<(), Duration> {
        let left = self.check(now);
        if left.is_err() {
            self.want(self.mean);
        }
        left
    }

    fn want(&mut self, joules: [f64; STAGES]) {
        self.requests = self.requests.saturating_add(1);
        for (wanted, joules) in self.wanted.iter_mut().zip(joules) {
            *wanted += joules;
        }
    }

    /// Whether anything is left to take, or after what time something will be.
    fn check(&mut self, now: Instant) -> Result<(), Duration> {
        let Some(watts) = self.allowance else { return Ok(()) };
        self.fill(watts, now);
        if self.balance > 0.0 { Ok(()) } else { Err(Duration::from_secs_f64((-self.balance / watts).min(WAIT_MAX))) }
    }

    /// Ends a window.
    pub(super) fn settle(&mut self, now: Instant) -> Demand {
        let span = now.saturating_duration_since(self.settled_at);
        let demand = Demand { wanted: self.wanted, granted: self.granted, span };
        self.settled_at = now;
        if self.requests > 0 {
            self.mean = self.wanted.map(|joules| joules / f64::from(self.requests));
        }
        (self.wanted, self.granted, self.requests) = ([0.0; STAGES], 0.0, 0);
        demand
    }

    /// Watts that may be taken from now on, if there is a limit.
    pub(super) fn allow(&mut self, watts: Option<f64>, now: Instant) {
        if let Some(before) = self.allowance {
            self.fill(before, now);
        } else {
            (self.balance, self.filled_at) = (0.0, now);
        }
        self.allowance = watts;
    }

    fn fill(&mut self, watts: f64, now: Instant) {
        let span = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = now;
        self.balance = (self.balance + watts * span).min(watts * SAVED_MAX);
    }
}

/// Seconds of allowance that can be saved for a burst.
const SAVED_MAX: f64 = 0.2;
/// The longest that a client is told to wait, in seconds.
const WAIT_MAX: f64 = 60.0;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn demand_is_noted_whether_it_is_granted_or_not() {
        let now = Instant::now();
        let mut ledger = Ledger::new(now);
        let joules = [4.0, 3.0, 2.0, 1.0];
        assert_eq!(ledger.take(joules, 0, now), Ok(()));
        ledger.allow(Some(10.0), now);
        assert!(ledger.take(joules, 3, now).is_err(), "it begins empty");
        assert_eq!(ledger.take(joules, 3, now + MS), Ok(()), "the last may take more than is left");
        assert_eq!(ledger.take(joules, 3, now + MS), Err(99 * MS), "until what it took has come in again");
        let later = now + 10 * MS;
        let wanted = joules.map(|joules| 4.0 * joules);
        assert_eq!(ledger.settle(later), Demand { wanted, granted: 5.0, span: 10 * MS });
        assert_eq!(ledger.settle(later), Demand { wanted: [0.0; STAGES], granted: 0.0, span: Duration::ZERO });
        // One that is refused before anybody knows what it takes has wanted what others did.
        assert!(ledger.expect(now).is_err());
        assert_eq!(ledger.settle(later).wanted, joules);
    }

    #[test]
    fn what_did_not_run_may_be_taken_by_others() {
        let now = Instant::now();
        let mut ledger = Ledger::new(now);
        ledger.allow(Some(1.0), now);
        let taken = |ledger: &mut Ledger, at| ledger.take([1.0; STAGES], 0, now + at);
        assert_eq!(taken(&mut ledger, MS), Ok(()));
        assert!(taken(&mut ledger, 2 * MS).is_err());
        ledger.give_back(1.0);
        assert_eq!(taken(&mut ledger, 2 * MS), Ok(()));
        let demand = ledger.settle(now + 2 * MS);
        assert_eq!((demand.granted, demand.wanted[0]), (1.0, 3.0), "what was wanted stays wanted");
    }

    #[test]
    fn over_time_no_more_is_granted_than_was_allowed() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        ledger.allow(Some(2.0), start);
        for step in 0..10_000u32 {
            let _ = ledger.take([0.003; STAGES], 3, start + MS * step);
        }
        let granted = ledger.settle(start).granted;
        assert!((granted - 20.0).abs() < 0.1, "2 W over 10 s: {granted} J");
        // A pause saves little.
        let later = start + Duration::from_secs(1000);
        let burst = (0..1000).filter(|_| ledger.take([0.01; STAGES], 3, later).is_ok()).count();
        assert_eq!(burst, 40, "0.4 J saved");
    }
}
