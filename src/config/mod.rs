//! Every setting of the server: default, file, environment and flags merged into one typed value.
//!
//! The only room that reads settings or the environment. It knows each room's settings by their type and checks what
//! no single room can see; it does not know what a room does with them.

mod docs;
mod environment;
mod error;
mod keys;
mod layers;
mod nearest;
mod rules;

use std::path::Path;

use serde::Deserialize;

use crate::access::AccessConfig;
use crate::admission::config::AdmissionConfig;
use crate::cache::CacheConfig;
use crate::engine::LoadOptions;
use crate::engine::config::EngineConfig;
use crate::frontend::config::{AdminConfig, CorsConfig, DialectsConfig, GrpcConfig, HttpConfig, LimitsConfig};
use crate::frontend::shared_memory::SharedMemoryConfig;
use crate::frontend::tls::TlsConfig;
use crate::integrity::SignaturesConfig;
use crate::metering::MeteringConfig;
use crate::repository::batching_defaults::BatchingConfig;
use crate::repository::config::RepositoryConfig;
use crate::routing::BudgetsConfig;
use crate::telemetry::{TelemetryConfig, TracingConfig};
use crate::units::Span;

pub use docs::markdown;
pub use error::{Cause, ConfigError, Place, Problem};
pub use keys::{Reload, Takes};
pub use layers::Flag;
use layers::Settings;

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub http: HttpConfig,
    pub grpc: GrpcConfig,
    pub admin: AdminConfig,
    pub tls: TlsConfig,
    pub access: AccessConfig,
    pub cors: CorsConfig,
    pub dialects: DialectsConfig,
    pub limits: LimitsConfig,
    pub shared_memory: SharedMemoryConfig,
    pub runtime: RuntimeConfig,
    pub admission: AdmissionConfig,
    pub cache: CacheConfig,
    pub batching: BatchingConfig,
    pub engine: EngineConfig,
    pub metering: MeteringConfig,
    pub budgets: BudgetsConfig,
    pub repository: RepositoryConfig,
    pub signatures: SignaturesConfig,
    pub drain: DrainConfig,
    pub telemetry: TelemetryConfig,
    pub tracing: TracingConfig,
}

/// The asynchronous side of the process.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RuntimeConfig {
    /// 0 takes half of the cores.
    pub io_threads: usize,
}

/// How the process ends.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct DrainConfig {
    pub delay: Span,
    pub grace: Span,
    /// Within the grace.
    pub linger: Span,
}

impl Config {
    /// The defaults, overridden by the file, then by the environment, then by the flags. Where no file is given, the
    /// environment may name one.
    pub fn load(file: Option<&Path>, flags: &[Flag]) -> Result<Self, ConfigError> {
        let named = environment::file().filter(|_| file.is_none());
        let file = file.or(named.as_deref());
        let text = file.map(environment::read_file).transpose()?;
        let file = file.zip(text.as_deref()).map(|(path, text)| (path.display().to_string(), text));
        Self::from_layers(file, environment::variables(), flags)
    }

    /// What changes when a running server goes from `self` to `new`, and what it must be restarted for.
    pub fn reload_diff(&self, new: &Self) -> Reload {
        keys::reload_diff(self, new)
    }

    /// Takes from `new` what can change without a restart, and keeps the rest.
    pub fn adopt(&mut self, new: &Self) -> Reload {
        keys::adopt(self, new)
    }

