//! Starting, ready, draining: what probes on every listener are told.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::watch;

/// Where the process stands between start and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// The first models are loading.
    Starting = 0,
    Ready = 1,
    /// Asked to end: still serving, but no longer ready.
    Draining = 2,
}

#[derive(Debug)]
pub struct Health {
    phase: AtomicU8,
    changes: watch::Sender<Phase>,
}

impl Health {
    pub fn new() -> Self {
        Self { phase: AtomicU8::new(Phase::Starting as u8), changes: watch::Sender::new(Phase::Starting) }
    }

    /// Phases only move forward: what drains never becomes ready again.
    pub fn advance(&self, phase: Phase) {
        if self.phase.fetch_max(phase as u8, Ordering::AcqRel) < phase as u8 {
            self.changes.send_replace(phase);
        }
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// Whether the first models have loaded; also true of a server that ends.
    pub fn is_started(&self) -> bool {
        self.phase() != Phase::Starting
    }

    /// Whether new requests should be sent here.
    pub fn is_ready(&self) -> bool {
        self.phase() == Phase::Ready
    }

    /// Changes of the phase, for watchers.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.changes.subscribe()
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_only_move_forward() {
        let health = Health::new();
        assert!(!health.is_ready() && !health.is_started());
        health.advance(Phase::Ready);
        assert!(health.is_ready() && health.is_started());
        health.advance(Phase::Draining);
        assert!(!health.is_ready() && health.is_started());
        health.advance(Phase::Ready);
        assert_eq!(health.phase(), Phase::Draining);
    }
}
