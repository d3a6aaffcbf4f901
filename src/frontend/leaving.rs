//! Answers that are ready, at the budget of what leaves.

use std::sync::Arc;

use http::Extensions;

use super::{Frontend, Refusal};
use crate::admission::outflow;

impl Frontend {
    /// Lets an answer of so many bytes leave. What a large one holds of the budget goes with its response, for the
    /// listener; small ones are counted there.
    ///
    /// # Errors
    /// When too much leaves already.
    pub(super) fn let_leave(&self, bytes: u64, with: &mut Extensions) -> Result<(), Refusal> {
        if outflow::is_large(bytes) {
            with.insert(Arc::new(self.pipeline.admission().outflow().leave(bytes)?));
            return Ok(());
        }
        self.check_leaving(bytes)
    }

    /// The same for an answer of which nothing is held back: the listener counts it.
    ///
    /// # Errors
    /// As `let_leave`.
    pub(super) fn check_leaving(&self, bytes: u64) -> Result<(), Refusal> {
        Ok(self.pipeline.admission().outflow().check(bytes)?)
    }
}
