//! Work that borrows from its caller's stack, lent to threads that live longer.
//!
//! A thread pool takes work that owns what it needs; a step of a network borrows an arena and is over in microseconds,
//! so that boxing it and waking threads for it would cost more than it saves. Here threads join once ([`Borrower`]) and
//! then take part in whatever the [`Lender`] lends, one piece of work after the other. Between two they spin for a
//! while, then sleep.
//!
//! `tests/lend_states.rs` goes through all orders of the accesses to `Shared`: who changes them here changes them there.

use std::cell::UnsafeCell;
use std::fmt;
use std::hint;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Lends work, one piece at a time. Borrowers leave when it is dropped, and those awake have left when that returns.
pub struct Lender(Arc<Shared>);

/// A thread's way to take part.
#[derive(Clone)]
pub struct Borrower(Arc<Shared>);

type Work<'a> = dyn Fn() + Sync + 'a;

struct Shared {
    /// [`ENDED`], [`OPEN`], how many borrowers are at work, and how many pieces of work there have been.
    state: AtomicU64,
    /// What is lent while `OPEN` is set or borrowers are at work.
    work: UnsafeCell<Option<*const Work<'static>>>,
    panicked: AtomicBool,
    /// Borrowers that take part and do not sleep.
    awake: AtomicUsize,
    asleep: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `work` is written by the one lender while nobody is at work and nothing is open, and read by borrowers that
// have entered through `state`, which orders the two; what it points to may be called from any thread (`Work` is `Sync`).
unsafe impl Sync for Shared {}
// SAFETY: the pointer is all that is not `Send` by itself, and is only followed while the lender keeps its referent alive.
unsafe impl Send for Shared {}

/// A lender, and a borrower to clone for every thread that shall take part.
pub fn pair() -> (Lender, Borrower) {
    let shared = Arc::new(Shared {
        state: AtomicU64::new(0),
        work: UnsafeCell::new(None),
        panicked: AtomicBool::new(false),
        awake: AtomicUsize::new(0),
        asleep: AtomicUsize::new(0),
        sleep: Mutex::new(()),
        wake: Condvar::new(),
    });
    (Lender(Arc::clone(&shared)), Borrower(shared))
}

impl Lender {
    /// Calls `work` here and on every borrower that finds it before this call of it ends; returns when all have ended.
    ///
    /// # Panics
    /// When a call panicked.
    pub fn lend(&mut self, work: &Work<'_>) {
        let shared = &*self.0;
        // SAFETY: the lifetime is erased, and observed below: `close` returns when no borrower is at work and none can
        // begin, and it runs however this function is left.
        let erased: *const Work<'static> = unsafe { mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
        // SAFETY: nothing is open and nobody at work, since the last call has closed and has seen (acquire) that the last
        // borrower was done (release); there is one lender (`&mut`).
        unsafe { *shared.work.get() = Some(erased) };
        // Of a piece that panicked here too, which was told by that panic.
        shared.panicked.store(false, Ordering::Relaxed);
        let next = (shared.state.load(Ordering::Relaxed) & !(PIECE - 1)).wrapping_add(PIECE);
        shared.state.store(next | OPEN, Ordering::SeqCst);
        let close = Close(shared);
        if shared.asleep.load(Ordering::SeqCst) > 0 {
            drop(shared.sleep.lock().unwrap_or_else(PoisonError::into_inner));
            shared.wake.notify_all();
        }
        work();
        drop(close);
        assert!(!shared.panicked.swap(false, Ordering::Relaxed), "work panicked on another thread");
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        self.0.state.fetch_or(ENDED, Ordering::SeqCst);
        drop(self.0.sleep.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.wake.notify_all();
        wait(|| self.0.awake.load(Ordering::Acquire) == 0);
    }
}

/// Waits until nobody is at work, and lets nobody begin.
struct Close<'a>(&'a Shared);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_and(!OPEN, Ordering::SeqCst);
        wait(|| self.0.state.load(Ordering::Acquire) & AT_WORK == 0);
    }
}

