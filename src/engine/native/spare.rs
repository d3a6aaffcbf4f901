//! Memory of runs that find it anew for every value: pieces that are free again are used again.

use std::sync::Mutex;

use kinglet_kernels::{Aligned, LINE};

use crate::engine::pool::lock;

/// Pieces that no run uses at the moment.
#[derive(Debug, Default)]
pub(super) struct Spare(Mutex<Vec<Aligned>>);

/// What one run may take.
#[derive(Debug)]
pub(super) struct Memory<'a> {
    spare: &'a Spare,
    /// Free, by length.
    free: Vec<Aligned>,
    /// In use, in bytes.
    used: usize,
    limit: usize,
}

impl Spare {
    pub(super) fn bytes(&self) -> usize {
        lock(&self.0).iter().map(Aligned::bytes).sum()
    }

    pub(super) fn memory(&self, limit: usize) -> Memory<'_> {
        Memory { spare: self, free: std::mem::take(&mut lock(&self.0)), used: 0, limit }
    }
}

impl Memory<'_> {
    /// Room for so many bytes with anything in it, or nothing where that is more than this run may use.
    pub(super) fn take(&mut self, bytes: usize) -> Option<Aligned> {
        let wanted = bytes.checked_next_multiple_of(LINE).filter(|wanted| *wanted <= self.limit)?;
        let at = self.free.partition_point(|piece| piece.bytes() < wanted);
        let fits = self.free.get(at).is_some_and(|piece| piece.bytes() <= wanted.saturating_mul(WASTE_MAX));
        let piece = if fits { self.free.remove(at) } else { Aligned::zeroed(wanted) };
        self.used += piece.bytes();
        if self.used > self.limit {
            self.give_back(piece);
            return None;
        }
        Some(piece)
    }

    pub(super) fn give_back(&mut self, piece: Aligned) {
        self.used = self.used.saturating_sub(piece.bytes());
        let at = self.free.partition_point(|free| free.bytes() < piece.bytes());
        self.free.insert(at, piece);
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }
}

impl Drop for Memory<'_> {
    /// The run that ends last leaves what it had.
    fn drop(&mut self) {
        let mut spare = lock(&self.spare.0);
        let had: usize = self.free.iter().map(Aligned::bytes).sum();
        if spare.iter().map(Aligned::bytes).sum::<usize>() < had {
            *spare = std::mem::take(&mut self.free);
        }
    }
}

/// A piece is taken for a value of at least this part of its length.
const WASTE_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_used_again() {
        let spare = Spare::default();
        let mut memory = spare.memory(1 << 20);
        let first = memory.take(1000).unwrap();
        let place = first.elements::<u8>().as_ptr();
        memory.give_back(first);
        let second = memory.take(900).unwrap();
        assert_eq!(second.elements::<u8>().as_ptr(), place);
        assert_eq!(memory.take(10).unwrap().bytes(), LINE, "a small value does not take a large piece");
        memory.give_back(second);
        drop(memory);
        assert_eq!(spare.bytes(), 1024);
    }

    #[test]
    fn a_run_takes_no_more_than_it_may() {
        let spare = Spare::default();
        let mut memory = spare.memory(1024);
        let piece = memory.take(512).unwrap();
        assert!(memory.take(513).is_none());
        assert!(memory.take(usize::MAX).is_none());
        memory.give_back(piece);
        assert!(memory.take(1024).is_some());
    }
}
