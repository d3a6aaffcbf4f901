//! The budget of bodies that are still arriving, over all connections. A body has a limit of its own, and so has what was
//! admitted; between the two, only this bounds what many slow clients can make the server hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::{AdmissionConfig, Overloaded};
use crate::telemetry::Metrics;

/// What one request holds of the budget while it arrives. Dropping it gives it back.
#[derive(Debug)]
pub struct Held {
    of: Arc<Receiving>,
    bytes: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Receiving {
    config: Arc<ArcSwap<AdmissionConfig>>,
    bytes: AtomicU64,
    metrics: Arc<Metrics>,
}

impl Held {
    pub(super) fn nothing(of: Arc<Receiving>) -> Self {
        Self { of, bytes: AtomicU64::new(0) }
    }

    /// Takes more of the budget.
    ///
    /// # Errors
    /// When that would pass the limit; what was held before stays held.
    pub fn grow(&self, bytes: u64) -> Result<(), Overloaded> {
        self.of.take(bytes)?;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Takes more of the budget where less than `bytes` are held.
    ///
    /// # Errors
    /// As `grow`.
    pub fn grow_to(&self, bytes: u64) -> Result<(), Overloaded> {
        match bytes.saturating_sub(self.bytes()) {
            0 => Ok(()),
            more => self.grow(more),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// For a stream, of which one message has become a request and others may follow.
    pub fn give_back(&self) {
        self.of.bytes.fetch_sub(self.bytes.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

impl Receiving {
    pub(super) fn new(config: Arc<ArcSwap<AdmissionConfig>>, metrics: Arc<Metrics>) -> Self {
        Self { config, bytes: AtomicU64::new(0), metrics }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> Result<(), Overloaded> {
        let config = self.config.load();
        let limit = config.receiving_bytes_max.0;
        // Counted before it is compared, so that two at the limit cannot both pass.
        if self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > limit {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.metrics.refused.receiving.inc();
            return Err(Overloaded { what: "bytes being received", limit, retry_after: config.retry_after.0 });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::units::{ByteSize, Span};

    fn receiving(limit: u64) -> Arc<Receiving> {
        let mut config = crate::config::Config::default().admission;
        config.receiving_bytes_max = ByteSize(limit);
        config.retry_after = Span(Duration::from_secs(3));
        Arc::new(Receiving::new(Arc::new(ArcSwap::from_pointee(config)), Arc::default()))
    }

    #[test]
    fn what_is_held_is_bounded_together_and_given_back() {
        let receiving = receiving(10);
        let (first, second) = (Held::nothing(Arc::clone(&receiving)), Held::nothing(Arc::clone(&receiving)));
        first.grow(6).unwrap();
        second.grow(4).unwrap();
        let refused = second.grow(1).unwrap_err();
        assert_eq!(refused.to_string(), "too much work in flight: bytes being received would pass the limit of 10");
        assert_eq!(refused.retry_after, Duration::from_secs(3));
        assert_eq!((second.bytes(), receiving.bytes()), (4, 10), "a refusal takes nothing");
        drop(first);
        second.grow(6).unwrap();
        assert_eq!(receiving.bytes(), 10);
        drop(second);
        assert_eq!(receiving.bytes(), 0);
    }

    #[test]
    fn a_stream_gives_back_after_each_message() {
        let receiving = receiving(10);
        let held = Held::nothing(Arc::clone(&receiving));
        for _ in 0..3 {
            held.grow(5).unwrap();
            held.grow_to(3).unwrap();
            held.grow_to(9).unwrap();
            assert_eq!((held.bytes(), receiving.bytes()), (9, 9));
            held.give_back();
            assert_eq!((held.bytes(), receiving.bytes()), (0, 0));
        }
        assert!(held.grow(u64::MAX).is_err());
        assert_eq!(receiving.bytes(), 0);
    }
}
