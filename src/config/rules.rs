//! Values and combinations of values that cannot work, found before anything starts.
//!
//! A type error is not found here, nor is what only the machine can answer, such as a port in use.

mod access;
mod dialects;
mod signatures;
mod tls;

use std::time::Duration;

use super::{Cause, Config};
use crate::frontend::Address;
use crate::metering::Coefficients;
use crate::metering::config::SourceChoice;
use crate::repository::config::Control;
use crate::units::{ByteSize, Span};

/// A rule that the settings break, with the keys it speaks of.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) keys: Vec<&'static str>,
    pub(super) cause: Cause,
}

pub(super) fn broken(config: &Config) -> Vec<Broken> {
    let mut broken = Vec::new();
    broken.extend(numbers(config));
    broken.extend(sizes(config));
    broken.extend(times(config));
    broken.extend(capacities(config));
    broken.extend(linger(config));
    broken.extend(dialects::broken(config));
    broken.extend(listeners(config));
    broken.extend(tls::broken(config));
    broken.extend(access::broken(config));
    broken.extend(repository(config));
    broken.extend(signatures::broken(config));
    broken.extend(metering(config));
    broken.extend(budgets(config));
    broken.extend(tracing(config));
    broken
}

fn numbers(config: &Config) -> impl Iterator<Item = Broken> {
    let (limits, batching) = (&config.limits, &config.batching);
    let any = 1..=usize::MAX;
    let streams = usize::try_from(limits.http2_streams_max).unwrap_or(usize::MAX);
    let ratio = usize::try_from(limits.inflate_ratio_max).unwrap_or(usize::MAX);
    [
        ("limits.inflate_ratio_max", ratio, any.clone()),
        ("limits.tensors_max", limits.tensors_max, any.clone()),
        ("limits.rank_max", limits.rank_max, any.clone()),
        ("limits.json_depth_max", limits.json_depth_max, JSON_DEPTH_MIN..=JSON_DEPTH_MAX),
        ("limits.headers_max", limits.headers_max, 1..=HEADERS_MAX),
        ("limits.connections_max", limits.connections_max, any.clone()),
        ("limits.http2_streams_max", streams, any.clone()),
        ("limits.http2_resets_max", limits.http2_resets_max, any.clone()),
        ("limits.stream_in_flight_max", limits.stream_in_flight_max, any.clone()),
        ("shared_memory.regions_max", config.shared_memory.regions_max, any.clone()),
        ("admission.requests_max", config.admission.requests_max, any.clone()),
        ("batching.batch_size_max", batching.batch_size_max, any.clone()),
        ("batching.queue_requests_max", batching.queue_requests_max, any.clone()),
        ("runtime.io_threads", config.runtime.io_threads, 0..=CORES_MAX),
        ("engine.cores", config.engine.cores, 0..=CORES_MAX),
        ("engine.shape_plans_max", config.engine.shape_plans_max, any.clone()),
        ("engine.image_pixels_max", config.engine.image_pixels_max, any.clone()),
        ("repository.loads_max", config.repository.loads_max, any.clone()),
        ("repository.loads_waiting_max", config.repository.loads_waiting_max, any.clone()),
        ("repository.variants_max", config.repository.variants_max, any.clone()),
        ("repository.ensemble_steps_max", config.repository.ensemble_steps_max, any.clone()),
        ("signatures.resources_max", config.signatures.resources_max, any),
        ("repository.demand_waiting_max", config.repository.demand_waiting_max, 1..=WAITING_MAX),
        ("tracing.queue_max", config.tracing.queue_max, 1..=RECORDS_MAX),
        ("tracing.batch_max", config.tracing.batch_max, 1..=RECORDS_MAX),
    ]
    .into_iter()
    .filter(|(_, got, allowed)| !allowed.contains(got))
    .map(|(key, got, allowed)| {
        let expected = match *allowed.end() {
            usize::MAX => format!("at least {}", allowed.start()),
            end => format!("{} to {end}", allowed.start()),
        };
        wrong(key, &expected, &got.to_string())
    })
}

