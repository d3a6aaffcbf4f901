//! What one request cost, as response parameters and headers, the same on both wires.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::parameters::Value;
use crate::infer::{Batched, CacheOutcome, InferResponse, VariantName, VariantReason};
use crate::metering::Estimate;
use crate::pipeline::Answer;

/// What is wanted in the response parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Batch size, reason and times.
    pub batch: bool,
    /// Joules and CPU time.
    pub energy: bool,
}

impl Report {
    pub fn is_wanted(self) -> bool {
        self.batch || self.energy
    }

    /// The response parameters. Energy that nobody knows is not told.
    pub fn entries(self, response: &InferResponse, energy: Option<Estimate>) -> Vec<(&'static str, Value)> {
        let mut entries = if self.batch { batch(response) } else { Vec::new() };
        if self.energy {
            entries.push(("cpu_seconds", Value::Double(seconds(response.usage.cpu))));
            entries.extend(energy.iter().flat_map(joules));
        }
        entries
    }
}

/// What headers and trailing metadata tell of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    energy: Option<Estimate>,
    /// That has answered, where it is not the version's own build.
    variant: Option<VariantName>,
    variant_reason: Option<VariantReason>,
    cache: Option<CacheOutcome>,
}

impl Told {
    /// Of energy only where it is wanted, of builds only where there was a choice, of the cache only where there is one.
    pub fn of(answer: &Answer, with_energy: bool) -> Self {
        let variant_reason = answer.response.variant_reason;
        let variant = answer.response.variant.clone().filter(|_| variant_reason.is_some());
        let cache = answer.response.cache;
        Self { energy: answer.energy.filter(|_| with_energy), variant, variant_reason, cache }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn write(&self, headers: &mut HeaderMap) {
        let mut text = |name, text: &str| {
            headers.insert(name, HeaderValue::try_from(text).expect("digits, and names of letters, digits and signs"));
        };
        if let Some(Estimate { energy, kind }) = &self.energy {
            text("kinglet-energy-joules", &energy.as_joules().to_string());
            text("kinglet-energy-source", kind.as_str());
        }
        if let Some(name) = &self.variant {
            text("kinglet-variant", name.as_str());
        }
        if let Some(reason) = self.variant_reason {
            text("kinglet-variant-reason", reason.as_str());
        }
        if let Some(outcome) = self.cache {
            text("kinglet-cache", outcome.as_str());
        }
    }
}

fn joules(estimate: &Estimate) -> [(&'static str, Value); 3] {
    let Estimate { energy, kind } = estimate;
    [
        ("energy_joules", Value::Double(energy.as_joules())),
        ("energy_source", Value::Text(kind.as_str().to_owned())),
        ("energy_quality", Value::Text(kind.quality().as_str().to_owned())),
    ]
}

fn batch(response: &InferResponse) -> Vec<(&'static str, Value)> {
    let usage = &response.usage;
    let mut entries = Vec::new();
    if let Some(Batched { rows, reason }) = usage.batch {
        entries.push(("kinglet_batch_size", Value::Int(i64::try_from(rows).unwrap_or(i64::MAX))));
        entries.push(("kinglet_batch_reason", Value::Text(reason.as_str().to_owned())));
    }
    entries.push(("kinglet_queue_us", micros(usage.queue)));
    entries.push(("kinglet_compute_us", micros(usage.compute.total())));
    entries.extend(response.cache.map(|cache| ("kinglet_cache", Value::Text(cache.as_str().to_owned()))));
    entries.extend(response.variant.iter().map(|name| ("kinglet_variant", Value::Text(name.to_string()))));
    let reason =
        response.variant_reason.map(|reason| ("kinglet_variant_reason", Value::Text(reason.as_str().to_owned())));
    entries.extend(reason);
    entries
}

/// Up to the next microsecond, for the same reason as energy is rounded.
fn seconds(span: Duration) -> f64 {
    Duration::from_micros(u64::try_from(span.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)).as_secs_f64()
}

fn micros(span: Duration) -> Value {
    Value::Int(i64::try_from(span.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::infer::{BatchReason, ComputeTimes, Usage, VersionId};
    use crate::metering::Kind;
    use crate::units::Nanojoules;

    #[test]
    fn times_are_microseconds() {
        let ms = Duration::from_millis;
        let compute = ComputeTimes { gather: ms(1), infer: ms(2), scatter: ms(3) };
        let batch = Some(Batched { rows: 4, reason: BatchReason::Full });
        let usage = Usage { queue: ms(7), compute, batch, cpu: Duration::ZERO };
        let wanted = [
            ("kinglet_batch_size", Value::Int(4)),
            ("kinglet_batch_reason", Value::Text("full".into())),
            ("kinglet_queue_us", Value::Int(7000)),
            ("kinglet_compute_us", Value::Int(6000)),
        ];
        let (model, version, variant) = ("m".parse().unwrap(), VersionId(1), None);
        let (variant_reason, cache) = (None, None);
        let response =
            InferResponse { model, version, variant, variant_reason, cache, id: None, outputs: vec![], usage };
        let report = Report { batch: true, energy: false };
        assert_eq!(report.entries(&response, None), wanted);
        let (variant, variant_reason) = (Some("int8".parse().unwrap()), Some(VariantReason::Budget));
        let response = InferResponse { variant, variant_reason, ..response };
        let name = ("kinglet_variant", Value::Text("int8".into()));
        let reason = ("kinglet_variant_reason", Value::Text("budget".into()));
        assert_eq!(report.entries(&response, None)[4..], [name, reason]);
        let usage = Usage { batch: None, compute: ComputeTimes::default(), ..usage };
        let (variant, variant_reason, cache) = (None, None, Some(CacheOutcome::Hit));
        let response = InferResponse { variant, variant_reason, cache, usage, ..response };
        let (queue, compute) = (("kinglet_queue_us", Value::Int(7000)), ("kinglet_compute_us", Value::Int(0)));
        let hit = ("kinglet_cache", Value::Text("hit".into()));
        assert_eq!(report.entries(&response, None), [queue, compute, hit], "a hit was in no batch");

        let report = Report { batch: false, energy: true };
        let response = InferResponse { usage: Usage { cpu: Duration::from_nanos(1_500_001), ..usage }, ..response };
        let cpu = ("cpu_seconds", Value::Double(0.001_501));
        assert_eq!(report.entries(&response, None), std::slice::from_ref(&cpu), "energy that is not known is not told");
        let estimate = Estimate { energy: Nanojoules(120_000), kind: Kind::Model };
        let joules = ("energy_joules", Value::Double(0.000_12));
        let source = ("energy_source", Value::Text("model".into()));
        let quality = ("energy_quality", Value::Text("modelled".into()));
        assert_eq!(report.entries(&response, Some(estimate)), [cpu, joules, source, quality]);
    }

    #[test]
    fn headers_tell_what_is_known() {
        let written = |told: Told| {
            let mut headers = HeaderMap::new();
            told.write(&mut headers);
            let text = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
            let mut lines: Vec<_> = headers.iter().map(text).collect();
            lines.sort();
            lines
        };
        assert!(Told::default().is_empty() && written(Told::default()).is_empty());
        let energy = Some(Estimate { energy: Nanojoules(10_000), kind: Kind::Powercap });
        let told = written(Told { energy, ..Told::default() });
        assert_eq!(told, ["kinglet-energy-joules: 0.00001", "kinglet-energy-source: powercap"]);
        let (variant, variant_reason) = (Some("int8".parse().unwrap()), Some(VariantReason::Budget));
        let cache = Some(CacheOutcome::Coalesced);
        let told = written(Told { energy: None, variant, variant_reason, cache });
        let wanted = ["kinglet-cache: coalesced", "kinglet-variant-reason: budget", "kinglet-variant: int8"];
        assert_eq!(told, wanted);
    }
}
