//! Records as OTLP's messages, attributes by OpenTelemetry's semantic conventions of the version in `SCHEMA`.
//!
//! Status: of a server's spans only failures that are the server's are errors (HTTP 5xx, and gRPC's codes of that
//! kind); what the client did wrong has an `error.type` and no error status, as the conventions ask.

use std::ops::Range;

use tokio::time::Instant;

use super::config::TracingConfig;
use super::record::{Attribute, BatchRecord, Ended, Record, RequestRecord, Served, Stage, Value, Wire};
use crate::error::ErrorCode;
use crate::proto::otlp::any_value::Value as Any;
use crate::proto::otlp::span::{Link, SpanKind};
use crate::proto::otlp::status::StatusCode;
use crate::proto::otlp::{
    AnyValue, ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span,
    Status,
};
use crate::telemetry::trace::SpanIds;

/// Who sends. A name stands once: a service's own goes before the attributes that are given, those before what is
/// known.
pub(super) fn resource(config: &TracingConfig) -> Resource {
    let named = !config.service_name.is_empty();
    let given = config.resource_attributes.iter().filter(|pair| !(named && pair.name == SERVICE_NAME));
    let mut pairs: Vec<(&str, &str)> = given.map(|pair| (pair.name.as_str(), pair.value.as_str())).collect();
    let service = if named { &config.service_name } else { NAME };
    for (name, value) in [(SERVICE_NAME, service), ("service.version", VERSION)] {
        if pairs.iter().all(|(given, _)| *given != name) {
            pairs.push((name, value));
        }
    }
    Resource { attributes: pairs.into_iter().map(|(name, value)| text(name, value)).collect() }
}