fn sizes(config: &Config) -> impl Iterator<Item = Broken> {
    [
        ("limits.body_bytes_max", config.limits.body_bytes_max, ByteSize(1)),
        ("limits.control_bytes_max", config.limits.control_bytes_max, CONTROL_BYTES_MIN),
        ("limits.header_bytes_max", config.limits.header_bytes_max, HEADER_BYTES_MIN),
        ("shared_memory.bytes_max", config.shared_memory.bytes_max, ByteSize(1)),
        ("admission.bytes_max", config.admission.bytes_max, ByteSize(1)),
        ("admission.leaving_bytes_max", config.admission.leaving_bytes_max, LEAVING_BYTES_MIN),
        ("batching.queue_bytes_max", config.batching.queue_bytes_max, ByteSize(1)),
        ("engine.model_bytes_max", config.engine.model_bytes_max, ByteSize(1)),
        ("engine.arena_bytes_max", config.engine.arena_bytes_max, ByteSize(1)),
        ("engine.image_bytes_max", config.engine.image_bytes_max, ByteSize(1)),
        ("engine.step_file_bytes_max", config.engine.step_file_bytes_max, ByteSize(1)),
        ("engine.text_bytes_max", config.engine.text_bytes_max, ByteSize(1)),
        ("repository.demand_bytes_max", config.repository.demand_bytes_max, ByteSize(1)),
    ]
    .into_iter()
    .filter(|(_, got, least)| got < least)
    .map(|(key, got, least)| wrong(key, &format!("at least {least}"), &got.to_string()))
    .chain(too_large("limits.header_bytes_max", config.limits.header_bytes_max, HEADER_BYTES_MAX))
}

fn times(config: &Config) -> impl Iterator<Item = Broken> {
    [
        ("limits.header_timeout", config.limits.header_timeout),
        ("limits.body_timeout", config.limits.body_timeout),
        ("limits.body_rate_window", config.limits.body_rate_window),
        ("limits.http2_keepalive_interval", config.limits.http2_keepalive_interval),
        ("limits.http2_keepalive_timeout", config.limits.http2_keepalive_timeout),
        ("limits.idle_timeout", config.limits.idle_timeout),
        ("limits.write_timeout", config.limits.write_timeout),
        ("repository.poll_interval", config.repository.poll_interval),
        ("repository.demand_wait_max", config.repository.demand_wait_max),
        ("drain.linger", config.drain.linger),
        ("tls.reload_interval", config.tls.reload_interval),
        ("access.reload_interval", config.access.reload_interval),
        ("metering.carbon_lifetime", config.metering.carbon_lifetime),
        ("tracing.interval", config.tracing.interval),
        ("tracing.timeout", config.tracing.timeout),
    ]
    .into_iter()
    .filter(|(_, got)| *got == Span::default())
    .map(|(key, got)| wrong(key, "a time above zero", &got.to_string()))
}

/// What passes one gate must fit through the next: it would be refused for ever, each time with the advice to retry.
fn capacities(config: &Config) -> impl Iterator<Item = Broken> {
    let body = ("limits.body_bytes_max", config.limits.body_bytes_max);
    [
        (body, ("admission.bytes_max", config.admission.bytes_max)),
        (body, ("admission.receiving_bytes_max", config.admission.receiving_bytes_max)),
        (body, ("batching.queue_bytes_max", config.batching.queue_bytes_max)),
    ]
    .into_iter()
    .filter(|((_, inner), (_, outer))| inner > outer)
    .map(|((inner_key, inner), (outer_key, outer))| Broken {
        keys: vec![inner_key, outer_key],
        cause: impossible(format!("{inner_key} ({inner}) to be at most {outer_key} ({outer})")),
    })
}

/// Otherwise every drain with a silent client would be cut off.
fn linger(config: &Config) -> Option<Broken> {
    let (linger, grace) = (config.drain.linger, config.drain.grace);
    (linger > grace).then(|| Broken {
        keys: vec!["drain.linger", "drain.grace"],
        cause: impossible(format!("drain.linger ({linger}) to be at most drain.grace ({grace})")),
    })
}

