//! The one compute pool of the process. A thread is a core; a job owns the core it runs on before it starts.
//!
//! Because a job holds its core's permit, no job ever waits inside the pool: fairness between models is the order in
//! which they asked for a core. A running job may borrow cores that happen to be free ([`Cores::team`]). Tokio
//! threads only ever wait for permits here; pool threads never await.

use std::collections::VecDeque;
use std::fmt;
use std::hint;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kinglet_sys::lend::{self, Lender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Threads that run kernels, and the permits to use them.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
    _closer: Arc<Closer>,
}

/// Ends the threads when the last handle of the pool is gone.
struct Closer(Arc<Shared>);

/// The right to run one job now.
#[derive(Debug)]
pub struct Core {
    _permit: OwnedSemaphorePermit,
}

/// What a running job may use: the core it runs on, and others while they are free.
pub struct Cores {
    shared: Arc<Shared>,
    /// The most cores the job may use at once, its own included.
    limit: usize,
    /// CPU time spent by borrowed cores so far, also for whoever looks while the job runs.
    pub helper_cpu_nanos: Arc<AtomicU64>,
    /// Given back when the job ends, whatever way it ends.
    _core: Core,
}

/// Cores that take the steps of a job together, until it is dropped.
#[derive(Debug)]
pub struct Team {
    /// None where there is nobody to lend to.
    lender: Option<Lender>,
    /// Of the others. Given back behind the lender, and not by their threads: one that sleeps takes long to hear of the end,
    /// and the next job would not have its core.
    permits: Vec<OwnedSemaphorePermit>,
    /// Of a pool, which wants to know when its teams end.
    _end: Option<End>,
}

/// Notes when a team ends.
#[derive(Debug)]
struct End(Arc<Shared>);

struct Job {
    run: Box<dyn FnOnce() + Send>,
    /// Whether the thread waits awake for a while when it has run it: the next team may be a moment away.
    lingers: bool,
}

struct Shared {
    free: Arc<Semaphore>,
    size: usize,
    spin: Duration,
    jobs: Mutex<Jobs>,
    wake: Condvar,
    /// Jobs that no thread has taken, and threads that wait awake for one.
    queued: AtomicUsize,
    lingering: AtomicUsize,
    started: Instant,
    /// When the last team ended, in nanoseconds from the start.
    ended: AtomicU64,
    panics: AtomicU64,
}

#[derive(Default)]
struct Jobs {
    queue: VecDeque<Job>,
    closed: bool,
}

impl Pool {
    /// Starts `size` threads; `None` takes what affinity, cpuset and cgroup quota allow this process.
    pub fn start(size: Option<usize>) -> Self {
        Self::start_spinning(size, SPIN)
    }

    /// As `start`; threads of a team spin for at most so long between two steps, and behind the last one, before they sleep.
    pub fn start_spinning(size: Option<usize>, spin: Duration) -> Self {
        let size = size.unwrap_or_else(cores_available).max(1);
        let shared = Arc::new(Shared {
            free: Arc::new(Semaphore::new(size)),
            size,
            spin,
            jobs: Mutex::default(),
            wake: Condvar::new(),
            queued: AtomicUsize::new(0),
            lingering: AtomicUsize::new(0),
            started: Instant::now(),
            ended: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        });
        for index in 0..size {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name(format!("kinglet-core-{index}"))
                .spawn(move || {
                    // Where the system does not allow it, threads are as they were.
                    let _ = rustix::process::nice(NICE);
                    shared.work();
                })
                .expect("the system starts one thread per core");
        }
        Self { _closer: Arc::new(Closer(Arc::clone(&shared))), shared }
    }

    pub fn size(&self) -> usize {
        self.shared.size
    }

    /// Cores nobody uses at this moment.
    pub fn idle(&self) -> usize {
        self.shared.free.available_permits()
    }

    /// Jobs that ended in a panic since the start.
    pub fn panics(&self) -> u64 {
        self.shared.panics.load(Ordering::Relaxed)
    }

    /// Waits for a core, in the order of asking.
    pub async fn acquire(&self) -> Core {
        let permit = Arc::clone(&self.shared.free).acquire_owned().await;
        Core { _permit: permit.expect("the pool's semaphore is never closed") }
    }

    pub fn try_acquire(&self) -> Option<Core> {
        Some(Core { _permit: Arc::clone(&self.shared.free).try_acquire_owned().ok()? })
    }

    /// Starts a job on a core held by the caller; the job gives the core back by dropping its `Cores`. `limit` is the
    /// most cores it may use, its own included. A panic ends the job and gives the core back; what the job owned is
    /// dropped, which is how its waiters learn of it.
    pub fn spawn(&self, core: Core, limit: usize, job: impl FnOnce(Cores) + Send + 'static) {
        let cores = self.cores(core, limit);
        self.shared.push(Job { run: Box::new(move || job(cores)), lingers: false });
    }

