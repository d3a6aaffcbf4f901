//! Cumulative counts and times of one version, as the statistics extension reports them.
//!
//! `inference_count` counts rows, `execution_count` runs of the model on at least one; their quotient is the mean batch.
//! Times are summed per request, so that `ns / count` of any two samples' difference is a mean.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::infer::ComputeTimes;
use crate::units::Nanojoules;

/// The counters of one version. Updated once per batch and once per failed request, under a lock held for nanoseconds.
#[derive(Debug, Default)]
pub struct Statistics(Mutex<Snapshot>);

/// A count of events and the time they took together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub count: u64,
    pub time: Duration,
}

/// All counters at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Milliseconds since the epoch; 0 before the first answer.
    pub last_inference_ms: u64,
    pub inference_count: u64,
    pub execution_count: u64,
    pub success: Total,
    pub fail: Total,
    pub queue: Total,
    pub compute_input: Total,
    pub compute_infer: Total,
    pub compute_output: Total,
    /// Requests whose answers were there or on their way, and the time of looking them up; counted as success and queue too.
    pub cache_hit: Total,
    /// Requests computed although answers are kept, and the time of looking for them and keeping them.
    pub cache_miss: Total,
    /// CPU time of all executions, failed ones included.
    pub cpu: Duration,
    /// What windows have attributed so far; nothing before the first that did.
    pub energy: Option<Nanojoules>,
    /// Executions by rows of the batch.
    pub batches: BTreeMap<usize, BatchTotals>,
}

/// Executions of one batch size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchTotals {
    pub compute_input: Total,
    pub compute_infer: Total,
    pub compute_output: Total,
}

/// One successful execution: its rows, its times, and for each request the time in the queue and in the server.
#[derive(Debug)]
pub struct Settled<'a> {
    pub rows: usize,
    pub times: ComputeTimes,
    pub requests: &'a [RequestTimes],
}

#[derive(Clone, Copy, Debug)]
pub struct RequestTimes {
    pub queue: Duration,
    pub total: Duration,
}

impl Statistics {
    pub fn record_batch(&self, settled: &Settled<'_>) {
        let requests = settled.requests.len();
        let mut all = self.lock();
        all.last_inference_ms = now_ms();
        all.inference_count += settled.rows as u64;
        for request in settled.requests {
            all.success.add(1, request.total);
            all.queue.add(1, request.queue);
        }
        all.compute_input.add(requests, settled.times.gather * times(requests));
        all.compute_infer.add(requests, settled.times.infer * times(requests));
        all.compute_output.add(requests, settled.times.scatter * times(requests));
        // Nothing was inferred for requests without a row: as an execution they would lower the mean batch, and batches
        // count from 1.
        if settled.rows == 0 {
            return;
        }
        all.execution_count += 1;
        // Clients choose the rows of models whose requests run alone.
        let is_kept = all.batches.len() < BATCH_SIZES_MAX || all.batches.contains_key(&settled.rows);
        let size = if is_kept { settled.rows } else { settled.rows.checked_next_power_of_two().unwrap_or(usize::MAX) };
        let batch = all.batches.entry(size).or_default();
        batch.compute_input.add(1, settled.times.gather);
        batch.compute_infer.add(1, settled.times.infer);
        batch.compute_output.add(1, settled.times.scatter);
    }

    /// A request that was answered without a run. Nothing was inferred for it, as Triton counts.
    pub fn record_cache_hit(&self, request: RequestTimes, lookup: Duration) {
        let mut all = self.lock();
        all.success.add(1, request.total);
        all.queue.add(1, request.queue);
        all.cache_hit.add(1, lookup);
    }

    /// A request that was computed and whose answer was offered to the cache.
    pub fn record_cache_miss(&self, lookup_and_keep: Duration) {
        self.lock().cache_miss.add(1, lookup_and_keep);
    }

    /// CPU time of a batch, whatever came of it.
    pub fn record_cpu(&self, cpu: Duration) {
        self.lock().cpu += cpu;
    }

