//! Whose a window's energy was: a pure function of what was measured and who used how much CPU time.
//!
//! Everything is in whole nanojoules and adds up to the window's energy exactly; what rounding leaves goes to the overhead.

use std::time::Duration;

use crate::units::Nanojoules;

/// What is known of the time between two readings.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    pub energy: Nanojoules,
    pub span: Duration,
    /// What the machine takes when it does nothing, in nanowatts.
    pub idle_nanowatts: u64,
    /// CPU time of everything that ran on the machine.
    pub host_cpu: Duration,
    pub process_cpu: Duration,
    /// CPU time of each build's batches.
    pub batches: &'a [Duration],
}

/// The parts of a window's energy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attribution {
    pub idle: Nanojoules,
    /// Of other processes.
    pub other: Nanojoules,
    /// Of this process outside of any batch.
    pub overhead: Nanojoules,
    /// Of each build's batches, in the window's order.
    pub batches: Vec<Nanojoules>,
}

/// Idle power first, then by CPU time: of this process among all, of each build's batches within the process.
///
/// The three clocks are read one after the other and tick apart: a part never counts as more than its whole.
pub fn attribute(window: &Window<'_>) -> Attribution {
    let in_batches: u128 = window.batches.iter().map(Duration::as_nanos).sum();
    let process = window.process_cpu.as_nanos().max(in_batches);
    let host = window.host_cpu.as_nanos().max(process);
    let energy = window.energy.0;
    let idle = Nanojoules::of_power(window.idle_nanowatts, window.span).0.min(energy);
    let active = energy - idle;
    let own = portion(active, process, host);
    let batches: Vec<_> = window.batches.iter().map(|cpu| Nanojoules(portion(own, cpu.as_nanos(), process))).collect();
    let attributed: u64 = batches.iter().map(|part| part.0).sum();
    Attribution {
        idle: Nanojoules(idle),
        other: Nanojoules(active - own),
        overhead: Nanojoules(own - attributed),
        batches,
    }
}

impl Window<'_> {
    /// What a second of CPU time took beyond idling; nothing where nobody has run, or no more was used than idling takes.
    pub fn per_cpu_second(&self) -> Option<Nanojoules> {
        let active = self.energy.0.saturating_sub(Nanojoules::of_power(self.idle_nanowatts, self.span).0);
        let price = Nanojoules(active).power_over(self.host_cpu.max(self.process_cpu));
        price.filter(|price| *price > 0).map(Nanojoules)
    }
}

impl Attribution {
    pub fn attributed(&self) -> Nanojoules {
        self.batches.iter().copied().sum()
    }
}

/// A batch's CPU time, or anything else of it, by the rows of its requests. The last takes what rounding leaves.
pub fn by_rows(total: Duration, rows: &[usize]) -> Vec<Duration> {
    let all: u128 = rows.iter().map(|rows| *rows as u128).sum();
    let total = u64::try_from(total.as_nanos()).unwrap_or(u64::MAX);
    let mut shares: Vec<u64> = rows.iter().map(|rows| portion(total, *rows as u128, all)).collect();
    let left = total - shares.iter().sum::<u64>();
    if let Some(last) = shares.last_mut() {
        *last += left;
    }
    shares.into_iter().map(Duration::from_nanos).collect()
}