fn listeners(config: &Config) -> impl Iterator<Item = Broken> {
    let http = ("http.listen", &config.http.listen);
    let grpc = ("grpc.listen", &config.grpc.listen);
    let admin = ("admin.listen", &config.admin.listen);
    let shared = (overlap(http.1, grpc.1) && http.1 != grpc.1).then(|| Broken {
        keys: vec![grpc.0, http.0],
        cause: impossible(format!(
            "grpc.listen ({}) to be http.listen ({}), or another port: a part of an address cannot be shared",
            grpc.1, http.1
        )),
    });
    let private = [http, grpc].into_iter().filter(move |public| overlap(public.1, admin.1)).map(move |public| Broken {
        keys: vec![admin.0, public.0],
        cause: impossible(format!(
            "admin.listen ({}) to be another address than {} ({}): what operators do is not for its clients",
            admin.1, public.0, public.1
        )),
    });
    shared.into_iter().chain(private)
}

fn repository(config: &Config) -> impl Iterator<Item = Broken> {
    let repository = &config.repository;
    let explicit = repository.control == Control::Explicit;
    let paths = repository.paths.len();
    [
        (repository.paths.is_empty() && !explicit).then(|| Broken {
            keys: vec!["repository.paths", "repository.control"],
            cause: impossible("at least one path in repository.paths, or repository.control \"explicit\"".to_owned()),
        }),
        repository
            .paths
            .iter()
            .any(|path| path.as_os_str().is_empty())
            .then(|| wrong("repository.paths", "a path", "an empty one")),
        (!repository.temporary_path.is_absolute()).then(|| {
            wrong("repository.temporary_path", "an absolute path", &repository.temporary_path.display().to_string())
        }),
        (!repository.load_at_start.is_empty() && !explicit).then(|| Broken {
            keys: vec!["repository.load_at_start", "repository.control"],
            cause: impossible(
                "repository.control \"explicit\" where repository.load_at_start is set: \
                 otherwise every model is loaded at the start"
                    .to_owned(),
            ),
        }),
        (!repository.model_name.is_empty() && paths != 1).then(|| Broken {
            keys: vec!["repository.model_name", "repository.paths"],
            cause: impossible(format!(
                "one path in repository.paths where repository.model_name is set, got {paths} of them"
            )),
        }),
    ]
    .into_iter()
    .flatten()
}

fn metering(config: &Config) -> impl Iterator<Item = Broken> {
    let metering = &config.metering;
    let watts = [
        ("metering.idle_watts", metering.idle_watts, WATTS_MAX),
        ("metering.model_idle_watts", metering.model_idle_watts, WATTS_MAX),
        ("metering.model_max_watts", metering.model_max_watts, WATTS_MAX),
        ("metering.carbon_intensity", metering.carbon_intensity, GRAMS_PER_KWH_MAX),
        ("metering.carbon_embodied", metering.carbon_embodied, GRAMS_MAX),
    ];
    let watts = watts.into_iter().filter(|(_, got, most)| !(0.0..=*most).contains(got));
    let watts = watts.map(|(key, got, most)| wrong(key, &format!("a number from 0 to {most}"), &got.to_string()));
    let window = metering.window;
    let window = (!(WINDOW_MIN..=WINDOW_MAX).contains(&window))
        .then(|| wrong("metering.window", &format!("{WINDOW_MIN} to {WINDOW_MAX}"), &window.to_string()));
    let quantum = metering.quantum_microjoules;
    let quantum = (!(1..=QUANTUM_MAX).contains(&quantum))
        .then(|| wrong("metering.quantum_microjoules", &format!("1 to {QUANTUM_MAX}"), &quantum.to_string()));
    let coefficients = &metering.model_coefficients;
    let unknown = (!Coefficients::names().any(|name| name == coefficients)).then(|| {
        let names: Vec<_> = Coefficients::names().collect();
        wrong("metering.model_coefficients", &format!("one of {}", names.join(", ")), &format!("{coefficients:?}"))
    });
    let custom = (coefficients == "custom" && metering.model_max_watts <= metering.model_idle_watts).then(|| Broken {
        keys: vec!["metering.model_max_watts", "metering.model_idle_watts"],
        cause: impossible("metering.model_max_watts above metering.model_idle_watts, for \"custom\"".to_owned()),
    });
    let no_file = metering.source == SourceChoice::File && metering.file_path.as_os_str().is_empty();
    let no_file = no_file.then(|| Broken {
        keys: vec!["metering.file_path", "metering.source"],
        cause: impossible("a path in metering.file_path, for the source \"file\"".to_owned()),
    });
    watts.chain([window, quantum, unknown, custom, no_file].into_iter().flatten())
}

