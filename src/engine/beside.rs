//! Pieces of a load beside each other. Its threads are the load's own: they begin with its priority, and take no core from
//! the compute pool.

use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What `work` makes of each position, in order, on so many threads. The calling one is one of them.
pub(super) fn beside_each_other<T: Send>(
    threads: usize,
    positions: Range<usize>,
    work: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    let threads = threads.min(positions.len());
    if threads <= 1 {
        return positions.map(work).collect();
    }
    let next = AtomicUsize::new(positions.start);
    let take = || {
        let mut made = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= positions.end {
                return made;
            }
            made.push((at, work(at)));
        }
    };
    let mut made = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(take)).collect();
        let mut made = take();
        for other in others {
            made.extend(other.join().unwrap_or_else(|thrown| resume_unwind(thrown)));
        }
        made
    });
    made.sort_unstable_by_key(|(at, _)| *at);
    made.into_iter().map(|(_, made)| made).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_made_in_order() {
        for threads in [0, 1, 2, 7] {
            for positions in [0..0, 3..4, 2..100] {
                let expected: Vec<usize> = positions.clone().map(|at| at * at).collect();
                assert_eq!(beside_each_other(threads, positions, |at| at * at), expected);
            }
        }
    }

    #[test]
    #[should_panic(expected = "on purpose")]
    fn a_panic_is_the_caller_s() {
        beside_each_other(2, 0..100, |at| assert!(at < 50, "on purpose"));
    }
}
