//! Which requests are recorded, what waits, and what is sent of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::config::Pair;
use super::queue::Queue;
use super::record::{Ended, Record};
use super::settings::{Change, Level};
use super::*;
use crate::config::Config;
use crate::error::ErrorCode;
use crate::infer::{BatchReason, Batched, ComputeTimes, ModelName, Usage, VariantReason, VersionId};
use crate::proto::otlp::any_value::Value as Any;
use crate::proto::otlp::{KeyValue, Span};
use crate::telemetry::energy::Origin;
use crate::units::Nanojoules;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const MS: Duration = Duration::from_millis(1);

/// A tracer that nobody sends for, with what it counts.
fn tracer(ratio: f64, records_max: usize) -> (Tracer, SpanMetrics) {
    let Metrics { spans: metrics, sampling, .. } = Metrics::new();
    sampling.configure(&config(ratio));
    let recorder = Recorder {
        queue: Queue::new(records_max, 2, metrics.clone()),
        sampling,
        closing: CancellationToken::new(),
        ended: CancellationToken::new(),
    };
    (Tracer(Some(Arc::new(recorder))), metrics)
}

fn config(sample_ratio: f64) -> TracingConfig {
    let endpoint = Some("http://localhost:4318".parse().unwrap());
    TracingConfig { endpoint, sample_ratio, settings_over_network: true, ..Config::default().tracing }
}

fn begin(tracer: &Tracer, wire: Wire) -> Recording {
    let context = tracer.span_of(Some(PARENT), Some("a=1")).unwrap();
    tracer
        .record(&context, None, || Head { wire, name: "call", attributes: vec![("url.path", Value::Text("/".into()))] })
        .unwrap()
}

fn waiting(tracer: &Tracer) -> Vec<Record> {
    tracer.0.as_ref().unwrap().queue.take(1)
}

fn sent(tracer: &Tracer) -> Vec<Span> {
    let resource = message::resource(&Config::default().tracing);
    let mut message = message::message(&waiting(tracer), &resource);
    message.resource_spans.remove(0).scope_spans.remove(0).spans
}

fn text<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a Any> {
    attributes.iter().find(|pair| pair.key == name)?.value.as_ref()?.value.as_ref()
}

fn usage() -> Usage {
    let compute = ComputeTimes { gather: MS, infer: 3 * MS, scatter: MS };
    Usage { queue: 2 * MS, compute, batch: Some(Batched { rows: 4, reason: BatchReason::Full }), cpu: 5 * MS }
}

#[test]
fn the_client_decides_and_else_the_ratio() {
    for (tracer, roots) in [(Tracer::off(), false), (tracer(0.0, 1).0, false), (tracer(1.0, 1).0, true)] {
        for (flags, sampled) in [("01", true), ("00", false)] {
            let parent = format!("{}{flags}", &PARENT[..53]);
            let context = tracer.span_of(Some(&parent), None).unwrap();
            assert_eq!((context.is_sampled(), context.parent_id()), (sampled, Some(0x00f0_67aa_0ba9_02b7)));
        }
        assert_eq!(tracer.span_of(None, None).is_some_and(|context| context.is_sampled()), roots);
        let told = tracer.span_of(Some("junk"), Some("a=1")).unwrap();
        assert_eq!((told.is_sampled(), told.parent_id(), told.tracestate()), (roots, None, None));
    }
    let (half, _) = tracer(0.5, 1);
    let sampled = (0..1000).filter(|_| half.span_of(None, None).is_some()).count();
    assert!((400..600).contains(&sampled), "{sampled}");
    half.0.as_ref().unwrap().sampling.configure(&config(0.0));
    assert!(half.span_of(None, None).is_none());
}

#[test]
fn only_what_is_sampled_is_recorded() {
    let head = || panic!("the head of a call that is not recorded is not looked at");
    let sampled = Tracer::off().span_of(Some(PARENT), None).unwrap();
    assert!(Tracer::off().record(&sampled, None, head).is_none(), "without a collector nothing is");
    let (tracer, _) = tracer(1.0, 1);
    let other = tracer.span_of(Some(&PARENT.replace("-01", "-00")), None).unwrap();
    assert!(tracer.record(&other, None, head).is_none());
}

