//! Handles of the metrics in the catalogue. Labels are resolved once, when a model loads.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Counter, CounterVec, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::access::AccessMetrics;
use super::admission::AdmissionRefused;
use super::budgets::{BudgetMetrics, ChoiceFamilies, ChoiceMetrics};
use super::cache::CacheMetrics;
use super::catalogue::{self, Kind, Metric};
use super::energy::EnergyMetrics;
use super::plans::{PlanFamilies, PlanMetrics};
use super::process::ProcessMetrics;
use super::residency::ResidencyMetrics;
use super::shared_memory::SharedMemoryMetrics;
use super::spans::{Sampling, SpanMetrics};
use super::tls::TlsMetrics;
use super::verification::VerificationMetrics;
use crate::error::ErrorCode;
use crate::infer::BatchReason;

/// The families of the catalogue, registered once per process (tests: once per server).
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    stage_duration: HistogramVec,
    rows: IntCounterVec,
    batches: IntCounterVec,
    batch_rows: HistogramVec,
    queue_requests: IntGaugeVec,
    queue_bytes: IntGaugeVec,
    queue_requests_max: IntGaugeVec,
    model_cpu: CounterVec,
    model_ready: IntGaugeVec,
    model_memory: IntGaugeVec,
    model_load_duration: GaugeVec,
    model_loads: IntCounterVec,
    model_builds_failed: IntGaugeVec,
    plans: PlanFamilies,
    pub refused: AdmissionRefused,
    pub refusal_duration: Histogram,
    connections: IntGaugeVec,
    connections_refused: IntCounterVec,
    pub in_flight_requests: IntGauge,
    pub in_flight_requests_max: IntGauge,
    pub in_flight_bytes: IntGauge,
    receiving_bytes: IntGauge,
    leaving_bytes: IntGauge,
    ready: IntGauge,
    pub cores: IntGauge,
    pub cores_busy: IntGauge,
    panics: IntCounter,
    log_lines_dropped: IntCounter,
    process: ProcessMetrics,
    pub energy: EnergyMetrics,
    pub budgets: BudgetMetrics,
    pub cache: CacheMetrics,
    choices: ChoiceFamilies,
    pub residency: ResidencyMetrics,
    pub verifications: VerificationMetrics,
    pub shared_memory: SharedMemoryMetrics,
    pub spans: SpanMetrics,
    pub tls: TlsMetrics,
    pub access: AccessMetrics,
    /// No metric, but it has settings of models that go when their series do.
    pub sampling: Arc<Sampling>,
    /// Requests that named no loaded model.
    unknown: Vec<IntCounter>,
}

/// The handles of one loaded version.
pub struct ModelMetrics {
    ok: IntCounter,
    codes: Vec<IntCounter>,
    pub request_duration: Histogram,
    pub stages: Stages,
    pub rows: IntCounter,
    batches: Vec<IntCounter>,
    pub batch_rows: Histogram,
    pub queue_requests: IntGauge,
    pub queue_bytes: IntGauge,
    pub queue_requests_max: IntGauge,
    pub cpu: Counter,
    pub ready: IntGauge,
    pub memory: IntGauge,
    pub load_duration: Gauge,
    pub choices: ChoiceMetrics,
}

/// The stages of a request, one histogram each.
#[derive(Clone, Debug)]
pub struct Stages {
    pub decode: Histogram,
    pub queue: Histogram,
    pub gather: Histogram,
    pub compute: Histogram,
    pub encode: Histogram,
}

