//! Every metric the server exports: name, kind, labels, unit and meaning. `docs/metrics.md` is printed from here.
//!
//! Labels are closed sets or names from the repository; never an id, never what a client sent.

/// One metric family.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// With its upper bounds.
    Histogram(&'static [f64]),
}

pub const REQUESTS: Metric = counter(
    "kinglet_requests_total",
    &["model", "version", "variant", "code"],
    "Inference requests by what their client was told: code is ok or an error code, cancelled where the client had left. \
     Those refused before a loaded model was found for them, for their body or for load, count under _unknown.",
);
pub const REQUEST_DURATION: Metric = histogram(
    "kinglet_request_duration_seconds",
    &["model", "version", "variant"],
    "Time from the end of a request's body to its encoded answer, of successful requests.",
    SECONDS,
);
pub const STAGE_DURATION: Metric = histogram(
    "kinglet_stage_duration_seconds",
    &["model", "version", "variant", "stage"],
    "Time of a request in one stage: decode, queue, gather, compute, encode. Over gRPC, decode begins after inflating.",
    SECONDS,
);
pub const ROWS: Metric = counter(
    "kinglet_rows_total",
    &["model", "version", "variant"],
    "Rows (batch elements) computed for successful requests.",
);
pub const BATCHES: Metric = counter(
    "kinglet_batches_total",
    &["model", "version", "variant", "reason"],
    "Batches executed, by why each was sent: full, delay, deadline, idle.",
);
pub const BATCH_ROWS: Metric =
    histogram("kinglet_batch_rows", &["model", "version", "variant"], "Rows of executed batches.", POWERS_OF_TWO);
pub const QUEUE_REQUESTS: Metric =
    gauge("kinglet_queue_requests", &["model", "version", "variant"], "Requests waiting for a batch.");
pub const QUEUE_BYTES: Metric =
    gauge("kinglet_queue_bytes", &["model", "version", "variant"], "Input bytes of requests waiting for a batch.");
pub const MODEL_CPU: Metric = counter(
    "kinglet_model_cpu_seconds_total",
    &["model", "version", "variant"],
    "CPU time of the compute threads while they ran batches of this model.",
);
pub const MODEL_READY: Metric =
    gauge("kinglet_model_ready", &["model", "version", "variant"], "1 while this version answers requests.");
pub const MODEL_MEMORY: Metric = gauge(
    "kinglet_model_memory_bytes",
    &["model", "version", "variant"],
    "Bytes a loaded version holds for weights and prepared copies, as its engine counts them.",
);
pub const MODEL_LOAD_DURATION: Metric = gauge(
    "kinglet_model_load_duration_seconds",
    &["model", "version", "variant"],
    "Time the last load took, warm-up included.",
);
pub const MODEL_LOADS: Metric = counter(
    "kinglet_model_loads_total",
    &["model", "outcome"],
    "Load attempts of a version or a variant; outcome is ok or failed.",
);
pub const PLAN_BUILDS: Metric = counter(
    "kinglet_plan_builds_total",
    &["model", "version", "variant"],
    "Plans that tract built for shapes of an operator that had none; failed ones count too.",
);
pub const PLAN_BUILD_SECONDS: Metric = counter(
    "kinglet_plan_build_seconds_total",
    &["model", "version", "variant"],
    "Time it took to build them; requests of such a shape waited for it.",
);
pub const IN_FLIGHT_REQUESTS: Metric =
    gauge("kinglet_in_flight_requests", &[], "Requests admitted and not yet answered.");
pub const IN_FLIGHT_BYTES: Metric =
    gauge("kinglet_in_flight_bytes", &[], "Input bytes of requests admitted and not yet answered.");
