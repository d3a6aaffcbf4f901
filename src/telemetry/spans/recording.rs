//! A request that is recorded, from its head to its outcome. Requests that are not sampled have none of this.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::record::{BatchRecord, BatchRun, Ended, Head, Record, RequestRecord, Served, Stage, Value, Wire};
use super::sampling::Sampled;
use super::{Fate, Recorder};
use crate::error::ErrorCode;
use crate::infer::{Batched, CacheOutcome, ModelName, Usage, VariantReason};
use crate::telemetry::energy::Origin;
use crate::telemetry::trace::{SpanIds, TraceContext};
use crate::units::Nanojoules;

/// One that is dropped unfinished was cancelled.
#[derive(Debug)]
pub struct Recording {
    /// Taken at its end alone.
    record: Option<Box<RequestRecord>>,
    encode_began: Option<Instant>,
    /// Until the model has decided, where it does.
    open: Option<Open>,
    recorder: Arc<Recorder>,
}

/// A recording that may yet be dropped.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) sampled: Sampled,
    /// Of a call that counts by itself.
    pub(super) is_part: bool,
    pub(super) fate: Option<Fate>,
}

/// What a batch needs of a request that is recorded.
#[derive(Clone, Debug)]
pub struct Traced {
    ids: SpanIds,
    recorder: Arc<Recorder>,
}

/// When a request's batch began, and the batch's span.
#[derive(Clone, Copy, Debug)]
pub struct Began {
    pub at: Instant,
    pub batch: Option<SpanIds>,
}

/// How a step of an ensemble ran, from its queue to its outputs.
#[derive(Clone, Debug)]
pub struct StepRun {
    name: String,
    began: Instant,
    took: Duration,
    batch: Option<SpanIds>,
}

impl StepRun {
    /// One that ends now.
    pub fn of(name: &str, began: Instant, batch: Option<SpanIds>) -> Self {
        Self { name: name.to_owned(), began, took: began.elapsed(), batch }
    }

    /// A step of an ensemble that is a step itself.
    pub fn within(&mut self, step: &str) {
        self.name.insert_str(0, &format!("{step}/"));
    }
}

impl Recording {
    pub(super) fn begin(context: TraceContext, head: Head, open: Option<Open>, recorder: Arc<Recorder>) -> Self {
        let ended = Ended::now();
        let record = RequestRecord {
            context,
            head,
            began: ended.at,
            ended,
            served_by: None,
            stages: Vec::with_capacity(STAGES),
            attributes: Vec::with_capacity(ATTRIBUTES),
            failed: None,
            http_status: None,
        };
        Self { record: Some(Box::new(record)), encode_began: None, open, recorder }
    }

    /// One of several requests that come with this call.
    pub fn message(&self) -> Self {
        let head = Head { wire: Wire::Message, name: "infer", attributes: Vec::new() };
        let open = self.open.as_ref().map(|open| Open { sampled: open.sampled, is_part: true, fate: None });
        Self::begin(self.record().context.child(), head, open, Arc::clone(&self.recorder))
    }

    /// To be called when the model is known: the same, unless it is not to be recorded.
    pub fn of_model(mut self, model: &ModelName) -> Option<Self> {
        let Some(open) = self.open.take() else { return Some(self) };
        let sampling = &self.recorder.sampling;
        let is_taken = match open.is_part {
            true => sampling.takes_part(model, open.sampled),
            false => sampling.takes(Some(model), open.sampled),
        };
        if is_taken {
            return Some(self);
        }
        self.discard(&open);
        None
    }

    fn discard(&mut self, open: &Open) {
        self.record = None;
        if let Some(fate) = &open.fate {
            fate.drop_call();
        }
    }

    /// What its batch needs to know of it.
    pub fn traced(&self) -> Traced {
        Traced { ids: self.record().context.ids(), recorder: Arc::clone(&self.recorder) }
    }

    pub fn decoded(&mut self, received_at: Instant, took: Duration) {
        self.record_mut().stages.push(Stage { name: Cow::Borrowed("decode"), began: received_at, took, batch: None });
    }

