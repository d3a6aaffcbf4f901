//! What becomes of requests, as spans for tracing systems: recorded where it happens, sent over OTLP by a thread of its
//! own (docs/tracing.md, docs/adr/011).
//!
//! A request that is sampled has a `recording`; what it ends as is a `record`, which waits in the `queue` until the
//! `exporter` makes a `message` of it for the `collector`. One that is not sampled has none of this.

mod collector;
pub mod config;
mod exporter;
mod message;
mod metrics;
mod queue;
mod record;
mod recording;
pub mod sampling;
pub mod settings;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

pub use config::TracingConfig;
pub use metrics::SpanMetrics;
pub use record::{Attribute, BatchRun, Head, Served, Value, Wire};
pub use recording::{Began, Recording, StepRun, Traced};
pub use sampling::Sampling;

use self::collector::Collector;
use self::exporter::Exporter;
use self::queue::Queue;
use self::recording::Open;
use self::sampling::{Sampled, Verdict};
use super::metrics::Metrics;
use super::trace::TraceContext;

/// Decides which requests are recorded. Without a collector it records none.
#[derive(Clone, Debug)]
pub struct Tracer(Option<Arc<Recorder>>);

/// Whether a call that was to be recorded was not.
#[derive(Clone, Debug, Default)]
pub struct Fate(Arc<AtomicBool>);

/// What recordings and the thread that sends them share.
#[derive(Debug)]
pub struct Recorder {
    queue: Queue,
    sampling: Arc<Sampling>,
    /// Set when the server ends.
    closing: CancellationToken,
    /// Set when everything is sent that could be.
    ended: CancellationToken,
}

impl Tracer {
    /// Nothing is recorded.
    pub fn off() -> Self {
        Self(None)
    }

    /// Starts the thread that sends, where there is a collector. Whether that is there is not looked at.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(config: &TracingConfig, metrics: &Metrics) -> io::Result<Self> {
        metrics.sampling.configure(config);
        let Some(endpoint) = &config.endpoint else { return Ok(Self::off()) };
        let recorder = Arc::new(Recorder {
            queue: Queue::new(config.queue_max, config.batch_max, metrics.spans.clone()),
            sampling: Arc::clone(&metrics.sampling),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
        });
        let exporter = Exporter {
            collector: Collector::new(endpoint.clone(), config),
            resource: message::resource(config),
            metrics: metrics.spans.clone(),
            interval: config.interval.0,
            batch_max: config.batch_max,
            flush_time_max: config.flush_time_max.0,
            unsent: Vec::new(),
            is_away: false,
            _ended: recorder.ended.clone().drop_guard(),
            recorder: Arc::clone(&recorder),
        };
        exporter.start()?;
        Ok(Self(Some(recorder)))
    }

    /// The span of a request: in the client's trace where it has one, whose sampling is the client's decision; else in
    /// a trace of its own, for as many as the ratio says. Nothing for all others.
    pub fn span_of(&self, traceparent: Option<&str>, tracestate: Option<&str>) -> Option<TraceContext> {
        if let Some(parent) = traceparent.and_then(|text| TraceContext::parse(text, tracestate)) {
            return Some(parent.child());
        }
        let threshold = self.0.as_ref().map_or(0, |recorder| recorder.sampling.threshold());
        if threshold == 0 && traceparent.is_none() {
            return None;
        }
        let root = TraceContext::root();
        if root.draw() < threshold {
            return Some(root.sampled());
        }
        // Who sent something that is no trace is told of one still.
        traceparent.map(|_| root)
    }

    /// Whether anything can be recorded.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// What will tell whether the call was dropped, where its trace begins here and its model decides.
    pub fn fate(&self, context: &TraceContext) -> Option<Fate> {
        let recorder = self.0.as_ref().filter(|_| context.is_sampled() && context.parent_id().is_none())?;
        recorder.sampling.is_by_model().then(Fate::default)
    }

    /// Records a call, where its trace is sampled. Its front end says what its head told.
    pub fn record(
        &self,
        context: &TraceContext,
        fate: Option<&Fate>,
        head: impl FnOnce() -> Head,
    ) -> Option<Recording> {
        let recorder = self.0.as_ref().filter(|_| context.is_sampled())?;
        let sampled = Sampled { draw: context.draw(), by_client: context.parent_id().is_some() };
        let open = match recorder.sampling.at_head(sampled) {
            Verdict::Recorded => None,
            Verdict::Open => Some(Open { sampled, is_part: false, fate: fate.cloned() }),
            Verdict::Dropped => {
                fate.inspect(|fate| fate.drop_call());
                return None;
            }
        };
        Some(Recording::begin(context.clone(), head(), open, Arc::clone(recorder)))
    }

    /// Sends what waits, within the time that the settings give it.
    pub async fn finish(&self) {
        if let Some(recorder) = &self.0 {
            recorder.closing.cancel();
            recorder.ended.cancelled().await;
        }
    }
}

impl Fate {
    pub fn is_dropped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn drop_call(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
