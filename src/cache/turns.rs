//! Work over the bytes of tensors that does not keep a thread of the runtime from its connections: other tasks have a turn
//! before it goes on. Knows the time that the work itself took.

use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::Instant;

use crate::tensor::Tensor;

/// A turn that is under way, and the time of those before it.
#[derive(Debug)]
pub(super) struct Turns {
    began: Instant,
    before: Duration,
    /// Bytes of this turn.
    left: usize,
}

impl Turns {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), before: Duration::ZERO, left: TURN_BYTES }
    }

    /// Gives `work` all bytes, piece by piece.
    pub(super) async fn over(&mut self, mut bytes: &[u8], mut work: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            if self.left == 0 {
                self.before += self.began.elapsed();
                yield_now().await;
                (self.began, self.left) = (Instant::now(), TURN_BYTES);
            }
            let (piece, behind) = bytes.split_at(bytes.len().min(self.left));
            work(piece);
            self.left -= piece.len();
            bytes = behind;
        }
    }

    /// What all turns have taken.
    pub(super) fn took(&self) -> Duration {
        self.before + self.began.elapsed()
    }
}

/// The tensors with bytes of their own, however large the buffers are that the given ones are pieces of.
pub(super) async fn copied(tensors: &[Tensor]) -> Vec<Tensor> {
    let mut turns = Turns::begin();
    let mut copies = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let mut bytes = Vec::with_capacity(tensor.bytes().len());
        turns.over(tensor.bytes(), |piece| bytes.extend_from_slice(piece)).await;
        let copy = Tensor::new(tensor.dtype(), tensor.shape().clone(), bytes.into());
        copies.push(copy.expect("a copy of a checked tensor's bytes"));
    }
    copies
}

/// They are hashed in some 70 us, about what waking another thread and hearing of it takes, and copied in less.
const TURN_BYTES: usize = 256 << 10;