    /// Its batch has run; what follows until the end is encoding.
    pub fn executed(&mut self, began: Began, usage: &Usage, rows: usize, steps: &[StepRun]) {
        let Began { at, batch } = began;
        let queued_at = at.checked_sub(usage.queue).unwrap_or(at);
        let compute_at = at + usage.compute.gather;
        let record = self.record_mut();
        let step = |step: &StepRun| Stage {
            name: Cow::Owned(format!("step {}", step.name)),
            began: step.began,
            took: step.took,
            batch: step.batch,
        };
        record.stages.extend(steps.iter().map(step));
        let stages = if steps.is_empty() { 3 } else { 0 };
        record.stages.extend(
            [
                Stage { name: Cow::Borrowed("queue"), began: queued_at, took: usage.queue, batch: None },
                Stage { name: Cow::Borrowed("gather"), began: at, took: usage.compute.gather, batch: None },
                Stage { name: Cow::Borrowed("compute"), began: compute_at, took: usage.compute.infer, batch },
            ]
            .into_iter()
            .take(stages),
        );
        record.attributes.extend([
            ("kinglet.rows", Value::count(rows)),
            ("kinglet.cpu.seconds", Value::Double(usage.cpu.as_secs_f64())),
        ]);
        record.attributes.extend(usage.batch.into_iter().flat_map(|Batched { rows, reason }| {
            [("kinglet.batch.rows", Value::count(rows)), ("kinglet.batch.reason", Value::Name(reason.as_str()))]
        }));
        self.encode_began = Some(Instant::now());
    }

    /// What the cache had, and how long it was asked. An answer needs nothing more than encoding.
    pub fn looked_up(&mut self, began: Instant, took: Duration, outcome: CacheOutcome) {
        let record = self.record_mut();
        record.stages.push(Stage { name: Cow::Borrowed("cache"), began, took, batch: None });
        record.attributes.push(("kinglet.cache", Value::Name(outcome.as_str())));
        if outcome != CacheOutcome::Miss {
            self.encode_began = Some(Instant::now());
        }
    }

    /// Why this build answers and no other of its version.
    pub fn chosen(&mut self, reason: VariantReason) {
        self.record_mut().attributes.push(("kinglet.model.variant.reason", Value::Name(reason.as_str())));
    }

    /// What it took, where that is known.
    pub fn energy(&mut self, energy: Nanojoules, origin: Origin) {
        self.record_mut().attributes.extend([
            ("kinglet.energy.joules", Value::Double(energy.as_joules())),
            ("kinglet.energy.source", Value::Name(origin.source)),
            ("kinglet.energy.quality", Value::Name(origin.quality)),
        ]);
    }

    /// The status of an answer that is not the one of its code.
    pub fn told(&mut self, http_status: u16) {
        self.record_mut().http_status = Some(http_status);
    }

    pub fn served_by(&mut self, served_by: Served) {
        self.record_mut().served_by = Some(served_by);
    }

    /// The client has been told: the code of the failure, or nothing where it gets its answer.
    pub fn finish(mut self, failed: Option<ErrorCode>) {
        self.end(failed);
    }

    fn end(&mut self, failed: Option<ErrorCode>) {
        // No model was found for it, or it is a stream, which has none.
        if let Some(open) = self.open.take()
            && (open.is_part || !self.recorder.sampling.takes(None, open.sampled))
        {
            self.discard(&open);
        }
        let Some(mut record) = self.record.take() else { return };
        record.ended = Ended::now();
        record.failed = failed;
        if let Some(began) = self.encode_began {
            let took = record.ended.at.saturating_duration_since(began);
            record.stages.push(Stage { name: Cow::Borrowed("encode"), began, took, batch: None });
        }
        self.recorder.queue.push(Record::Request(record));
    }

    fn record(&self) -> &RequestRecord {
        self.record.as_ref().expect(UNENDED)
    }

    fn record_mut(&mut self) -> &mut RequestRecord {
        self.record.as_mut().expect(UNENDED)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.end(Some(ErrorCode::Cancelled));
    }
}

impl Traced {
    pub fn ids(&self) -> SpanIds {
        self.ids
    }

    /// Records a run that this request was part of.
    pub fn batch(&self, began: Instant, run: BatchRun) -> SpanIds {
        let ids = SpanIds::root();
        let record = BatchRecord { ids, began, ended: Ended::now(), run };
        self.recorder.queue.push(Record::Batch(Box::new(record)));
        ids
    }
}

const UNENDED: &str = "a recording that has ended is gone";
/// decode, cache, queue, gather, compute, encode.
const STAGES: usize = 6;
/// Cache, rows, batch, CPU time and energy.
const ATTRIBUTES: usize = 8;
