//! Work on the stack, lent to threads that live longer.

use std::hint;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use kinglet_sys::lend::pair;

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