/// The handles of one listener.
#[derive(Clone, Debug)]
pub struct ListenerMetrics {
    pub connections: IntGauge,
    pub refused_limit: IntCounter,
    pub refused_accept: IntCounter,
    pub refused_handshake: IntCounter,
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let build: IntGaugeVec = register(&registry, &catalogue::BUILD_INFO, IntGaugeVec::new);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let requests: IntCounterVec = register(&registry, &catalogue::REQUESTS, IntCounterVec::new);
        let unknown = codes(&requests, [UNKNOWN, "", ""]);
        Self {
            requests,
            request_duration: register_histogram(&registry, &catalogue::REQUEST_DURATION),
            stage_duration: register_histogram(&registry, &catalogue::STAGE_DURATION),
            rows: register(&registry, &catalogue::ROWS, IntCounterVec::new),
            batches: register(&registry, &catalogue::BATCHES, IntCounterVec::new),
            batch_rows: register_histogram(&registry, &catalogue::BATCH_ROWS),
            queue_requests: register(&registry, &catalogue::QUEUE_REQUESTS, IntGaugeVec::new),
            queue_bytes: register(&registry, &catalogue::QUEUE_BYTES, IntGaugeVec::new),
            queue_requests_max: register(&registry, &catalogue::QUEUE_REQUESTS_MAX, IntGaugeVec::new),
            model_cpu: register(&registry, &catalogue::MODEL_CPU, CounterVec::new),
            model_ready: register(&registry, &catalogue::MODEL_READY, IntGaugeVec::new),
            model_memory: register(&registry, &catalogue::MODEL_MEMORY, IntGaugeVec::new),
            model_load_duration: register(&registry, &catalogue::MODEL_LOAD_DURATION, GaugeVec::new),
            model_loads: register(&registry, &catalogue::MODEL_LOADS, IntCounterVec::new),
            model_builds_failed: register(&registry, &catalogue::MODEL_BUILDS_FAILED, IntGaugeVec::new),
            plans: PlanFamilies::new(&registry),
            refused: AdmissionRefused::of(&register(&registry, &catalogue::ADMISSION_REFUSED, IntCounterVec::new)),
            refusal_duration: register_histogram(&registry, &catalogue::REFUSAL_DURATION).with_label_values(NO_LABELS),
            connections: register(&registry, &catalogue::CONNECTIONS, IntGaugeVec::new),
            connections_refused: register(&registry, &catalogue::CONNECTIONS_REFUSED, IntCounterVec::new),
            in_flight_requests: register(&registry, &catalogue::IN_FLIGHT_REQUESTS, |opts, _| {
                IntGauge::with_opts(opts)
            }),
            in_flight_requests_max: register(&registry, &catalogue::IN_FLIGHT_REQUESTS_MAX, |opts, _| {
                IntGauge::with_opts(opts)
            }),
            in_flight_bytes: register(&registry, &catalogue::IN_FLIGHT_BYTES, |opts, _| IntGauge::with_opts(opts)),
            receiving_bytes: register(&registry, &catalogue::RECEIVING_BYTES, |opts, _| IntGauge::with_opts(opts)),
            leaving_bytes: register(&registry, &catalogue::LEAVING_BYTES, |opts, _| IntGauge::with_opts(opts)),
            ready: register(&registry, &catalogue::READY, |opts, _| IntGauge::with_opts(opts)),
            cores: register(&registry, &catalogue::CORES, |opts, _| IntGauge::with_opts(opts)),
            cores_busy: register(&registry, &catalogue::CORES_BUSY, |opts, _| IntGauge::with_opts(opts)),
            panics: register(&registry, &catalogue::PANICS, |opts, _| IntCounter::with_opts(opts)),
            log_lines_dropped: register(&registry, &catalogue::LOG_LINES_DROPPED, |opts, _| {
                IntCounter::with_opts(opts)
            }),
            process: ProcessMetrics::new(&registry),
            energy: EnergyMetrics::new(&registry),
            budgets: BudgetMetrics::new(&registry),
            cache: CacheMetrics::new(&registry),
            choices: ChoiceFamilies::new(&registry),
            residency: ResidencyMetrics::new(&registry),
            verifications: VerificationMetrics::new(&registry),
            shared_memory: SharedMemoryMetrics::new(&registry),
            tls: TlsMetrics::new(&registry),
            access: AccessMetrics::new(&registry),
            spans: SpanMetrics::new(&registry),
            sampling: Arc::default(),
            unknown,
            registry,
        }
    }

    /// The handles of one build; the families get its labels now. A version's own has an empty name.
    pub fn model(&self, model: &str, version: &str, variant: &str) -> Arc<ModelMetrics> {
        let labels = [model, version, variant];
        let stage = |name| self.stage_duration.with_label_values(&[model, version, variant, name]);
        Arc::new(ModelMetrics {
            ok: self.requests.with_label_values(&[model, version, variant, OK]),
            codes: codes(&self.requests, labels),
            request_duration: self.request_duration.with_label_values(&labels),
            stages: Stages {
                decode: stage("decode"),
                queue: stage("queue"),
                gather: stage("gather"),
                compute: stage("compute"),
                encode: stage("encode"),
            },
            rows: self.rows.with_label_values(&labels),
            batches: BatchReason::ALL
                .iter()
                .map(|reason| self.batches.with_label_values(&[model, version, variant, reason.as_str()]))
                .collect(),
            batch_rows: self.batch_rows.with_label_values(&labels),
            queue_requests: self.queue_requests.with_label_values(&labels),
            queue_bytes: self.queue_bytes.with_label_values(&labels),
            queue_requests_max: self.queue_requests_max.with_label_values(&labels),
            cpu: self.model_cpu.with_label_values(&labels),
            ready: self.model_ready.with_label_values(&labels),
            memory: self.model_memory.with_label_values(&labels),
            load_duration: self.model_load_duration.with_label_values(&labels),
            choices: self.choices.build(labels),
        })
    }

    /// Exports what is counted of one build's plans, with what was counted before it had proved that it can serve.
    pub fn export_plans(&self, plans: &PlanMetrics, labels: [&str; 3]) {
        self.plans.export(plans, labels);
    }

    /// Takes every series of a model away that is no longer known, whichever versions it had: clients may choose the
    /// names of models, and series that never end would be a leak.
    pub fn forget_model(&self, model: &str) {
        if model == UNKNOWN {
            return;
        }
        for family in [&self.requests, &self.rows, &self.batches, &self.model_loads] {
            forget_in(family, model);
        }
        for family in [&self.request_duration, &self.stage_duration, &self.batch_rows] {
            forget_in(family, model);
        }
        for family in self.build_gauges() {
            forget_in(family, model);
        }
        forget_in(&self.model_load_duration, model);
        forget_in(&self.model_builds_failed, model);
        forget_in(&self.model_cpu, model);
        self.plans.forget_model(model);
        self.energy.forget_model(model);
        self.choices.forget_model(model);
        self.cache.forget_model(model);
        self.sampling.forget_model(model);
    }

    /// Takes the gauges of an unloaded build away; its counters stay as long as its model is known, so that rates
    /// over the past stay true.
    pub fn forget(&self, labels: [&str; 3]) {
        for family in self.build_gauges() {
            // Absent already is what was wanted.
            let _ = family.remove_label_values(&labels);
        }
        let _ = self.model_load_duration.remove_label_values(&labels);
        self.choices.forget_build(labels);
    }

    fn build_gauges(&self) -> [&IntGaugeVec; 5] {
        [&self.queue_requests, &self.queue_bytes, &self.queue_requests_max, &self.model_ready, &self.model_memory]
    }

    /// Counts one attempt to load a version of `model`.
    pub fn count_load(&self, model: &str, ok: bool) {
        self.model_loads.with_label_values(&[model, if ok { OK } else { "failed" }]).inc();
    }

    /// What the last load of `model` could not bring to serve.
    pub fn set_builds_failed(&self, model: &str, builds: usize) {
        self.model_builds_failed.with_label_values(&[model]).set(i64::try_from(builds).unwrap_or(i64::MAX));
    }

    /// Counts a request that failed before a model was found for it.
    pub fn count_unrouted(&self, code: ErrorCode) {
        self.unknown[code as usize].inc();
    }

    pub fn listener(&self, name: &'static str) -> ListenerMetrics {
        ListenerMetrics {
            connections: self.connections.with_label_values(&[name]),
            refused_limit: self.connections_refused.with_label_values(&[name, "limit"]),
            refused_accept: self.connections_refused.with_label_values(&[name, "accept"]),
            refused_handshake: self.connections_refused.with_label_values(&[name, "handshake"]),
        }
    }

    /// Brings the pool's numbers up to date, which are read rather than counted.
    pub fn set_pool(&self, cores: usize, busy: usize, panics: u64) {
        self.cores.set(i64::try_from(cores).unwrap_or(i64::MAX));
        self.cores_busy.set(i64::try_from(busy).unwrap_or(i64::MAX));
        self.panics.inc_by(panics.saturating_sub(self.panics.get()));
    }

    pub fn set_log_lines_dropped(&self, lines: u64) {
        self.log_lines_dropped.inc_by(lines.saturating_sub(self.log_lines_dropped.get()));
    }

    pub fn set_ready(&self, is_ready: bool) {
        self.ready.set(is_ready.into());
    }

    /// As the pool's numbers: every request would have to count twice otherwise.
    pub fn set_receiving(&self, bytes: u64) {
        self.receiving_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub fn set_leaving(&self, bytes: u64) {
        self.leaving_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> Vec<u8> {
        self.process.read();
        let mut text = Vec::new();
        let mut families = self.registry.gather();
        families.extend(self.energy.families());
        // Prometheus takes an empty label for none: most versions have no variants.
        for series in families.iter_mut().flat_map(|family| family.mut_metric()) {
            let mut labels = series.take_label();
            labels.retain(|label| label.name() != VARIANT || !label.value().is_empty());
            series.set_label(labels);
        }
        TextEncoder::new().encode(&families, &mut text).expect("writing metrics into memory succeeds");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ModelMetrics {
    pub fn count_ok(&self) {
        self.ok.inc();
    }

    pub fn count_error(&self, code: ErrorCode) {
        self.codes[code as usize].inc();
    }

    /// Failures so far.
    pub fn errors(&self, code: ErrorCode) -> u64 {
        self.codes[code as usize].get()
    }

    pub fn count_batch(&self, reason: BatchReason, rows: usize) {
        self.batches[reason as usize].inc();
        #[expect(clippy::cast_precision_loss, reason = "rows of a batch are far below 2^52")]
        self.batch_rows.observe(rows as f64);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl fmt::Debug for ModelMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ModelMetrics")
    }
}

fn codes(requests: &IntCounterVec, [model, version, variant]: [&str; 3]) -> Vec<IntCounter> {
    ErrorCode::all().map(|code| requests.with_label_values(&[model, version, variant, code.as_str()])).collect()
}

/// Removes a family's series of one model.
pub(super) fn forget_in<T: MetricVecBuilder>(family: &MetricVec<T>, model: &str) {
    for gathered in family.collect() {
        for series in gathered.get_metric() {
            let labels: HashMap<&str, &str> =
                series.get_label().iter().map(|label| (label.name(), label.value())).collect();
            if labels.get("model") == Some(&model) {
                // Absent already is what was wanted.
                let _ = family.remove(&labels);
            }
        }
    }
}

pub(super) fn register<T: Collector + Clone + 'static>(
    registry: &Registry,
    metric: &Metric,
    make: impl FnOnce(Opts, &[&str]) -> prometheus::Result<T>,
) -> T {
    let family = make(Opts::new(metric.name, metric.help), metric.labels).expect("the catalogue's names are valid");
    registry.register(Box::new(family.clone())).expect("a catalogue entry is registered once");
    family
}

pub(super) fn register_histogram(registry: &Registry, metric: &Metric) -> HistogramVec {
    let Kind::Histogram(bounds) = metric.kind else { unreachable!("{} is no histogram", metric.name) };
    register(registry, metric, |opts, labels| {
        HistogramVec::new(HistogramOpts { common_opts: opts, buckets: bounds.to_vec() }, labels)
    })
}

const VARIANT: &str = "variant";
/// Value of the `model` label where a request named no loaded model.
const UNKNOWN: &str = "_unknown";
const OK: &str = "ok";
const NO_LABELS: &[&str] = &[];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::infer::VariantReason;
    use crate::telemetry::energy::Origin;

    #[test]
    fn every_catalogue_entry_is_exported() {
        let metrics = Metrics::new();
        let model = metrics.model("m", "1", "");
        model.count_batch(BatchReason::Idle, 1);
        model.choices.count(VariantReason::Default);
        model.choices.accuracy(0.5);
        metrics.budgets.stage("accuracy", true);
        let _ = metrics.cache.build(["m", "1", ""]);
        metrics.budgets.limit(Some(1.0));
        metrics.budgets.allowance(Some(1.0));
        metrics.residency.tell(1, 1, 1);
        metrics.residency.waited(Duration::ZERO);
        metrics.residency.refused("late");
        metrics.verifications.ended("verified");
        metrics.verifications.read(1, Duration::ZERO);
        metrics.count_load("m", true);
        metrics.set_builds_failed("m", 0);
        let plans = PlanMetrics::default();
        plans.count_build(Duration::from_millis(500));
        metrics.export_plans(&plans, ["m", "1", ""]);
        plans.count_build(Duration::from_millis(1500));
        let _ = metrics.listener("http");
        metrics.tls.ends(Some(1));
        metrics.access.refused("scope");
        let _ = metrics.access.tenant("a");
        every_energy(&metrics.energy);
        let text = String::from_utf8(metrics.render()).unwrap();
        for metric in catalogue::ALL {
            let line = format!("# TYPE {} {}", metric.name, metric.kind.as_str());
            assert!(text.contains(&line), "{} is not exported", metric.name);
        }
        for named in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
            assert!(catalogue::ALL.iter().any(|metric| metric.name == named), "{named} is not in the catalogue");
        }
        assert!(text.contains(r#"kinglet_plan_builds_total{model="m",version="1"} 2"#));
        assert!(text.contains(r#"kinglet_plan_build_seconds_total{model="m",version="1"} 2"#));
    }

    fn every_energy(energy: &EnergyMetrics) {
        let origin = Origin { source: "s", quality: "q" };
        energy.begin(origin, "", "");
        energy.build(origin, ["m", "1", ""], true);
        energy.counted(origin, "d");
        energy.dropped("r");
        energy.embodied();
        energy.tell(true);
    }

    #[test]
    fn a_forgotten_model_leaves_no_series() {
        let metrics = Metrics::new();
        for (model, version) in [("m", "1"), ("m", "2"), ("other", "1")] {
            let build = metrics.model(model, version, "");
            build.count_batch(BatchReason::Idle, 1);
            build.choices.count(VariantReason::Eco);
            build.choices.accuracy(0.5);
            let _ = metrics.cache.build([model, version, ""]);
            metrics.export_plans(&PlanMetrics::default(), [model, version, ""]);
            metrics.count_load(model, true);
            let _ = metrics.energy.build(Origin { source: "s", quality: "q" }, [model, version, ""], true);
        }
        metrics.energy.tell(true);
        let series = |model: &str| {
            let text = String::from_utf8(metrics.render()).unwrap();
            text.lines().filter(|line| line.contains(&format!("model=\"{model}\""))).count()
        };
        let (both, other) = (series("m"), series("other"));
        assert_eq!(both + 1, 2 * other, "each version has its own series, loads are counted per model");
        metrics.forget_model("m");
        assert_eq!((series("m"), series("other")), (0, other));
        metrics.forget_model(UNKNOWN);
        assert!(series(UNKNOWN) > 0);
    }

    #[test]
    fn an_unloaded_version_leaves_no_gauge() {
        let metrics = Metrics::new();
        metrics.model("m", "1", "").ready.set(1);
        metrics.model("m", "1", "small").ready.set(1);
        metrics.forget(["m", "1", ""]);
        let text = String::from_utf8(metrics.render()).unwrap();
        assert!(!text.contains("kinglet_model_ready{model=\"m\",version"));
        assert!(text.contains("kinglet_model_ready{model=\"m\",variant=\"small\",version=\"1\"} 1"));
        assert!(text.contains("kinglet_requests_total{code=\"ok\",model=\"m\""));
    }
}
