//! The cores that run one step together.

/// Calls a step's work on every core of a run.
#[derive(Debug)]
pub(in crate::engine) struct Team {}

impl Team {
    /// The calling thread alone.
    pub(in crate::engine) fn alone() -> Self {
        Self {}
    }

    /// Cores of this team.
    pub(super) fn size(&self) -> usize {
        1
    }

    /// Calls `work` on all cores at once and returns when all calls have ended. Work takes its share by itself, as from
    /// a [`Grid`](kinglet_kernels::Grid).
    pub(super) fn share(&self, work: &(dyn Fn() + Sync)) {
        work();
    }
}
