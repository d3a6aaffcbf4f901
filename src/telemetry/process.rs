//! What the system says of this process.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time, memory and files of this process, from `/proc/self`; zeros where that is not mounted.
#[derive(Default)]
pub(super) struct ProcessUsage {
    pub(super) cpu: Duration,
    pub(super) resident_bytes: i64,
    pub(super) open_fds: i64,
}

impl ProcessUsage {
    pub(super) fn read() -> Self {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: i64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
        let page = i64::try_from(rustix::param::page_size()).unwrap_or(0);
        Self {
            cpu: cpu_time(),
            resident_bytes: pages * page,
            open_fds: std::fs::read_dir("/proc/self/fd").map_or(0, |fds| i64::try_from(fds.count()).unwrap_or(0)),
        }
    }
}

/// CPU time of this process, all threads.
pub fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// Seconds since the epoch at which this process made its metrics, which is the first thing it does.
pub(super) fn started_at() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |age| age.as_secs_f64())
}