    /// What an engine needs to know of the settings to load a model.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions {
            model_bytes_max: self.engine.model_bytes_max.0,
            arena_bytes_max: self.engine.arena_bytes_max.0,
            shape_plans_max: self.engine.shape_plans_max,
            batch_size_max: self.batching.batch_size_max,
            cores_max: self.engine.cores(),
            warm_up_time_max: self.engine.warm_up_time_max.0,
            isa_max: self.engine.isa_max,
            loop_rounds_max: self.engine.loop_rounds_max,
            mapped: self.engine.mapped,
            tuning_time_max: self.engine.tuning_time_max.0,
            step_file_bytes_max: self.engine.step_file_bytes_max.0,
            image_bytes_max: self.engine.image_bytes_max.0,
            image_pixels_max: self.engine.image_pixels_max,
            text_bytes_max: self.engine.text_bytes_max.0,
            ..LoadOptions::default()
        }
    }

    fn from_layers(
        file: Option<(String, &str)>,
        variables: Vec<(String, Option<String>)>,
        flags: &[Flag],
    ) -> Result<Self, ConfigError> {
        let mut settings = Settings::of_defaults();
        let mut problems = Vec::new();
        if let Some((name, text)) = file {
            problems.extend(settings.read_file(&name, text));
        }
        problems.extend(settings.read_environment(variables));
        problems.extend(settings.read_flags(flags));
        let (config, mistyped) = settings.typed();
        problems.extend(mistyped);
        // A rule that fails only because a mistyped value fell back to its default would mislead.
        if problems.is_empty() {
            problems.extend(rules::broken(&config).into_iter().map(|broken| settings.blame(broken)));
        }
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Refused(problems)) }
    }
}

impl RuntimeConfig {
    /// Threads to start on a machine of `cores`. Every thread more is one that an arriving message may have to wake;
    /// what takes long, models and large messages, runs on the compute pool. One thread alone costs the least a request,
    /// but is full before two cores are.
    pub fn io_threads(&self, cores: usize) -> usize {
        if self.io_threads > 0 { self.io_threads } else { (cores / 2).max(2).min(cores.max(1)) }
    }
}

impl Default for Config {
    fn default() -> Self {
        Settings::of_defaults().typed().0
    }
}

