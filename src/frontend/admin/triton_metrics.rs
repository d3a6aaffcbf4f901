//! What Triton's dashboards and autoscalers ask for, by Triton's names, labels and units: the figures of the statistics
//! extension, of a version with all its builds.

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, Gauge, IntCounterVec, IntGauge, IntGaugeVec, Opts, TextEncoder};

use crate::error::ErrorCode;
use crate::frontend::Frontend;
use crate::metering::statistics::{Snapshot, Total};
use crate::repository::Variant;
use crate::telemetry::process::host_memory;

/// A counter of every version: its name, what it counts, and where the statistics have it.
struct Row(&'static str, &'static str, fn(&Snapshot) -> u64);

/// A version's own build, and its statistics of this moment.
type Counted<'a> = (&'a Variant, Snapshot);

/// Everything at this moment, in Prometheus' text format.
pub(super) fn render(frontend: &Frontend) -> Vec<u8> {
    let catalog = frontend.repository.catalog();
    let builds = || catalog.builds();
    // All builds of a version count as one.
    let counted: Vec<Counted<'_>> = catalog.ready().map(|build| (&**build, build.statistics.snapshot())).collect();
    let mut families: Vec<MetricFamily> = ROWS.iter().flat_map(|row| row.family(counted.iter())).collect();
    // Triton has these of models alone whose answers are kept.
    let cached = || counted.iter().filter(|(build, _)| build.settings.response_cache);
    families.extend(CACHE.iter().flat_map(|row| row.family(cached())));
    families.extend(failures(builds()));
    families.extend(pending(builds()));
    families.extend(host(frontend));
    // A family without series is no family to the encoder.
    families.retain(|family| !family.get_metric().is_empty());
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text).expect("writing metrics into memory succeeds");
    text
}

impl Row {
    fn family<'a>(&self, builds: impl Iterator<Item = &'a Counted<'a>>) -> Vec<MetricFamily> {
        let Self(name, help, of) = self;
        let family = counters(name, help, &["model", "version"]);
        for (build, all) in builds {
            family.with_label_values(&labels(build)).inc_by(of(all));
        }
        family.collect()
    }
}

fn failures<'a>(builds: impl Iterator<Item = &'a Arc<Variant>>) -> Vec<MetricFamily> {
    let help = "Requests that failed, by reason: REJECTED for load or too late, CANCELED, BACKEND, OTHER";
    let family = counters("nv_inference_request_failure", help, &["model", "version", "reason"]);
    for build in builds {
        let [model, version] = &labels(build);
        for code in ErrorCode::all() {
            family.with_label_values(&[model, version, reason(code)]).inc_by(build.metrics.errors(code));
        }
    }
    family.collect()
}

fn reason(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Overloaded | ErrorCode::QuotaExceeded | ErrorCode::DeadlineExceeded => "REJECTED",
        ErrorCode::Cancelled => "CANCELED",
        ErrorCode::Internal => "BACKEND",
        _ => "OTHER",
    }
}

fn pending<'a>(builds: impl Iterator<Item = &'a Arc<Variant>>) -> Vec<MetricFamily> {
    let opts = Opts::new("nv_inference_pending_request_count", "Requests that wait for a batch");
    let family = IntGaugeVec::new(opts, &["model", "version"]).expect(VALID);
    for build in builds {
        family.with_label_values(&labels(build)).add(build.metrics.queue_requests.get());
    }
    family.collect()
}

/// What is not known is absent.
fn host(frontend: &Frontend) -> Vec<MetricFamily> {
    let mut families = Vec::new();
    if let Some(latest) = frontend.pipeline.meter().latest() {
        let help = "Share of the machine's processors that was busy in the last window of the meter, from 0 to 1";
        let gauge = Gauge::new("nv_cpu_utilization", help).expect(VALID);
        gauge.set(latest.host_utilization);
        families.extend(gauge.collect());
    }
    if let Some((total, used)) = host_memory() {
        for (name, help, bytes) in [
            ("nv_cpu_memory_total_bytes", "Memory of the machine", total),
            ("nv_cpu_memory_used_bytes", "Memory of the machine that is in use", used),
        ] {
            let gauge = IntGauge::new(name, help).expect(VALID);
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
            families.extend(gauge.collect());
        }
    }
    families
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(VALID)
}

fn labels(build: &Variant) -> [String; 2] {
    [build.model.to_string(), build.version.to_string()]
}

fn micros(total: Total) -> u64 {
    total.nanos() / 1000
}

const ROWS: &[Row] = &[
    Row("nv_inference_request_success", "Requests that were answered", |all| all.success.count),
    Row("nv_inference_count", "Rows that were computed", |all| all.inference_count),
    Row("nv_inference_exec_count", "Batches that were computed", |all| all.execution_count),
    Row("nv_inference_request_duration_us", "Time of answered requests in the server", |all| micros(all.success)),
    Row("nv_inference_queue_duration_us", "Time of answered requests in the queue", |all| micros(all.queue)),
    Row("nv_inference_compute_input_duration_us", "Time to gather inputs", |all| micros(all.compute_input)),
    Row("nv_inference_compute_infer_duration_us", "Time of the model itself", |all| micros(all.compute_infer)),
    Row("nv_inference_compute_output_duration_us", "Time to hand out outputs", |all| micros(all.compute_output)),
];
const CACHE: &[Row] = &[
    Row("nv_cache_num_hits_per_model", "Requests answered without a run", |all| all.cache_hit.count),
    Row("nv_cache_num_misses_per_model", "Requests computed although answers are kept", |all| all.cache_miss.count),
    Row("nv_cache_hit_duration_per_model", "Time of looking up what was kept, in us", |all| micros(all.cache_hit)),
    Row("nv_cache_miss_duration_per_model", "Time of looking up and keeping, in us", |all| micros(all.cache_miss)),
];
const VALID: &str = "the names are Prometheus' own kind";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_of_tritons_reasons() {
        let mut reasons: Vec<&str> = ErrorCode::all().map(reason).collect();
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons, ["BACKEND", "CANCELED", "OTHER", "REJECTED"]);
    }
}
