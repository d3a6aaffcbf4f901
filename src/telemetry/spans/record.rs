//! What is kept of a request and of a batch until it is sent: little, because it is kept by the thread that answers.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::error::ErrorCode;
use crate::infer::{BatchReason, ModelName, VariantName, VersionId};
use crate::telemetry::trace::{SpanIds, TraceContext};

/// One that has ended.
#[derive(Debug)]
pub(super) enum Record {
    Request(Box<RequestRecord>),
    Batch(Box<BatchRecord>),
}

/// A request: its own span and one of each stage.
#[derive(Debug)]
pub(super) struct RequestRecord {
    pub(super) context: TraceContext,
    pub(super) head: Head,
    pub(super) began: Instant,
    pub(super) ended: Ended,
    pub(super) served_by: Option<Served>,
    pub(super) stages: Vec<Stage>,
    /// What is known since the head.
    pub(super) attributes: Vec<Attribute>,
    pub(super) failed: Option<ErrorCode>,
    /// Where it is not the one that the table has for the code.
    pub(super) http_status: Option<u16>,
}

/// One run of a batch, a trace of its own that names its requests.
#[derive(Debug)]
pub(super) struct BatchRecord {
    pub(super) ids: SpanIds,
    pub(super) began: Instant,
    pub(super) ended: Ended,
    pub(super) run: BatchRun,
}

/// What a batch tells of itself.
#[derive(Debug)]
pub struct BatchRun {
    pub served_by: Served,
    /// Of those that are recorded.
    pub links: Vec<SpanIds>,
    /// All of them.
    pub requests: usize,
    pub rows: usize,
    pub reason: BatchReason,
    pub took: Duration,
    /// Of all threads.
    pub cpu: Duration,
    pub failed: Option<String>,
}

/// What a front end knows when a call's head has come.
#[derive(Clone, Debug)]
pub struct Head {
    pub wire: Wire,
    pub name: &'static str,
    pub attributes: Vec<Attribute>,
}

/// How the outcome is told, and what kind of span it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Http,
    Grpc,
    /// A message of a gRPC stream, whose call has a span of its own.
    Message,
}

/// The build that was found for a request.
#[derive(Clone, Debug)]
pub struct Served {
    pub model: ModelName,
    pub version: VersionId,
    /// Where it is not the version's own.
    pub variant: Option<VariantName>,
}

/// A part of a request's time.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) name: Cow<'static, str>,
    pub(super) began: Instant,
    pub(super) took: Duration,
    /// The batch that it was spent in.
    pub(super) batch: Option<SpanIds>,
}

/// The end of a span by both clocks: instants before it become times of the calendar by their distance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) at: Instant,
    pub(super) time: SystemTime,
}

pub type Attribute = (&'static str, Value);

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Name(&'static str),
    Int(i64),
    Double(f64),
}

impl Record {
    /// Spans that come of it.
    pub(super) fn spans(&self) -> u64 {
        match self {
            Self::Request(request) => 1 + request.stages.len() as u64,
            Self::Batch(_) => 1,
        }
    }
}

impl Ended {
    pub(super) fn now() -> Self {
        Self { at: Instant::now(), time: SystemTime::now() }
    }

    /// Nanoseconds since 1970.
    pub(super) fn unix_nanos(self, at: Instant) -> u64 {
        let since = self.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let nanos = since.saturating_sub(self.at.saturating_duration_since(at)).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

impl Value {
    /// A count; the protocol has no unsigned numbers.
    pub fn count(count: usize) -> Self {
        Self::Int(i64::try_from(count).unwrap_or(i64::MAX))
    }
}