/// For what other threads are about to do.
fn wait(done: impl Fn() -> bool) {
    let mut spins = 0u32;
    while !done() {
        // Where they were put aside they need this core.
        spins += 1;
        if spins < SPINS {
            hint::spin_loop();
        } else {
            thread::yield_now();
        }
    }
}

impl Borrower {
    /// Takes part in everything that is lent until the lender is dropped. Spins for at most `spin` between two pieces of
    /// work before it sleeps. `rest` is called before each sleep and at the end; dropping the lender waits for it on
    /// every borrower that does not sleep.
    pub fn take_part(&self, spin: Duration, mut rest: impl FnMut()) {
        let shared = &*self.0;
        let mut awake = Awake::of(shared);
        let mut seen = 0;
        let mut idle = None;
        loop {
            let state = shared.state.load(Ordering::SeqCst);
            if state & ENDED != 0 {
                rest();
                return;
            }
            if state & OPEN != 0 && state / PIECE != seen {
                let entered = shared.state.compare_exchange(state, state + ONE, Ordering::SeqCst, Ordering::Relaxed);
                if entered.is_ok() {
                    seen = state / PIECE;
                    idle = None;
                    shared.work();
                }
                continue;
            }
            let since = *idle.get_or_insert_with(Instant::now);
            if since.elapsed() < spin {
                (0..SPINS_PER_LOOK).for_each(|_| hint::spin_loop());
            } else {
                rest();
                drop(awake);
                shared.sleep_until_news(state);
                awake = Awake::of(shared);
                idle = None;
            }
        }
    }
}

/// A borrower that takes part and does not sleep, however it leaves: the lender waits for it.
struct Awake<'a>(&'a Shared);

impl<'a> Awake<'a> {
    fn of(shared: &'a Shared) -> Self {
        shared.awake.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.0.awake.fetch_sub(1, Ordering::Release);
    }
}

impl Shared {
    /// Calls what is lent, as one who has entered.
    fn work(&self) {
        // SAFETY: this thread counts as being at work, and entered while `OPEN` was set: the lender has written the
        // pointer before that (its release, this thread's acquire) and does not write again, nor end the referent's borrow,
        // until the count is zero. Behind the last line of this function the reference is not used.
        let work = unsafe { (*self.work.get()).map(|work| &*work) };
        let outcome = catch_unwind(AssertUnwindSafe(|| work.map(|work| work())));
        if let Err(thrown) = outcome {
            self.panicked.store(true, Ordering::Relaxed);
            // What was thrown may panic in turn when it is dropped, and this thread still has to say that it is done.
            if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(thrown))) {
                mem::forget(again);
            }
        }
        self.state.fetch_sub(ONE, Ordering::SeqCst);
    }

    /// Sleeps while the state is the one that was seen, but for who is at work.
    fn sleep_until_news(&self, seen: u64) {
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.asleep.fetch_add(1, Ordering::SeqCst);
        let news = |state: u64| state & ENDED != 0 || (state & OPEN != 0 && state / PIECE != seen / PIECE);
        while !news(self.state.load(Ordering::SeqCst)) {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }
}

impl fmt::Debug for Lender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lender").field("pieces", &(self.0.state.load(Ordering::Relaxed) / PIECE)).finish()
    }
}

impl fmt::Debug for Borrower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Borrower").finish_non_exhaustive()
    }
}

/// Bits of the state.
const ENDED: u64 = 1;
const OPEN: u64 = 2;
const ONE: u64 = 4;
const PIECE: u64 = 1 << 24;
const AT_WORK: u64 = PIECE - ONE;

/// Looks at the state before others get this core, and pauses between two looks of a borrower.
const SPINS: u32 = 4096;
const SPINS_PER_LOOK: u32 = 16;
