//! Memory of large outputs, kept for the next ones: what goes back to the system when it is freed comes as fresh pages,
//! which take longer to be had than outputs to be copied.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;

use super::pool::lock;

/// Memory that nobody uses at the moment. It goes when this does.
#[derive(Default)]
pub(super) struct Kept(Arc<Mutex<Vec<Vec<u8>>>>);

/// Comes back when the last one who reads it lets go of it.
struct Lent {
    bytes: Vec<u8>,
    to: Weak<Mutex<Vec<Vec<u8>>>>,
}

impl Kept {
    /// Pieces one after the other, of so many bytes in all.
    pub(super) fn joined<'a>(&self, length: usize, pieces: impl Iterator<Item = &'a [u8]>) -> Bytes {
        let fill = |bytes: &mut Vec<u8>| pieces.for_each(|piece| bytes.extend_from_slice(piece));
        if length < KEPT_MIN {
            let mut bytes = Vec::with_capacity(length);
            fill(&mut bytes);
            return bytes.into();
        }
        let mut bytes = self.take(length);
        fill(&mut bytes);
        Bytes::from_owner(Lent { bytes, to: Arc::downgrade(&self.0) })
    }

    /// Bytes of all that is kept.
    pub(super) fn bytes(&self) -> usize {
        total(&lock(&self.0))
    }

    /// Empty, with room for so many bytes and not for more than twice as many.
    fn take(&self, length: usize) -> Vec<u8> {
        let mut kept = lock(&self.0);
        let fits = |bytes: &Vec<u8>| (length..=2 * length).contains(&bytes.capacity());
        let mut bytes =
            kept.iter().position(fits).map_or_else(|| Vec::with_capacity(length), |at| kept.swap_remove(at));
        bytes.clear();
        bytes
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(kept) = self.to.upgrade() else { return };
        let mut kept = lock(&kept);
        if total(&kept) + self.bytes.capacity() <= KEPT_MAX {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("bytes", &self.bytes()).finish()
    }
}

fn total(kept: &[Vec<u8>]) -> usize {
    kept.iter().map(Vec::capacity).sum()
}

/// Less is had from the allocator as fast.
const KEPT_MIN: usize = 512 << 10;

/// What a plan keeps at most.
const KEPT_MAX: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn output(kept: &Kept, byte: u8, length: usize) -> Bytes {
        let half = vec![byte; length / 2];
        kept.joined(length, [&half[..], &half[..]].into_iter())
    }

    #[test]
    fn memory_is_used_again_and_never_while_it_is_read() {
        let kept = Kept::default();
        let (first, second) = (output(&kept, 1, KEPT_MIN), output(&kept, 2, KEPT_MIN));
        assert!(first.iter().all(|&byte| byte == 1) && second.iter().all(|&byte| byte == 2));
        let (place, part) = (first.as_ptr(), first.slice(10..20));
        drop(first);
        assert_eq!((kept.bytes(), part[0]), (0, 1), "a part of it is still read");
        drop(part);
        assert_eq!(kept.bytes(), KEPT_MIN);
        let third = output(&kept, 3, KEPT_MIN - 2);
        assert!(third.as_ptr() != place, "room for more than is asked for is as good, but less is small");
        let fourth = output(&kept, 4, KEPT_MIN);
        assert_eq!((fourth.as_ptr(), fourth.len(), kept.bytes()), (place, KEPT_MIN, 0));
    }

    #[test]
    fn small_and_very_large_outputs_are_not_kept() {
        let kept = Kept::default();
        drop([output(&kept, 1, 0), output(&kept, 1, KEPT_MIN - 2), output(&kept, 1, KEPT_MAX + 2)]);
        assert_eq!(kept.bytes(), 0);
        drop([output(&kept, 1, KEPT_MAX / 2), output(&kept, 1, KEPT_MAX / 2), output(&kept, 1, KEPT_MIN)]);
        assert_eq!(kept.bytes(), KEPT_MAX);
        // Not where four times as much would lie idle.
        assert_eq!(output(&kept, 1, KEPT_MIN).len() + kept.bytes(), KEPT_MIN + KEPT_MAX);
    }

    #[test]
    fn what_is_read_outlives_what_keeps_it() {
        let kept = Kept::default();
        let bytes = output(&kept, 5, KEPT_MIN);
        drop(kept);
        assert_eq!(bytes[KEPT_MIN - 1], 5);
    }
}