pub(super) fn message(records: &[Record], resource: &Resource) -> ExportTraceServiceRequest {
    let spans = records.iter().flat_map(|record| match record {
        Record::Request(request) => request_spans(request),
        Record::Batch(batch) => vec![batch_span(batch)],
    });
    let scope = InstrumentationScope { name: NAME.to_owned(), version: VERSION.to_owned() };
    let spans = ScopeSpans { scope: Some(scope), spans: spans.collect(), schema_url: SCHEMA.to_owned() };
    let resource_spans = ResourceSpans { resource: Some(resource.clone()), scope_spans: vec![spans] };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

fn request_spans(request: &RequestRecord) -> Vec<Span> {
    let RequestRecord { context, head, ended, failed, .. } = request;
    let is_call = head.wire != Wire::Message;
    let mut attributes: Vec<KeyValue> = head.attributes.iter().map(key_value).collect();
    attributes.extend(request.served_by.iter().flat_map(served_by));
    attributes.extend(request.attributes.iter().chain(&told(request)).map(key_value));
    let own = Span {
        parent_span_id: context.parent_id().map(span_id).unwrap_or_default(),
        kind: if is_call { SpanKind::Server } else { SpanKind::Internal }.into(),
        attributes,
        status: failed.filter(|code| is_error(head.wire, *code)).map(|code| error(code.as_str())),
        flags: flags(context.flags(), is_call && context.parent_id().is_some()),
        ..span(context.ids(), head.name, *ended, request.began..ended.at)
    };
    let stage = |stage: &Stage| Span {
        parent_span_id: span_id(context.ids().span_id),
        links: stage.batch.iter().map(link).collect(),
        flags: flags(context.flags(), false),
        ..span(context.child().ids(), &stage.name, *ended, stage.began..stage.began + stage.took)
    };
    let state = context.tracestate().unwrap_or_default();
    let spans = std::iter::once(own).chain(request.stages.iter().map(stage));
    spans.map(|span| Span { trace_state: state.to_owned(), ..span }).collect()
}

fn batch_span(batch: &BatchRecord) -> Span {
    let BatchRecord { ids, began, ended, run } = batch;
    let own = [
        ("kinglet.batch.requests", Value::count(run.requests)),
        ("kinglet.batch.rows", Value::count(run.rows)),
        ("kinglet.batch.reason", Value::Name(run.reason.as_str())),
        ("kinglet.cpu.seconds", Value::Double(run.cpu.as_secs_f64())),
    ];
    let failed = run.failed.as_ref().map(|_| ("error.type", Value::Name("engine")));
    Span {
        attributes: served_by(&run.served_by).chain(own.iter().chain(&failed).map(key_value)).collect(),
        links: run.links.iter().map(link).collect(),
        status: run.failed.as_deref().map(error),
        flags: flags(SAMPLED, false),
        ..span(*ids, "batch", *ended, *began..*began + run.took)
    }
}

/// What all spans have: a root inside of the server until more is said.
fn span(ids: SpanIds, name: &str, ended: Ended, time: Range<Instant>) -> Span {
    Span {
        trace_id: trace_id(ids.trace_id),
        span_id: span_id(ids.span_id),
        name: name.to_owned(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: ended.unix_nanos(time.start),
        end_time_unix_nano: ended.unix_nanos(time.end),
        ..Span::default()
    }
}

fn served_by(served: &Served) -> impl Iterator<Item = KeyValue> + use<> {
    let variant = served.variant.as_ref().map(|name| text("kinglet.model.variant", name.as_str()));
    let version = text("kinglet.model.version", &served.version.to_string());
    [text("kinglet.model.name", served.model.as_str()), version].into_iter().chain(variant)
}

/// What the client was told, and what that was for. Nobody was told anything where the client had left.
fn told(request: &RequestRecord) -> Vec<Attribute> {
    let failed = request.failed;
    let status = match request.head.wire {
        _ if failed == Some(ErrorCode::Cancelled) => None,
        Wire::Http => {
            let status = request.http_status.or(failed.map(ErrorCode::http_status)).unwrap_or(200);
            Some(("http.response.status_code", Value::Int(status.into())))
        }
        Wire::Grpc => Some(("rpc.response.status_code", Value::Name(grpc_name(failed)))),
        Wire::Message => None,
    };
    let error = failed.map(|code| ("error.type", Value::Name(code.as_str())));
    status.into_iter().chain(error).collect()
}

/// Whether the conventions call it an error of a server's span: HTTP's 5xx, and gRPC's codes that are no fault of a
/// client.
fn is_error(wire: Wire, code: ErrorCode) -> bool {
    match wire {
        Wire::Http => code.http_status() >= 500,
        Wire::Grpc | Wire::Message => GRPC_ERRORS.contains(&code.grpc_status()),
    }
}

/// A status as gRPC's text names it.
fn grpc_name(failed: Option<ErrorCode>) -> &'static str {
    let number = failed.map_or(0, ErrorCode::grpc_status);
    usize::try_from(number).ok().and_then(|number| GRPC_NAMES.get(number)).copied().unwrap_or("UNKNOWN")
}

fn error(message: &str) -> Status {
    Status { message: bounded(message).to_owned(), code: StatusCode::Error.into() }
}

fn link(ids: &SpanIds) -> Link {
    Link { trace_id: trace_id(ids.trace_id), span_id: span_id(ids.span_id), flags: flags(SAMPLED, false) }
}

fn flags(of_trace: u8, has_remote_parent: bool) -> u32 {
    u32::from(of_trace) | REMOTE_IS_KNOWN | if has_remote_parent { IS_REMOTE } else { 0 }
}

fn trace_id(id: u128) -> Vec<u8> {
    id.to_be_bytes().to_vec()
}

fn span_id(id: u64) -> Vec<u8> {
    id.to_be_bytes().to_vec()
}

fn key_value((name, value): &Attribute) -> KeyValue {
    let value = match value {
        Value::Text(value) => return text(name, value),
        Value::Name(value) => return text(name, value),
        Value::Int(value) => Any::IntValue(*value),
        Value::Double(value) => Any::DoubleValue(*value),
    };
    KeyValue { key: (*name).to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn text(name: &str, value: &str) -> KeyValue {
    let value = Any::StringValue(bounded(value).to_owned());
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

/// Paths and hosts are what a client sent.
fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// The version of the conventions.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.42.0";
const SERVICE_NAME: &str = "service.name";
const NAME: &str = "kinglet";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const TEXT_BYTES_MAX: usize = 1024;

/// Of a trace's flags. Only what is sampled is recorded.
const SAMPLED: u8 = 1;
/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK` and `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`.
const REMOTE_IS_KNOWN: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// `google.rpc.Code` by number.
const GRPC_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
const GRPC_ERRORS: [i32; 6] = [2, 4, 12, 13, 14, 15];
