//! The repository as the rest of the server holds it: the catalog to read, and requests to the actor that changes it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::batching_defaults::BatchingConfig;
use super::catalog::{Catalog, IndexEntry, Model, State};
use super::config::{Control, RepositoryConfig};
use super::entry::Reply;
use super::error::RepositoryError;
use super::inline::LoadOverride;
use super::lifecycle::{Actor, Command};
use super::loader::{Loading, Renewed};
use crate::engine::LoadOptions;
use crate::infer::ModelName;
use crate::integrity::Trust;
use crate::telemetry::residency::ResidencyMetrics;

/// Reads are lock-free; changes go through one actor. Cheap to share.
pub struct Repository {
    catalog: Arc<ArcSwap<Catalog>>,
    commands: mpsc::Sender<Command>,
    changes: watch::Receiver<u64>,
    first: watch::Receiver<Option<Vec<String>>>,
    control: Control,
    start_with_failures: bool,
    /// Places of requests that wait for models to load on demand.
    waiting: Semaphore,
    waiting_max: usize,
    wait_max: Duration,
    metrics: ResidencyMetrics,
    actor: Mutex<Option<JoinHandle<()>>>,
}

impl Repository {
    /// Looks at the configured paths and begins to load what the control mode asks for. Needs a Tokio runtime.
    ///
    /// # Errors
    /// When a path cannot be read, or names a model in a way that is not allowed.
    pub async fn start(config: RepositoryConfig, with: Loading) -> Result<Arc<Self>, RepositoryError> {
        let catalog = Arc::new(ArcSwap::from_pointee(Catalog::default()));
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let (change, changes) = watch::channel(0);
        let (finish, first) = watch::channel(None);
        let (control, start_with_failures) = (config.control, config.start_with_failures);
        let (waiting_max, wait_max) = (config.demand_waiting_max, config.demand_wait_max.0);
        let metrics = with.metrics.residency.clone();
        let actor = Actor::start(config, with, Arc::clone(&catalog), change, finish).await?;
        let actor = Mutex::new(Some(tokio::spawn(actor.run(received))));
        let waiting = Semaphore::new(waiting_max);
        Ok(Arc::new(Self {
            catalog,
            commands,
            changes,
            first,
            control,
            start_with_failures,
            waiting,
            waiting_max,
            wait_max,
            metrics,
            actor,
        }))
    }

