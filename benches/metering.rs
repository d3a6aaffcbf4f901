//! What metering costs: `cargo bench --bench metering`.
//!
//! Prints the bookkeeping of one batch, the best of many passes, and the CPU time of one reading with each source that this
//! machine can be given, as a share of a core at the default window.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::unwrap_used, reason = "a step that fails ends the benchmark")]

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kinglet::config::Config;
use kinglet::engine::Pool;
use kinglet::metering::config::SourceChoice;
use kinglet::metering::{Meter, MeteringConfig, Statistics};
use kinglet::telemetry::Metrics;

fn main() {
    let config = Config::default().metering;
    println!("bookkeeping of a batch {:>8.0} ns", bookkeeping(&config));
    let tree = tempfile::tempdir().unwrap();
    let two_packages =
        [("0", "package-0"), ("0/intel-rapl:0:0", "dram"), ("1", "package-1"), ("1/intel-rapl:1:0", "dram")];
    two_packages.iter().for_each(|(zone, name)| make_zone(tree.path(), zone, name));
    for (name, source) in [("model", SourceChoice::Model), ("powercap", SourceChoice::Powercap)] {
        let config = MeteringConfig { source, powercap_path: tree.path().to_owned(), ..config.clone() };
        let reading = reading(config.clone(), 1000);
        let share = 100.0 * reading.as_secs_f64() / config.window.0.as_secs_f64();
        println!(
            "reading {name:<10} {:>12.1} us, {share:.4} % of a core; 1000 builds loaded",
            reading.as_secs_f64() * 1e6
        );
    }
}

/// Two looks at the clock and what is noted with them, in nanoseconds.
fn bookkeeping(config: &MeteringConfig) -> f64 {
    let meter = Meter::silent(config, &Arc::new(Metrics::new()));
    let account = meter.account(["m", "1", ""], &Arc::new(Statistics::default()));
    let pass = move |cores: &kinglet::engine::Cores| {
        let mut best = f64::INFINITY;
        for _ in 0..200 {
            let began = Instant::now();
            for _ in 0..PER_PASS {
                black_box(account.begin(cores).end());
            }
            best = best.min(began.elapsed().as_secs_f64() * 1e9 / f64::from(PER_PASS));
        }
        best
    };
    Pool::start(Some(1)).wait_for(pass).unwrap()
}

/// Mean CPU time of one reading, with so many builds loaded.
fn reading(config: MeteringConfig, builds: u32) -> Duration {
    let config = MeteringConfig { window: kinglet::units::Span(Duration::from_millis(100)), ..config };
    let metrics = Arc::new(Metrics::new());
    let meter = Meter::start(&config, &metrics).unwrap();
    let statistics = Arc::new(Statistics::default());
    let open = |build: u32| meter.account(["m", &build.to_string(), ""], &statistics);
    let _accounts: Vec<_> = (0..builds).map(open).collect();
    let cpu = || {
        let text = String::from_utf8(metrics.render()).unwrap();
        let name = "kinglet_energy_sampler_cpu_seconds_total ";
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse::<f64>().unwrap()
    };
    thread::sleep(Duration::from_millis(250));
    let (before, readings) = (cpu(), 30);
    thread::sleep(Duration::from_millis(100) * readings);
    Duration::from_secs_f64((cpu() - before) / f64::from(readings))
}

fn make_zone(root: &Path, zone: &str, name: &str) {
    let folder = root.join(format!("intel-rapl:{zone}"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("name"), name).unwrap();
    fs::write(folder.join("energy_uj"), "1").unwrap();
    fs::write(folder.join("max_energy_range_uj"), "262143328850").unwrap();
}

const PER_PASS: u32 = 1000;
