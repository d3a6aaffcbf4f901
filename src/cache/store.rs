//! What is kept and what is on its way, under one lock that is held for a look or a change and never while anybody waits.
//!
//! A request that finds neither leads: its answer is kept and goes to those who follow it. A lead that is dropped, because its
//! client has left, its time is over or it was refused, ends its flight without an answer, and whoever followed looks again.

use std::collections::HashMap;
use std::mem::size_of;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::sieve::Sieve;
use crate::engine::Share;
use crate::engine::pool::lock;
use crate::infer::Schedule;
use crate::telemetry::cache::CacheMetrics;
use crate::tensor::Tensor;

#[derive(Debug)]
pub(super) struct Store {
    state: Mutex<State>,
    is_off: AtomicBool,
    metrics: CacheMetrics,
}

/// The inputs of a request, for one loaded build: a load of other bytes, or with other settings, is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub build: u64,
    pub inputs: u128,
}

/// What a look finds.
pub(super) enum Entered {
    Kept(Arc<Share>),
    OnItsWay(watch::Receiver<Landing>),
    /// Nothing: the request leads.
    Leads(Flight),
}

/// What becomes of a flight. One that ends without is abandoned.
#[derive(Clone, Debug)]
pub(super) enum Landing {
    Aloft,
    Answered(Arc<Share>),
    /// Its run has failed. Others need not wait for one another to see whether theirs does.
    Failed,
}

/// A request that is computed, for others too. Dropping it abandons them, and they look again.
#[derive(Debug)]
pub(super) struct Flight {
    store: Arc<Store>,
    key: Key,
    landing: watch::Sender<Landing>,
}

#[derive(Debug)]
struct State {
    kept: Sieve<Key, Arc<Share>>,
    flights: HashMap<Key, Aloft>,
    builds: u64,
}

/// A flight that may be followed.
#[derive(Debug)]
struct Aloft {
    schedule: Schedule,
    landing: watch::Receiver<Landing>,
}

impl Store {
    pub(super) fn new(bytes_max: u64, metrics: CacheMetrics) -> Arc<Self> {
        let state = State { kept: Sieve::new(bytes_max), flights: HashMap::new(), builds: 0 };
        let store = Self { state: Mutex::new(state), is_off: AtomicBool::default(), metrics };
        store.resize(bytes_max);
        Arc::new(store)
    }

    /// Whether nothing may be kept. Then nobody waits for another either.
    pub(super) fn is_off(&self) -> bool {
        self.is_off.load(Ordering::Relaxed)
    }

    /// A number that no other build of this process has.
    pub(super) fn next_build(&self) -> u64 {
        let mut state = lock(&self.state);
        state.builds += 1;
        state.builds
    }

    /// A flight is followed only where its leader is queued as the request itself would be, and is in no less of a hurry;
    /// otherwise the request leads in its place.
    pub(super) fn enter(self: &Arc<Self>, key: Key, schedule: &Schedule) -> Entered {
        let mut state = lock(&self.state);
        if let Some(share) = state.kept.get(&key) {
            return Entered::Kept(Arc::clone(share));
        }
        if let Some(flight) = state.flights.get(&key).filter(|flight| flight.suits(schedule)) {
            return Entered::OnItsWay(flight.landing.clone());
        }
        let flight = self.alone(key);
        let aloft = Aloft { schedule: *schedule, landing: flight.landing.subscribe() };
        state.flights.insert(key, aloft);
        Entered::Leads(flight)
    }

    /// A flight that nobody follows.
    pub(super) fn alone(self: &Arc<Self>, key: Key) -> Flight {
        Flight { store: Arc::clone(self), key, landing: watch::channel(Landing::Aloft).0 }
    }

    /// Takes out what was kept for a build that has ended.
    pub(super) fn forget(&self, build: u64) {
        let mut state = lock(&self.state);
        state.kept.remove_all(|key| key.build == build);
        self.tell(&state);
    }

    /// Takes out everything.
    pub(super) fn clear(&self) -> Holding {
        let mut state = lock(&self.state);
        let held = Holding::of(&state);
        state.kept.remove_all(|_| true);
        self.tell(&state);
        held
    }

    pub(super) fn resize(&self, bytes_max: u64) {
        let mut state = lock(&self.state);
        let gone = state.kept.resize(bytes_max);
        self.is_off.store(bytes_max == 0, Ordering::Relaxed);
        self.metrics.evictions.inc_by(gone as u64);
        self.metrics.bytes_max.set(i64::try_from(bytes_max).unwrap_or(i64::MAX));
        self.tell(&state);
    }

    pub(super) fn holding(&self) -> Holding {
        Holding::of(&lock(&self.state))
    }

    fn tell(&self, state: &State) {
        self.metrics.bytes.set(i64::try_from(state.kept.bytes()).unwrap_or(i64::MAX));
        self.metrics.entries.set(i64::try_from(state.kept.len()).unwrap_or(i64::MAX));
    }
}

/// What is kept now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    pub entries: usize,
    pub bytes: u64,
    pub bytes_max: u64,
    /// Answers that are being computed and may be waited for.
    pub flights: usize,
}

impl Holding {
    fn of(state: &State) -> Self {
        let State { kept, flights, .. } = state;
        Self { entries: kept.len(), bytes: kept.bytes(), bytes_max: kept.bytes_max(), flights: flights.len() }
    }
}

impl Aloft {
    fn suits(&self, schedule: &Schedule) -> bool {
        let Schedule { priority, queue_timeout, deadline } = self.schedule;
        let is_over_first = match (deadline, schedule.deadline) {
            (Some(own), Some(other)) => own <= other,
            (own, other) => own.is_some() || other.is_none(),
        };
        is_over_first && priority == schedule.priority && queue_timeout == schedule.queue_timeout
    }
}

impl Flight {
    /// Keeps the answer, whose bytes are its own, and gives it to all who follow.
    pub(super) fn answer(self, share: Share) {
        let share = Arc::new(share);
        {
            let mut state = lock(&self.store.state);
            let gone = state.kept.insert(self.key, Arc::clone(&share), bytes_of(&share));
            self.store.metrics.evictions.inc_by(gone as u64);
            self.store.tell(&state);
        }
        self.landing.send_replace(Landing::Answered(share));
    }

    pub(super) fn fail(self) {
        self.landing.send_replace(Landing::Failed);
    }
}

impl Drop for Flight {
    /// From here on nobody follows it. Another request may have led in its place since long.
    fn drop(&mut self) {
        let mut state = lock(&self.store.state);
        if state.flights.get(&self.key).is_some_and(|aloft| aloft.landing.same_channel(&self.landing.subscribe())) {
            state.flights.remove(&self.key);
        }
    }
}

/// What an answer takes of memory: its elements, and what stands around them.
fn bytes_of(share: &Share) -> u64 {
    let tensor = |tensor: &Tensor| tensor.bytes().len() + size_of::<Tensor>() + TENSOR_BYTES;
    (share.iter().map(tensor).sum::<usize>() + ENTRY_BYTES) as u64
}

/// What the allocator and the count of references take for the elements of one tensor.
const TENSOR_BYTES: usize = 64;
/// Of an entry's slot and place, whose tables may be half empty, and its handle.
const ENTRY_BYTES: usize = 384;
