//! How long batches take by their size, from a few measured ones.

use std::time::{Duration, Instant};

/// Sizes that were measured, ascending from one row, each with its shortest time.
#[derive(Clone, Debug)]
pub(super) struct Times {
    measured: Vec<(usize, Duration)>,
    piece: usize,
}

impl Times {
    /// Measures one row, then twice as many each time, up to `rows_max` and until about `time_max` has passed.
    pub(super) fn measure<E>(
        rows_max: usize,
        time_max: Duration,
        mut run: impl FnMut(usize) -> Result<Duration, E>,
    ) -> Result<Self, E> {
        let started = Instant::now();
        let mut measured = Vec::new();
        let mut rows = 1;
        loop {
            let mut shortest = Duration::MAX;
            // The next size takes twice as long again.
            let leaves_none = |shortest: Duration| started.elapsed() + 2 * RUNS * shortest > time_max;
            for before in 0..RUNS {
                // Beside no other size one run tells enough.
                if before > 0 && rows == 1 && leaves_none(shortest) {
                    break;
                }
                match run(rows) {
                    Ok(time) => shortest = shortest.min(time),
                    // A size that needs too much memory is not used.
                    Err(_) if rows > 1 => return Ok(Self { piece: fastest(&measured), measured }),
                    Err(error) => return Err(error),
                }
            }
            measured.push((rows, shortest));
            if rows >= rows_max || leaves_none(shortest) {
                return Ok(Self { piece: fastest(&measured), measured });
            }
            rows = (2 * rows).min(rows_max);
        }
    }

    /// How many pieces so many rows are run in: none larger than the size in which rows are fastest, and one for each of
    /// so many threads where smaller ones take hardly more time, because threads wait for each other at every step of a
    /// piece that they share.
    pub(super) fn pieces(&self, rows: usize, threads: usize) -> usize {
        let fewest = rows.div_ceil(self.piece).max(1);
        let even = fewest.next_multiple_of(threads.max(1));
        let together = |pieces: usize| Some(self.of(rows.div_ceil(pieces))?.as_secs_f64() * pieces as f64);
        let whole = self.of(rows).map(|time| time.as_secs_f64());
        let is_as_good = even <= rows && together(even) <= whole.map(|whole| whole * HARDLY_MORE);
        if is_as_good { even } else { fewest }
    }

    /// A batch of so many rows, run in pieces. Sizes between two measured ones lie on a line.
    pub(super) fn of(&self, rows: usize) -> Option<Duration> {
        if rows > self.piece {
            let pieces = u32::try_from(rows.div_ceil(self.piece)).ok()?;
            return Some(self.of(self.piece)? * pieces);
        }
        let above = self.measured.iter().position(|(size, _)| *size >= rows.max(1))?;
        let (size, time) = self.measured[above];
        let Some((below, less)) = above.checked_sub(1).map(|at| self.measured[at]) else { return Some(time) };
        let share = (rows - below) as f64 / (size - below) as f64;
        Some(less + time.saturating_sub(less).mul_f64(share))
    }
}

fn fastest(measured: &[(usize, Duration)]) -> usize {
    let each = |&(rows, time): &(usize, Duration)| time.as_secs_f64() / rows as f64;
    let best = measured.iter().map(each).fold(f64::INFINITY, f64::min);
    measured.iter().rfind(|entry| each(entry) <= best * AS_GOOD).map_or(1, |(rows, _)| *rows)
}

/// Runs of each size of which the shortest counts.
const RUNS: u32 = 3;

/// What waiting for other threads costs at least.
const HARDLY_MORE: f64 = 1.05;

/// A hundredth more is noise.
const AS_GOOD: f64 = 1.01;

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(micros: impl Fn(usize) -> f64, rows_max: usize) -> Times {
        let run = |rows| Ok::<_, ()>(Duration::from_secs_f64(micros(rows) * 1e-6));
        Times::measure(rows_max, Duration::from_secs(1), run).unwrap()
    }

    #[test]
    fn pieces_end_where_rows_become_slower() {
        assert_eq!(measured(|rows| 10.0 + rows as f64, 12).piece, 12);
        assert_eq!(measured(|rows| (rows * rows) as f64, 12).piece, 1);
        assert_eq!(measured(|rows| if rows > 4 { 3.0 } else { 1.0 } * rows as f64, 64).piece, 4);
    }

    #[test]
    fn every_thread_gets_pieces_where_they_cost_nothing() {
        let even = measured(|rows| 10.0 * rows as f64, 8);
        let pieces = |rows: &[usize]| rows.iter().map(|&rows| even.pieces(rows, 2)).collect::<Vec<_>>();
        assert_eq!(pieces(&[0, 1, 2, 8, 9, 17]), [1, 1, 2, 2, 2, 4]);
        assert_eq!(even.pieces(17, 1), 3);
        // Rows that share weights are better together.
        let shared = measured(|rows| 100.0 + rows as f64, 8);
        assert_eq!((shared.pieces(8, 2), shared.pieces(16, 2)), (1, 2));
    }

    #[test]
    fn times_lie_between_those_measured() {
        let times = measured(|rows| 10.0 * rows as f64, 8);
        for rows in 1..=20usize {
            let expected = if rows > 8 { 80 * rows.div_ceil(8) } else { 10 * rows };
            assert_eq!(times.of(rows).map(|time| time.as_micros()), Some(expected as u128), "{rows}");
        }
    }

    #[test]
    fn sizes_that_cannot_run_are_not_used() {
        let run = |rows| if rows > 4 { Err(()) } else { Ok(Duration::from_millis(1)) };
        assert_eq!(Times::measure(64, Duration::from_secs(1), run).unwrap().piece, 4);
        assert!(Times::measure(64, Duration::from_secs(1), |_| Err(())).is_err());
    }

    #[test]
    fn a_slow_model_is_not_run_for_long() {
        let mut runs = 0;
        let run = |rows: usize| {
            runs += 1;
            Ok::<_, ()>(Duration::from_millis(100) * u32::try_from(rows).unwrap())
        };
        let times = Times::measure(64, Duration::from_millis(200), run).unwrap();
        assert_eq!((runs, times.piece), (1, 1));
        assert_eq!(times.of(3), Some(Duration::from_millis(300)));
    }
}