#[test]
fn a_model_may_have_its_requests_dropped() {
    let (tracer, _) = tracer(1.0, 9);
    let sampling = Arc::clone(&tracer.0.as_ref().unwrap().sampling);
    let (kept, dropped): (ModelName, ModelName) = ("kept".parse().unwrap(), "dropped".parse().unwrap());
    assert!(tracer.fate(&tracer.span_of(None, None).unwrap()).is_none(), "nothing is open");
    sampling.update(Some(&dropped), &[Change::Level(Some(Level::Off))]).unwrap();
    let head = || Head { wire: Wire::Http, name: "call", attributes: Vec::new() };
    let begin = || {
        let context = tracer.span_of(None, None).unwrap();
        let fate = tracer.fate(&context).unwrap();
        (tracer.record(&context, Some(&fate), head).unwrap(), fate)
    };
    let (recording, fate) = begin();
    let recording = recording.of_model(&kept).unwrap();
    recording.of_model(&dropped).unwrap().finish(None);
    assert_eq!((waiting(&tracer).len(), fate.is_dropped()), (1, false), "the first build that was found has decided");
    let (recording, fate) = begin();
    assert!(recording.of_model(&dropped).is_none());
    assert_eq!((waiting(&tracer).len(), fate.is_dropped()), (0, true));
    let (recording, _) = begin();
    drop(recording);
    assert_eq!(waiting(&tracer).len(), 1, "where no model was found, the settings of all count");

    sampling.update(None, &[Change::Level(Some(Level::Off))]).unwrap();
    sampling.update(Some(&kept), &[Change::Level(Some(Level::Timestamps))]).unwrap();
    let (stream, fate) = begin();
    let message = stream.message().of_model(&kept).unwrap();
    message.finish(None);
    assert!(stream.message().of_model(&dropped).is_none());
    drop(stream.message());
    assert_eq!(waiting(&tracer).len(), 1, "of the messages the one whose model records");
    stream.finish(None);
    assert_eq!((waiting(&tracer).len(), fate.is_dropped()), (0, true));
}

#[test]
fn what_has_no_room_is_dropped_and_counted() {
    let (tracer, metrics) = tracer(1.0, 3);
    for _ in 0..5 {
        let mut recording = begin(&tracer, Wire::Http);
        recording.decoded(Instant::now(), MS);
        recording.finish(None);
    }
    assert_eq!(metrics.dropped.get(), 2 * 2, "a request and its one stage");
    let queue = &tracer.0.as_ref().unwrap().queue;
    assert!(queue.take(4).is_empty(), "fewer wait than are worth a call");
    assert_eq!([queue.take(1).len(), queue.take(1).len(), queue.take(1).len()], [2, 1, 0]);
}

#[test]
fn a_request_is_a_span_with_its_stages() {
    let (tracer, _) = tracer(1.0, 9);
    let mut recording = begin(&tracer, Wire::Http);
    let ids = recording.traced().ids();
    let now = Instant::now();
    let (received, began) = (now - 20 * MS, now - 9 * MS);
    let run = BatchRun {
        served_by: Served { model: "m".parse().unwrap(), version: VersionId(3), variant: None },
        links: vec![ids],
        requests: 2,
        rows: 4,
        reason: BatchReason::Full,
        took: 5 * MS,
        cpu: MS,
        failed: Some("it broke".into()),
    };
    let batch = recording.traced().batch(began, run);
    recording.decoded(received, MS);
    recording.executed(Began { at: began, batch: Some(batch) }, &usage(), 2, &[]);
    recording.chosen(VariantReason::Budget);
    recording.energy(Nanojoules(20_000), Origin { source: "model", quality: "modelled" });
    let served = Served { model: "m".parse().unwrap(), version: VersionId(3), variant: Some("int8".parse().unwrap()) };
    recording.served_by(served);
    recording.finish(None);

    let spans = sent(&tracer);
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["batch", "call", "decode", "queue", "gather", "compute", "encode"]);
    let (of_batch, own, stages) = (&spans[0], &spans[1], &spans[2..]);
    assert_eq!(own.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert!(stages.iter().all(|stage| stage.parent_span_id == own.span_id && stage.trace_id == own.trace_id));
    assert!(spans[1..].iter().all(|span| span.trace_state == "a=1"));
    assert_eq!((own.flags, stages[0].flags, of_batch.flags), (0x301, 0x101, 0x101));
    assert_eq!([own.kind, stages[0].kind, of_batch.kind], [2, 1, 1], "server, internal, internal");
    let took = |span: &Span| span.end_time_unix_nano - span.start_time_unix_nano;
    assert_eq!(stages[..4].iter().map(took).collect::<Vec<_>>(), [1_000_000, 2_000_000, 1_000_000, 3_000_000]);
    assert_eq!(stages[1].end_time_unix_nano, stages[2].start_time_unix_nano);
    assert_eq!(stages[2].end_time_unix_nano, stages[3].start_time_unix_nano);
    assert_eq!(text(&own.attributes, "kinglet.model.variant"), Some(&Any::StringValue("int8".into())));
    let reason = text(&own.attributes, "kinglet.model.variant.reason");
    assert_eq!(reason, Some(&Any::StringValue("budget".into())));
    assert_eq!(text(&own.attributes, "kinglet.energy.joules"), Some(&Any::DoubleValue(0.000_02)));
    assert_eq!(text(&own.attributes, "http.response.status_code"), Some(&Any::IntValue(200)));
    assert_eq!(own.status, None);

    assert_eq!((&of_batch.links[0].trace_id, &of_batch.links[0].span_id), (&own.trace_id, &own.span_id));
    assert_eq!(stages[3].links[0].span_id, of_batch.span_id, "compute names the batch it was part of");
    assert_eq!((took(of_batch), of_batch.parent_span_id.len()), (5_000_000, 0));
    assert_eq!(of_batch.status.as_ref().unwrap().message, "it broke");
}

