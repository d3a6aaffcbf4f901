//! Large messages are coded on the compute pool: a thread of the runtime must not be kept from its other connections
//! for longer than those would wait anyway.

use tokio::sync::oneshot;

use super::{Frontend, Refusal};
use crate::error::ErrorCode;

/// Whether text or compressed bytes of this length take long enough to be coded elsewhere.
pub(super) fn is_large(bytes: usize) -> bool {
    bytes > INLINE_BYTES_MAX
}

/// The same of bytes that are copied alone.
pub(super) fn is_large_copy(bytes: u64) -> bool {
    bytes / COPIES_PER_CODING > INLINE_BYTES_MAX as u64
}

impl Frontend {
    /// Runs `work` on a core of the pool, in turn with the batches. Nothing runs for a caller that has gone.
    ///
    /// # Errors
    /// When the work panicked.
    pub(super) async fn on_pool<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let core = self.pool.acquire().await;
        let (reply, answer) = oneshot::channel();
        self.pool.spawn(core, 1, move |_| {
            if !reply.is_closed() {
                // The caller may leave while the work is done.
                let _ = reply.send(work());
            }
        });
        answer.await.map_err(|_| Refusal::new(ErrorCode::Internal, "coding the message ended in a panic"))
    }
}

/// JSON is read and printed at some 400 MB/s: this much takes about what two wake-ups of another thread do.
pub(super) const INLINE_BYTES_MAX: usize = 32 << 10;
/// And copied at some 6 GB/s.
const COPIES_PER_CODING: u64 = 16;
