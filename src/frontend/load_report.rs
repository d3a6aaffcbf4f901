//! How loaded the server is, in the answers that balancers read: Open Request Cost Aggregation (ORCA), as Envoy and gRPC have it.
//!
//! A call that asks is told, over REST by a header, over gRPC by trailing metadata (gRFC A51). The format is
//! `xds.data.orca.v3.OrcaLoadReport`'s, in text, JSON or protobuf; docs/kubernetes.md says who reads it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, HeaderValue};
use prost::Message;
use serde::Serialize;
use tokio::time::Instant;

use super::Frontend;
use crate::telemetry::process::cpu_time;

/// The parts of the report that are known here.
#[derive(Clone, PartialEq, Serialize, Message)]
pub struct LoadReport {
    /// Of the cores that models run on, a share; above 1 where others are used too.
    #[prost(double, tag = "1")]
    cpu_utilization: f64,
    #[prost(btree_map = "string, double", tag = "8")]
    named_metrics: BTreeMap<String, f64>,
}

/// How a report is written into a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

impl Format {
    /// The one that a call asks for.
    pub fn asked(headers: &HeaderMap) -> Option<Self> {
        let wanted = headers.get(ASKED)?.to_str().ok()?;
        match wanted.to_ascii_lowercase().as_str() {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Shares of the time that the process has run, over the last quarter of a second and more.
#[derive(Debug)]
pub struct CpuShare {
    cores: usize,
    sampled: Mutex<Sampled>,
}

#[derive(Clone, Copy, Debug)]
struct Sampled {
    at: Instant,
    cpu: Duration,
    share: f64,
}

impl CpuShare {
    pub fn of(cores: usize) -> Self {
        Self { cores, sampled: Mutex::new(Sampled { at: Instant::now(), cpu: cpu_time(), share: 0.0 }) }
    }

    fn now(&self) -> f64 {
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now.saturating_duration_since(sampled.at) >= WINDOW {
            *sampled = sampled.next(now, cpu_time(), self.cores);
        }
        sampled.share
    }
}

impl Sampled {
    #[expect(clippy::cast_precision_loss, reason = "cores are few")]
    fn next(self, at: Instant, cpu: Duration, cores: usize) -> Self {
        let could = at.saturating_duration_since(self.at).as_secs_f64() * cores.max(1) as f64;
        Self { at, cpu, share: cpu.saturating_sub(self.cpu).as_secs_f64() / could }
    }
}

impl Frontend {
    #[expect(clippy::cast_precision_loss, reason = "requests are few")]
    fn load_report(&self) -> LoadReport {
        let metrics = [
            ("in_flight_requests", self.pipeline.admission().in_flight() as f64),
            ("queue_wait_seconds", self.pipeline.wait_expected().as_secs_f64()),
        ];
        LoadReport {
            cpu_utilization: self.cpu_share.now(),
            named_metrics: metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }

    /// Tells a client that has asked for it, by a header of its answer.
    pub fn tell_load(&self, format: Option<Format>, headers: &mut HeaderMap) {
        if let Some(format) = format {
            let text = self.load_report().written(format);
            headers.insert(TOLD, HeaderValue::try_from(text).expect("digits, and names of letters and signs"));
        }
    }

    /// The same behind a message of gRPC.
    pub fn trail_load(&self, trailers: &mut HeaderMap) {
        let bytes = STANDARD_NO_PAD.encode(self.load_report().encode_to_vec());
        trailers.insert(TRAILED, HeaderValue::try_from(bytes).expect("Base64 is text"));
    }
}

impl LoadReport {
    fn written(&self, format: Format) -> String {
        match format {
            Format::Json => format!("JSON {}", serde_json::to_string(self).expect("writing JSON into memory succeeds")),
            Format::Text => {
                let mut text = format!("TEXT cpu_utilization={}", self.cpu_utilization);
                for (name, value) in &self.named_metrics {
                    // Writing into memory succeeds.
                    let _ = write!(text, ", named_metrics.{name}={value}");
                }
                text
            }
        }
    }
}

/// Shorter than balancers react in, and long enough that it is more than the request that asks.
const WINDOW: Duration = Duration::from_millis(250);
const ASKED: &str = "endpoint-load-metrics-format";
const TOLD: &str = "endpoint-load-metrics";
const TRAILED: &str = "endpoint-load-metrics-bin";

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> LoadReport {
        let metrics = [("in_flight_requests", 3.0), ("queue_wait_seconds", 0.25)];
        let named_metrics = metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        LoadReport { cpu_utilization: 0.5, named_metrics }
    }

    #[test]
    fn a_report_is_written_as_balancers_read_it() {
        let json =
            r#"JSON {"cpu_utilization":0.5,"named_metrics":{"in_flight_requests":3.0,"queue_wait_seconds":0.25}}"#;
        assert_eq!(report().written(Format::Json), json);
        let text =
            "TEXT cpu_utilization=0.5, named_metrics.in_flight_requests=3, named_metrics.queue_wait_seconds=0.25";
        assert_eq!(report().written(Format::Text), text);
        assert_eq!(LoadReport::decode(&*report().encode_to_vec()).unwrap(), report());
    }

    #[test]
    fn formats_are_asked_for_by_name() {
        let asked = |value: &'static str| {
            Format::asked(&HeaderMap::from_iter([(
                http::HeaderName::from_static(ASKED),
                HeaderValue::from_static(value),
            )]))
        };
        assert_eq!([asked("text"), asked("JSON"), asked("bin")], [Some(Format::Text), Some(Format::Json), None]);
        assert_eq!(Format::asked(&HeaderMap::new()), None);
    }

    #[test]
    fn shares_are_of_the_cores() {
        let start = Sampled { at: Instant::now(), cpu: Duration::from_secs(5), share: 0.0 };
        let next = start.next(start.at + Duration::from_secs(2), Duration::from_secs(6), 2);
        assert_eq!((next.share, next.cpu), (0.25, Duration::from_secs(6)));
    }
}