    /// A window's energy of one of the version's builds.
    pub fn record_energy(&self, energy: Nanojoules) {
        let mut all = self.lock();
        if all.energy.is_some() || energy > Nanojoules::ZERO {
            let sum = all.energy.unwrap_or_default().0.saturating_add(energy.0);
            all.energy = Some(Nanojoules(sum));
        }
    }

    /// A request that failed after its model was found.
    pub fn record_failure(&self, total: Duration) {
        self.lock().fail.add(1, total);
    }

    /// Milliseconds since the epoch; 0 before the first answer.
    pub fn last_inference_ms(&self) -> u64 {
        self.lock().last_inference_ms
    }

    pub fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Total {
    fn add(&mut self, count: usize, time: Duration) {
        self.count += count as u64;
        self.time += time;
    }

    pub fn nanos(&self) -> u64 {
        u64::try_from(self.time.as_nanos()).unwrap_or(u64::MAX)
    }
}

fn times(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

/// Sizes told apart; others count as the next power of two.
const BATCH_SIZES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up() {
        let statistics = Statistics::default();
        let ms = Duration::from_millis;
        let requests = [RequestTimes { queue: ms(1), total: ms(6) }, RequestTimes { queue: ms(3), total: ms(8) }];
        let times = ComputeTimes { gather: ms(1), infer: ms(3), scatter: ms(1) };
        statistics.record_batch(&Settled { rows: 5, times, requests: &requests });
        statistics.record_batch(&Settled { rows: 1, times, requests: &requests[..1] });
        statistics.record_failure(ms(2));
        statistics.record_cache_miss(ms(1));
        let before = statistics.snapshot();
        statistics.record_cache_hit(RequestTimes { queue: ms(4), total: ms(9) }, ms(1));
        let with_hit = statistics.snapshot();
        assert_eq!((with_hit.success.count, with_hit.queue.count), (4, 4));
        assert_eq!((with_hit.success.time, with_hit.queue.time), (ms(29), before.queue.time + ms(4)));
        assert_eq!((with_hit.cache_hit, with_hit.cache_miss), (Total { count: 1, time: ms(1) }, before.cache_miss));
        assert_eq!((with_hit.inference_count, with_hit.compute_infer), (before.inference_count, before.compute_infer));
        let all = before;
        assert_eq!((all.inference_count, all.execution_count), (6, 2));
        assert_eq!((all.success.count, all.fail.count, all.queue.count), (3, 1, 3));
        assert_eq!(all.success.time, ms(20));
        assert_eq!(all.compute_infer, Total { count: 3, time: ms(9) });
        assert_eq!(all.batches[&5].compute_infer, Total { count: 1, time: ms(3) });
        assert_eq!(all.batches.values().map(|b| b.compute_infer.count).sum::<u64>(), all.execution_count);
    }

    #[test]
    fn batch_sizes_are_bounded() {
        let statistics = Statistics::default();
        for rows in 1..100_000 {
            statistics.record_batch(&Settled { rows, times: ComputeTimes::default(), requests: &[] });
        }
        let all = statistics.snapshot();
        assert!(all.batches.len() <= BATCH_SIZES_MAX + 64, "{}", all.batches.len());
        assert_eq!(all.batches[&7].compute_infer.count, 1);
        assert_eq!(all.batches.values().map(|batch| batch.compute_infer.count).sum::<u64>(), all.execution_count);
    }

    #[test]
    fn requests_without_rows_are_no_execution() {
        let statistics = Statistics::default();
        let request = RequestTimes { queue: Duration::from_millis(1), total: Duration::from_millis(2) };
        let times = ComputeTimes::default();
        statistics.record_batch(&Settled { rows: 0, times, requests: &[request] });
        statistics.record_batch(&Settled { rows: 2, times, requests: &[request; 2] });
        let all = statistics.snapshot();
        assert_eq!(
            (all.inference_count, all.execution_count, all.success.count, all.compute_infer.count),
            (2, 1, 3, 3)
        );
        assert_eq!(all.batches.keys().copied().collect::<Vec<_>>(), [2]);
    }
}
