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
pub const QUEUE_REQUESTS_MAX: Metric = gauge(
    "kinglet_queue_requests_max",
    &["model", "version", "variant"],
    "Requests that may wait for a batch, in the queues of all priorities together; more are refused.",
);
pub const MODEL_CPU: Metric = counter(
    "kinglet_model_cpu_seconds_total",
    &["model", "version", "variant"],
    "CPU time of the compute threads while they ran batches of this model.",
);
pub const VARIANT_CHOICES: Metric = counter(
    "kinglet_variant_choices_total",
    &["model", "version", "variant", "reason"],
    "Requests to versions with variants, by the build that was chosen and why: default, named, budget, balanced, eco, power_cap, carbon.",
);
pub const MODEL_ACCURACY: Metric = gauge(
    "kinglet_model_accuracy_ratio",
    &["model", "version", "variant"],
    "The share of rows with the right answer, by the manifest or the report of compression; absent where nobody has said it.",
);
pub const BUDGET_STAGE: Metric = gauge(
    "kinglet_budget_stage",
    &["stage"],
    "1 for the stage that builds are chosen by: accuracy, balanced, eco, or cheapest, which only a limit of power asks for.",
);
pub const BUDGET_STAGE_CHANGES: Metric = counter("kinglet_budget_stage_changes_total", &[], "Changes of that stage.");
pub const POWER_LIMIT: Metric = gauge(
    "kinglet_power_limit_watts",
    &[],
    "The power that the machine may take, by budgets.power_watts_max; absent without one.",
);
pub const POWER_ALLOWANCE: Metric = gauge(
    "kinglet_power_allowance_watts",
    &[],
    "What batches may take of it, at the stage at which requests are refused for more; absent at others.",
);
pub const POWER_REFUSED: Metric =
    counter("kinglet_power_refused_total", &[], "Requests refused because the power was spent.");
pub const CACHE_LOOKUPS: Metric = counter(
    "kinglet_cache_lookups_total",
    &["model", "version", "variant", "outcome"],
    "Requests of models whose answers are kept: hit (there was one), miss (it was computed), coalesced (it was computed for an \
     equal request that came before).",
);
pub const CACHE_LOOKUP_DURATION: Metric = histogram(
    "kinglet_cache_lookup_duration_seconds",
    &["model", "version", "variant"],
    "Time of hashing a request's inputs and looking its answer up, without waiting for one that is computed.",
    SECONDS,
);
pub const CACHE_ENTRIES: Metric = gauge("kinglet_cache_entries", &[], "Answers that are kept.");
pub const CACHE_BYTES: Metric = gauge("kinglet_cache_bytes", &[], "Bytes that they take.");
pub const CACHE_BYTES_MAX: Metric =
    gauge("kinglet_cache_bytes_max", &[], "Bytes that they may take, by cache.bytes_max.");
pub const CACHE_EVICTIONS: Metric =
    counter("kinglet_cache_evictions_total", &[], "Answers that were given up to make room for others.");
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
pub const MODEL_BUILDS_FAILED: Metric = gauge(
    "kinglet_model_builds_failed",
    &["model"],
    "Versions and variants of a model that its last load could not bring to serve as they lie on disk; what served before \
     goes on.",
);
pub const MODEL_VERIFICATIONS: Metric = counter(
    "kinglet_model_verifications_total",
    &["outcome"],
    "Builds that were held against a signature or digests: verified, unsigned, altered (a file or the signature is not as \
     it was signed), untrusted (signed by somebody else), broken (the signature cannot be used).",
);
pub const MODEL_VERIFICATION_BYTES: Metric = counter(
    "kinglet_model_verification_bytes_total",
    &[],
    "Bytes of files that were verified before they were loaded.",
);
pub const MODEL_VERIFICATION_TIME: Metric = counter(
    "kinglet_model_verification_seconds_total",
    &[],
    "Time it took loads to read these bytes and to take their digests.",
);
pub const RESIDENT_MODELS: Metric =
    gauge("kinglet_resident_models", &[], "Models that are loaded, where they load on demand; absent elsewhere.");