    /// Runs a job on the calling thread, which stands in for the core it holds: for work that is over sooner than a
    /// thread of the pool could be woken. Otherwise as `spawn`, and nothing is borrowed.
    pub fn run_here(&self, core: Core, job: impl FnOnce(Cores)) {
        let cores = self.cores(core, 1);
        self.shared.guarded(move || job(cores));
    }

    /// Runs a job on all cores and waits for it; nothing where no core is free or the job ends in a panic.
    pub fn wait_for<T: Send + 'static>(&self, job: impl FnOnce(&Cores) -> T + Send + 'static) -> Option<T> {
        let core = self.try_acquire()?;
        let (send, receive) = sync_channel(1);
        self.spawn(core, self.size(), move |cores| {
            let result = job(&cores);
            // Whoever waits below may want the core for the next job at once.
            drop(cores);
            let _ = send.send(result);
        });
        receive.recv().ok()
    }

    fn cores(&self, core: Core, limit: usize) -> Cores {
        Cores { shared: Arc::clone(&self.shared), limit, helper_cpu_nanos: Arc::default(), _core: core }
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.wake.notify_all();
    }
}

impl Cores {
    /// Cores this job may use at most, its own included.
    pub fn limit(&self) -> usize {
        self.limit.min(self.shared.size)
    }

    /// This core and free ones, for a job of several steps: so many at most, and no more than the limit. The others are
    /// given back with the team.
    pub fn team(&self, most: usize) -> Team {
        let most = self.limit().min(most);
        let end = Some(End(Arc::clone(&self.shared)));
        if most <= 1 {
            return Team { _end: end, ..Team::alone() };
        }
        let (lender, borrower) = lend::pair();
        let mut permits = Vec::new();
        while permits.len() + 1 < most {
            let Ok(permit) = Arc::clone(&self.shared.free).try_acquire_owned() else { break };
            let (borrower, spin) = (borrower.clone(), self.shared.spin);
            let helper_cpu = Arc::clone(&self.helper_cpu_nanos);
            let take_part = move || {
                let mut counted = thread_cpu_time();
                borrower.take_part(spin, || {
                    let now = thread_cpu_time();
                    let used = now.saturating_sub(std::mem::replace(&mut counted, now));
                    helper_cpu.fetch_add(nanos(used), Ordering::Relaxed);
                });
            };
            self.shared.push(Job { run: Box::new(take_part), lingers: true });
            permits.push(permit);
        }
        Team { lender: (!permits.is_empty()).then_some(lender), permits, _end: end }
    }

    /// Whether others are likely to take part at once: they wait awake, or jobs follow each other so closely that they
    /// would from the next one on.
    pub fn are_awake(&self) -> bool {
        let Shared { lingering, started, ended, spin, .. } = &*self.shared;
        let since = nanos(started.elapsed()).saturating_sub(ended.load(Ordering::Relaxed));
        lingering.load(Ordering::Relaxed) > 0 || since < nanos(*spin)
    }

    /// CPU time spent by borrowed cores so far.
    pub fn helper_cpu(&self) -> Duration {
        Duration::from_nanos(self.helper_cpu_nanos.load(Ordering::Relaxed))
    }
}

impl Team {
    /// The calling thread by itself.
    pub fn alone() -> Self {
        Self { lender: None, permits: Vec::new(), _end: None }
    }

    /// Cores of this team.
    pub fn size(&self) -> usize {
        1 + self.permits.len()
    }

    /// Calls `work` on all cores at once and returns when all calls have ended. Work takes its share by itself, as from
    /// a [`Grid`](kinglet_kernels::Grid); a core that is late finds nothing left.
    ///
    /// # Panics
    /// When a call panicked.
    pub fn share(&mut self, work: &(dyn Fn() + Sync)) {
        match &mut self.lender {
            Some(lender) => lender.lend(work),
            None => work(),
        }
    }

