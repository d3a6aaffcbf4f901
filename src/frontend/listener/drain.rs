//! The end of a server as its listeners hear of it: clients are asked to leave, then the doors close.
//!
//! Knows no connection. Shared by everything that listens, so that all of it ends together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<Stages>);

#[derive(Debug, Default)]
struct Stages {
    /// Apart from `closed`, which takes a lock to be asked: every answer over HTTP/1.1 asks.
    begun: AtomicBool,
    closed: CancellationToken,
    linger: OnceLock<Duration>,
}

impl Drain {
    /// From now on each answer over HTTP/1.1 is its connection's last, so that clients that go on asking move elsewhere
    /// in order. New connections and requests are taken as before.
    pub fn begin(&self) {
        self.0.begun.store(true, Ordering::Relaxed);
    }

    /// Closes the listeners. Connections end once their requests are answered; silent ones stay open for `linger`, in
    /// which a request that is on its way may arrive.
    pub fn close(&self, linger: Duration) {
        self.begin();
        self.0.linger.get_or_init(|| linger);
        self.0.closed.cancel();
    }

    pub(super) fn has_begun(&self) -> bool {
        self.0.begun.load(Ordering::Relaxed)
    }

    pub(super) fn closed(&self) -> WaitForCancellationFuture<'_> {
        self.0.closed.cancelled()
    }

    /// Zero before the listeners close.
    pub(super) fn linger(&self) -> Duration {
        self.0.linger.get().copied().unwrap_or_default()
    }
}
