//! The CPU time of a thread, for others to read while it runs.

use std::time::Duration;

/// A thread's clock. It may outlive its thread, and then stands for nothing.
#[derive(Clone, Copy, Debug)]
pub struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    /// The clock of the calling thread; none where the system has no such clocks.
    pub fn current() -> Option<Self> {
        let mut clock = 0;
        // SAFETY: `pthread_self` names a thread that runs, which is this one, and the clock is written to a place on the
        // stack that outlives the call.
        let failed = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
        (failed == 0).then_some(Self(clock))
    }

    /// What the thread has used; nothing where it has ended.
    pub fn read(self) -> Option<Duration> {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the time is written to a place on the stack that outlives the call; a clock of a thread that has ended is
        // refused by the system.
        let failed = unsafe { libc::clock_gettime(self.0, &raw mut now) };
        let (seconds, nanos) = (u64::try_from(now.tv_sec).ok()?, u32::try_from(now.tv_nsec).ok()?);
        (failed == 0).then(|| Duration::new(seconds, nanos))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::hint::black_box;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::sync_channel;
    use std::thread;
    use std::time::Instant;

    use super::*;

    #[test]
    fn others_see_it_go_on_and_end() {
        let (send, receive) = sync_channel(1);
        let stop = AtomicBool::new(false);
        let clock = thread::scope(|scope| {
            scope.spawn(|| {
                send.send(ThreadClock::current().unwrap()).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    black_box(1);
                }
            });
            let clock = receive.recv().unwrap();
            let since = Instant::now();
            let first = clock.read().unwrap();
            let mut later = first;
            while later < first + Duration::from_millis(5) && since.elapsed() < Duration::from_secs(20) {
                later = clock.read().unwrap();
            }
            stop.store(true, Ordering::Relaxed);
            assert!(later >= first + Duration::from_millis(5));
            assert!(later - first <= since.elapsed());
            clock
        });
        let since = Instant::now();
        // The system may take a moment to forget a thread that was joined.
        while clock.read().is_some() && since.elapsed() < Duration::from_secs(20) {
            thread::yield_now();
        }
        assert!(clock.read().is_none());
    }
}
