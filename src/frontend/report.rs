//! What one request cost, as response parameters, the same on both wires.

use std::time::Duration;

use super::parameters::Value;
use crate::infer::InferResponse;

/// The parameters of a response whose request asked for them.
pub fn entries(response: &InferResponse) -> Vec<(&'static str, Value)> {
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

fn micros(span: Duration) -> Value {
    Value::Int(i64::try_from(span.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::{BatchReason, ComputeTimes, Usage, VersionId};

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
        assert_eq!(entries(&response), wanted);
        let response = InferResponse { variant: Some("int8".parse().unwrap()), ..response };
        assert_eq!(entries(&response).last(), Some(&("kinglet_variant", Value::Text("int8".into()))));
    }
}
