//! Which batches run on the thread that forms them: those that are over sooner than a thread of the pool could be woken
//! and its answer brought back. docs/adr/006 has the measurements.

use std::time::Duration;

/// What one variant may run without the pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here {
    time_max: Duration,
    /// Mean CPU time of a run, recent ones counting more: inputs may make a model slower than it was when it was measured.
    mean: Duration,
}

impl Here {
    /// `time_max` is the longest batch that runs here.
    pub(super) fn new(time_max: Duration) -> Self {
        Self { time_max, mean: Duration::ZERO }
    }

    /// Whether a batch runs here: by the time it took when the plan was measured, and by what batches have taken since.
    pub(super) fn takes(self, measured: Option<Duration>) -> bool {
        self.mean <= self.time_max && measured.is_some_and(|time| time <= self.time_max)
    }

    /// To be told what CPU time a batch took, wherever it ran.
    pub(super) fn took(&mut self, cpu: Duration) {
        self.mean = (self.mean * (LEARNING - 1) + cpu) / LEARNING;
    }
}

/// The newest run counts as one of so many.
const LEARNING: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_turns_slow_goes_to_the_pool_until_it_is_quick_again() {
        let us = Duration::from_micros;
        let mut here = Here::new(us(50));
        assert!(here.takes(Some(us(50))) && !here.takes(Some(us(51))) && !here.takes(None));
        here.took(us(300));
        assert!(here.takes(Some(us(1))), "one slow run proves nothing");
        (0..8).for_each(|_| here.took(us(300)));
        assert!(!here.takes(Some(us(1))));
        (0..30).for_each(|_| here.took(us(5)));
        assert!(here.takes(Some(us(1))));
    }

    #[test]
    fn nothing_runs_here_where_no_time_is_allowed() {
        assert!(!Here::new(Duration::ZERO).takes(Some(Duration::from_nanos(1))));
    }
}