/// The defaults, with their comments: `docs/config.md` is printed from it.
const DEFAULTS: &str = include_str!("../../config/default.toml");

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::units::ByteSize;

    fn load(file: &str, variables: &[(&str, &str)], flags: &[Flag]) -> Result<Config, String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())));
        Config::from_layers(Some(("config.toml".to_owned(), file)), variables.collect(), flags)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn threads_that_are_not_counted_follow_the_cores() {
        let threads = |io_threads, cores| RuntimeConfig { io_threads }.io_threads(cores);
        assert_eq!([1, 2, 3, 4, 16].map(|cores| threads(0, cores)), [1, 2, 2, 2, 8]);
        assert_eq!(threads(5, 2), 5);
    }

    #[test]
    fn each_layer_overrides_the_one_before() {
        let file = "[limits]\ntensors_max = 1\nrank_max = 1\nparameters_max = 1\n";
        let flags = [Flag::new("--limit", "limits.tensors_max", ["3"])];
        let environment = [("KINGLET__LIMITS__TENSORS_MAX", "2"), ("KINGLET__LIMITS__RANK_MAX", "2")];
        let config = load(file, &environment, &flags).unwrap();
        assert_eq!((config.limits.tensors_max, config.limits.rank_max, config.limits.parameters_max), (3, 2, 1));
        assert_eq!(config.limits.headers_max, Config::default().limits.headers_max);
    }

    #[test]
    fn each_layer_reads_every_type() {
        let file = "drain.delay = '5s'\n[repository]\npaths = ['a,b', 'c']\nstart_with_failures = false\n";
        let config = load(file, &[], &[]).unwrap();
        assert_eq!(config.drain.delay.0, Duration::from_secs(5));
        assert_eq!(config.repository.paths, ["a,b", "c"].map(PathBuf::from));
        assert!(!config.repository.start_with_failures);

        let environment = [
            ("KINGLET__REPOSITORY__PATHS", "a, b"),
            ("KINGLET__REPOSITORY__START_WITH_FAILURES", "false"),
            ("KINGLET__LIMITS__BODY_BYTES_MAX", "1MiB"),
            ("KINGLET__GRPC__LISTEN", "[::1]:9001"),
            ("KINGLET__TELEMETRY__LOG_LEVEL", "debug"),
        ];
        let config = load("", &environment, &[]).unwrap();
        assert_eq!(config.repository.paths, ["a", "b"].map(PathBuf::from));
        assert!(!config.repository.start_with_failures);
        assert_eq!(config.limits.body_bytes_max, ByteSize(1 << 20));
        assert_eq!(config.grpc.listen.to_string(), "[::1]:9001");

        let standard = [
            ("KINGLET__TRACING__SERVICE_NAME", "ours"),
            ("OTEL_SERVICE_NAME", "theirs"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,c=d"),
            ("OTEL_LOG_LEVEL", "debug"),
            ("AIP_HEALTH_ROUTE", "/health"),
        ];
        let config = load("[tracing]\nheaders = ['e=f']", &standard, &[]).unwrap();
        assert_eq!((config.tracing.service_name.as_str(), config.tracing.headers.len()), ("ours", 2));
        assert_eq!(config.dialects.vertex_health_route, "/health");

        let flags = [
            Flag::new("--repository", "repository.paths", ["a,b", "c"]),
            Flag::new("--http", "http.listen", ["127.0.0.1:1"]),
        ];
        let config = load("", &[], &flags).unwrap();
        assert_eq!(config.repository.paths, ["a,b", "c"].map(PathBuf::from), "a flag is given once per element");
        assert_eq!(config.http.listen.to_string(), "127.0.0.1:1");
    }

    #[test]
    fn errors_name_their_source_and_what_was_expected() {
        let duration = "expected a duration with a unit (ns, us, ms, s, m, h), such as \"5ms\"";
        for (file, wanted) in [
            (
                "\n[batching]\nqueue_delay_max = 5",
                format!("config.toml:3: batching.queue_delay_max: {duration}, got 5"),
            ),
            ("drain.delay = '5 parsecs'", format!("config.toml:1: drain.delay: {duration}, got \"5 parsecs\"")),
            (
                "[limits]\nrank_max = -1",
                "config.toml:2: limits.rank_max: expected a whole number from 0, got -1".into(),
            ),
            (
                "[limits]\nrank_max = '8'",
                "config.toml:2: limits.rank_max: expected a whole number from 0, got \"8\"".into(),
            ),
            (
                "[limits]\nhttp2_streams_max = 5_000_000_000",
                "config.toml:2: limits.http2_streams_max: expected a whole number from 0 to 4294967295, got 5000000000"
                    .into(),
            ),
            (
                "[telemetry]\nlog_level = 'loud'",
                "config.toml:2: telemetry.log_level: expected one of error, warn, info, debug, trace, got \"loud\""
                    .into(),
            ),
            ("telemetry.log_level = 5", "config.toml:1: telemetry.log_level: expected a string, got 5".into()),
            (
                "http.listen = ':80'",
                "config.toml:1: http.listen: expected an address with a port, such as \"127.0.0.1:8000\" or \"localhost:8000\", or \"unix:/path/of/a.socket\", got \":80\""
                    .into(),
            ),
            ("[repository]\npaths = 'a'", "config.toml:2: repository.paths: expected a list, got \"a\"".into()),
            (
                "[repository]\n\npaths = ['a', 5]",
                "config.toml:3: repository.paths: expected a path, got [\"a\", 5]".into(),
            ),
            (
                "repository.start_with_failures = 'yes'",
                "config.toml:1: repository.start_with_failures: expected true or false, got \"yes\"".into(),
            ),
            ("http = 5", "config.toml:1: http: expected a table, got 5".into()),
            ("[[http]]", "config.toml:1: http: expected a table, got [{}]".into()),
            (
                "[batching]\nqueue_delay = '5ms'",
                "config.toml:2: batching.queue_delay: unknown key, the nearest is batching.queue_delay_max".into(),
            ),
            (
                "batch_size_max = 3",
                "config.toml:1: batch_size_max: unknown key, the nearest is batching.batch_size_max".into(),
            ),
            ("[bathcing]", "config.toml:1: bathcing: unknown key, the nearest is batching".into()),
            ("[weather]", "config.toml:1: weather: unknown key".into()),
            ("[http\n", "config.toml:1: unclosed table, expected `]`".into()),
            ("[drain]\ndelay = '1s'\ndelay = '2s'", "config.toml:3: duplicate key".into()),
        ] {
            assert_eq!(load(file, &[], &[]).unwrap_err(), wanted, "{file}");
        }
    }

    #[test]
    fn errors_of_the_environment_and_of_flags_name_the_variable_and_the_flag() {
        for (name, value, wanted) in [
            ("KINGLET__LIMITS__RANK_MAX", "many", "expected a whole number, got \"many\""),
            ("KINGLET__LIMITS__RANK_MAX", "-1", "expected a whole number from 0, got -1"),
            ("KINGLET__REPOSITORY__START_WITH_FAILURES", "yes", "expected true or false, got \"yes\""),
            ("KINGLET__LIMITS__RANK", "8", "unknown variable, the nearest is KINGLET__LIMITS__RANK_MAX"),
            ("KINGLET__limits__rank_max", "8", "unknown variable, the nearest is KINGLET__LIMITS__RANK_MAX"),
            ("KINGLET__", "8", "unknown variable"),
        ] {
            assert_eq!(load("", &[(name, value)], &[]).unwrap_err(), format!("{name}: {wanted}"));
        }
        assert!(load("", &[("KINGLET_SERVICE_HOST", "10.0.0.1"), ("PATH", "/bin")], &[]).is_ok());
        let unreadable = vec![("KINGLET__LIMITS__RANK_MAX".to_owned(), None)];
        let error = Config::from_layers(None, unreadable, &[]).unwrap_err();
        assert_eq!(error.to_string(), "KINGLET__LIMITS__RANK_MAX: expected UTF-8, got other bytes");

        let secure = [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector")];
        let wanted = "OTEL_EXPORTER_OTLP_ENDPOINT: expected \"\" or a collector such as \"http://localhost:4318\" \
                      (TLS is not spoken), got \"https://collector\"";
        assert_eq!(load("", &secure, &[]).unwrap_err(), wanted);

        let wrong = [Flag::new("--http", "http.listen", ["8000"])];
        let wanted = "--http: expected an address with a port, such as \"127.0.0.1:8000\" or \"localhost:8000\", \
                      or \"unix:/path/of/a.socket\", got \"8000\"";
        assert_eq!(load("", &[], &wrong).unwrap_err(), wanted);
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let file = "[limits]\nrank_max = 'x'\nrang_max = 1\ntensors_max = 'y'\n";
        let error = load(file, &[("KINGLET__A__B", "")], &[]).unwrap_err();
        let places: Vec<_> = error.lines().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            places,
            [
                "config.toml:3 limits.rang_max",
                "KINGLET__A__B unknown variable",
                "config.toml:2 limits.rank_max",
                "config.toml:4 limits.tensors_max"
            ]
        );
    }

    #[test]
    fn the_defaults_are_complete_and_possible() {
        let (config, problems) = Settings::of_defaults().typed();
        assert!(problems.is_empty(), "{problems:?}");
        assert!(rules::broken(&config).is_empty());
        assert_eq!(load("", &[], &[]).unwrap(), Config::default());
    }

    #[test]
    fn the_example_is_valid_and_differs() {
        let config = load(include_str!("../../config/example.toml"), &[], &[]).unwrap();
        assert_ne!(config, Config::default());
    }

    #[test]
    fn a_file_is_read_from_disk_and_its_absence_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kinglet.toml");
        let error = Config::load(Some(&path), &[]).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read {}", path.display()));
        std::fs::write(&path, "[engine]\ncores = 3\n").unwrap();
        assert_eq!(Config::load(Some(&path), &[]).unwrap().engine.cores, 3);
    }
}
