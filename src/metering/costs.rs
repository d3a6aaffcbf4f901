//! What a run of each size costs in wall and CPU time: measured at load, then learned from the batches that run.

use std::time::Duration;

/// Mean times of a run by batch size, for sizes in power-of-two buckets; recent runs count more.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    /// Of a run with `2^index` rows, `None` until one was seen.
    buckets: Vec<Option<Cost>>,
}

/// Times of one run, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    wall: f64,
    /// Of all threads.
    cpu: f64,
    /// From batches that ran in service, not from the load.
    is_learned: bool,
}

/// What is known of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub rows: usize,
    pub wall: Duration,
    pub cpu: Duration,
}

impl Costs {
    /// From times that an engine has measured on one core, for sizes up to `rows_max`.
    pub fn measured(rows_max: usize, time_of: impl Fn(usize) -> Option<Duration>) -> Self {
        let mut costs = Self::default();
        for rows in powers_of_two(rows_max) {
            let Some(time) = time_of(rows) else { break };
            costs.note(rows, time, time, false);
        }
        costs
    }

    /// Notes one run.
    pub fn learn(&mut self, rows: usize, wall: Duration, cpu: Duration) {
        self.note(rows, wall, cpu, true);
    }

    fn note(&mut self, rows: usize, wall: Duration, cpu: Duration, is_learned: bool) {
        let bucket = bucket_of(rows);
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, None);
        }
        // Sizes inside a bucket are brought to its nominal size as if cost grew in proportion.
        let nominal = |time: Duration| time.as_secs_f64() * as_float(1 << bucket) / as_float(rows.max(1));
        let seen = Cost { wall: nominal(wall), cpu: nominal(cpu), is_learned };
        let mean = &mut self.buckets[bucket];
        *mean = Some(mean.map_or(seen, |old| old.nearer(seen)));
    }

    /// The expected time of a run by those in service, what dispatching it costs included; zero rows cost nothing. Between
    /// known sizes it is interpolated; a size beyond all known ones is assumed to cost no more than the largest known, so that larger
    /// batches get tried.
    pub fn of(&self, rows: usize) -> Duration {
        if rows == 0 {
            return Duration::ZERO;
        }
        let seconds = self.at(rows, |cost| cost.is_learned.then_some(cost.wall), |(_, largest)| largest).unwrap_or(0.0);
        DISPATCH_COST + Duration::from_secs_f64(seconds.max(0.0))
    }

    /// The expected wall time, once any size is known; beyond the largest known one it grows in proportion.
    pub fn wall_of(&self, rows: usize) -> Option<Duration> {
        self.expected(rows, |cost| Some(cost.wall))
    }

    /// The expected CPU time likewise.
    pub fn cpu_of(&self, rows: usize) -> Option<Duration> {
        self.expected(rows, |cost| Some(cost.cpu))
    }

    /// What is known, by size.
    pub fn points(&self) -> impl Iterator<Item = Point> {
        self.known().map(|(rows, Cost { wall, cpu, .. })| {
            let [wall, cpu] = [wall, cpu].map(Duration::from_secs_f64);
            Point { rows, wall, cpu }
        })
    }

    /// The batch size up to `rows` whose rows are cheapest; the smallest such where several are level, because a
    /// smaller batch answers sooner.
    pub fn best_rows(&self, rows: usize) -> usize {
        let mut best = (1, self.per_row(1));
        for size in powers_of_two(rows.saturating_sub(1)).chain([rows]).filter(|size| *size > 1) {
            let cost = self.per_row(size);
            if cost < best.1 * LEVEL {
                best = (size, cost);
            }
        }
        best.0
    }

    /// Time that one more row would save by joining a batch of `rows` instead of running alone, relative to alone.
    pub fn saving_of_joining(&self, rows: usize) -> f64 {
        let alone = self.of(1).as_secs_f64();
        let more = self.of(rows + 1).as_secs_f64() - self.of(rows).as_secs_f64();
        1.0 - more / alone
    }

    fn per_row(&self, rows: usize) -> f64 {
        self.of(rows).as_secs_f64() / as_float(rows)
    }

    fn expected(&self, rows: usize, of: impl Fn(&Cost) -> Option<f64>) -> Option<Duration> {
        let seconds = self.at(rows, of, |(size, largest)| largest * as_float(rows) / size)?;
        // More rows than anybody has may take longer than any clock tells.
        Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
    }

    fn known(&self) -> impl Iterator<Item = (usize, Cost)> {
        self.buckets.iter().enumerate().filter_map(|(bucket, cost)| Some((1 << bucket, (*cost)?)))
    }

    /// A size between known ones, or as `beyond` has it behind the largest of them.
    fn at(
        &self,
        rows: usize,
        of: impl Fn(&Cost) -> Option<f64>,
        beyond: impl FnOnce((f64, f64)) -> f64,
    ) -> Option<f64> {
        let known = || self.known().filter_map(|(size, cost)| Some((as_float(size), of(&cost)?)));
        let rows = as_float(rows);
        let below = known().take_while(|(size, _)| *size <= rows).last();
        let above = known().find(|(size, _)| *size >= rows);
        match (below, above) {
            (Some((low, a)), Some((high, b))) if high > low => Some(a + (b - a) * (rows - low) / (high - low)),
            // Below the smallest known size, cost is taken as proportional: small requests stay attractive.
            (None, Some((high, b))) => Some(b * rows / high),
            (Some((_, a)), Some(_)) => Some(a),
            (Some(largest), None) => Some(beyond(largest)),
            (None, None) => None,
        }
    }
}

impl Cost {
    fn nearer(self, seen: Self) -> Self {
        // Service is not a load's measurement: caches are others' too.
        if self.is_learned != seen.is_learned {
            return seen;
        }
        let mean = |old: f64, seen: f64| old + LEARNING_RATE * (seen - old);
        Self { wall: mean(self.wall, seen.wall), cpu: mean(self.cpu, seen.cpu), ..seen }
    }
}

/// 1, 2, 4 and so on.
pub fn powers_of_two(most: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1usize), |size| size.checked_mul(2)).take_while(move |size| *size <= most)
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
            costs.learn(rows, us(micros), us(2 * micros));
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
        assert_eq!((costs.wall_of(2), costs.cpu_of(2)), (Some(us(60)), Some(us(120))));
        assert_eq!((costs.wall_of(8), costs.cpu_of(8)), (Some(us(200)), Some(us(400))), "a promise is not hopeful");
        assert_eq!(learned(&[(1, 5_000_000)]).wall_of(usize::MAX), Some(Duration::MAX));
        assert_eq!((Costs::default().wall_of(1), Costs::default().cpu_of(1)), (None, None));
    }

    #[test]
    fn what_was_measured_at_load_is_known_before_the_first_run() {
        let time_of = |rows: usize| (rows <= 4).then(|| us(10 * rows as u64));
        let costs = Costs::measured(16, time_of);
        let points: Vec<_> = costs.points().collect();
        assert_eq!(points.iter().map(|point| point.rows).collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!(points[2], Point { rows: 4, wall: us(40), cpu: us(40) });
        assert_eq!(Costs::measured(2, time_of).points().count(), 2);
        assert_eq!(
            (costs.best_rows(13), costs.wall_of(4)),
            (13, Some(us(40))),
            "larger batches get tried once all the same"
        );
        let mut costs = costs;
        costs.learn(4, us(90), us(90));
        assert_eq!(costs.wall_of(4), Some(us(90)), "service counts for more");
        assert_eq!(Costs::measured(16, |_| None).points().count(), 0);
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
