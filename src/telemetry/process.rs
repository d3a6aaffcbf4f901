//! What the system says of this process.

use std::time::Duration;

use prometheus::{Counter, Gauge, IntGauge, Registry};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::catalogue;
use super::metrics::register;

/// CPU time, memory and files of this process, read when they are asked for.
pub(super) struct ProcessMetrics {
    cpu: Counter,
    memory: IntGauge,
    open_fds: IntGauge,
}

impl ProcessMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let start: Gauge = register(registry, &catalogue::PROCESS_START, |opts, _| Gauge::with_opts(opts));
        start.set(started_at());
        if let Some(fds_max) = getrlimit(Resource::Nofile).current {
            let gauge: IntGauge = register(registry, &catalogue::PROCESS_FDS_MAX, |opts, _| IntGauge::with_opts(opts));
            gauge.set(i64::try_from(fds_max).unwrap_or(i64::MAX));
        }
        Self {
            cpu: register(registry, &catalogue::PROCESS_CPU, |opts, _| Counter::with_opts(opts)),
            memory: register(registry, &catalogue::PROCESS_MEMORY, |opts, _| IntGauge::with_opts(opts)),
            open_fds: register(registry, &catalogue::PROCESS_FDS, |opts, _| IntGauge::with_opts(opts)),
        }
    }

    /// From `/proc/self`; zeros where that is not mounted.
    pub(super) fn read(&self) {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: i64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
        let page = i64::try_from(rustix::param::page_size()).unwrap_or(0);
        self.cpu.inc_by((cpu_time().as_secs_f64() - self.cpu.get()).max(0.0));
        self.memory.set(pages * page);
        self.open_fds.set(std::fs::read_dir("/proc/self/fd").map_or(0, |fds| i64::try_from(fds.count()).unwrap_or(0)));
    }
}

/// CPU time of this process, all threads.
pub fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// Bytes of memory that the machine has, and that are in use. In a container they are the host's.
pub fn host_memory() -> Option<(u64, u64)> {
    memory_of(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn memory_of(meminfo: &str) -> Option<(u64, u64)> {
    let kib = |name: &str| {
        let rest = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let total = kib("MemTotal")?;
    Some((total * 1024, total.saturating_sub(kib("MemAvailable")?) * 1024))
}

/// Seconds since the epoch at which this process made its metrics, which is the first thing it does.
fn started_at() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |age| age.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_use_is_what_is_not_available() {
        let text = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\nHugePages_Total:   0\n";
        assert_eq!(memory_of(text), Some((1_024_000, 409_600)));
        for wrong in ["", "MemTotal: 5 kB", "MemTotal: x kB\nMemAvailable: 1 kB", "MemTotal: 5\nMemAvailable: 1 kB"] {
            assert_eq!(memory_of(wrong), None, "{wrong:?}");
        }
        let (total, used) = host_memory().unwrap();
        assert!(0 < used && used < total);
    }
}
