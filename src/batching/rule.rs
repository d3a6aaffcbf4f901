//! The batch rule: a pure function of what is queued, what batches cost, and now.
//!
//! A batch leaves at once when a core is idle. It waits only where waiting pays: somebody is expected to join in time,
//! joining saves compute by the measured costs, and nobody's deadline suffers.

use std::time::Duration;

use tokio::time::Instant;

use crate::infer::BatchReason;
use crate::metering::Costs;

/// The part of a model's settings that the rule looks at.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BatchPolicy {
    pub batch_size_max: usize,
    pub queue_delay_max: Duration,
    /// Ascending; empty where any size serves.
    pub preferred: Vec<usize>,
}

/// What could leave in one batch now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Waiting {
    /// Rows that fit together, at most `batch_size_max`.
    pub rows: usize,
    /// Whether a compatible request did not fit any more, so that waiting cannot fill the batch better.
    pub is_full: bool,
    /// Arrival of the first in line.
    pub oldest: Instant,
    /// The earliest deadline among them.
    pub deadline: Option<Instant>,
    /// Expected time to the next arrival; `None` before two requests were seen.
    pub arrival_gap: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Take entries while their rows stay within `rows_max` (at least one) and run them.
    Send { rows_max: usize, reason: BatchReason },
    /// Look again then, or when something arrives.
    WaitUntil(Instant),
}

impl BatchPolicy {
    pub(super) fn decide(&self, waiting: &Waiting, costs: &Costs, now: Instant) -> Decision {
        let rows = waiting.rows;
        if rows >= self.batch_size_max || waiting.is_full {
            // A model that takes one request at a time is always "full"; what let it go is the idle core.
            let reason = if self.batch_size_max == 1 { BatchReason::Idle } else { BatchReason::Full };
            return self.send(costs.best_rows(rows), reason);
        }
        if let Some(&preferred) = self.preferred.iter().rev().find(|size| **size <= rows) {
            return self.send(preferred, BatchReason::Full);
        }
        let best = costs.best_rows(rows);
        if self.queue_delay_max.is_zero() {
            return self.send(best, BatchReason::Idle);
        }
        let due = waiting.oldest + self.queue_delay_max;
        if now >= due {
            return self.send(best, BatchReason::Delay);
        }
        let latest_start = waiting.deadline.map(|deadline| latest_start(deadline, costs.of(rows)));
        if latest_start.is_some_and(|start| now >= start) {
            return self.send(best, BatchReason::Deadline);
        }
        let until = latest_start.map_or(due, |start| start.min(due));
        if self.waiting_pays(waiting, costs, now, until) {
            return Decision::WaitUntil(until);
        }
        self.send(best, BatchReason::Idle)
    }

    fn send(&self, rows_max: usize, reason: BatchReason) -> Decision {
        Decision::Send { rows_max: rows_max.clamp(1, self.batch_size_max), reason }
    }

    /// With preferred sizes configured, reaching one is worth the wait whatever the costs say.
    fn waiting_pays(&self, waiting: &Waiting, costs: &Costs, now: Instant, until: Instant) -> bool {
        let expected = waiting.arrival_gap.is_none_or(|gap| now + gap <= until);
        let saves = costs.saving_of_joining(waiting.rows) >= SAVING_MIN || !self.preferred.is_empty();
        expected && saves
    }
}

/// The last start at which a run of this cost ends before the deadline, with some room for error.
fn latest_start(deadline: Instant, cost: Duration) -> Instant {
    deadline.checked_sub(cost * 2).unwrap_or(deadline)
}