fn budgets(config: &Config) -> impl Iterator<Item = Broken> {
    let (budgets, metering) = (&config.budgets, &config.metering);
    let numbers = [
        ("budgets.balanced_loss_max", budgets.balanced_loss_max, 1.0),
        ("budgets.eco_loss_max", budgets.eco_loss_max, 1.0),
        ("budgets.power_watts_max", budgets.power_watts_max, WATTS_MAX),
        ("budgets.carbon_intensity_max", budgets.carbon_intensity_max, GRAMS_PER_KWH_MAX),
    ];
    let numbers = numbers.into_iter().filter(|(_, got, most)| !(0.0..=*most).contains(got));
    let numbers = numbers.map(|(key, got, most)| wrong(key, &format!("a number from 0 to {most}"), &got.to_string()));
    let is_limited = budgets.power_watts_max > 0.0 || budgets.carbon_intensity_max > 0.0;
    let unmeasured = (is_limited && metering.source == SourceChoice::None).then(|| Broken {
        keys: vec!["budgets.power_watts_max", "budgets.carbon_intensity_max", "metering.source"],
        cause: impossible("a source of energy in metering.source, for a limit of power or carbon".to_owned()),
    });
    let has_intensity = metering.carbon_intensity > 0.0 || !metering.carbon_intensity_path.as_os_str().is_empty();
    let unknown = (budgets.carbon_intensity_max > 0.0 && !has_intensity).then(|| Broken {
        keys: vec!["budgets.carbon_intensity_max", "metering.carbon_intensity", "metering.carbon_intensity_path"],
        cause: impossible("metering.carbon_intensity or metering.carbon_intensity_path, to hold it against".to_owned()),
    });
    numbers.chain([unmeasured, unknown].into_iter().flatten())
}

fn tracing(config: &Config) -> impl Iterator<Item = Broken> {
    let tracing = &config.tracing;
    let ratio = tracing.sample_ratio;
    let ratio = (!(0.0..=1.0).contains(&ratio)).then(|| wrong("tracing.sample_ratio", "0 to 1", &ratio.to_string()));
    let (batch, queue) = (tracing.batch_max, tracing.queue_max);
    let batch = (batch > queue).then(|| Broken {
        keys: vec!["tracing.batch_max", "tracing.queue_max"],
        cause: impossible(format!("tracing.batch_max ({batch}) to be at most tracing.queue_max ({queue})")),
    });
    [ratio, batch].into_iter().flatten()
}

/// Whether one socket would take connections meant for the other. Port 0 is a free one each time.
fn overlap(a: &Address, b: &Address) -> bool {
    let (Address::Tcp(a), Address::Tcp(b)) = (a, b) else { return a == b };
    let any = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && (any || a.ip() == b.ip())
}

fn too_large(key: &'static str, got: ByteSize, most: ByteSize) -> Option<Broken> {
    (got > most).then(|| wrong(key, &format!("at most {most}"), &got.to_string()))
}

fn wrong(key: &'static str, expected: &str, got: &str) -> Broken {
    Broken { keys: vec![key], cause: Cause::Wrong { expected: expected.to_owned(), got: got.to_owned() } }
}

fn impossible(expected: String) -> Cause {
    Cause::Impossible { expected }
}