    /// Every model at this instant.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// Wakes whenever the catalog has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    pub fn control(&self) -> Control {
        self.control
    }

    /// Waits until the models of the start have loaded or failed to.
    ///
    /// # Errors
    /// When one has failed and the configuration does not allow that.
    pub async fn wait_loaded(&self) -> Result<(), RepositoryError> {
        let mut first = self.first.clone();
        let failures = first.wait_for(Option::is_some).await.map_err(|_| RepositoryError::Stopped)?;
        match failures.as_deref() {
            Some([_, ..]) if !self.start_with_failures => {
                Err(RepositoryError::Unserved(failures.clone().unwrap_or_default()))
            }
            _ => Ok(()),
        }
    }

    /// Whether `wait_loaded` would return at once.
    pub fn is_loaded(&self) -> bool {
        self.first.borrow().is_some()
    }

    /// What is loaded. Where models load on demand, once this one is, and with it whatever is dropped next: hold it no longer than
    /// to find a build in it.
    ///
    /// # Errors
    /// When it fails to load, does not fit, takes longer than allowed, or too many wait already.
    pub async fn demand(
        &self,
        name: &ModelName,
        deadline: Option<Instant>,
    ) -> Result<Guard<Arc<Catalog>>, RepositoryError> {
        let catalog = self.catalog.load();
        // Who looks for a model that nobody knows is told so there.
        if self.control != Control::Demand || catalog.models.get(name).is_none_or(Model::is_ready) {
            return Ok(catalog);
        }
        drop(catalog);
        let since = Instant::now();
        let got = self.wait_for(name, since, deadline).await;
        match &got {
            Ok(_) => self.metrics.waited(since.elapsed()),
            Err(RepositoryError::ManyWait { .. }) => self.metrics.refused("waiting"),
            Err(RepositoryError::NotYet { .. } | RepositoryError::TooLate(_)) => self.metrics.refused("late"),
            Err(RepositoryError::NoMemory { .. }) => self.metrics.refused("memory"),
            Err(_) => self.metrics.refused("failed"),
        }
        got.map(Guard::from_inner)
    }

    async fn wait_for(
        &self,
        name: &ModelName,
        since: Instant,
        deadline: Option<Instant>,
    ) -> Result<Arc<Catalog>, RepositoryError> {
        let _place = self.waiting.try_acquire().map_err(|_| RepositoryError::ManyWait { limit: self.waiting_max })?;
        let patience = since + self.wait_max;
        let until = deadline.map_or(patience, |deadline| deadline.min(patience));
        let asked = self.ask(|reply| Command::Demand { name: name.clone(), reply });
        let answer = match timeout_at(until, asked).await {
            Ok(answer) => answer,
            Err(_) if until < patience => Err(RepositoryError::TooLate(name.clone())),
            Err(_) => Err(RepositoryError::NotYet { model: name.clone(), waited: self.wait_max }),
        };
        // A failed load is the fault of nobody who asks.
        answer.map_err(|error| match error {
            RepositoryError::Load { model, reason } => RepositoryError::NotReady { model, reason },
            RepositoryError::Config { model, error } => RepositoryError::NotReady { model, reason: error.to_string() },
            RepositoryError::UnknownModel(model) => {
                RepositoryError::NotReady { model, reason: "its files are gone".into() }
            }
            other => other,
        })
    }

    /// Whether a model that is not loaded would be for a request, as far as is known.
    pub fn would_load(&self, name: &ModelName) -> bool {
        let is_waiting = |model: &Model| !model.is_ready() && model.is_loadable();
        self.control == Control::Demand && self.catalog.load().models.get(name).is_some_and(is_waiting)
    }

    /// Loads a model, or loads it again; returns when it serves or has failed to.
    ///
    /// # Errors
    /// When the control mode does not allow it, or the load fails; what served before still does.
    pub async fn load(&self, name: ModelName, over: LoadOverride) -> Result<(), RepositoryError> {
        self.check_explicit()?;
        self.ask(|reply| Command::Load { name, over, reply }).await.map(drop)
    }

    /// Stops serving a model, and with `dependents` the models that an ensemble runs; requests on their way are still answered.
    /// Ensembles that run it go with it, and come back with it.
    ///
    /// # Errors
    /// When the control mode does not allow it, or the model is not known.
    pub async fn unload(&self, name: ModelName, dependents: bool) -> Result<(), RepositoryError> {
        self.check_explicit()?;
        self.ask(|reply| Command::Unload { name, dependents, reply }).await.map(drop)
    }

    /// One line per version, and one for every model that could be loaded.
    pub fn index(&self, ready_only: bool) -> Vec<IndexEntry> {
        let mut lines = self.catalog().index();
        lines.retain(|line| !ready_only || line.state == Some(State::Ready));
        lines
    }

    /// Takes over what of a new configuration can change while the server runs: paths and times, and the settings of
    /// loads to come. Where whom to trust has changed, models are held against that anew. Then looks at the paths, as `rescan` does.
    ///
    /// # Errors
    /// As `rescan`; the new settings hold all the same.
    pub async fn reconfigure(
        &self,
        config: RepositoryConfig,
        batching: BatchingConfig,
        options: LoadOptions,
        trust: Option<Arc<Trust>>,
    ) -> Result<(), RepositoryError> {
        let with = Box::new(Renewed { batching, options, trust });
        self.ask(|reply| Command::Reconfigure { config, with, reply }).await.map(drop)
    }

    /// Looks at the paths now. Unless the control mode is explicit, models that are new or have changed are loaded as
    /// soon as their files have settled, and models that are gone are unloaded.
    ///
    /// # Errors
    /// When a path cannot be read; nothing changes then.
    pub async fn rescan(&self) -> Result<(), RepositoryError> {
        self.ask(|reply| Command::Rescan { reply }).await.map(drop)
    }

    /// Ends the actor. What serves goes on as long as somebody holds it.
    pub async fn stop(&self) {
        // A closed channel means that it has ended already.
        let _ = self.commands.send(Command::Stop).await;
        let actor = self.actor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(actor) = actor {
            let _ = actor.await;
        }
    }

    async fn ask(&self, command: impl FnOnce(Reply) -> Command) -> Result<Arc<Catalog>, RepositoryError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| RepositoryError::Stopped)?;
        answer.await.map_err(|_| RepositoryError::Stopped)?
    }

    /// # Errors
    /// When models are not loaded and unloaded by request.
    pub fn check_explicit(&self) -> Result<(), RepositoryError> {
        match self.control {
            Control::Explicit => Ok(()),
            mode => Err(RepositoryError::Refused { mode }),
        }
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("control", &self.control).field("loaded", &self.is_loaded()).finish()
    }
}

/// Commands on their way to the actor; more wait at their sender.
const COMMANDS_MAX: usize = 64;
