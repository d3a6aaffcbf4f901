//! Room 7: what requests cost. Counts, wall time, CPU time and joules.
//!
//! `statistics` holds the cumulative numbers of the protocol's statistics extension, one set per loaded version. Energy: a
//! source (`sources`) is read by a thread of its own (`sampler`), once a window (`windows`); threads that run batches note
//! what they use (`account`); `attribution` says whose the energy was, `carbon` what came with it. docs/energy.md has the
//! method.

pub mod account;
pub mod attribution;
mod carbon;
pub mod config;
pub mod costs;
mod counter;
mod moment;
mod sampler;
mod sources;
pub mod statistics;
mod stopwatch;
#[cfg(test)]
mod tests;
mod windows;

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;

pub use account::Account;
pub use config::MeteringConfig;
pub use costs::{Costs, Point};
pub use sources::{Coefficients, Kind, Quality, SourceError};
pub use statistics::{Settled, Snapshot, Statistics};
pub use stopwatch::Stopwatch;

use self::account::Desk;
use self::carbon::Carbon;
use self::moment::{Clock, PROC_STAT};
use self::sampler::Sampler;
use self::sources::Opened;
use self::windows::{Idle, Windows};
use crate::telemetry::Metrics;
use crate::telemetry::energy::Origin;
use crate::units::Nanojoules;

/// The room's door: builds open accounts here, answers ask for estimates, whoever watches for the last window.
#[derive(Clone, Debug)]
pub struct Meter {
    books: Arc<Books>,
    source: Option<SourceFacts>,
    replies: Replies,
    has_carbon: bool,
    metrics: Arc<Metrics>,
    /// Ends the thread when the last handle is gone.
    _sampler: Option<SyncSender<()>>,
}

/// What is known of the source that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceFacts {
    pub kind: Kind,
    /// Of a model.
    pub coefficients: Option<Coefficients>,
}

/// What answers tell of energy without being asked, and how finely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replies {
    pub headers: bool,
    pub parameters: bool,
    quantum: Nanojoules,
}

/// The last window that counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latest {
    /// Of windows that counted, this one included.
    pub number: u64,
    pub span: Duration,
    /// The sum of the parts.
    pub energy: Nanojoules,
    pub idle: Nanojoules,
    /// Of other processes.
    pub other: Nanojoules,
    /// Of this process outside of batches.
    pub overhead: Nanojoules,
    /// Of all builds' batches.
    pub attributed: Nanojoules,
    /// Beyond idling; nothing before the first window in which anybody ran.
    pub per_cpu_second: Option<Nanojoules>,
    /// Of the grid, in grams per kWh.
    pub intensity: Option<f64>,
    /// The share of the machine's processors that was busy, whoever kept them so; in a container the host's.
    pub host_utilization: f64,
}

/// What a request is told: an estimate, because its window has not ended yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    pub energy: Nanojoules,
    pub kind: Kind,
}

/// What threads of the room share.
#[derive(Debug, Default)]
struct Books {
    accounts: Mutex<Vec<Arc<Account>>>,
    desk: Arc<Desk>,
    latest: ArcSwapOption<Latest>,
}

impl Meter {
    /// Chooses the source and starts the thread that reads it.
    ///
    /// # Errors
    /// When the settings name a source that does not work.
    pub fn start(config: &MeteringConfig, metrics: &Arc<Metrics>) -> Result<Self, SourceError> {
        let clock = Clock::new(Path::new(PROC_STAT));
        let opened = sources::choose(config, |step| {
            thread::sleep(step);
            clock.read()
        })?;
        let Some(opened) = opened else { return Ok(Self::silent(config, metrics)) };
        let (meter, mut sampler) = Self::with(opened, config, metrics);
        let (stop, stopped) = sync_channel(1);
        let window = config.window.0;
        thread::Builder::new().name("kinglet-meter".into()).spawn(move || {
            sampler.tick(clock.read(), SystemTime::now());
            while stopped.recv_timeout(window) == Err(RecvTimeoutError::Timeout) {
                sampler.tick(clock.read(), SystemTime::now());
            }
        })?;
        Ok(Self { _sampler: Some(stop), ..meter })
    }

    /// Without a source: nothing is told of energy.
    pub fn silent(config: &MeteringConfig, metrics: &Arc<Metrics>) -> Self {
        Self {
            books: Arc::default(),
            source: None,
            replies: Replies::of(config),
            has_carbon: false,
            metrics: Arc::clone(metrics),
            _sampler: None,
        }
    }

