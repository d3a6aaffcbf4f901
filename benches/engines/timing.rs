//! What the programs of other Rust engines share: runs timed, and the line that is printed.

use std::io::{self, Error};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Runs for some time, after three runs that do not count. `before` are the MiB of the process before the load.
pub fn line<E: From<Error>>(
    engine: &str,
    (before, load): (f64, Duration),
    time: Duration,
    mut run: impl FnMut() -> Result<(), E>,
) -> Result<serde_json::Value, E> {
    for _ in 0..3 {
        run()?;
    }
    let (started, mut walls, mut cpus) = (Instant::now(), Vec::new(), Vec::new());
    while started.elapsed() < time || walls.len() < 5 {
        let (wall, cpu) = (Instant::now(), cpu_time()?);
        run()?;
        walls.push(wall.elapsed());
        cpus.push(cpu_time()? - cpu);
    }
    walls.sort_unstable();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(serde_json::json!({
        "engine": engine,
        "median_ms": milliseconds(walls[walls.len() / 2]),
        "min_ms": milliseconds(walls[0]),
        "cpu_ms": milliseconds(cpus.into_iter().min().unwrap_or_default()),
        "load_ms": milliseconds(load),
        "memory_mib": resident_mib()? - before,
    }))
}

/// An element of a made-up input of floats.
pub fn noise(at: usize) -> f32 {
    (at as f32 * 0.7).sin() * 1.4
}

/// Pages of this process that are in memory.
pub fn resident_mib() -> io::Result<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split_whitespace().nth(1).ok_or_else(|| Error::other("expected pages"))?;
    let pages: f64 = pages.parse().map_err(Error::other)?;
    Ok(pages * rustix::param::page_size() as f64 / f64::from(1 << 20))
}

fn cpu_time() -> io::Result<Duration> {
    clock_gettime(ClockId::ProcessCPUTime).try_into().map_err(Error::other)
}
