//! What each build's batches use, as their threads note it: two looks at a clock and a lock held for nanoseconds each.
//!
//! A batch that runs while a window ends is not waited for: the sampler reads its thread's clock and takes what is new.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kinglet_sys::thread_clock::ThreadClock;

use super::Statistics;
use crate::engine::Cores;
use crate::engine::pool::thread_cpu_time;
use crate::telemetry::energy::BuildEnergy;
use crate::units::Nanojoules;

/// What one build has used and was not yet given energy for.
#[derive(Debug, Default)]
pub struct Account {
    nanos: AtomicU64,
    desk: Arc<Desk>,
    /// None where there is no source.
    energy: Option<BuildEnergy>,
    statistics: Arc<Statistics>,
}

/// Batches that run now: as many as there are cores at most.
#[derive(Debug, Default)]
pub(super) struct Desk(Mutex<Vec<Option<Open>>>);

#[derive(Debug)]
struct Open {
    account: Arc<Account>,
    clock: Option<ThreadClock>,
    began: Duration,
    /// CPU time of cores that help, in nanoseconds. They note it when they rest.
    helpers: Arc<AtomicU64>,
    helped_before: u64,
    /// What the account has of this batch already.
    noted: Duration,
}

/// A batch that runs on this thread. Ends when it is dropped, too.
#[derive(Debug)]
pub struct Interval {
    account: Arc<Account>,
    seat: Option<usize>,
}

/// CPU time of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// By the thread it ran on.
    pub own: Duration,
    /// By all threads.
    pub all: Duration,
}

impl Account {
    pub(super) fn new(desk: Arc<Desk>, energy: Option<BuildEnergy>, statistics: Arc<Statistics>) -> Self {
        Self { nanos: AtomicU64::new(0), desk, energy, statistics }
    }

    /// A batch of this build begins on this thread, and on cores that help it.
    pub fn begin(self: &Arc<Self>, cores: &Cores) -> Interval {
        let helpers = Arc::clone(&cores.helper_cpu_nanos);
        let helped_before = helpers.load(Ordering::Relaxed);
        let (account, clock) = (Arc::clone(self), ThreadClock::current());
        let open = Open { account, clock, began: thread_cpu_time(), helpers, helped_before, noted: Duration::ZERO };
        Interval { account: Arc::clone(self), seat: Some(self.desk.sit(open)) }
    }

    /// Notes what a request is told to have taken.
    pub fn observe(&self, energy: Nanojoules) {
        if let Some(metrics) = &self.energy {
            metrics.request.observe(energy.as_joules());
        }
    }

    /// What was used since this was called last.
    pub(super) fn take(&self) -> Duration {
        Duration::from_nanos(self.nanos.swap(0, Ordering::Relaxed))
    }

    /// Gives it its part of a window's energy, with the grams of carbon dioxide that came of that where they are known.
    pub(super) fn settle(&self, energy: Nanojoules, grams: Option<f64>) {
        let Some(metrics) = &self.energy else { return };
        metrics.attributed.inc_by(energy.as_joules());
        self.statistics.record_energy(energy);
        if let (Some(grams), Some(counter)) = (grams, &metrics.carbon) {
            counter.inc_by(grams);
        }
    }

    pub(super) fn note(&self, used: Duration) {
        self.nanos.fetch_add(u64::try_from(used.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Desk {
    fn sit(&self, open: Open) -> usize {
        let mut seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seat = seats.iter().position(Option::is_none).unwrap_or(seats.len());
        if seat == seats.len() {
            seats.push(None);
        }
        seats[seat] = Some(open);
        seat
    }

    fn stand_up(&self, seat: usize) -> Option<Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[seat].take()
    }

    /// Notes what batches that run now have used so far.
    pub(super) fn note_running(&self) {
        let mut seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for open in seats.iter_mut().flatten() {
            let Some(now) = open.clock.and_then(ThreadClock::read) else { continue };
            let used = open.used(now).all;
            open.account.note(used.saturating_sub(open.noted));
            open.noted = open.noted.max(used);
        }
    }
}

impl Open {
    fn used(&self, now: Duration) -> Used {
        let own = now.saturating_sub(self.began);
        let helped = self.helpers.load(Ordering::Relaxed).saturating_sub(self.helped_before);
        Used { own, all: own + Duration::from_nanos(helped) }
    }
}

impl Interval {
    /// The batch has ended.
    pub fn end(mut self) -> Used {
        self.close()
    }

    fn close(&mut self) -> Used {
        let Some(open) = self.seat.take().and_then(|seat| self.account.desk.stand_up(seat)) else {
            return Used::default();
        };
        let used = open.used(thread_cpu_time());
        self.account.note(used.all.saturating_sub(open.noted));
        used
    }
}

impl Drop for Interval {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::engine::Pool;

    fn burn(cpu: Duration) {
        let began = thread_cpu_time();
        while thread_cpu_time() < began + cpu {
            black_box(0);
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_batch_that_outlasts_a_window_is_noted_in_both() {
        let (account, pool) = (Arc::new(Account::default()), Pool::start(Some(1)));
        let (burnt, seen) = (sync_channel(1), sync_channel(1));
        let running = Arc::clone(&account);
        let (send, receive) = sync_channel(1);
        pool.spawn(pool.try_acquire().unwrap(), 1, move |cores| {
            let interval = running.begin(&cores);
            burn(3 * MS);
            burnt.0.send(()).unwrap();
            seen.1.recv().unwrap();
            burn(2 * MS);
            send.send(interval.end()).unwrap();
        });
        burnt.1.recv().unwrap();
        account.desk.note_running();
        let first = account.take();
        assert!(first >= 3 * MS, "{first:?}");
        seen.0.send(()).unwrap();
        let used = receive.recv().unwrap();
        let second = account.take();
        assert!(second >= 2 * MS, "{second:?}");
        assert_eq!((first + second, used.own), (used.all, used.all), "nothing is noted twice or forgotten");
    }

    #[test]
    fn what_helpers_take_counts_and_so_does_a_batch_that_panics() {
        let (account, pool) = (Arc::new(Account::default()), Pool::start(Some(2)));
        let running = Arc::clone(&account);
        let used = pool
            .wait_for(move |cores| {
                let interval = running.begin(cores);
                cores.team(2).for_each(64, &|_| burn(MS));
                interval.end()
            })
            .unwrap();
        assert!(used.all >= 64 * MS && used.all > used.own, "{used:?}");
        assert_eq!(account.take(), used.all);

        let running = Arc::clone(&account);
        let panicked = pool.wait_for(move |cores| {
            let _interval = running.begin(cores);
            burn(MS);
            panic!("on purpose");
        });
        assert_eq!(panicked, None::<()>);
        assert!(account.take() >= MS && account.desk.0.lock().unwrap().iter().all(Option::is_none));
    }
}