/// `whole * part / all`, rounded down; nothing of nothing. `part` is at most `all`, so that the portion fits its whole.
fn portion(whole: u64, part: u128, all: u128) -> u64 {
    let portion = (u128::from(whole) * part).checked_div(all).unwrap_or(0);
    u64::try_from(portion).unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn window<'a>(energy: u64, batches: &'a [Duration]) -> Window<'a> {
        Window {
            energy: Nanojoules(energy),
            span: ms(1000),
            idle_nanowatts: 2_000_000_000,
            host_cpu: ms(1000),
            process_cpu: ms(500),
            batches,
        }
    }

    #[test]
    fn parts_are_by_cpu_time() {
        // 10 J, 2 of them idle; half of the CPU time is ours, of which a fifth and two fifths are in batches.
        let parts = attribute(&window(10_000_000_000, &[ms(100), ms(200)]));
        let tenths = |tenths: u64| Nanojoules(tenths * 100_000_000);
        assert_eq!((parts.idle, parts.other, parts.overhead), (tenths(20), tenths(40), tenths(16)));
        assert_eq!(parts.batches, [tenths(8), tenths(16)]);
    }

    #[test]
    fn an_idle_window_attributes_nothing() {
        for (energy, idle) in [(1_999_999_999, 1_999_999_999), (2_000_000_000, 2_000_000_000), (0, 0)] {
            let parts = attribute(&window(energy, &[ms(100)]));
            assert_eq!(
                parts,
                Attribution { idle: Nanojoules(idle), batches: vec![Nanojoules(0)], ..Default::default() }
            );
        }
        let quiet = Window { host_cpu: Duration::ZERO, process_cpu: Duration::ZERO, ..window(3_000_000_000, &[]) };
        assert_eq!(attribute(&quiet).other, Nanojoules(1_000_000_000));
        assert_eq!((attribute(&quiet).overhead, quiet.per_cpu_second()), (Nanojoules(0), None));
    }

    #[test]
    fn a_second_of_cpu_has_its_price() {
        assert_eq!(window(10_000_000_000, &[]).per_cpu_second(), Some(Nanojoules(8_000_000_000)));
        assert_eq!(window(1_000_000_000, &[]).per_cpu_second(), None, "less than idling takes");
        let half = Window { host_cpu: ms(500), ..window(10_000_000_000, &[]) };
        assert_eq!(half.per_cpu_second(), Some(Nanojoules(16_000_000_000)));
    }

    #[test]
    fn doubling_rows_at_equal_cpu_halves_what_a_row_takes() {
        let cpu = ms(100);
        let per_row = |rows: &[usize]| by_rows(cpu, rows)[0].as_nanos() / rows[0] as u128;
        assert_eq!(per_row(&[4, 4]), 2 * per_row(&[8, 8]));
        assert_eq!(per_row(&[1]), 16 * per_row(&[16]));
    }

    proptest! {
        #[test]
        fn everything_adds_up(
            energy in 0u64..1 << 50,
            span in 0u64..1 << 35,
            idle_nanowatts in 0u64..1 << 40,
            (host, process) in (0u64..1 << 40, 0u64..1 << 40),
            batches in proptest::collection::vec((0u64..1 << 36).prop_map(Duration::from_nanos), 0..20),
        ) {
            let window = Window {
                energy: Nanojoules(energy),
                span: Duration::from_nanos(span),
                idle_nanowatts,
                host_cpu: Duration::from_nanos(host),
                process_cpu: Duration::from_nanos(process),
                batches: &batches,
            };
            let parts = attribute(&window);
            prop_assert_eq!(parts.idle.0 + parts.other.0 + parts.overhead.0 + parts.attributed().0, energy);
            // Whose turn it is changes nothing.
            let turned: Vec<_> = batches.iter().rev().copied().collect();
            let mut again = attribute(&Window { batches: &turned, ..window });
            again.batches.reverse();
            prop_assert_eq!(again, parts);
        }

        #[test]
        fn shares_of_rows_add_up_whatever_their_order(
            nanos in 0u64..1 << 50,
            rows in proptest::collection::vec(0usize..10_000, 1..64),
        ) {
            let total = Duration::from_nanos(nanos);
            let shares = by_rows(total, &rows);
            prop_assert_eq!(shares.iter().sum::<Duration>(), total);
            let turned: Vec<_> = rows.iter().rev().copied().collect();
            let again = by_rows(total, &turned);
            for (share, again) in shares.iter().zip(again.iter().rev()) {
                prop_assert!(share.abs_diff(*again) <= Duration::from_nanos(rows.len() as u64) || rows.iter().all(|rows| *rows == 0));
            }
        }
    }
}
