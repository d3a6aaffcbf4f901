//! `kinglet bench`: a model's latency and throughput in this process, without a network.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use serde::Serialize;

use super::load::{self, Loaded};
use super::{EngineArgs, Failure, ModelArgs, from_one};
use crate::config::Config;
use crate::engine::pool::thread_cpu_time;
use crate::engine::{Batch, Cores, LayerReport, Plan, Pool, made_up};
use crate::metering::Stopwatch;

#[derive(Debug, clap::Args)]
#[command(after_help = "With --json, one object a line and configuration: model, engine, batch, threads, median_ms, \
    min_ms, cpu_ms, throughput (rows per second at the median), load_ms, memory_mib (of this process), macs (of one run), peak_gmacs \
    (what one core can do of such products in its nearest cache, 1e9 in a second), joules_per_row, energy_source, energy_quality \
    (docs/energy.md; absent without a source).")]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Batch sizes, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,8", value_name = "ROWS", value_parser = from_one())]
    batch: Vec<usize>,
    /// Numbers of threads, separated by commas [default: one, and all cores]
    #[arg(long, value_delimiter = ',', value_name = "THREADS", value_parser = from_one())]
    threads: Vec<usize>,
    #[command(flatten)]
    by: EngineArgs,
    /// How long each configuration is measured, in milliseconds
    #[arg(long, default_value_t = 2000, value_name = "MS")]
    time: u64,
    /// The extent of free axes other than the batch
    #[arg(long, default_value_t = 1, value_name = "EXTENT", value_parser = from_one())]
    extent: usize,
    /// Print JSON lines instead of a table
    #[arg(long)]
    json: bool,
}

/// One configuration's figures.
#[derive(Debug, Serialize)]
struct Line {
    model: String,
    engine: String,
    batch: usize,
    threads: usize,
    median_ms: f64,
    min_ms: f64,
    /// CPU time of one run, all threads together; the least of all runs.
    cpu_ms: f64,
    throughput: f64,
    /// From opening the file until the first run, with what is measured at load.
    load_ms: f64,
    /// What of this process is in memory after the runs, where the system tells.
    memory_mib: Option<f64>,
    /// Multiply-accumulates of one run, where the engine counts them.
    macs: Option<u64>,
    /// What one core can do of such products in its nearest cache, 10^9 in a second.
    peak_gmacs: Option<f64>,
    /// Of all runs together; what is not known is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    joules_per_row: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    energy_source: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    energy_quality: Option<&'static str>,
}

