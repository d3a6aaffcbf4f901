//! The requests of one variant that wait for a batch, by priority level. Owned by one task; knows no clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::rule::Waiting;
use super::{BatchError, Executed, Place};
use crate::repository::TimeoutAction;
use crate::routing::Routed;

/// One waiting request with the place it holds and the way back to who asked.
#[derive(Debug)]
pub(super) struct Entry {
    pub routed: Routed,
    pub level: u64,
    pub arrived: Instant,
    /// When the queue policy's timeout action applies.
    pub timeout_at: Option<Instant>,
    pub timeout_action: TimeoutAction,
    pub reply: oneshot::Sender<Result<Executed, BatchError>>,
    /// Held while the entry waits; given back when it leaves for its batch.
    pub place: Option<Place>,
}

/// The queue of one variant.
#[derive(Debug, Default)]
pub(super) struct Queue {
    levels: BTreeMap<u64, Level>,
    /// Entries with a deadline or timeout; zero spares the search for the next one.
    timed: usize,
    arrivals: Arrivals,
}

#[derive(Debug, Default)]
struct Level {
    in_time: VecDeque<Entry>,
    /// Past their timeout under the action "delay": served when nothing of the level is in time.
    delayed: VecDeque<Entry>,
}

/// The mean gap between arrivals; recent gaps count more.
#[derive(Debug, Default)]
struct Arrivals {
    last: Option<Instant>,
    gap: Option<Duration>,
}

impl Queue {
    pub(super) fn push(&mut self, entry: Entry) {
        self.arrivals.note(entry.arrived);
        self.timed += usize::from(entry.is_timed());
        self.levels.entry(entry.level).or_default().in_time.push_back(entry);
    }

    /// What could leave together now, up to `rows_max` rows; `None` when nothing waits.
    pub(super) fn waiting(&self, rows_max: usize) -> Option<Waiting> {
        let head = self.entries().next()?;
        let mut waiting =
            Waiting { rows: 0, is_full: false, oldest: head.arrived, deadline: None, arrival_gap: self.arrivals.gap };
        for entry in self.entries().filter(|entry| entry.fits_beside(head)) {
            if waiting.rows > 0 && waiting.rows + entry.routed.rows > rows_max {
                waiting.is_full = true;
                break;
            }
            waiting.rows += entry.routed.rows;
            waiting.oldest = waiting.oldest.min(entry.arrived);
            waiting.deadline = [waiting.deadline, entry.expires_at()].into_iter().flatten().min();
            if waiting.rows >= rows_max {
                break;
            }
        }
        Some(waiting)
    }

    /// Takes the first entry and, in order, those that fit beside it while rows stay within `rows_max`.
    pub(super) fn take(&mut self, rows_max: usize) -> Vec<Entry> {
        let mut taken: Vec<Entry> = Vec::new();
        let mut rows = 0;
        for line in self.levels.values_mut().flat_map(|level| [&mut level.in_time, &mut level.delayed]) {
            let mut passed_over = Vec::new();
            let mut full = false;
            while let Some(entry) = line.pop_front() {
                if !taken.first().is_none_or(|head| entry.fits_beside(head)) {
                    passed_over.push(entry);
                } else if !taken.is_empty() && rows + entry.routed.rows > rows_max {
                    line.push_front(entry);
                    full = true;
                    break;
                } else {
                    rows += entry.routed.rows;
                    taken.push(entry);
                }
            }
            for entry in passed_over.into_iter().rev() {
                line.push_front(entry);
            }
            if full {
                break;
            }
        }
        self.timed -= taken.iter().filter(|entry| entry.is_timed()).count();
        for entry in &mut taken {
            entry.place = None;
        }
        taken
    }

    /// Drops abandoned entries, answers expired ones, and moves those whose timeout only delays them.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.timed == 0 {
            return;
        }
        self.remove(|entry| entry.is_expired(now));
        for level in self.levels.values_mut() {
            let (late, in_time) = std::mem::take(&mut level.in_time)
                .into_iter()
                .partition::<VecDeque<_>, _>(|entry| entry.timeout_at.is_some_and(|at| now >= at));
            level.in_time = in_time;
            for mut entry in late {
                entry.timeout_at = None;
                self.timed -= usize::from(!entry.is_timed());
                level.delayed.push_back(entry);
            }
        }
    }

    /// Drops entries whose caller has gone, so that they hold no place.
    pub(super) fn sweep(&mut self) {
        self.remove(|entry| entry.reply.is_closed());
    }

    /// The next instant at which `expire` will have something to do.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        if self.timed == 0 {
            return None;
        }
        self.entries().flat_map(|entry| [entry.deadline(), entry.timeout_at]).flatten().min()
    }

    fn remove(&mut self, gone: impl Fn(&Entry) -> bool) {
        let mut timed = 0;
        for line in self.levels.values_mut().flat_map(|level| [&mut level.in_time, &mut level.delayed]) {
            let mut index = 0;
            while index < line.len() {
                if gone(&line[index]) {
                    let entry = line.remove(index).expect("the index is below the length");
                    timed += usize::from(entry.is_timed());
                    entry.give_up();
                } else {
                    index += 1;
                }
            }
        }
        self.timed -= timed;
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.levels.values().flat_map(|level| level.in_time.iter().chain(&level.delayed))
    }
}

impl Entry {
    /// Whether both may share a run: the same shapes behind axis 0.
    fn fits_beside(&self, other: &Self) -> bool {
        let shapes = |entry: &Self| entry.routed.inputs.len();
        shapes(self) == shapes(other)
            && self
                .routed
                .inputs
                .iter()
                .zip(&other.routed.inputs)
                .all(|(a, b)| a.shape().row_dims() == b.shape().row_dims())
    }

    fn deadline(&self) -> Option<Instant> {
        self.routed.admitted.request.schedule.deadline
    }

    /// When the request will be answered with an error if nothing happens.
    fn expires_at(&self) -> Option<Instant> {
        let timeout = self.timeout_at.filter(|_| self.timeout_action == TimeoutAction::Reject);
        [self.deadline(), timeout].into_iter().flatten().min()
    }

    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.expires_at().is_some_and(|at| now >= at)
    }

    fn is_timed(&self) -> bool {
        self.deadline().is_some() || self.timeout_at.is_some()
    }

    /// Answers an expired request; to an abandoned one nobody listens.
    pub(super) fn give_up(self) {
        let waited = self.arrived.elapsed();
        let _ = self.reply.send(Err(BatchError::Expired { waited }));
    }
}

impl Arrivals {
    fn note(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            let seen = now.saturating_duration_since(last);
            self.gap = Some(self.gap.map_or(seen, |mean| (mean * 7 + seen) / 8));
        }
    }
}