pub const RESIDENT_BYTES: Metric = gauge(
    "kinglet_resident_memory_bytes",
    &[],
    "Bytes that models on demand hold: loaded ones, those that load, and dropped ones that requests still hold.",
);
pub const RESIDENT_BYTES_MAX: Metric =
    gauge("kinglet_resident_memory_max_bytes", &[], "Bytes that they may hold: repository.demand_bytes_max.");
pub const EVICTIONS: Metric =
    counter("kinglet_model_evictions_total", &[], "Models that were dropped to make room for others.");
pub const LOAD_WAIT: Metric = histogram(
    "kinglet_load_wait_seconds",
    &[],
    "Time that requests waited for their model to be loaded on demand, of those that got it.",
    SECONDS,
);
pub const LOAD_WAIT_REFUSED: Metric = counter(
    "kinglet_load_wait_refused_total",
    &["reason"],
    "Requests that did not get their model on demand: waiting (too many wait), late, memory (it does not fit), failed.",
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
pub const IN_FLIGHT_REQUESTS_MAX: Metric = gauge(
    "kinglet_in_flight_requests_max",
    &[],
    "Requests that may be admitted and not yet answered; more are refused.",
);
pub const IN_FLIGHT_BYTES: Metric =
    gauge("kinglet_in_flight_bytes", &[], "Input bytes of requests admitted and not yet answered.");
pub const RECEIVING_BYTES: Metric = gauge(
    "kinglet_receiving_bytes",
    &[],
    "Bytes of request bodies that are arriving, of requests not yet admitted; an announced length counts from the start.",
);
pub const LEAVING_BYTES: Metric = gauge(
    "kinglet_leaving_bytes",
    &[],
    "Bytes of answers that their clients have not taken yet. What the kernel has taken for a client counts as taken.",
);
pub const ADMISSION_REFUSED: Metric = counter(
    "kinglet_admission_refused_total",
    &["reason"],
    "Requests refused at the door: requests (too many in flight), bytes (too many bytes in flight), receiving (too many bytes arriving), leaving (too many bytes of answers that nobody has taken).",
);
pub const REFUSAL_DURATION: Metric = histogram(
    "kinglet_refusal_duration_seconds",
    &[],
    "Time from the end of a request's body to its refusal for overload, at the door or by a full queue. What is refused \
     while it arrives has none.",
    SECONDS,
);
pub const SHARED_MEMORY_REGIONS: Metric =
    gauge("kinglet_shared_memory_regions", &[], "Regions of shared memory that clients have registered.");
pub const SHARED_MEMORY_BYTES: Metric = gauge("kinglet_shared_memory_bytes", &[], "Bytes of those regions.");
pub const CONNECTIONS: Metric = gauge("kinglet_connections", &["listener"], "Open connections: http, grpc, admin.");
pub const CONNECTIONS_REFUSED: Metric = counter(
    "kinglet_connections_refused_total",
    &["listener", "reason"],
    "Connections closed before a request: limit (too many open), accept (the system refused), handshake (no TLS came about).",
);
pub const TLS_NOT_AFTER: Metric = gauge(
    "kinglet_tls_certificate_not_after_timestamp_seconds",
    &[],
    "When the certificate that is served ends, in seconds since 1970; absent without TLS.",
);
pub const TLS_RELOADS_FAILED: Metric = counter(
    "kinglet_tls_reloads_failed_total",
    &[],
    "Changes of certificate, key or authorities that could not be taken: those before go on.",
);
pub const ACCESS_REFUSED: Metric = counter(
    "kinglet_access_refused_total",
    &["reason"],
    "Calls that were refused for who made them: missing (no credentials), unknown, ended, token (another fault of one), scope, \
     foreign (a password by a page of another site), unguarded (control by an open address); requests, rows and joules for a tenant's limits.",
);
pub const ACCESS_RELOADS_FAILED: Metric = counter(
    "kinglet_access_reloads_failed_total",
    &[],
    "Changes of tenants or of keys that could not be taken: those before go on.",
);
pub const TENANT_REQUESTS: Metric = counter(
    "kinglet_tenant_requests_total",
    &["tenant"],
    "Inference requests that a tenant's limits let in. Tokens of tenants that stand in no file count under _unlisted.",
);
pub const TENANT_ROWS: Metric =
    counter("kinglet_tenant_rows_total", &["tenant"], "Rows of a tenant's requests that were answered.");
pub const TENANT_ENERGY: Metric =
    counter("kinglet_tenant_energy_joules_total", &["tenant"], "Energy of a tenant's answers, where it can be told.");
pub const READY: Metric = gauge(
    "kinglet_ready",
    &[],
    "1 while requests should be sent here: not before the first models have loaded, nor in a drain.",
);
pub const TRACE_SPANS: Metric = counter(
    "kinglet_trace_spans_total",
    &["result"],
    "Spans of sampled requests and of their batches: sent (the collector took them), dropped (the queue was full, or the \
     server ended), refused (by the collector).",
);
pub const CORES: Metric = gauge("kinglet_cores", &[], "Threads of the compute pool.");
pub const CORES_BUSY: Metric = gauge("kinglet_cores_busy", &[], "Threads of the compute pool that run a batch now.");
pub const PANICS: Metric =
    counter("kinglet_panics_total", &[], "Compute jobs that ended in a panic; each failed its batch only.");
pub const LOG_LINES_DROPPED: Metric = counter(
    "kinglet_log_lines_dropped_total",
    &[],
    "Lines of the log that were lost, because whoever should read them has stopped.",
);
pub const BUILD_INFO: Metric = gauge("kinglet_build_info", &["version"], "Always 1; the version of this binary.");
pub const PROCESS_CPU: Metric = counter("process_cpu_seconds_total", &[], "User and system CPU time of the process.");
pub const PROCESS_MEMORY: Metric = gauge("process_resident_memory_bytes", &[], "Resident memory of the process.");
pub const PROCESS_FDS: Metric = gauge("process_open_fds", &[], "Open file descriptors of the process.");
pub const PROCESS_FDS_MAX: Metric =
    gauge("process_max_fds", &[], "File descriptors that the process may open; absent where there is no limit.");
pub const PROCESS_START: Metric =
    gauge("process_start_time_seconds", &[], "Start of the process, in seconds since the epoch.");

pub const ENERGY: Metric = counter(
    "kinglet_energy_joules_total",
    &["source", "quality", "domain"],
    "Energy of the machine as the source counts it: package, dram, core, uncore, psys, meter, model. Domains are within each \
     other; what is shared out are packages and dram, psys where there are no packages. Absent while the source cannot be \
     read, as are all metrics of energy.",
);
pub const ENERGY_ATTRIBUTED: Metric = counter(
    "kinglet_energy_attributed_joules_total",
    &["model", "version", "variant", "source", "quality"],
    "Energy of a build's batches, by their CPU time, at the end of each window. Idle power is in none of it.",
);
pub const ENERGY_OVERHEAD: Metric = counter(
    "kinglet_energy_overhead_joules_total",
    &["source", "quality"],
    "Energy of this process outside of batches: connections, coding, loads, waiting awake.",
);
pub const ENERGY_IDLE: Metric = counter(
    "kinglet_energy_idle_joules_total",
    &["source", "quality"],
    "Energy that the machine takes when it does nothing.",
);
pub const ENERGY_OTHER: Metric =
    counter("kinglet_energy_other_joules_total", &["source", "quality"], "Energy of other processes of the machine.");
pub const REQUEST_ENERGY: Metric = histogram(
    "kinglet_request_energy_joules",
    &["model", "version", "variant", "source", "quality"],
    "Energy of a request as its answer says it: its share of the batch's CPU time, at the last window's price of a second, \
     rounded up to the quantum.",
    JOULES,
);
pub const ENERGY_SOURCE: Metric = gauge(
    "kinglet_energy_source_info",
    &["source", "quality", "coefficients", "idle"],
    "Always 1; the source of energy that was chosen, a model's coefficients, and what is taken for idle power: configured, \
     lowest (that was observed), model.",
);
pub const ENERGY_WINDOWS_DROPPED: Metric = counter(
    "kinglet_energy_windows_dropped_total",
    &["reason"],
    "Windows whose energy is not known: unreadable (the source), zones (counters came or went), backwards (a counter was \
     set back), gap (a counter may have come to its end twice), stuck (none moved).",
);
pub const ENERGY_SAMPLER_CPU: Metric =
    counter("kinglet_energy_sampler_cpu_seconds_total", &[], "CPU time of the thread that reads the source.");
pub const CARBON_OPERATIONAL: Metric = counter(
    "kinglet_carbon_operational_grams_total",
    &["model", "version", "variant", "source", "quality"],
    "Carbon dioxide equivalent of a build's energy, by metering.carbon_intensity; absent without one.",
);
pub const CARBON_EMBODIED: Metric = counter(
    "kinglet_carbon_embodied_grams_total",
    &[],
    "Carbon dioxide equivalent of making the machine, for the part of its life since the start; absent without \
     metering.carbon_embodied.",
);

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
    &QUEUE_REQUESTS_MAX,
    &MODEL_CPU,
    &VARIANT_CHOICES,
    &MODEL_ACCURACY,
    &BUDGET_STAGE,
    &BUDGET_STAGE_CHANGES,
    &POWER_LIMIT,
    &POWER_ALLOWANCE,
    &POWER_REFUSED,
    &CACHE_LOOKUPS,
    &CACHE_LOOKUP_DURATION,
    &CACHE_ENTRIES,
    &CACHE_BYTES,
    &CACHE_BYTES_MAX,
    &CACHE_EVICTIONS,
    &MODEL_READY,
    &MODEL_MEMORY,
    &MODEL_LOAD_DURATION,
    &MODEL_LOADS,
    &MODEL_BUILDS_FAILED,
    &MODEL_VERIFICATIONS,
    &MODEL_VERIFICATION_BYTES,
    &MODEL_VERIFICATION_TIME,
    &RESIDENT_MODELS,
    &RESIDENT_BYTES,
    &RESIDENT_BYTES_MAX,
    &EVICTIONS,
    &LOAD_WAIT,
    &LOAD_WAIT_REFUSED,
    &PLAN_BUILDS,
    &PLAN_BUILD_SECONDS,
    &IN_FLIGHT_REQUESTS,
    &IN_FLIGHT_REQUESTS_MAX,
    &IN_FLIGHT_BYTES,
    &RECEIVING_BYTES,
    &LEAVING_BYTES,
    &ADMISSION_REFUSED,
    &REFUSAL_DURATION,
    &SHARED_MEMORY_REGIONS,
    &SHARED_MEMORY_BYTES,
    &CONNECTIONS,
    &CONNECTIONS_REFUSED,
    &TLS_NOT_AFTER,
    &TLS_RELOADS_FAILED,
    &ACCESS_REFUSED,
    &ACCESS_RELOADS_FAILED,
    &TENANT_REQUESTS,
    &TENANT_ROWS,
    &TENANT_ENERGY,
    &ENERGY,
    &ENERGY_ATTRIBUTED,
    &ENERGY_OVERHEAD,
    &ENERGY_IDLE,
    &ENERGY_OTHER,
    &REQUEST_ENERGY,
    &ENERGY_SOURCE,
    &ENERGY_WINDOWS_DROPPED,
    &ENERGY_SAMPLER_CPU,
    &CARBON_OPERATIONAL,
    &CARBON_EMBODIED,
    &READY,
    &TRACE_SPANS,
    &CORES,
    &CORES_BUSY,
    &PANICS,
    &LOG_LINES_DROPPED,
    &BUILD_INFO,
    &PROCESS_CPU,
    &PROCESS_MEMORY,
    &PROCESS_FDS,
    &PROCESS_FDS_MAX,
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
/// From a small model's row to a large model's batch.
const JOULES: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
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
