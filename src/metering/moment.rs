//! The clocks that a window needs, read together: time, CPU time of the machine, CPU time of this process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::telemetry::process::cpu_time;

/// One reading of all clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    /// Since the clock was made; does not jump.
    pub at: Duration,
    pub host: HostCpu,
    /// CPU time of this process, all threads.
    pub process: Duration,
}

/// CPU time of everything that has run on the machine, and on how many processors. In a container it is the host's: all of
/// `/proc/stat` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HostCpu {
    pub busy: Duration,
    pub cpus: u32,
}

/// Reads moments.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    stat: PathBuf,
}

impl Clock {
    pub(super) fn new(stat: &Path) -> Self {
        Self { started: Instant::now(), stat: stat.to_owned() }
    }

    /// # Errors
    /// When the machine's CPU time cannot be read.
    pub(super) fn read(&self) -> io::Result<Moment> {
        let host = HostCpu::parse(&fs::read_to_string(&self.stat)?, rustix::param::clock_ticks_per_second());
        let host = host.ok_or_else(|| io::Error::other("expected a line of CPU times"))?;
        Ok(Moment { at: self.started.elapsed(), host, process: cpu_time() })
    }
}

impl HostCpu {
    /// From the text of `/proc/stat`. Waiting is not running, and time that a hypervisor took is nobody's here; guests'
    /// time stands within the user's.
    fn parse(text: &str, ticks_per_second: u64) -> Option<Self> {
        let mut lines = text.lines();
        let all = lines.next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = all.split_ascii_whitespace().map_while(|ticks| ticks.parse().ok()).collect();
        let [user, nice, system, _idle, _waiting, interrupts, soft_interrupts, ..] = ticks[..] else { return None };
        let busy = [user, nice, system, interrupts, soft_interrupts]
            .iter()
            .try_fold(0u64, |sum, ticks| sum.checked_add(*ticks))?;
        let nanos = u128::from(busy) * 1_000_000_000 / u128::from(ticks_per_second.max(1));
        let cpus = lines.take_while(|line| line.starts_with("cpu")).count();
        Some(Self { busy: Duration::from_nanos(u64::try_from(nanos).ok()?), cpus: u32::try_from(cpus).ok()?.max(1) })
    }
}

/// Where Linux tells the machine's CPU time.
pub(super) const PROC_STAT: &str = "/proc/stat";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_that_somebody_ran_are_added() {
        let text = "cpu  10 20 30 4000 500 6 7 80 9 1\ncpu0 1 1 1\ncpu1 1 1 1\nintr 5 5\ncpufreq 1\n";
        assert_eq!(HostCpu::parse(text, 100), Some(HostCpu { busy: Duration::from_millis(730), cpus: 2 }));
        for wrong in [
            "",
            "cpu",
            "cpu  1 2 3",
            "cpu  1 2 x 4 5 6 7 8",
            "cpu0 1 2 3 4 5 6 7",
            "cpu  18446744073709551615 1 1 1 1 1 1",
        ] {
            assert_eq!(HostCpu::parse(wrong, 100), None, "{wrong:?}");
        }
    }

    #[test]
    fn this_machine_has_them() {
        let clock = Clock::new(Path::new(PROC_STAT));
        let first = clock.read().unwrap();
        let later = clock.read().unwrap();
        assert!(later.at > first.at && later.host.busy >= first.host.busy && later.process > first.process);
        let absent = Clock::new(Path::new("/nowhere/stat")).read();
        assert_eq!(absent.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