/// Wall and CPU time of one run.
type Run = (Duration, Duration);

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut config = Config::load(None, &[]).map_err(|error| Failure::Config(error.into()))?;
    let threads = args.threads();
    config.engine.cores = threads.iter().copied().max().unwrap_or(0);
    let started = Instant::now();
    let loaded = load::plan(&args.model.model, &args.by, &config)?;
    let opened = started.elapsed();
    let mut watch = Stopwatch::open(&config.metering).map_err(|error| Failure::Config(error.into()))?;
    let progress = ProgressBar::new((threads.len() * args.batch.len()) as u64);
    let mut lines = Vec::new();
    for &count in &threads {
        let pool = Pool::start(Some(count));
        let plan = Arc::clone(&loaded.plan);
        let largest = args.batch.iter().copied().max().unwrap_or(1);
        let started = Instant::now();
        load::on_core(&pool, move |cores| plan.warm_up(largest, cores))??;
        let load = opened + started.elapsed();
        for &batch in &args.batch {
            lines.push(measure(&loaded, load, &pool, batch, (args, watch.as_mut()))?);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    print(&lines, args.json)?;
    Ok(())
}

impl Args {
    fn threads(&self) -> Vec<usize> {
        if !self.threads.is_empty() {
            return self.threads.clone();
        }
        let all = crate::engine::pool::cores_available();
        if all == 1 { vec![1] } else { vec![1, all] }
    }
}

fn measure(
    loaded: &Loaded,
    load: Duration,
    pool: &Pool,
    batch: usize,
    (args, mut watch): (&Args, Option<&mut Stopwatch>),
) -> Result<Line> {
    let inputs = made_up::batch(&*loaded.plan, batch, args.extent)?;
    // A run of its own, for what only JSON tells.
    let layers = if args.json { loaded.plan.layers(&inputs, 1)? } else { Vec::new() };
    let (plan, time) = (Arc::clone(&loaded.plan), Duration::from_millis(args.time));
    watch.iter_mut().for_each(|watch| watch.start());
    let mut runs = load::on_core(pool, move |cores| time_runs(&*plan, &inputs, cores, time))??;
    let used = runs.iter().map(|run| run.1).sum();
    let energy = watch.and_then(|watch| watch.stop(used));
    let rows = (runs.len() * batch) as f64;
    runs.sort_unstable();
    let median = runs[runs.len() / 2].0.as_secs_f64();
    let cpu = runs.iter().map(|run| run.1).min().unwrap_or_default();
    Ok(Line {
        model: loaded.name.clone(),
        engine: engines(&*loaded.plan),
        batch,
        threads: pool.size(),
        median_ms: median * 1e3,
        min_ms: runs[0].0.as_secs_f64() * 1e3,
        cpu_ms: cpu.as_secs_f64() * 1e3,
        throughput: f64::from(u32::try_from(batch)?) / median,
        load_ms: load.as_secs_f64() * 1e3,
        memory_mib: resident_mib(),
        macs: (!layers.is_empty()).then(|| layers.iter().map(|layer| layer.macs).sum()),
        peak_gmacs: LayerReport::peak_of(&layers).map(|peak| peak / 1e9),
        joules_per_row: energy.map(|estimate| estimate.energy.as_joules() / rows),
        energy_source: energy.map(|estimate| estimate.kind.as_str()),
        energy_quality: energy.map(|estimate| estimate.kind.quality().as_str()),
    })
}

fn time_runs(plan: &dyn Plan, batch: &Batch, cores: &Cores, time: Duration) -> Result<Vec<Run>> {
    let started = Instant::now();
    let mut runs = Vec::new();
    while runs.len() < RUNS_MIN || (started.elapsed() < time && runs.len() < RUNS_MAX) {
        let (wall, cpu, helpers) = (Instant::now(), thread_cpu_time(), cores.helper_cpu());
        plan.run(batch, cores).context("the model cannot run on made-up inputs; see --extent")?;
        runs.push((wall.elapsed(), thread_cpu_time() - cpu + (cores.helper_cpu() - helpers)));
    }
    Ok(runs)
}

/// Pages of this process that are in memory.
fn resident_mib() -> Option<f64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse::<u32>().ok()?;
    Some(f64::from(pages) * rustix::param::page_size() as f64 / f64::from(1 << 20))
}

fn engines(plan: &dyn Plan) -> String {
    let mut names: Vec<&str> = plan.parts().iter().map(|part| part.engine).collect();
    names.dedup();
    names.join("+")
}

fn print(lines: &[Line], json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        for line in lines {
            writeln!(out, "{}", serde_json::to_string(line)?)?;
        }
        return Ok(());
    }
    writeln!(
        out,
        "{:>7} {:>7} {:>11} {:>11} {:>11} {:>12} {:>11}",
        "batch", "threads", "median ms", "min ms", "CPU ms", "rows/s", "mJ/row"
    )?;
    for line in lines {
        let Line { batch, threads, median_ms, min_ms, cpu_ms, throughput, joules_per_row, .. } = line;
        let joules = joules_per_row.map_or_else(String::new, |joules| format!("{:.4}", joules * 1e3));
        writeln!(
            out,
            "{batch:>7} {threads:>7} {median_ms:>11.4} {min_ms:>11.4} {cpu_ms:>11.4} {throughput:>12.1} {joules:>11}"
        )?;
    }
    if let Some(Line { energy_source: Some(source), energy_quality: Some(quality), .. }) = lines.first() {
        writeln!(out, "energy: {quality}, by {source}")?;
    }
    Ok(())
}

/// Fewer runs have no median; more tell nothing new.
const RUNS_MIN: usize = 5;
const RUNS_MAX: usize = 100_000;
