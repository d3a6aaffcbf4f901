//! One batch on a compute thread: gather, run, hand out, count. Runs to its end or panics; never awaits.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::queue::Entry;
use super::{BatchError, Executed};
use crate::engine::{self, Batch, Cores, EngineError, Plan, Share};
use crate::infer::{BatchReason, Batched, Usage};
use crate::metering::attribution::by_rows;
use crate::metering::statistics::RequestTimes;
use crate::metering::{Account, Settled, Statistics};
use crate::routing::Grant;
use crate::telemetry::ModelMetrics;
use crate::telemetry::spans::{BatchRun, Began, Traced};
use crate::telemetry::trace::SpanIds;
use crate::tensor::Tensor;

/// A formed batch with all it needs.
pub(super) struct Job {
    pub entries: Vec<Entry>,
    pub reason: BatchReason,
    pub plan: Arc<dyn Plan>,
    pub metrics: Arc<ModelMetrics>,
    pub statistics: Arc<Statistics>,
    pub account: Arc<Account>,
    pub done: Done,
}

/// Tells the worker that a batch has ended, in whatever way, and brings it the answers.
///
/// The worker passes them on: one wake-up crosses from the compute thread to the runtime, not one per request.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub rows: usize,
    /// `None` where nothing ran or the run failed, so that nothing was learned.
    pub elapsed: Option<Duration>,
    /// What the run took of the thread it ran on: unlike `elapsed`, nobody else's doing.
    pub cpu: Duration,
    /// What it took of all threads.
    pub cpu_all: Duration,
    pub answers: Vec<(Reply, Result<Executed, BatchError>)>,
    worker: Option<mpsc::Sender<Self>>,
}

/// What came of running some entries together.
struct Run {
    entries: Vec<Entry>,
    outcome: Result<engine::Executed, EngineError>,
    rows: usize,
    started: Instant,
    elapsed: Duration,
    /// CPU time of all threads.
    cpu: Duration,
}

type Reply = oneshot::Sender<Result<Executed, BatchError>>;

impl Job {
    pub(super) fn run(mut self, cores: Cores) {
        // Between forming the batch and starting it a caller may have gone or a deadline passed.
        let now = Instant::now();
        let (expired, live): (Vec<_>, Vec<_>) =
            self.entries.drain(..).partition(|entry| entry.reply.is_closed() || entry.is_expired(now));
        expired.into_iter().for_each(Entry::give_up);
        if !live.is_empty() {
            self.execute(live, cores);
        }
    }

    fn execute(&mut self, mut entries: Vec<Entry>, cores: Cores) {
        entries.iter_mut().filter_map(|entry| entry.routed.grant.take()).for_each(Grant::spend);
        let inputs: Vec<Vec<Tensor>> =
            entries.iter_mut().map(|entry| std::mem::take(&mut entry.routed.inputs)).collect();
        let rows: Vec<usize> = entries.iter().map(|entry| entry.routed.rows).collect();
        let batch = Batch::merge(&inputs, rows);
        drop(inputs);
        let mut runs = Vec::with_capacity(1);
        self.run_batch(&batch, entries, &cores, &mut runs);
        drop(cores);
        if let [Run { outcome: Ok(_), elapsed, .. }] = runs[..] {
            self.done.rows = batch.rows_total();
            self.done.elapsed = Some(elapsed);
        }
        runs.into_iter().for_each(|run| self.settle(run));
    }

    /// Runs entries together. Where contents stand in the way of an answer, those of one entry must not cost the others
    /// theirs: each half runs on its own then.
    fn run_batch(&mut self, batch: &Batch, mut entries: Vec<Entry>, cores: &Cores, runs: &mut Vec<Run>) {
        let (started, interval) = (Instant::now(), self.account.begin(cores));
        let outcome = self.plan.run(batch, cores).and_then(|executed| self.verified(executed, &batch.rows));
        let (elapsed, used) = (started.elapsed(), interval.end());
        self.done.cpu += used.own;
        self.done.cpu_all += used.all;
        self.metrics.cpu.inc_by(used.all.as_secs_f64());
        self.statistics.record_cpu(used.all);
        if let (Err(EngineError::InvalidContents(_)), 2..) = (&outcome, entries.len()) {
            let (count, half) = (entries.len(), entries.len() / 2);
            let behind = entries.split_off(half);
            self.run_batch(&batch.entries(0..half), entries, cores, runs);
            self.run_batch(&batch.entries(half..count), behind, cores, runs);
            return;
        }
        runs.push(Run { entries, outcome, rows: batch.rows_total(), started, elapsed, cpu: used.all });
    }