    /// Calls `work` for every index below `count`, on all cores.
    ///
    /// # Panics
    /// When a call panicked.
    pub fn for_each(&mut self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        self.share(&|| {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return;
                }
                work(index);
            }
        });
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.0.ended.store(nanos(self.0.started.elapsed()), Ordering::Relaxed);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        lock(&self.jobs)
    }

    fn push(&self, job: Job) {
        let mut jobs = self.lock();
        jobs.queue.push_back(job);
        let queued = self.queued.fetch_add(1, Ordering::SeqCst) + 1;
        drop(jobs);
        // A thread that stops lingering looks at the queue once more.
        if queued > self.lingering.load(Ordering::SeqCst) {
            self.wake.notify_one();
        }
    }

    fn work(&self) {
        let mut lingers = false;
        while let Some(job) = self.next(lingers) {
            lingers = job.lingers;
            self.guarded(job.run);
        }
    }

    fn guarded(&self, job: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            self.panics.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn next(&self, lingers: bool) -> Option<Job> {
        if lingers {
            self.linger();
        }
        let mut jobs = self.lock();
        loop {
            if let Some(job) = jobs.queue.pop_front() {
                self.queued.fetch_sub(1, Ordering::SeqCst);
                return Some(job);
            }
            if jobs.closed {
                return None;
            }
            jobs = self.wake.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits awake for a job.
    fn linger(&self) {
        self.lingering.fetch_add(1, Ordering::SeqCst);
        let since = Instant::now();
        while self.queued.load(Ordering::SeqCst) == 0 && since.elapsed() < self.spin {
            (0..SPINS_PER_LOOK).for_each(|_| hint::spin_loop());
        }
        self.lingering.fetch_sub(1, Ordering::SeqCst);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("size", &self.size).finish_non_exhaustive()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("size", &self.size()).field("idle", &self.idle()).finish()
    }
}

impl fmt::Debug for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cores").field("limit", &self.limit()).finish()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// CPU time of the calling thread.
pub fn thread_cpu_time() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Cores that affinity, cpuset and the cgroup's quota (version 1 and 2) leave to this process.
pub fn cores_available() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// A panic is told where it happens; what the engine's locks guard is whole at any time.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Steps below the priority of the threads that drive connections: where all cores compute, a refusal must not wait for
/// its turn behind models, and a batch is late by microseconds.
const NICE: i32 = 3;

/// Between two steps of a network there are microseconds, and a sleeping thread takes tens of them to wake.
const SPIN: Duration = Duration::from_micros(20);

/// Pauses between two looks of a thread that lingers.
const SPINS_PER_LOOK: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn run_on<T: Send + 'static>(pool: &Pool, limit: usize, job: impl FnOnce(Cores) -> T + Send + 'static) -> T {
        let (send, receive) = sync_channel(1);
        let core = pool.try_acquire().unwrap();
        pool.spawn(core, limit, move |cores| send.send(job(cores)).unwrap());
        receive.recv().unwrap()
    }

    fn wait_idle(pool: &Pool) {
        while pool.idle() < pool.size() {
            thread::yield_now();
        }
    }

    #[test]
    fn a_team_calls_every_index_once() {
        let pool = Pool::start(Some(3));
        let calls: Arc<Vec<AtomicUsize>> = Arc::new((0..100).map(|_| AtomicUsize::new(0)).collect());
        let seen = Arc::clone(&calls);
        run_on(&pool, 3, move |cores| {
            let mut team = cores.team(9);
            assert_eq!(team.size(), 3);
            for _ in 0..10 {
                team.for_each(100, &|i| {
                    seen[i].fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        assert!(calls.iter().all(|c| c.load(Ordering::Relaxed) == 10));
        wait_idle(&pool);
        assert_eq!(run_on(&pool, 3, |cores| cores.team(2).size()), 2);
    }

    #[test]
    fn cores_of_a_team_are_free_when_it_is_gone() {
        let pool = Pool::start_spinning(Some(2), Duration::ZERO);
        run_on(&pool, 2, |cores| {
            for _ in 0..20 {
                let mut team = cores.team(2);
                assert_eq!(team.size(), 2, "although the other one slept at the end of the team before");
                team.share(&|| ());
                thread::sleep(Duration::from_millis(1));
            }
        });
        wait_idle(&pool);
    }

    #[test]
    fn teams_that_follow_each_other_find_threads_awake() {
        let pool = Pool::start_spinning(Some(2), Duration::from_secs(5));
        run_on(&pool, 2, |cores| {
            for round in 0..100 {
                let mut team = cores.team(2);
                let calls = AtomicUsize::new(0);
                // Both threads are in it, or neither call would end.
                team.share(&|| {
                    calls.fetch_add(1, Ordering::SeqCst);
                    while calls.load(Ordering::SeqCst) < 2 {
                        hint::spin_loop();
                    }
                });
                drop(team);
                assert!(cores.are_awake(), "{round}");
            }
        });
        wait_idle(&pool);
    }

    #[test]
    fn nobody_is_awake_for_longer_than_it_may() {
        let pool = Pool::start_spinning(Some(2), Duration::ZERO);
        run_on(&pool, 2, |cores| {
            cores.team(2).share(&|| ());
            let end = Instant::now() + Duration::from_secs(5);
            while cores.are_awake() && Instant::now() < end {
                thread::yield_now();
            }
            assert!(!cores.are_awake());
        });
        wait_idle(&pool);
    }

    #[test]
    fn a_panic_ends_its_job_and_gives_the_core_back() {
        let pool = Pool::start(Some(2));
        let (send, receive) = sync_channel::<()>(1);
        pool.spawn(pool.try_acquire().unwrap(), 2, move |cores| {
            let _dropped_by_the_panic = send;
            cores.team(2).for_each(4, &|i| assert!(i != 2));
        });
        assert!(receive.recv().is_err());
        wait_idle(&pool);
        assert_eq!(pool.panics(), 1);
        assert_eq!(run_on(&pool, 1, |_| 7), 7);
    }

    #[test]
    fn a_core_is_held_until_its_job_ends() {
        let pool = Pool::start(Some(1));
        let (go, wait) = sync_channel::<()>(0);
        pool.spawn(pool.try_acquire().unwrap(), 1, move |_| wait.recv().unwrap());
        assert!(pool.try_acquire().is_none());
        go.send(()).unwrap();
        wait_idle(&pool);
    }
}
