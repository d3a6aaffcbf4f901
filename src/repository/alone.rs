//! A plan whose requests could be merged, served one at a time because its configuration says so.

use crate::engine::{Batch, Cores, EngineError, Executed, Merging, Part, Plan, Signature};

/// Everything is the inner plan's but the answer to whether requests may share a run.
#[derive(Debug)]
pub(super) struct ServedAlone {
    inner: Box<dyn Plan>,
    merging: Merging,
}

impl ServedAlone {
    pub(super) fn new(inner: Box<dyn Plan>, reason: &str) -> Self {
        Self { inner, merging: Merging::Alone { operator: String::new(), reason: reason.into() } }
    }
}

impl Plan for ServedAlone {
    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn merging(&self) -> &Merging {
        &self.merging
    }

    fn parts(&self) -> &[Part] {
        self.inner.parts()
    }

    fn memory_bytes(&self) -> u64 {
        self.inner.memory_bytes()
    }

    fn follows_contents(&self) -> bool {
        self.inner.follows_contents()
    }

    fn random_operator(&self) -> Option<&str> {
        self.inner.random_operator()
    }

    fn run(&self, batch: &Batch, cores: &Cores) -> Result<Executed, EngineError> {
        self.inner.run(batch, cores)
    }

    fn warm_up(&self, batch_size_max: usize, cores: &Cores) -> Result<(), EngineError> {
        self.inner.warm_up(batch_size_max, cores)
    }
}
