//! What waits to be sent: bounded, so that a collector that is away costs memory once and requests nothing.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::metrics::SpanMetrics;
use super::record::Record;

#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Record>>,
    records_max: usize,
    /// So many are worth a call to the collector before its time.
    batch_max: usize,
    filled: Notify,
    metrics: SpanMetrics,
}

impl Queue {
    pub(super) fn new(records_max: usize, batch_max: usize, metrics: SpanMetrics) -> Self {
        Self { waiting: Mutex::default(), records_max, batch_max, filled: Notify::new(), metrics }
    }

    /// Keeps a record where there is room, else counts its spans as dropped. Whoever sends is woken once a batch, not
    /// once a request.
    pub(super) fn push(&self, record: Record) {
        let mut waiting = self.lock();
        if waiting.len() >= self.records_max {
            drop(waiting);
            self.metrics.dropped.inc_by(record.spans());
            return;
        }
        waiting.push_back(record);
        let filled = waiting.len() == self.batch_max;
        drop(waiting);
        if filled {
            self.filled.notify_one();
        }
    }

    /// The oldest, one batch at most; none where fewer than `least` wait.
    pub(super) fn take(&self, least: usize) -> Vec<Record> {
        let mut waiting = self.lock();
        if waiting.len() < least {
            return Vec::new();
        }
        let count = waiting.len().min(self.batch_max);
        waiting.drain(..count).collect()
    }

    /// Waits until there is a batch.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Record>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
