//! The task that owns one variant's queue: it lets time pass over it, asks the rule, and sends batches to the pool, or
//! runs those itself that are over sooner than a thread of the pool could be woken (docs/adr/006).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use super::Batcher;
use super::here::Here;
use super::job::{Done, Job};
use super::queue::{Entry, Queue};
use super::rule::{BatchPolicy, Decision};
use crate::engine::pool::Core;
use crate::engine::{Plan, Pool};
use crate::infer::BatchReason;
use crate::metering::{Account, Statistics};
use crate::repository::{Profile, Variant};
use crate::telemetry::ModelMetrics;

/// State of the task; no one else touches it.
struct Worker {
    plan: Arc<dyn Plan>,
    policy: BatchPolicy,
    /// Batches that may run at the same time.
    instances_max: usize,
    cores_max: usize,
    here: Here,
    pool: Pool,
    entries: mpsc::Receiver<Entry>,
    abandoned: Arc<Notify>,
    queue: Queue,
    profile: Arc<Profile>,
    running: usize,
    done: (mpsc::Sender<Done>, mpsc::Receiver<Done>),
    /// A place in line for a core, kept while waiting.
    core: Option<Pin<Box<dyn Future<Output = Core> + Send>>>,
    metrics: Arc<ModelMetrics>,
    statistics: Arc<Statistics>,
    account: Arc<Account>,
}

/// What to wait for next.
enum Next {
    /// A batch could leave, but no core is idle.
    Core,
    /// More can leave, but a batch has just run here: connections come first.
    Turn,
    /// Nothing can leave before this instant (`None`: before something happens).
    Until(Option<Instant>),
}

/// Where a batch was sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Pool,
    /// It has run already.
    Here,
}

/// Starts the task of a variant. It ends when the variant is gone, which is after its last request.
pub(super) fn start(variant: &Variant, house: &Batcher, entries: mpsc::Receiver<Entry>, abandoned: Arc<Notify>) {
    let batching = &variant.settings.batching;
    let mut preferred = batching.preferred.clone();
    preferred.sort_unstable();
    let policy = BatchPolicy {
        batch_size_max: if variant.merges() { batching.batch_size_max } else { 1 },
        queue_delay_max: if variant.merges() { batching.queue_delay_max } else { Duration::ZERO },
        preferred,
    };
    // One batch at a time cannot overtake another; more of them than there are cores cannot run.
    let instances_max =
        if batching.preserve_ordering { 1 } else { variant.settings.instances_max.clamp(1, house.pool.size()) };
    let worker = Worker {
        plan: Arc::clone(&variant.plan),
        policy,
        instances_max,
        cores_max: variant.settings.cores_max,
        here: Here::new(house.inline_time_max),
        pool: house.pool.clone(),
        entries,
        abandoned,
        queue: Queue::new(batching.preserve_ordering),
        profile: Arc::clone(&variant.profile),
        running: 0,
        done: mpsc::channel(instances_max),
        core: None,
        metrics: Arc::clone(&variant.metrics),
        statistics: Arc::clone(&variant.statistics),
        account: Arc::clone(&variant.account),
    };
    tokio::spawn(worker.run());
}

impl Worker {
    async fn run(mut self) {
        loop {
            while let Ok(entry) = self.entries.try_recv() {
                self.queue.push(entry);
            }
            self.finish_what_ended();
            let next = self.send_what_can_leave();
            if !self.wait(next).await {
                return;
            }
        }
    }

    fn send_what_can_leave(&mut self) -> Next {
        let now = Instant::now();
        self.queue.expire(now);
        while self.running < self.instances_max {
            let Some(waiting) = self.queue.waiting(self.policy.batch_size_max) else { break };
            let decision = self.profile.costs(|costs| self.policy.decide(&waiting, costs, now));
            match decision {
                Decision::WaitUntil(until) => {
                    return Next::Until([Some(until), self.queue.next_expiry()].into_iter().flatten().min());
                }
                Decision::Send { rows_max, reason } => {
                    let Some(core) = self.pool.try_acquire() else { return Next::Core };
                    if self.send(core, rows_max, reason) == Where::Here && !self.queue.is_empty() {
                        return Next::Turn;
                    }
                }
            }
        }
        Next::Until(self.queue.next_expiry())
    }

    fn send(&mut self, core: Core, rows_max: usize, reason: BatchReason) -> Where {
        let entries = self.queue.take(rows_max);
        let rows = entries.iter().map(|entry| entry.routed.rows).sum();
        self.running += 1;
        let job = Job {
            entries,
            reason,
            plan: Arc::clone(&self.plan),
            metrics: Arc::clone(&self.metrics),
            statistics: Arc::clone(&self.statistics),
            account: Arc::clone(&self.account),
            done: Done::new(self.done.0.clone()),
        };
        if self.here.takes(self.plan.time_of(rows)) {
            self.pool.run_here(core, move |cores| job.run(cores));
            self.finish_what_ended();
            return Where::Here;
        }
        self.pool.spawn(core, self.cores_max, move |cores| job.run(cores));
        Where::Pool
    }

    fn finish_what_ended(&mut self) {
        while let Ok(done) = self.done.1.try_recv() {
            self.finish(done);
        }
    }

    fn finish(&mut self, mut done: Done) {
        self.running -= 1;
        if let Some(elapsed) = done.elapsed {
            self.here.took(done.cpu);
            self.profile.costs(|costs| costs.learn(done.rows, elapsed, done.cpu_all));
        }
        for (reply, answer) in done.answers.drain(..) {
            // The caller may have gone meanwhile; its answer goes with it.
            let _ = reply.send(answer);
        }
    }

    /// Waits until there may be something to do; false when the variant is gone.
    async fn wait(&mut self, next: Next) -> bool {
        let (want_core, until) = match next {
            Next::Core => (true, self.queue.next_expiry()),
            Next::Turn => {
                tokio::task::yield_now().await;
                return true;
            }
            Next::Until(until) => (false, until),
        };
        if want_core && self.core.is_none() {
            let pool = self.pool.clone();
            self.core = Some(Box::pin(async move { pool.acquire().await }));
        } else if !want_core {
            self.core = None;
        }
        tokio::select! {
            entry = self.entries.recv() => match entry {
                Some(entry) => {
                    self.queue.push(entry);
                    // Tasks that can run now go first, once: requests that have already arrived then share a batch.
                    // It costs no time where nothing else can run.
                    if self.could_batch() {
                        tokio::task::yield_now().await;
                    }
                }
                None => return false,
            },
            done = self.done.1.recv() => self.finish(done.expect("this task holds a sender")),
            core = async { self.core.as_mut().expect("the branch is on only then").await }, if self.core.is_some() => {
                self.core = None;
                self.use_core(core);
            }
            () = self.abandoned.notified() => self.queue.sweep(),
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
        }
        true
    }

    fn could_batch(&self) -> bool {
        self.policy.batch_size_max > 1 && self.running < self.instances_max
    }

    /// The queue may have changed while this task stood in line, so the rule is asked again.
    fn use_core(&mut self, core: Core) {
        let now = Instant::now();
        self.queue.expire(now);
        while let Ok(entry) = self.entries.try_recv() {
            self.queue.push(entry);
        }
        let Some(waiting) = self.queue.waiting(self.policy.batch_size_max) else { return };
        let decision = self.profile.costs(|costs| self.policy.decide(&waiting, costs, now));
        if let Decision::Send { rows_max, reason } = decision {
            self.send(core, rows_max, reason);
        }
    }
}