    /// A meter and who reads its source, which is up to the caller.
    fn with(opened: Opened, config: &MeteringConfig, metrics: &Arc<Metrics>) -> (Self, Sampler) {
        let idle = idle_of(&opened, config);
        let (kind, coefficients) = (opened.kind, opened.coefficients);
        let origin = kind.origin();
        let name = coefficients.map_or("", |coefficients| coefficients.name);
        let carbon = Carbon::of(config);
        let meter = Self {
            source: Some(SourceFacts { kind, coefficients }),
            has_carbon: carbon.has_intensity(),
            ..Self::silent(config, metrics)
        };
        let sampler = Sampler {
            windows: Windows::new(idle, config.window.0 * STUCK_WINDOWS),
            opened,
            books: Arc::clone(&meter.books),
            carbon,
            metrics: Arc::clone(metrics),
            origin,
            handles: metrics.energy.begin(origin, name, idle.as_str()),
            is_lost: false,
            lived_until: Duration::ZERO,
        };
        (meter, sampler)
    }

    /// An account of a build; what it uses is attributed as long as it lives, and once more.
    pub fn account(&self, labels: [&str; 3], statistics: &Arc<Statistics>) -> Arc<Account> {
        let build = |source: SourceFacts| self.metrics.energy.build(source.kind.origin(), labels, self.has_carbon);
        let energy = self.source.map(build);
        let account = Arc::new(Account::new(Arc::clone(&self.books.desk), energy, Arc::clone(statistics)));
        if self.source.is_some() {
            self.books.lock().push(Arc::clone(&account));
        }
        account
    }

    /// What CPU time of this moment takes, at the last window's price and rounded up to the quantum: exact numbers would
    /// tell others' inputs. Nothing before the first window, and while the source is lost.
    pub fn estimate(&self, cpu: Duration) -> Option<Estimate> {
        let price = self.books.latest.load().as_ref()?.per_cpu_second?;
        let energy = Nanojoules::of_power(price.0, cpu);
        Some(Estimate { energy: self.replies.rounded(energy), kind: self.source?.kind })
    }

    /// What a CPU second takes beyond idling. A model knows it before the first window.
    pub fn per_cpu_second(&self) -> Option<Nanojoules> {
        let modelled = || self.source?.coefficients.map(|watts| Nanojoules(watts.max.saturating_sub(watts.idle)));
        self.latest().and_then(|latest| latest.per_cpu_second).or_else(modelled)
    }

    pub fn replies(&self) -> Replies {
        self.replies
    }

    pub fn source(&self) -> Option<SourceFacts> {
        self.source
    }

    /// The last window; nothing before the first, and while the source is lost.
    pub fn latest(&self) -> Option<Latest> {
        self.books.latest.load().as_deref().copied()
    }
}

/// What is taken for the machine's idle power.
fn idle_of(opened: &Opened, config: &MeteringConfig) -> Idle {
    match opened.coefficients {
        Some(coefficients) => Idle::Model(coefficients.idle),
        None if config.idle_watts > 0.0 => Idle::Configured(sources::nanowatts(config.idle_watts)),
        None => Idle::Lowest(None),
    }
}

impl Replies {
    fn of(config: &MeteringConfig) -> Self {
        Self {
            headers: config.reply_headers,
            parameters: config.reply_parameters,
            quantum: Nanojoules(config.quantum_microjoules.saturating_mul(1000)),
        }
    }

    /// Up, so that something is never nothing.
    fn rounded(&self, energy: Nanojoules) -> Nanojoules {
        let quantum = self.quantum.0.max(1);
        Nanojoules(energy.0.max(1).div_ceil(quantum).saturating_mul(quantum))
    }
}

impl Books {
    /// What each account has used since it was asked last. Accounts of builds that are gone are asked one last time.
    fn take(&self) -> Vec<(Arc<Account>, Duration)> {
        self.desk.note_running();
        let mut accounts = self.lock();
        let taken = accounts.iter().map(|account| (Arc::clone(account), account.take())).collect();
        // Held here and in what was just taken.
        accounts.retain(|account| Arc::strong_count(account) > 2);
        taken
    }

    fn publish(&self, next: impl FnOnce(Option<&Latest>) -> Latest) {
        let next = next(self.latest.load().as_deref());
        self.latest.store(Some(Arc::new(next)));
    }

    fn lose(&self) {
        self.latest.store(None);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Account>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind {
    /// As labels and attributes name it.
    pub fn origin(self) -> Origin {
        Origin { source: self.as_str(), quality: self.quality().as_str() }
    }
}

/// A counter that has stood still for so many windows is stuck.
const STUCK_WINDOWS: u32 = 10;