/// An inference request nests four deep: object, inputs, input, and its flat numbers.
const JSON_DEPTH_MIN: usize = 4;
/// serde_json stops at the 128th level, whatever we ask for.
const JSON_DEPTH_MAX: usize = 127;
/// `http::HeaderMap` holds 2^15 slots, a quarter of which stay free; it panics when more are reserved at once.
const HEADERS_MAX: usize = (1 << 15) / 4 * 3;
/// hyper reads HTTP/1.1 through a buffer of no less; a smaller limit would refuse what has been read already.
const HEADER_BYTES_MIN: ByteSize = ByteSize(8 << 10);
/// Every log setting in one call.
const CONTROL_BYTES_MIN: ByteSize = ByteSize(1 << 10);
/// Its last eighth has room for one answer that counts as small.
const LEAVING_BYTES_MIN: ByteSize = ByteSize(1 << 20);
/// HTTP/2 announces the limit in 32 bits; this is far below and still beyond any honest client.
const HEADER_BYTES_MAX: ByteSize = ByteSize(16 << 20);
/// Counters of hardware move every few milliseconds; over more than some seconds a counter of 32 bits may come to its end
/// twice (`metering::counter`).
const WINDOW_MIN: Span = Span(Duration::from_millis(100));
const WINDOW_MAX: Span = Span(Duration::from_secs(10));
/// A kilojoule: then nothing is told but that something was used.
const QUANTUM_MAX: u64 = 1_000_000_000;
/// No machine takes a megawatt, no grid has ten kilograms a kWh, no machine takes a thousand tonnes to make.
const WATTS_MAX: f64 = 1e6;
const GRAMS_PER_KWH_MAX: f64 = 1e4;
const GRAMS_MAX: f64 = 1e9;
/// Of traces, a kilobyte each or more.
const RECORDS_MAX: usize = 1 << 20;
/// Each is a request in flight; the semaphore that counts them has a limit of its own far above.
const WAITING_MAX: usize = 1 << 20;
/// A typing error should not start a million threads.
const CORES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn check(change: impl FnOnce(&mut Config), keys: &[&str], says: &str) {
        let mut config = Config::default();
        change(&mut config);
        let broken = broken(&config);
        assert_eq!(broken.len(), 1, "{keys:?}: {broken:?}");
        assert_eq!(broken[0].keys, keys);
        let (Cause::Wrong { expected, .. } | Cause::Impossible { expected }) = &broken[0].cause else {
            panic!("{:?}", broken[0].cause);
        };
        assert!(expected.contains(says), "{expected}");
    }

    #[test]
    fn single_values() {
        check(|config| config.limits.tensors_max = 0, &["limits.tensors_max"], "at least 1");
        check(|config| config.limits.json_depth_max = 128, &["limits.json_depth_max"], "4 to 127");
        check(|config| config.limits.json_depth_max = 3, &["limits.json_depth_max"], "4 to 127");
        check(|config| config.limits.headers_max = 24_577, &["limits.headers_max"], "1 to 24576");
        check(|config| config.limits.http2_streams_max = 0, &["limits.http2_streams_max"], "at least 1");
        check(|config| config.limits.http2_resets_max = 0, &["limits.http2_resets_max"], "at least 1");
        let window = ["limits.body_rate_window"];
        check(|config| config.limits.body_rate_window = Span::default(), &window, "above zero");
        let interval = ["limits.http2_keepalive_interval"];
        check(|config| config.limits.http2_keepalive_interval = Span::default(), &interval, "above zero");
        let keepalive = ["limits.http2_keepalive_timeout"];
        check(|config| config.limits.http2_keepalive_timeout = Span::default(), &keepalive, "above zero");
        check(|config| config.limits.control_bytes_max.0 = 1023, &["limits.control_bytes_max"], "at least 1KiB");
        let leaving = ["admission.leaving_bytes_max"];
        check(|config| config.admission.leaving_bytes_max.0 = (1 << 20) - 1, &leaving, "at least 1MiB");
        check(|config| config.limits.header_bytes_max.0 = 8191, &["limits.header_bytes_max"], "at least 8KiB");
        check(|config| config.limits.header_bytes_max.0 = 1 << 25, &["limits.header_bytes_max"], "at most 16MiB");
        check(|config| config.limits.idle_timeout = Span::default(), &["limits.idle_timeout"], "above zero");
        check(|config| config.limits.write_timeout = Span::default(), &["limits.write_timeout"], "above zero");
        check(|config| config.shared_memory.regions_max = 0, &["shared_memory.regions_max"], "at least 1");
        check(|config| config.shared_memory.bytes_max.0 = 0, &["shared_memory.bytes_max"], "at least 1B");
        check(|config| config.admission.requests_max = 0, &["admission.requests_max"], "at least 1");
        check(|config| config.batching.batch_size_max = 0, &["batching.batch_size_max"], "at least 1");
        check(|config| config.batching.queue_requests_max = 0, &["batching.queue_requests_max"], "at least 1");
        check(|config| config.drain.linger = Span::default(), &["drain.linger"], "above zero");
        check(|config| config.runtime.io_threads = 1_000_000, &["runtime.io_threads"], "0 to 4096");
        check(|config| config.engine.cores = 1_000_000, &["engine.cores"], "0 to 4096");
        check(|config| config.repository.paths = vec!["".into()], &["repository.paths"], "a path");
        check(|config| config.repository.loads_waiting_max = 0, &["repository.loads_waiting_max"], "at least 1");
        check(|config| config.repository.variants_max = 0, &["repository.variants_max"], "at least 1");
        check(|config| config.repository.ensemble_steps_max = 0, &["repository.ensemble_steps_max"], "at least 1");
        check(|config| config.tracing.batch_max = 0, &["tracing.batch_max"], "1 to 1048576");
        check(|config| config.tracing.queue_max = 1 << 21, &["tracing.queue_max"], "1 to 1048576");
        check(|config| config.tracing.interval = Span::default(), &["tracing.interval"], "above zero");
        check(|config| config.tracing.timeout = Span::default(), &["tracing.timeout"], "above zero");
        check(|config| config.tracing.sample_ratio = 1.5, &["tracing.sample_ratio"], "0 to 1");
        check(|config| config.tracing.sample_ratio = f64::NAN, &["tracing.sample_ratio"], "0 to 1");
        let temporary = ["repository.temporary_path"];
        check(|config| config.repository.temporary_path = "x".into(), &temporary, "an absolute path");
    }

    #[test]
    fn metering_values() {
        let check = |change: fn(&mut crate::metering::MeteringConfig), key: &'static str, says: &str| {
            check(|config| change(&mut config.metering), &[key], says);
        };
        check(|metering| metering.window = Span(Duration::from_millis(99)), "metering.window", "100ms to 10s");
        check(|metering| metering.window = Span(Duration::from_secs(11)), "metering.window", "100ms to 10s");
        check(|metering| metering.quantum_microjoules = 0, "metering.quantum_microjoules", "1 to 1000000000");
        check(|metering| metering.quantum_microjoules = 1 << 40, "metering.quantum_microjoules", "1 to 1000000000");
        check(|metering| metering.idle_watts = -1.0, "metering.idle_watts", "0 to 1000000");
        check(|metering| metering.idle_watts = f64::NAN, "metering.idle_watts", "0 to 1000000");
        check(|metering| metering.model_idle_watts = 1e7, "metering.model_idle_watts", "0 to 1000000");
        check(|metering| metering.model_max_watts = f64::INFINITY, "metering.model_max_watts", "0 to 1000000");
        check(|metering| metering.carbon_intensity = 10_001.0, "metering.carbon_intensity", "0 to 10000");
        check(|metering| metering.carbon_embodied = 1e10, "metering.carbon_embodied", "0 to 1000000000");
        check(|metering| metering.carbon_lifetime = Span::default(), "metering.carbon_lifetime", "above zero");
        let coefficients = "metering.model_coefficients";
        check(|metering| metering.model_coefficients = "z80".into(), coefficients, "one of auto, custom, epyc-naples");
    }

    #[test]
    fn metering_values_that_need_each_other() {
        let watts = ["metering.model_max_watts", "metering.model_idle_watts"];
        check(|config| config.metering.model_coefficients = "custom".into(), &watts, "for \"custom\"");
        let file = ["metering.file_path", "metering.source"];
        check(|config| config.metering.source = SourceChoice::File, &file, "for the source \"file\"");
    }

    #[test]
    fn budgets_values_and_what_they_need() {
        check(|config| config.budgets.eco_loss_max = 1.5, &["budgets.eco_loss_max"], "0 to 1");
        check(|config| config.budgets.balanced_loss_max = f64::NAN, &["budgets.balanced_loss_max"], "0 to 1");
        check(|config| config.budgets.power_watts_max = -1.0, &["budgets.power_watts_max"], "0 to 1000000");
        let source = ["budgets.power_watts_max", "budgets.carbon_intensity_max", "metering.source"];
        let no_source = |config: &mut Config| {
            config.budgets.power_watts_max = 5.0;
            config.metering.source = SourceChoice::None;
        };
        check(no_source, &source, "a source of energy");
        let grid = ["budgets.carbon_intensity_max", "metering.carbon_intensity", "metering.carbon_intensity_path"];
        check(|config| config.budgets.carbon_intensity_max = 300.0, &grid, "to hold it against");
    }

    #[test]
    fn the_largest_header_count_is_one_that_http_can_hold() {
        assert!(http::HeaderMap::<u8>::try_with_capacity(HEADERS_MAX).is_ok());
        assert!(http::HeaderMap::<u8>::try_with_capacity(HEADERS_MAX + 3).is_err());
    }

    #[test]
    fn the_json_depth_is_what_serde_json_can_read() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(serde_json::from_str::<serde_json::Value>(&nested(JSON_DEPTH_MAX)).is_ok());
        assert!(serde_json::from_str::<serde_json::Value>(&nested(JSON_DEPTH_MAX + 1)).is_err());
    }

    #[test]
    fn combinations() {
        let bytes = ["limits.body_bytes_max", "admission.bytes_max"];
        check(|config| config.admission.bytes_max.0 = 1 << 20, &bytes, "(64MiB) to be at most");
        let bytes = ["limits.body_bytes_max", "admission.receiving_bytes_max"];
        check(|config| config.admission.receiving_bytes_max.0 = 1 << 20, &bytes, "(64MiB) to be at most");
        let bytes = ["limits.body_bytes_max", "batching.queue_bytes_max"];
        check(|config| config.batching.queue_bytes_max.0 = 1 << 20, &bytes, "(64MiB) to be at most");
        let times = ["drain.linger", "drain.grace"];
        check(|config| config.drain.grace.0 = Duration::from_millis(999), &times, "(1s) to be at most drain.grace");
        let batch = ["tracing.batch_max", "tracing.queue_max"];
        check(|config| config.tracing.queue_max = 511, &batch, "(512) to be at most tracing.queue_max (511)");
        let paths = ["repository.paths", "repository.control"];
        check(|config| config.repository.paths.clear(), &paths, "at least one path");
        let start = ["repository.load_at_start", "repository.control"];
        check(|config| config.repository.load_at_start = vec!["*".to_owned()], &start, "explicit");
        let named = ["repository.model_name", "repository.paths"];
        let two = |config: &mut Config| {
            config.repository.paths = vec!["a".into(), "b".into()];
            config.repository.model_name = "c".to_owned();
        };
        check(two, &named, "got 2 of them");
        let mut explicit = Config::default();
        explicit.repository.control = Control::Explicit;
        explicit.repository.paths.clear();
        explicit.repository.load_at_start = vec!["*".to_owned()];
        assert!(broken(&explicit).is_empty());
    }

    #[test]
    fn listeners_share_a_whole_address_or_none() {
        for (http, grpc, admin, keys) in [
            ("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:2", &[][..]),
            ("127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1", &[]),
            ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", &[]),
            ("0.0.0.0:1", "127.0.0.1:1", "127.0.0.1:2", &["grpc.listen", "http.listen"]),
            ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:1", &["admin.listen", "http.listen"]),
            ("127.0.0.1:1", "[::]:2", "127.0.0.1:2", &["admin.listen", "grpc.listen"]),
            ("unix:/a", "unix:/a", "unix:/b", &[]),
            ("unix:/a", "127.0.0.1:1", "unix:/a", &["admin.listen", "http.listen"]),
        ] {
            let mut config = Config::default();
            config.http.listen = http.parse().unwrap();
            config.grpc.listen = grpc.parse().unwrap();
            config.admin.listen = admin.parse().unwrap();
            let found = broken(&config);
            let found: Vec<_> = found.iter().flat_map(|broken| broken.keys.clone()).collect();
            assert_eq!(found, keys, "{http} {grpc} {admin}");
        }
    }
}