/// Joining must save at least this part of a lone run to be worth waiting for.
const SAVING_MIN: f64 = 0.1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn policy(batch_size_max: usize, delay: Duration, preferred: &[usize]) -> BatchPolicy {
        BatchPolicy { batch_size_max, queue_delay_max: delay, preferred: preferred.to_vec() }
    }

    fn waiting(rows: usize, oldest: Instant) -> Waiting {
        Waiting { rows, is_full: false, oldest, deadline: None, arrival_gap: None }
    }

    fn matmul() -> Costs {
        let mut costs = Costs::default();
        for (rows, micros) in [(1, 42), (2, 44), (4, 59), (8, 108)] {
            costs.learn(rows, Duration::from_micros(micros), Duration::from_micros(micros));
        }
        costs
    }

    fn send(rows_max: usize, reason: BatchReason) -> Decision {
        Decision::Send { rows_max, reason }
    }

    #[test]
    fn without_a_delay_nothing_waits() {
        let now = Instant::now();
        let rule = policy(8, Duration::ZERO, &[]);
        assert_eq!(rule.decide(&waiting(3, now), &matmul(), now), send(3, BatchReason::Idle));
        assert_eq!(rule.decide(&waiting(8, now), &matmul(), now), send(8, BatchReason::Full));
    }

    #[test]
    fn waiting_ends_when_due_or_when_a_deadline_would_suffer() {
        let now = Instant::now();
        let rule = policy(8, 5 * MS, &[]);
        let costs = matmul();
        assert_eq!(rule.decide(&waiting(1, now), &costs, now), Decision::WaitUntil(now + 5 * MS));
        assert_eq!(rule.decide(&waiting(1, now), &costs, now + 5 * MS), send(1, BatchReason::Delay));
        let hurried = Waiting { deadline: Some(now + MS), ..waiting(1, now) };
        let start = now + MS - 2 * costs.of(1);
        assert_eq!(rule.decide(&hurried, &costs, now), Decision::WaitUntil(start));
        assert_eq!(rule.decide(&hurried, &costs, start), send(1, BatchReason::Deadline));
    }

    #[test]
    fn waiting_must_pay() {
        let now = Instant::now();
        let rule = policy(8, 5 * MS, &[]);
        let lonely = Waiting { arrival_gap: Some(50 * MS), ..waiting(1, now) };
        assert_eq!(rule.decide(&lonely, &matmul(), now), send(1, BatchReason::Idle));
        let mut linear = Costs::default();
        for rows in [1u32, 2, 4, 8] {
            linear.learn(rows as usize, 10 * MS * rows, 10 * MS * rows);
        }
        assert_eq!(rule.decide(&waiting(2, now), &linear, now), send(1, BatchReason::Idle));
    }

    #[test]
    fn preferred_sizes_are_never_exceeded_before_the_delay() {
        let now = Instant::now();
        let rule = policy(16, 5 * MS, &[4, 8]);
        assert_eq!(rule.decide(&waiting(5, now), &matmul(), now), send(4, BatchReason::Full));
        assert_eq!(rule.decide(&waiting(9, now), &matmul(), now), send(8, BatchReason::Full));
        assert_eq!(rule.decide(&waiting(3, now), &matmul(), now), Decision::WaitUntil(now + 5 * MS));
    }

    proptest! {
        #[test]
        fn never_more_than_the_maximum_never_past_due(
            max in 1usize..64, delay_us in 0u64..10_000, rows in 1usize..64, age_us in 0u64..20_000,
            deadline_us in prop::option::of(0u64..20_000), gap_us in prop::option::of(0u64..20_000),
            points in prop::collection::vec((1usize..64, 1u64..100_000), 0..8),
            mut preferred in prop::collection::vec(1usize..64, 0..3),
        ) {
            preferred.sort_unstable();
            let us = Duration::from_micros;
            let oldest = Instant::now() + Duration::from_secs(1);
            let now = oldest + us(age_us);
            let mut costs = Costs::default();
            for (rows, micros) in points {
                costs.learn(rows, us(micros), us(micros));
            }
            let rule = policy(max, us(delay_us), &preferred);
            let deadline = deadline_us.map(|d| oldest + us(d));
            let view = Waiting { rows: rows.min(max), is_full: false, oldest, deadline, arrival_gap: gap_us.map(us) };
            match rule.decide(&view, &costs, now) {
                Decision::Send { rows_max, .. } => prop_assert!((1..=max).contains(&rows_max)),
                Decision::WaitUntil(until) => {
                    prop_assert!(until > now && until <= oldest + us(delay_us));
                    prop_assert!(deadline.is_none_or(|d| until <= d));
                }
            }
        }
    }
}
