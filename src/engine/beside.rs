//! Pieces of a load beside each other. Its threads are the load's own: they begin with its priority, and take no core from
//! the compute pool.

use std::cmp::Reverse;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What `work` makes of each position, in order, on so many threads. The calling one is one of them. What is largest, as
/// `size` says, is begun first: begun last, all others would wait for it.
pub(super) fn beside_each_other<T: Send>(
    threads: usize,
    positions: Range<usize>,
    size: impl Fn(usize) -> usize,
    work: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    let threads = threads.min(positions.len());
    if threads <= 1 {
        return positions.map(work).collect();
    }
    let mut order: Vec<usize> = positions.collect();
    order.sort_by_cached_key(|&at| Reverse(size(at)));
    let next = AtomicUsize::new(0);
    let take = || {
        let mut made = Vec::new();
        while let Some(&at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            made.push((at, work(at)));
        }
        made
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
                assert_eq!(beside_each_other(threads, positions, |at| at % 5, |at| at * at), expected);
            }
        }
    }

    #[test]
    #[should_panic(expected = "on purpose")]
    fn a_panic_is_the_caller_s() {
        beside_each_other(2, 0..100, |at| at, |at| assert!(at < 50, "on purpose"));
    }
}