#[test]
fn failures_are_told_as_the_conventions_have_it() {
    for (wire, failed, status, is_error) in [
        (Wire::Http, ErrorCode::NotFound, Some(Any::IntValue(404)), false),
        (Wire::Http, ErrorCode::Internal, Some(Any::IntValue(500)), true),
        (Wire::Http, ErrorCode::Cancelled, None, false),
        (Wire::Grpc, ErrorCode::NotFound, Some(Any::StringValue("NOT_FOUND".into())), false),
        (Wire::Grpc, ErrorCode::DeadlineExceeded, Some(Any::StringValue("DEADLINE_EXCEEDED".into())), true),
        (Wire::Grpc, ErrorCode::Unauthenticated, Some(Any::StringValue("UNAUTHENTICATED".into())), false),
        (Wire::Message, ErrorCode::Internal, None, true),
    ] {
        let (tracer, _) = tracer(1.0, 1);
        begin(&tracer, wire).finish(Some(failed));
        let [span] = &sent(&tracer)[..] else { panic!("there is one span without stages") };
        let key = if wire == Wire::Http { "http.response.status_code" } else { "rpc.response.status_code" };
        assert_eq!(text(&span.attributes, key), status.as_ref(), "{wire:?} {failed:?}");
        let error = Any::StringValue(failed.as_str().into());
        assert_eq!(text(&span.attributes, "error.type"), Some(&error));
        assert_eq!(span.status.is_some(), is_error, "{wire:?} {failed:?}");
    }
    let (tracer, _) = tracer(1.0, 1);
    drop(begin(&tracer, Wire::Http));
    assert_eq!(text(&sent(&tracer)[0].attributes, "error.type"), Some(&Any::StringValue("cancelled".into())));
}

#[test]
fn a_message_is_within_its_call() {
    let (tracer, _) = tracer(1.0, 2);
    let call = begin(&tracer, Wire::Grpc);
    call.message().finish(None);
    call.finish(None);
    let spans = sent(&tracer);
    assert_eq!((spans[0].kind, &spans[0].parent_span_id), (1, &spans[1].span_id));
    assert_eq!((spans[0].flags, spans[1].flags), (0x101, 0x301));
}

#[test]
fn a_service_has_one_name() {
    let pair = |name: &str, value: &str| Pair { name: name.into(), value: value.into() };
    for (own, given, wanted) in [
        ("", vec![], "kinglet"),
        ("", vec![pair("service.name", "given")], "given"),
        ("own", vec![pair("service.name", "given")], "own"),
    ] {
        let service_name = own.to_owned();
        let config = TracingConfig { service_name, resource_attributes: given, ..Config::default().tracing };
        let resource = message::resource(&config);
        let names: Vec<_> = resource.attributes.iter().filter(|pair| pair.key == "service.name").collect();
        assert_eq!(names.len(), 1);
        assert_eq!(text(&resource.attributes, "service.name"), Some(&Any::StringValue(wanted.into())));
        assert!(text(&resource.attributes, "service.version").is_some());
    }
}

proptest! {
    #[test]
    fn instants_keep_their_distances(before in 0u64..1 << 40, more in 0u64..1 << 40) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let at = Instant::now() + Duration::from_nanos(1 << 42);
        let ended = Ended { at, time };
        let nanos = |back: u64| ended.unix_nanos(at - Duration::from_nanos(back));
        prop_assert_eq!(nanos(before) - nanos(before + more), more);
        prop_assert_eq!(nanos(0), 1_700_000_000_000_000_000);
    }
}
