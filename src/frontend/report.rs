//! What one request cost, as response parameters and headers, the same on both wires.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::parameters::Value;
use crate::infer::InferResponse;
use crate::metering::Estimate;

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

/// Tells what a request took, where that is known.
pub fn tell(energy: Option<Estimate>, headers: &mut HeaderMap) {
    let Some(Estimate { energy, kind }) = energy else { return };
    let joules = HeaderValue::try_from(energy.as_joules().to_string()).expect("digits are a header's value");
    headers.insert("kinglet-energy-joules", joules);
    headers.insert("kinglet-energy-source", HeaderValue::from_static(kind.as_str()));
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
    let mut entries = vec![
        ("kinglet_batch_size", Value::Int(i64::try_from(usage.batch_size).unwrap_or(i64::MAX))),
        ("kinglet_batch_reason", Value::Text(usage.batch_reason.as_str().to_owned())),
        ("kinglet_queue_us", micros(usage.queue)),
        ("kinglet_compute_us", micros(usage.compute.total())),
    ];
    entries.extend(response.variant.iter().map(|name| ("kinglet_variant", Value::Text(name.to_string()))));
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
    use super::*;
    use crate::infer::{BatchReason, ComputeTimes, Usage, VersionId};
    use crate::metering::Kind;
    use crate::units::Nanojoules;

    #[test]
    fn times_are_microseconds() {
        let ms = Duration::from_millis;
        let compute = ComputeTimes { gather: ms(1), infer: ms(2), scatter: ms(3) };
        let usage =
            Usage { queue: ms(7), compute, batch_size: 4, batch_reason: BatchReason::Full, cpu: Duration::ZERO };
        let wanted = [
            ("kinglet_batch_size", Value::Int(4)),
            ("kinglet_batch_reason", Value::Text("full".into())),
            ("kinglet_queue_us", Value::Int(7000)),
            ("kinglet_compute_us", Value::Int(6000)),
        ];
        let (model, version, variant) = ("m".parse().unwrap(), VersionId(1), None);
        let response = InferResponse { model, version, variant, id: None, outputs: vec![], usage };
        let report = Report { batch: true, energy: false };
        assert_eq!(report.entries(&response, None), wanted);
        let response = InferResponse { variant: Some("int8".parse().unwrap()), ..response };
        let last = ("kinglet_variant", Value::Text("int8".into()));
        assert_eq!(report.entries(&response, None).last(), Some(&last));
        assert_eq!(Report::default().entries(&response, None), []);

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
        let mut headers = HeaderMap::new();
        tell(None, &mut headers);
        assert!(headers.is_empty());
        tell(Some(Estimate { energy: Nanojoules(10_000), kind: Kind::Powercap }), &mut headers);
        assert_eq!(
            (&headers["kinglet-energy-joules"], &headers["kinglet-energy-source"]),
            (&"0.00001".parse().unwrap(), &"powercap".parse().unwrap())
        );
    }
}