pub const RECEIVING_BYTES: Metric = gauge(
    "kinglet_receiving_bytes",
    &[],
    "Bytes of request bodies that are arriving, of requests not yet admitted; an announced length counts from the start.",
);
pub const ADMISSION_REFUSED: Metric = counter(
    "kinglet_admission_refused_total",
    &["reason"],
    "Requests refused at the door: requests (too many in flight), bytes (too many bytes in flight), receiving (too many bytes arriving).",
);
pub const REFUSAL_DURATION: Metric = histogram(
    "kinglet_refusal_duration_seconds",
    &[],
    "Time from the end of a request's body to its refusal for overload, at the door or by a full queue. What is refused \
     while it arrives has none.",
    SECONDS,
);
pub const CONNECTIONS: Metric = gauge("kinglet_connections", &["listener"], "Open connections: http, grpc, admin.");
pub const CONNECTIONS_REFUSED: Metric = counter(
    "kinglet_connections_refused_total",
    &["listener", "reason"],
    "Connections closed before a request: limit (too many open), accept (the system refused).",
);
pub const CORES: Metric = gauge("kinglet_cores", &[], "Threads of the compute pool.");
pub const CORES_BUSY: Metric = gauge("kinglet_cores_busy", &[], "Threads of the compute pool that run a batch now.");
pub const PANICS: Metric =
    counter("kinglet_panics_total", &[], "Compute jobs that ended in a panic; each failed its batch only.");
pub const BUILD_INFO: Metric = gauge("kinglet_build_info", &["version"], "Always 1; the version of this binary.");
pub const PROCESS_CPU: Metric = counter("process_cpu_seconds_total", &[], "User and system CPU time of the process.");
pub const PROCESS_MEMORY: Metric = gauge("process_resident_memory_bytes", &[], "Resident memory of the process.");
pub const PROCESS_FDS: Metric = gauge("process_open_fds", &[], "Open file descriptors of the process.");
pub const PROCESS_START: Metric =
    gauge("process_start_time_seconds", &[], "Start of the process, in seconds since the epoch.");

/// Every metric, in the order of the documentation.
pub const ALL: &[&Metric] = &[
    &REQUESTS,
    &REQUEST_DURATION,
    &STAGE_DURATION,
    &ROWS,
    &BATCHES,
    &BATCH_ROWS,
    &QUEUE_REQUESTS,
    &QUEUE_BYTES,
    &MODEL_CPU,
    &MODEL_READY,
    &MODEL_MEMORY,
    &MODEL_LOAD_DURATION,
    &MODEL_LOADS,
    &PLAN_BUILDS,
    &PLAN_BUILD_SECONDS,
    &IN_FLIGHT_REQUESTS,
    &IN_FLIGHT_BYTES,
    &RECEIVING_BYTES,
    &ADMISSION_REFUSED,
    &REFUSAL_DURATION,
    &CONNECTIONS,
    &CONNECTIONS_REFUSED,
    &CORES,
    &CORES_BUSY,
    &PANICS,
    &BUILD_INFO,
    &PROCESS_CPU,
    &PROCESS_MEMORY,
    &PROCESS_FDS,
    &PROCESS_START,
];

/// The page `docs/metrics.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Metrics\n\nServed as Prometheus text at `/metrics` on the admin listener. \
         Printed from the catalogue in `src/telemetry/catalogue.rs`; a test compares.\n\n\
         | metric | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for metric in ALL {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let row =
            format!("| `{}` | {} | {} | {} |\n", metric.name, metric.kind.as_str(), labels.join(" "), metric.help);
        page.push_str(&row);
    }
    page
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    bounds: &'static [f64],
) -> Metric {
    Metric { name, kind: Kind::Histogram(bounds), labels, help }
}

/// OpenTelemetry's bounds for `http.server.request.duration`, continued downwards: small models answer in microseconds.
const SECONDS: &[f64] = &[
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5,
    0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
const POWERS_OF_TWO: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let mut seen = HashSet::new();
        for metric in ALL {
            assert!(seen.insert(metric.name), "{} stands twice", metric.name);
            assert!(metric.name.starts_with("kinglet_") || metric.name.starts_with("process_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
