//! The thread that sends what has ended: every interval, sooner where a batch is full, once more at the end. Answers
//! and batches come first.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;
use tokio_util::sync::DropGuard;

use super::Recorder;
use super::collector::{Collector, Failure};
use super::message;
use super::metrics::SpanMetrics;
use super::record::Record;
use crate::proto::otlp::Resource;

/// State of the thread.
pub(super) struct Exporter {
    pub(super) recorder: Arc<Recorder>,
    pub(super) collector: Collector,
    pub(super) resource: Resource,
    pub(super) metrics: SpanMetrics,
    pub(super) interval: Duration,
    pub(super) batch_max: usize,
    pub(super) flush_time_max: Duration,
    /// What the collector did not take yet: at most a batch, the rest waits in the queue.
    pub(super) unsent: Vec<Record>,
    /// Whether the last call failed, which was told then.
    pub(super) is_away: bool,
    /// Tells that the thread has ended.
    pub(super) _ended: DropGuard,
}

impl Exporter {
    /// # Errors
    /// When the system has no thread to give.
    pub(super) fn start(self) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("kinglet-traces".into()).spawn(move || self.run(&runtime))?;
        Ok(())
    }

    fn run(mut self, runtime: &Runtime) {
        // Without it the thread does the same, only sooner.
        let _ = rustix::process::nice(NICE);
        let (closing, flush_time_max) = (self.recorder.closing.clone(), self.flush_time_max);
        let over = async {
            closing.cancelled().await;
            sleep(flush_time_max).await;
        };
        runtime.block_on(async {
            tokio::select! {
                () = self.serve() => {}
                () = over => {}
            }
        });
        self.drop_rest();
    }

    /// Until the server ends and everything is sent.
    async fn serve(&mut self) {
        while let Some(least) = self.wait().await {
            self.send(least).await;
        }
        self.send(1).await;
        while !self.unsent.is_empty() {
            sleep(RETRY_DELAY).await;
            self.send(1).await;
        }
    }

    /// The number of records that are worth a call now; nothing once the server ends.
    async fn wait(&self) -> Option<usize> {
        tokio::select! {
            biased;
            () = self.recorder.closing.cancelled() => None,
            () = sleep(self.interval) => Some(1),
            () = self.recorder.queue.filled(), if !self.is_away => Some(self.batch_max),
        }
    }

    /// Sends while there are as many, until the collector does not take them.
    async fn send(&mut self, least: usize) {
        loop {
            if self.unsent.is_empty() {
                self.unsent = self.recorder.queue.take(least);
            }
            if self.unsent.is_empty() {
                return;
            }
            let taken = self.collector.send(message::message(&self.unsent, &self.resource)).await;
            self.tell_whether_it_is_away(taken.as_ref().err());
            let spans = spans(&self.unsent);
            match taken {
                Ok(refused) => {
                    self.metrics.sent.inc_by(spans.saturating_sub(refused));
                    self.metrics.refused.inc_by(refused);
                }
                Err(failure) if failure.is_transient => return,
                Err(_) => self.metrics.refused.inc_by(spans),
            }
            self.unsent.clear();
        }
    }

    fn tell_whether_it_is_away(&mut self, failure: Option<&Failure>) {
        match (failure, self.is_away) {
            (Some(error), false) => {
                tracing::warn!(%error, "traces are not taken by their collector; told again when they are");
            }
            (None, true) => {
                tracing::info!(dropped = self.metrics.dropped.get(), "traces are taken by their collector again")
            }
            _ => {}
        }
        self.is_away = failure.is_some();
    }

    fn drop_rest(&self) {
        let waiting = std::iter::from_fn(|| Some(self.recorder.queue.take(1)).filter(|batch| !batch.is_empty()));
        let dropped = spans(&self.unsent) + waiting.map(|batch| spans(&batch)).sum::<u64>();
        if dropped > 0 {
            self.metrics.dropped.inc_by(dropped);
            tracing::warn!(spans = dropped, "spans were not sent before the end");
        }
    }
}

fn spans(records: &[Record]) -> u64 {
    records.iter().map(Record::spans).sum()
}

/// Between calls at the end, while the collector is away.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Steps below the process's priority: behind connections and batches, before loads.
const NICE: i32 = 5;
