//! The requests of one variant that wait for a batch, by priority level. Owned by one task; knows no clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::backlog::Work;
use super::rule::Waiting;
use super::{BatchError, Executed, Place};
use crate::repository::TimeoutAction;
use crate::routing::Routed;
use crate::telemetry::spans::Traced;

/// One waiting request with the place it holds and the way back to who asked.
#[derive(Debug)]
pub(super) struct Entry {
    pub routed: Routed,
    /// Where it is recorded.
    pub traced: Option<Traced>,
    pub level: u64,
    pub arrived: Instant,
    /// When the queue policy's timeout action applies.
    pub timeout_at: Option<Instant>,
    pub timeout_action: TimeoutAction,
    pub reply: oneshot::Sender<Result<Executed, BatchError>>,
    /// Held while the entry waits; given back when it leaves for its batch.
    pub place: Option<Place>,
    /// Counts as long as the entry is on its way.
    pub _work: Work,
}

/// The queue of one variant.
#[derive(Debug, Default)]
pub(super) struct Queue {
    levels: BTreeMap<u64, Level>,
    /// Whether nobody may pass an entry of the same level, even one that fits the batch better.
    ordered: bool,
    /// No entry expires or is delayed before this. May be too early after entries have left, never too late.
    next_expiry: Option<Instant>,
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
    pub(super) fn new(ordered: bool) -> Self {
        Self { ordered, ..Self::default() }
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.arrivals.note(entry.arrived);
        self.next_expiry = [self.next_expiry, entry.changes_at()].into_iter().flatten().min();
        self.levels.entry(entry.level).or_default().in_time.push_back(entry);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries().next().is_none()
    }

    /// What could leave together now, up to `rows_max` rows; `None` when nothing waits.
    pub(super) fn waiting(&self, rows_max: usize) -> Option<Waiting> {
        let head = self.entries().next()?;
        let mut waiting =
            Waiting { rows: 0, is_full: false, oldest: head.arrived, deadline: None, arrival_gap: self.arrivals.gap };
        for entry in self.entries() {
            if !entry.fits_beside(head) {
                if self.ordered {
                    // Waiting would bring nobody in before this one.
                    waiting.is_full = true;
                    break;
                }
                continue;
            }
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
                    if self.ordered {
                        full = true;
                        break;
                    }
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
        for entry in &mut taken {
            entry.place = None;
        }
        taken
    }

    /// Answers expired entries, and moves those whose timeout only delays them.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.next_expiry.is_none_or(|next| now < next) {
            return;
        }
        self.remove(|entry| entry.is_expired(now));
        for level in self.levels.values_mut() {
            let (late, in_time) = std::mem::take(&mut level.in_time)
                .into_iter()
                .partition::<VecDeque<_>, _>(|entry| entry.timeout_at.is_some_and(|at| now >= at));
            level.in_time = in_time;
            level.delayed.extend(late.into_iter().map(|entry| Entry { timeout_at: None, ..entry }));
        }
        self.next_expiry = self.entries().filter_map(Entry::changes_at).min();
    }

    /// Drops entries whose caller has gone, so that they hold no place.
    pub(super) fn sweep(&mut self) {
        self.remove(|entry| entry.reply.is_closed());
    }

    /// The next instant at which `expire` may have something to do.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.next_expiry
    }

    fn remove(&mut self, gone: impl Fn(&Entry) -> bool) {
        for line in self.levels.values_mut().flat_map(|level| [&mut level.in_time, &mut level.delayed]) {
            let (out, kept) = std::mem::take(line).into_iter().partition::<VecDeque<_>, _>(&gone);
            *line = kept;
            out.into_iter().for_each(Entry::give_up);
        }
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

    /// When time will do something to this entry, if ever.
    fn changes_at(&self) -> Option<Instant> {
        [self.deadline(), self.timeout_at].into_iter().flatten().min()
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
