//! Room 5: many requests in, one batch out, each answer back to who asked.
//!
//! Every variant has a lane: a bounded queue and one task that owns it (`worker`), cuts batches by a pure rule (`rule`)
//! over measured costs (the build's profile) and hands them to the compute pool (`job`), but for those that are over before a thread
//! of the pool would begin (`here`). The lane hangs on the variant and ends with it.

mod backlog;
mod here;
mod job;
mod queue;
mod rule;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};

use self::backlog::{Backlog, Work};
use self::queue::Entry;
use crate::engine::{EngineError, Pool, Share};
use crate::infer::{Schedule, Usage};
use crate::repository::{BatchSettings, Profile, QueuePolicy, Variant};
use crate::routing::Routed;
use crate::telemetry::ModelMetrics;
use crate::telemetry::spans::{Began, Traced};

/// The door of the room.
#[derive(Clone, Debug)]
pub struct Batcher {
    pool: Pool,
    /// A batch that takes no longer runs on the thread that formed it.
    inline_time_max: Duration,
    /// Of all lanes.
    backlog: Arc<Backlog>,
}

/// A request with its answer.
#[derive(Debug)]
pub struct Executed {
    pub routed: Routed,
    pub share: Share,
    pub usage: Usage,
    pub began: Began,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum BatchError {
    #[error("the queue of the model is full: it holds at most {limit} {what}")]
    QueueFull { what: &'static str, limit: u64 },
    #[error("the deadline passed after {waited:?}, before the request was answered")]
    Expired { waited: Duration },
    #[error(transparent)]
    Engine(Arc<EngineError>),
    #[error("the batch ended in a panic")]
    Panicked,
}

/// The queue of one variant: what submitters share with its worker.
#[derive(Debug)]
struct Lane {
    entries: mpsc::Sender<Entry>,
    settings: BatchSettings,
    levels: Vec<Arc<Occupancy>>,
    profile: Arc<Profile>,
    backlog: Arc<Backlog>,
    /// Told when a caller went away, so that its entry gives its place back at once.
    abandoned: Arc<Notify>,
}

/// What one priority level holds.
#[derive(Debug)]
struct Occupancy {
    requests: AtomicUsize,
    bytes: AtomicU64,
    metrics: Arc<ModelMetrics>,
}

/// A place in a queue; dropping it gives it back.
#[derive(Debug)]
struct Place {
    level: Arc<Occupancy>,
    bytes: u64,
}

/// Tells the worker that nobody waits any more, unless the answer came.
struct Waiter<'a> {
    abandoned: &'a Notify,
    answered: bool,
}

impl Batcher {
    pub fn new(pool: Pool, inline_time_max: Duration) -> Self {
        Self { pool, inline_time_max, backlog: Arc::default() }
    }

    /// How long a request that comes now is expected to wait until it runs.
    pub fn wait_expected(&self) -> Duration {
        if self.pool.idle() > 0 { Duration::ZERO } else { self.backlog.over(self.pool.size()) }
    }

    /// Queues a request, waits for its batch and returns its share of the answer. One that is traced is named by the span
    /// of its batch.
    ///
    /// # Errors
    /// When the queue is full, the deadline passes first, or the run fails.
    pub async fn submit(&self, routed: Routed, traced: Option<Traced>) -> Result<Executed, BatchError> {
        let variant = Arc::clone(&routed.variant);
        let lane = variant.attachments.queue.get_or_attach(|| Lane::open(&variant, self));
        let deadline = routed.admitted.request.schedule.deadline;
        let arrived = routed.arrived;
        let answer = lane.enqueue(routed, traced)?;
        let mut waiter = Waiter { abandoned: &lane.abandoned, answered: false };
        let reply = match deadline {
            None => answer.await,
            Some(deadline) => tokio::time::timeout_at(deadline, answer)
                .await
                .map_err(|_| BatchError::Expired { waited: arrived.elapsed() })?,
        };
        waiter.answered = true;
        // A reply that was dropped unanswered went down with its job.
        reply.unwrap_or(Err(BatchError::Panicked))
    }

    /// For a request that has yet to be decoded, whose priority nobody knows: whether any queue of the variant takes one
    /// more.
    ///
    /// # Errors
    /// When all are full.
    pub fn check_room(&self, variant: &Arc<Variant>) -> Result<(), BatchError> {
        variant.attachments.queue.get_or_attach(|| Lane::open(variant, self)).check_room()
    }
}

impl Lane {
    fn open(variant: &Variant, house: &Batcher) -> Self {
        let settings = variant.settings.batching.clone();
        let level_count = usize::try_from(settings.priority_levels).unwrap_or(LEVELS_MAX).min(LEVELS_MAX);
        let empty = || Occupancy {
            requests: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            metrics: Arc::clone(&variant.metrics),
        };
        let levels: Vec<_> = (0..=level_count).map(|_| Arc::new(empty())).collect();
        let capacity = (0..=settings.priority_levels.min(LEVELS_MAX as u64))
            .map(|level| settings.queue_policy(level).requests_max)
            .fold(0usize, usize::saturating_add);
        let (entries, receiver) = mpsc::channel(capacity.clamp(1, CHANNEL_MAX));
        let abandoned = Arc::new(Notify::new());
        worker::start(variant, house, receiver, Arc::clone(&abandoned));
        let (profile, backlog) = (Arc::clone(&variant.profile), Arc::clone(&house.backlog));
        Self { entries, settings, levels, profile, backlog, abandoned }
    }

