//! Work that all lanes have taken and not yet answered, in CPU time: how long somebody who comes now will wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// In nanoseconds, as expected when each request came.
#[derive(Debug, Default)]
pub(super) struct Backlog(AtomicU64);

/// The part of one request, for as long as it lives.
#[derive(Debug)]
pub(super) struct Work {
    backlog: Arc<Backlog>,
    nanos: u64,
}

impl Backlog {
    /// The time until so many cores have done it, what runs already counted as if it began now.
    pub(super) fn over(&self, cores: usize) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed) / cores.max(1) as u64)
    }
}

impl Work {
    pub(super) fn begin(backlog: &Arc<Backlog>, expected: Duration) -> Self {
        let nanos = u64::try_from(expected.min(WORK_MAX).as_nanos()).unwrap_or(0);
        backlog.0.fetch_add(nanos, Ordering::Relaxed);
        Self { backlog: Arc::clone(backlog), nanos }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.backlog.0.fetch_sub(self.nanos, Ordering::Relaxed);
    }
}

/// One request counts for no more, so that no sum of them is too large.
const WORK_MAX: Duration = Duration::from_secs(1000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_counts_while_it_lives() {
        let backlog = Arc::default();
        let ms = Duration::from_millis;
        let first = Work::begin(&backlog, ms(6));
        let second = Work::begin(&backlog, ms(4));
        assert_eq!((backlog.over(1), backlog.over(2)), (ms(10), ms(5)));
        drop(first);
        assert_eq!(backlog.over(2), ms(2));
        drop(second);
        assert_eq!(backlog.over(2), Duration::ZERO);
    }
}
