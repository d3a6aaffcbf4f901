//! Runs one compiled plan from any number of threads, each with a state of its own.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::tract_core::ops::matmul::optimized::OptMatMul;
use tract_onnx::tract_hir::internal::{TValue, TVec, TypedSimplePlan, TypedSimpleState};

use super::typed::guarded;

/// A plan and the states that wait for their next run.
pub(super) struct Runner {
    plan: Arc<TypedSimplePlan>,
    idle: Mutex<Vec<TypedSimpleState>>,
    /// Whether a state is used for one run only and ends on the thread it ran on. tract's loops keep what they end with
    /// for the next run of the same state; its matrix products keep what they need in a table of the thread until the
    /// state ends there, and one that moved on to another thread would leave its part behind for good.
    once: bool,
}

impl Runner {
    pub(super) fn new(plan: Arc<TypedSimplePlan>) -> Result<Self, String> {
        let state = guarded(|| plan.spawn())?;
        let keeps_state = state.op_states.iter().any(Option::is_some);
        let once = keeps_state || plan.model().nodes.iter().any(|node| node.op_is::<OptMatMul>());
        Ok(Self { plan, idle: Mutex::default(), once })
    }

    /// One run. A state that failed is dropped, whatever it was left in.
    pub(super) fn run(&self, inputs: TVec<TValue>) -> Result<TVec<TValue>, String> {
        let waiting = if self.once { None } else { self.lock().pop() };
        guarded(|| {
            let mut state = match waiting {
                Some(state) => state,
                None => self.plan.spawn()?,
            };
            let outputs = state.run(inputs)?;
            if !self.once {
                self.lock().push(state);
            }
            Ok(outputs)
        })
    }

    /// The list is whole at any time: a thread that panicked held it for one push or pop.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<TypedSimpleState>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("once", &self.once).finish_non_exhaustive()
    }
}
