//! What a search has found: for programs, and as a table.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::Job;
use super::search::Tried;
use crate::repository::Variant;

/// The settings that were tried, the best first.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub model: String,
    pub p99_ms: f64,
    /// Requests a second.
    pub rate: f64,
    /// Where joules come from and what they are worth; nothing without a source.
    pub energy_source: Option<&'static str>,
    pub energy_quality: Option<&'static str>,
    pub rows: Vec<Row>,
}

/// One setting, and what it showed when it was tried for the longest.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Nothing for the version's own build.
    pub variant: Option<String>,
    pub batch_size_max: usize,
    pub queue_delay_us: u64,
    pub cores_max: usize,
    pub accuracy: Option<f64>,
    pub requests: usize,
    pub failed: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Of batches, a request.
    pub cpu_ms: Option<f64>,
    /// Rows of a batch, on average.
    pub batch_mean: f64,
    /// That CPU time at the price that the source has shown over all trials.
    pub millijoules: Option<f64>,
    /// Whether it was tried to the end.
    pub is_finalist: bool,
    /// Whether no other that was tried to the end is at once sooner and cheaper.
    pub is_pareto: bool,
    pub keeps_p99: bool,
}

impl Report {
    pub(super) fn of(job: &Job, rate: f64, builds: &[Arc<Variant>], found: Vec<Tried>) -> Self {
        let energy = found.iter().find_map(|tried| tried.measured.energy);
        let price = price(&found);
        let of = |tried: Tried| row(job, &builds[tried.setting.build], tried, price);
        let mut rows: Vec<Row> = found.into_iter().map(of).collect();
        let points: Vec<Option<(f64, f64)>> = rows.iter().map(Row::point).collect();
        for (row, point) in rows.iter_mut().zip(&points) {
            let is_beaten = |(ms, cpu): (f64, f64)| {
                points
                    .iter()
                    .flatten()
                    .any(|other| (other.0 < ms && other.1 <= cpu) || (other.0 <= ms && other.1 < cpu))
            };
            row.is_pareto = point.is_some_and(|point| !is_beaten(point));
        }
        Self {
            model: job.model.display().to_string(),
            p99_ms: job.p99.as_secs_f64() * 1e3,
            rate,
            energy_source: energy.map(|energy| energy.kind.as_str()),
            energy_quality: energy.map(|energy| energy.kind.quality().as_str()),
            rows,
        }
    }

    /// The cheapest that keeps to the time.
    pub fn best(&self) -> Option<&Row> {
        self.rows.first().filter(|row| row.keeps_p99)
    }

    /// In a line.
    pub(super) fn found(&self) -> String {
        let Some(best) = self.best() else { return format!("nothing keeps p99 within {} ms", self.p99_ms) };
        let energy = match (best.millijoules, self.energy_quality, self.energy_source) {
            (Some(millijoules), Some(quality), Some(source)) => format!("{millijoules:.4} mJ ({quality}, {source})"),
            _ => format!("{:.4} ms of CPU", best.cpu_ms.unwrap_or_default()),
        };
        let (p99, limit, rate) = (best.p99_ms, self.p99_ms, self.rate);
        format!("{energy} a request at {rate:.1} requests/s, p99 {p99:.3} ms of {limit} ms")
    }
}

impl Row {
    /// Time and cost, of those that were tried to the end.
    fn point(&self) -> Option<(f64, f64)> {
        Some((self.p99_ms, self.cpu_ms?)).filter(|_| self.is_finalist)
    }
}

/// Joules of a CPU second over all trials: one alone is too short for clocks that count hundredths of seconds.
fn price(found: &[Tried]) -> Option<f64> {
    let known = || found.iter().filter_map(|tried| Some((tried.measured.energy?, tried.measured.cpu)));
    let joules: f64 = known().map(|(estimate, _)| estimate.energy.as_joules()).sum();
    let seconds: f64 = known().map(|(_, cpu)| cpu.as_secs_f64()).sum();
    (joules > 0.0 && seconds > 0.0).then(|| joules / seconds)
}

fn row(job: &Job, build: &Variant, tried: Tried, price: Option<f64>) -> Row {
    let Tried { setting, measured, is_finalist } = tried;
    let answered = measured.requests - measured.failed;
    let each = |whole: f64| (answered > 0).then(|| whole / answered as f64);
    let cpu_ms = each(measured.cpu.as_secs_f64() * 1e3);
    Row {
        variant: build.name.as_ref().map(ToString::to_string),
        batch_size_max: setting.batch_size_max,
        queue_delay_us: u64::try_from(setting.queue_delay_max.as_micros()).unwrap_or(u64::MAX),
        cores_max: setting.cores_max,
        accuracy: build.profile.accuracy(),
        requests: measured.requests,
        failed: measured.failed,
        p50_ms: measured.p50.as_secs_f64() * 1e3,
        p99_ms: measured.p99.as_secs_f64() * 1e3,
        cpu_ms,
        batch_mean: answered as f64 / measured.batches.max(1) as f64,
        millijoules: cpu_ms.zip(price).map(|(cpu_ms, price)| cpu_ms * price),
        is_finalist,
        is_pareto: false,
        keeps_p99: measured.keeps(job.p99),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, p99_ms, rate, .. } = self;
        writeln!(f, "{model} at {rate:.1} requests a second, p99 within {p99_ms} ms; * are of the Pareto front\n")?;
        writeln!(
            f,
            "  {:<16} {:>6} {:>9} {:>6} {:>9} {:>9} {:>9} {:>7} {:>10} {:>9}",
            "build", "batch", "delay us", "cores", "p50 ms", "p99 ms", "CPU ms", "rows", "mJ", "accuracy"
        )?;
        let shown = self.rows.iter().filter(|row| row.is_finalist);
        for row in shown {
            let told =
                |figure: Option<f64>, digits: usize| figure.map_or_else(|| "-".into(), |it| format!("{it:.digits$}"));
            writeln!(
                f,
                "{} {:<16} {:>6} {:>9} {:>6} {:>9.3} {:>9.3} {:>9} {:>7.2} {:>10} {:>9}",
                if row.is_pareto { '*' } else { ' ' },
                row.variant.as_deref().unwrap_or("(own)"),
                row.batch_size_max,
                row.queue_delay_us,
                row.cores_max,
                row.p50_ms,
                row.p99_ms,
                told(row.cpu_ms, 4),
                row.batch_mean,
                told(row.millijoules, 4),
                told(row.accuracy, 4),
            )?;
        }
        writeln!(f, "\n{}", self.found())
    }
}
