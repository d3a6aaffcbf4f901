//! Work on the stack, lent to threads that live longer.

use std::hint;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use kinglet_sys::lend::{Lender, pair};

#[test]
fn everybody_sees_every_piece_and_nobody_a_stale_one() {
    let (mut lender, borrower) = pair();
    thread::scope(|scope| {
        for spin in [0, 50] {
            let borrower = borrower.clone();
            scope.spawn(move || borrower.take_part(Duration::from_micros(spin), || {}));
        }
        for round in 0..2000usize {
            let (next, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
            lender.lend(&|| {
                while let index @ 0..64 = next.fetch_add(1, Ordering::Relaxed) {
                    sum.fetch_add(index + round, Ordering::Relaxed);
                }
            });
            assert_eq!(sum.into_inner(), 64 * 63 / 2 + 64 * round);
        }
        drop(lender);
    });
}

#[test]
fn a_panic_elsewhere_is_told_and_the_next_piece_runs() {
    let (mut lender, borrower) = pair();
    thread::scope(|scope| {
        scope.spawn(|| borrower.take_part(Duration::from_millis(1), || {}));
        let here = thread::current().id();
        let (entered, told) = (AtomicUsize::new(0), AtomicBool::new(false));
        let panicking = || {
            entered.fetch_add(1, Ordering::SeqCst);
            // Both are in before either leaves.
            while entered.load(Ordering::SeqCst) < 2 {
                hint::spin_loop();
            }
            assert!(thread::current().id() == here, "on purpose");
        };
        if catch_unwind(AssertUnwindSafe(|| lender.lend(&panicking))).is_err() {
            told.store(true, Ordering::Relaxed);
        }
        assert!(told.into_inner());
        lender.lend(&|| {});
        drop(lender);
    });
}

/// Work that both threads are in before either panics.
fn both_panic(thrown: impl Fn() -> Bomb + Sync, lender: &mut Lender) {
    let entered = AtomicUsize::new(0);
    let work = || {
        entered.fetch_add(1, Ordering::SeqCst);
        while entered.load(Ordering::SeqCst) < 2 {
            hint::spin_loop();
        }
        panic_any(thrown());
    };
    let told = catch_unwind(AssertUnwindSafe(|| lender.lend(&work)));
    // What was thrown here is as explosive.
    std::mem::forget(told.expect_err("both have panicked"));
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

#[test]
fn a_panic_is_told_once_although_it_happened_everywhere() {
    let (mut lender, borrower) = pair();
    thread::scope(|scope| {
        scope.spawn(|| borrower.take_part(Duration::from_millis(1), || {}));
        for _ in 0..10 {
            both_panic(|| Bomb, &mut lender);
            lender.lend(&|| {});
        }
        drop(lender);
    });
}

#[test]
fn a_borrower_that_panics_while_it_rests_has_left() {
    for (spin, takes_part) in [(Duration::ZERO, false), (Duration::from_secs(100), true)] {
        let (mut lender, borrower) = pair();
        let (entered, rests) = (AtomicUsize::new(0), AtomicBool::new(false));
        let rest = || {
            rests.store(true, Ordering::SeqCst);
            panic!("on purpose");
        };
        thread::scope(|scope| {
            let left = scope.spawn(|| borrower.take_part(spin, rest));
            if takes_part {
                lender.lend(&|| {
                    entered.fetch_add(1, Ordering::SeqCst);
                    while entered.load(Ordering::SeqCst) < 2 {
                        hint::spin_loop();
                    }
                });
            } else {
                while !rests.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
            }
            drop(lender);
            assert!(left.join().is_err());
        });
    }
}

/// Lenders that come and go, borrowers that are about to sleep, and memory that is gone as soon as `lend` returns.
#[test]
fn nobody_is_left_asleep_or_with_work_that_is_over() {
    for round in 0..300u64 {
        let (mut lender, borrower) = pair();
        thread::scope(|scope| {
            for at in 0..3 {
                let borrower = borrower.clone();
                scope.spawn(move || borrower.take_part(Duration::from_micros(at * round % 7), || {}));
            }
            for piece in 0..20usize {
                let counts: Box<[AtomicUsize]> = (0..8).map(|_| AtomicUsize::new(piece)).collect();
                lender.lend(&|| counts.iter().for_each(|count| _ = count.fetch_add(1, Ordering::Relaxed)));
                let sums: Vec<usize> = counts.into_iter().map(AtomicUsize::into_inner).collect();
                assert!(sums.iter().all(|sum| *sum == sums[0] && (piece + 1..=piece + 4).contains(sum)));
                if piece as u64 % 5 == round % 5 {
                    thread::sleep(Duration::from_micros(round % 50));
                }
            }
            drop(lender);
        });
    }
}
