//! What a batch of each size costs, learned from the batches that ran.

use std::time::Duration;

/// Mean wall time of a run by batch size, for sizes in power-of-two buckets; recent runs count more.
#[derive(Clone, Debug, Default)]
pub(super) struct Costs {
    /// Seconds of a run with `2^index` rows, `None` until one was seen.
    buckets: Vec<Option<f64>>,
}

impl Costs {
    /// Notes one run.
    pub(super) fn learn(&mut self, rows: usize, elapsed: Duration) {
        let bucket = bucket_of(rows);
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, None);
        }
        // Sizes inside a bucket are brought to its nominal size as if cost grew in proportion.
        let seen = elapsed.as_secs_f64() * as_float(1 << bucket) / as_float(rows.max(1));
        let mean = &mut self.buckets[bucket];
        *mean = Some(mean.map_or(seen, |old| old + LEARNING_RATE * (seen - old)));
    }

    /// The expected time of a run, what dispatching it costs included; zero rows cost nothing. Between known sizes it
    /// is interpolated; a size beyond all known ones is assumed to cost no more than the largest known, so that larger
    /// batches get tried.
    pub(super) fn of(&self, rows: usize) -> Duration {
        if rows == 0 {
            return Duration::ZERO;
        }
        let known = || self.buckets.iter().enumerate().filter_map(|(i, cost)| Some((as_float(1 << i), (*cost)?)));
        let rows = as_float(rows);
        let below = known().take_while(|(size, _)| *size <= rows).last();
        let above = known().find(|(size, _)| *size >= rows);
        let seconds = match (below, above) {
            (Some((low, a)), Some((high, b))) if high > low => a + (b - a) * (rows - low) / (high - low),
            // Below the smallest known size, cost is taken as proportional: small requests stay attractive.
            (None, Some((high, b))) => b * rows / high,
            (Some((_, a)), _) => a,
            (None, None) => 0.0,
        };
        DISPATCH_COST + Duration::from_secs_f64(seconds.max(0.0))
    }

    /// The batch size up to `rows` whose rows are cheapest; the smallest such where several are level, because a
    /// smaller batch answers sooner.
    pub(super) fn best_rows(&self, rows: usize) -> usize {
        let mut best = (1, self.per_row(1));
        let sizes = std::iter::successors(Some(2usize), |size| size.checked_mul(2)).take_while(|size| *size < rows);
        for size in sizes.chain([rows]).filter(|size| *size > 1) {
            let cost = self.per_row(size);
            if cost < best.1 * LEVEL {
                best = (size, cost);
            }
        }
        best.0
    }

    /// Time that one more row would save by joining a batch of `rows` instead of running alone, relative to alone.
    pub(super) fn saving_of_joining(&self, rows: usize) -> f64 {
        let alone = self.of(1).as_secs_f64();
        let more = self.of(rows + 1).as_secs_f64() - self.of(rows).as_secs_f64();
        1.0 - more / alone
    }

    fn per_row(&self, rows: usize) -> f64 {
        self.of(rows).as_secs_f64() / as_float(rows)
    }
}

fn bucket_of(rows: usize) -> usize {
    rows.max(1).ilog2() as usize
}

#[expect(clippy::cast_precision_loss, reason = "rows are far below 2^52")]
fn as_float(rows: usize) -> f64 {
    rows as f64
}

/// Forming a batch, waking a thread and handing out the answers.
const DISPATCH_COST: Duration = Duration::from_micros(10);
/// Weight of the newest run.
const LEARNING_RATE: f64 = 0.2;
/// A larger batch must be this much cheaper per row to be preferred.
const LEVEL: f64 = 0.97;

#[cfg(test)]
mod tests {
    use super::*;

    fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    fn learned(points: &[(usize, u64)]) -> Costs {
        let mut costs = Costs::default();
        for &(rows, micros) in points {
            costs.learn(rows, us(micros));
        }
        costs
    }

    #[test]
    fn costs_are_interpolated() {
        let costs = learned(&[(1, 40), (4, 100)]);
        assert_eq!(costs.of(1), us(50));
        assert_eq!(costs.of(2), us(70));
        assert_eq!(costs.of(4), us(110));
        assert_eq!(costs.of(64), us(110), "unknown sizes are hopeful");
        assert_eq!(costs.of(0), Duration::ZERO);
    }

    #[test]
    fn batches_are_as_large_as_pays() {
        let unknown = Costs::default();
        assert_eq!(unknown.best_rows(13), 13);
        let linear = learned(&[(1, 10_000), (2, 20_000), (4, 40_000), (8, 80_000)]);
        assert_eq!(linear.best_rows(8), 1);
        let matmul = learned(&[(1, 42), (2, 44), (4, 59), (8, 108)]);
        assert_eq!(matmul.best_rows(8), 8);
        let worse = learned(&[(1, 188), (2, 940), (4, 2400), (8, 5500)]);
        assert_eq!(worse.best_rows(8), 1);
        assert!(linear.saving_of_joining(4) < 0.05);
        assert!(matmul.saving_of_joining(2) > 0.5);
    }
}
