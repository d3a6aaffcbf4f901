//! Starting, ready, draining: what probes on every listener are told.

use tokio::sync::watch;

/// Where the process stands between start and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The first models are loading.
    Starting,
    Ready,
    /// Asked to end: still serving, but no longer ready.
    Draining,
}

#[derive(Debug)]
pub struct Health(watch::Sender<Phase>);

impl Health {
    pub fn new() -> Self {
        Self(watch::Sender::new(Phase::Starting))
    }

    /// Phases only move forward: what drains never becomes ready again.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let moves = *now < phase;
            *now = phase.max(*now);
            moves
        });
    }

    pub fn phase(&self) -> Phase {
        *self.0.borrow()
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
        self.0.subscribe()
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
        let changes = health.watch();
        health.advance(Phase::Ready);
        assert_eq!(health.phase(), Phase::Draining);
        assert!(!changes.has_changed().unwrap(), "nobody is told of no change");
    }
}