    fn settle(&mut self, run: Run) {
        let began = Began { at: run.started, batch: self.record(&run) };
        match run.outcome {
            Ok(executed) => self.hand_out(run.entries, executed, run.rows, began, run.cpu),
            Err(error) => {
                let error = Arc::new(error);
                let failed = |entry: Entry| (entry.reply, Err(BatchError::Engine(Arc::clone(&error))));
                self.done.answers.extend(run.entries.into_iter().map(failed));
            }
        }
    }

    /// The span of a run, where any of its requests is recorded.
    fn record(&self, run: &Run) -> Option<SpanIds> {
        let traced = || run.entries.iter().filter_map(|entry| entry.traced.as_ref());
        let (first, variant) = (traced().next()?, &run.entries.first()?.routed.variant);
        let record = BatchRun {
            served_by: variant.served(),
            links: traced().map(Traced::ids).collect(),
            requests: run.entries.len(),
            rows: run.rows,
            reason: self.reason,
            took: run.elapsed,
            cpu: run.cpu,
            failed: run.outcome.as_ref().err().map(told_in_spans),
        };
        Some(first.batch(run.started, record))
    }

    /// An engine that breaks its word fails the batch rather than mixing answers up.
    fn verified(&self, executed: engine::Executed, rows: &[usize]) -> Result<engine::Executed, EngineError> {
        let outputs = self.plan.signature().outputs.len();
        if executed.shares.len() != rows.len() || executed.shares.iter().any(|share| share.len() != outputs) {
            return Err(EngineError::Failed("the engine gave back another number of answers than asked for".into()));
        }
        Ok(executed)
    }

    fn hand_out(
        &mut self,
        entries: Vec<Entry>,
        executed: engine::Executed,
        rows_total: usize,
        began: Began,
        cpu: Duration,
    ) {
        self.metrics.count_batch(self.reason, rows_total);
        let now = Instant::now();
        let rows: Vec<usize> = entries.iter().map(|entry| entry.routed.rows).collect();
        let shares = executed.shares.into_iter().zip(by_rows(cpu, &rows));
        // Whoever has gone while the batch ran is counted where that was noticed; what it took stays its own.
        let (entries, shares): (Vec<_>, Vec<_>) =
            entries.into_iter().zip(shares).filter(|(entry, _)| !entry.reply.is_closed()).unzip();
        let times: Vec<RequestTimes> = entries
            .iter()
            .map(|entry| RequestTimes {
                queue: began.at.saturating_duration_since(entry.arrived),
                total: now.saturating_duration_since(entry.routed.admitted.request.received_at),
            })
            .collect();
        self.statistics.record_batch(&Settled { rows: rows_total, times: executed.times, requests: &times });
        let answer = |((mut entry, (share, cpu)), times): ((Entry, (Share, Duration)), RequestTimes)| {
            entry.routed.admitted.answered(share.iter().map(|tensor| tensor.bytes().len() as u64).sum());
            let usage = Usage {
                queue: times.queue,
                compute: executed.times,
                batch: Some(Batched { rows: rows_total, reason: self.reason }),
                cpu,
            };
            (entry.reply, Ok(Executed { routed: entry.routed, share, usage, began }))
        };
        self.done.answers.extend(entries.into_iter().zip(shares).zip(times).map(answer));
    }
}

/// What leaves the machine of a failure: not what a request contained.
fn told_in_spans(error: &EngineError) -> String {
    match error {
        EngineError::InvalidContents(_) => "the model cannot take what a request contains".into(),
        other => other.to_string(),
    }
}

impl Done {
    pub(super) fn new(worker: mpsc::Sender<Self>) -> Self {
        let mut done = Self::default();
        done.worker = Some(worker);
        done
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            // There is one slot per batch in flight; a worker that has ended needs no word.
            let _ = worker.try_send(std::mem::take(self));
        }
    }
}
