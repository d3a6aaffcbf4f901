//! The budget of answers that are on their way to their clients, over all connections. A client that takes nothing of its
//! answer is ended by a time; until then only this bounds what many of them can make the server hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::{AdmissionConfig, Overloaded};
use crate::telemetry::Metrics;

/// What is on its way out. Bytes count from when they are there until the client, or its socket, has taken them.
#[derive(Debug)]
pub struct Outflow {
    config: Arc<ArcSwap<AdmissionConfig>>,
    bytes: AtomicU64,
    metrics: Arc<Metrics>,
}

/// What one large answer holds of the budget. Dropping it gives it back.
#[derive(Debug)]
pub struct Outgoing {
    of: Arc<Outflow>,
    bytes: AtomicU64,
}

/// Whether an answer counts as a whole before it leaves. A small one counts by the pieces that are leaving.
pub fn is_large(bytes: u64) -> bool {
    bytes > SMALL_BYTES_MAX
}

impl Outflow {
    pub(super) fn new(config: Arc<ArcSwap<AdmissionConfig>>, metrics: Arc<Metrics>) -> Self {
        Self { config, bytes: AtomicU64::new(0), metrics }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// To be called with bytes that leave now, whatever else does.
    pub fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn give_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts an answer that has been computed; it is there, whether it may leave or not.
    pub(super) fn hold(self: &Arc<Self>, bytes: u64) -> Outgoing {
        self.add(bytes);
        Outgoing { of: Arc::clone(self), bytes: AtomicU64::new(bytes) }
    }

    /// Whether an answer of so many bytes could begin to leave now.
    ///
    /// # Errors
    /// When too much leaves already.
    pub fn check(&self, answer: u64) -> Result<(), Overloaded> {
        self.compare(self.bytes(), answer)
    }

    /// As `check`, for an answer that has yet to be computed; its bytes are asked for where they matter.
    ///
    /// # Errors
    /// As `check`.
    pub fn foresee(&self, answer: impl FnOnce() -> u64) -> Result<(), Overloaded> {
        let limit = self.config.load().leaving_bytes_max.0;
        if self.bytes() < limit - limit / PARTS_FOR_SMALL { Ok(()) } else { self.check(answer()) }
    }

    /// Lets an answer begin to leave.
    ///
    /// # Errors
    /// As `check`.
    pub fn leave(self: &Arc<Self>, answer: u64) -> Result<Outgoing, Overloaded> {
        // Counted before it is compared, so that two at the limit cannot both pass.
        let outgoing = self.hold(answer);
        self.compare(self.bytes().saturating_sub(answer), answer)?;
        Ok(outgoing)
    }

    /// An answer begins to leave while there is any room, so that even one beyond the whole budget can: what leaves is
    /// bounded by the limit and one answer. Small ones have some room of their own behind where large ones must end.
    fn compare(&self, others: u64, answer: u64) -> Result<(), Overloaded> {
        let config = self.config.load();
        let limit = config.leaving_bytes_max.0;
        let max = if is_large(answer) { limit - limit / PARTS_FOR_SMALL } else { limit };
        if others < max {
            return Ok(());
        }
        self.metrics.refused.leaving.inc();
        Err(Overloaded { what: "bytes of answers that are leaving", limit, retry_after: config.retry_after.0 })
    }
}

impl Outgoing {
    /// Leaves up to so many of its bytes to who holds that part of the answer from now on. How many those are.
    pub fn hand_over(&self, bytes: u64) -> u64 {
        // One task takes an answer's parts.
        let held = self.bytes.load(Ordering::Relaxed);
        let handed = held.min(bytes);
        self.bytes.store(held - handed, Ordering::Relaxed);
        handed
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.of.give_back(*self.bytes.get_mut());
    }
}

/// Larger answers are looked at before they leave, and while they have not begun to. Sockets take this much at once, where
/// their clients have not stopped reading.
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// One part in so many of the budget is for small answers alone: they stay possible while large ones get stuck.
const PARTS_FOR_SMALL: u64 = 8;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::units::{ByteSize, Span};

    fn outflow(limit: u64) -> Arc<Outflow> {
        let mut config = crate::config::Config::default().admission;
        config.leaving_bytes_max = ByteSize(limit);
        config.retry_after = Span(Duration::from_secs(3));
        Arc::new(Outflow::new(Arc::new(ArcSwap::from_pointee(config)), Arc::default()))
    }

    #[test]
    fn large_answers_leave_room_for_small_ones() {
        let outflow = outflow(8 << 20);
        let first = outflow.leave(6 << 20).unwrap();
        let second = outflow.leave(1 << 20).unwrap();
        let refused = outflow.leave(1 << 20).unwrap_err();
        let why = "too much work in flight: bytes of answers that are leaving would pass the limit of 8388608";
        assert_eq!((refused.to_string().as_str(), refused.retry_after), (why, Duration::from_secs(3)));
        assert_eq!(outflow.bytes(), 7 << 20, "a refusal takes nothing");
        assert_eq!(outflow.metrics.refused.leaving.get(), 1);
        assert!(outflow.check(SMALL_BYTES_MAX + 1).is_err());
        assert!(outflow.check(SMALL_BYTES_MAX).is_ok());
        assert!(outflow.foresee(|| 1).is_ok());
        assert!(outflow.foresee(|| SMALL_BYTES_MAX + 1).is_err());
        outflow.add(1 << 20);
        assert!(outflow.check(1).is_err(), "the budget is spent");
        outflow.give_back(1 << 20);
        drop(first);
        assert!(outflow.leave(1 << 20).is_ok());
        assert!(outflow.foresee(|| unreachable!("there is room")).is_ok());
        drop(second);
        assert_eq!(outflow.bytes(), 0);
    }

    #[test]
    fn an_answer_beyond_the_whole_budget_leaves_while_there_is_room() {
        let outflow = outflow(1 << 20);
        let huge = outflow.leave(100 << 20).unwrap();
        assert!(outflow.leave(1 << 20).is_err());
        assert!(outflow.check(1).is_err());
        drop(huge);
        assert!(outflow.leave(100 << 20).is_ok());
    }

    #[test]
    fn parts_are_handed_over_once() {
        let outflow = outflow(1 << 20);
        let outgoing = outflow.leave(100_000).unwrap();
        assert_eq!(outgoing.hand_over(60_000), 60_000);
        assert_eq!(outgoing.hand_over(60_000), 40_000, "a wire may add some");
        assert_eq!(outgoing.hand_over(1), 0);
        assert_eq!(outflow.bytes(), 100_000);
        drop(outgoing);
        assert_eq!(outflow.bytes(), 100_000, "who took them gives them back");
        outflow.give_back(100_000);
    }

    #[test]
    fn threads_cannot_pass_the_limit_together_by_more_than_one_answer() {
        let outflow = outflow(8 << 20);
        std::thread::scope(|scope| {
            let ask = || {
                for _ in 0..500 {
                    let held: Vec<_> = (0..4).filter_map(|_| outflow.leave(1 << 20).ok()).collect();
                    std::thread::yield_now();
                    assert!(held.len() <= 4);
                    // Others may be counted for a moment before they are refused.
                    assert!(outflow.bytes() <= (8 + 4) << 20);
                }
            };
            (0..4).for_each(|_| _ = scope.spawn(ask));
        });
        assert_eq!(outflow.bytes(), 0);
    }
}