    fn enqueue(
        &self,
        routed: Routed,
        traced: Option<Traced>,
    ) -> Result<oneshot::Receiver<Result<Executed, BatchError>>, BatchError> {
        let (schedule, arrived) = (routed.admitted.request.schedule, routed.arrived);
        if schedule.deadline.is_some_and(|deadline| arrived >= deadline) {
            return Err(BatchError::Expired { waited: Duration::ZERO });
        }
        let level = self.level(schedule.priority);
        let policy = self.settings.queue_policy(level);
        let bytes = routed.inputs.iter().map(|tensor| tensor.bytes().len() as u64).sum();
        let place = Some(self.place(level, bytes, &policy)?);
        let (reply, answer) = oneshot::channel();
        let timeout_at = timeout(&schedule, &policy).map(|timeout| arrived + timeout);
        let timeout_action = policy.timeout_action;
        let expected = self.profile.costs(|costs| costs.cpu_of(routed.rows)).unwrap_or_default();
        let work = Work::begin(&self.backlog, expected);
        let entry = Entry { routed, traced, level, arrived, timeout_at, timeout_action, reply, place, _work: work };
        let limit = policy.requests_max as u64;
        self.entries.try_send(entry).map_err(|_| BatchError::QueueFull { what: "requests", limit })?;
        Ok(answer)
    }

    fn check_room(&self) -> Result<(), BatchError> {
        // With priorities, level 0 is nobody's.
        let first = usize::from(self.settings.priority_levels > 0);
        let mut limit = 0;
        for (level, held) in self.levels.iter().enumerate().skip(first) {
            limit = self.settings.queue_policy(level as u64).requests_max;
            if held.requests.load(Ordering::Acquire) < limit {
                return Ok(());
            }
        }
        Err(BatchError::QueueFull { what: "requests", limit: limit as u64 })
    }

    /// The level a request's priority asks for: 0 and unknown levels mean the default, as Triton has it.
    fn level(&self, priority: u64) -> u64 {
        let levels = self.settings.priority_levels;
        if levels == 0 {
            0
        } else if (1..=levels).contains(&priority) {
            priority
        } else {
            self.settings.default_priority
        }
    }

    fn place(&self, level: u64, bytes: u64, policy: &QueuePolicy) -> Result<Place, BatchError> {
        let index = usize::try_from(level).unwrap_or(0).min(self.levels.len() - 1);
        let (place, requests, held) = Place::take(&self.levels[index], bytes);
        if requests > policy.requests_max {
            return Err(BatchError::QueueFull { what: "requests", limit: policy.requests_max as u64 });
        }
        if held > policy.bytes_max {
            return Err(BatchError::QueueFull { what: "bytes", limit: policy.bytes_max });
        }
        Ok(place)
    }
}

impl Place {
    /// The place, with the requests and bytes that the level holds now, itself included: of two that come for the last
    /// place, the first has it.
    fn take(level: &Arc<Occupancy>, bytes: u64) -> (Self, usize, u64) {
        let requests = level.requests.fetch_add(1, Ordering::AcqRel) + 1;
        let held = level.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        level.metrics.queue_requests.inc();
        level.metrics.queue_bytes.add(i64::try_from(bytes).unwrap_or(i64::MAX));
        (Self { level: Arc::clone(level), bytes }, requests, held)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.level.requests.fetch_sub(1, Ordering::AcqRel);
        self.level.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.level.metrics.queue_requests.dec();
        self.level.metrics.queue_bytes.sub(i64::try_from(self.bytes).unwrap_or(i64::MAX));
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.abandoned.notify_one();
        }
    }
}

/// A request's own timeout can shorten the policy's, never lengthen it.
fn timeout(schedule: &Schedule, policy: &QueuePolicy) -> Option<Duration> {
    let own = schedule.queue_timeout.filter(|_| policy.allow_timeout_override);
    [own, policy.default_timeout].into_iter().flatten().min()
}

/// Priority levels beyond this share the last one's queue.
const LEVELS_MAX: usize = 64;
/// The channel to a worker never needs more: it is emptied into the queue at every turn.
const CHANNEL_MAX: usize = 1 << 16;
