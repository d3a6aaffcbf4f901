//! The repository as the rest of the server holds it: the catalog to read, and requests to the actor that changes it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::batching_defaults::BatchingConfig;
use super::catalog::{Catalog, IndexEntry, State};
use super::config::{Control, RepositoryConfig};
use super::error::RepositoryError;
use super::inline::LoadOverride;
use super::lifecycle::{Actor, Command};
use super::loader::Loading;
use crate::engine::LoadOptions;
use crate::infer::ModelName;

/// Reads are lock-free; changes go through one actor. Cheap to share.
pub struct Repository {
    catalog: Arc<ArcSwap<Catalog>>,
    commands: mpsc::Sender<Command>,
    changes: watch::Receiver<u64>,
    first: watch::Receiver<Option<Vec<String>>>,
    control: Control,
    start_with_failures: bool,
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
        let actor = Actor::start(config, with, Arc::clone(&catalog), change, finish).await?;
        let actor = Mutex::new(Some(tokio::spawn(actor.run(received))));
        Ok(Arc::new(Self { catalog, commands, changes, first, control, start_with_failures, actor }))
    }

    /// Every model at this instant.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// The place where the newest catalog always is, for rooms that read it with every request.
    pub fn published(&self) -> Arc<ArcSwap<Catalog>> {
        Arc::clone(&self.catalog)
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

    /// Loads a model, or loads it again; returns when it serves or has failed to.
    ///
    /// # Errors
    /// When the control mode does not allow it, or the load fails; what served before still does.
    pub async fn load(&self, name: ModelName, over: LoadOverride) -> Result<(), RepositoryError> {
        self.check_explicit()?;
        self.ask(|reply| Command::Load { name, over, reply }).await?
    }

    /// Stops serving a model; requests on their way are still answered. There are no ensembles, so that no model has
    /// dependents: `_dependents` is accepted for the protocol's sake.
    ///
    /// # Errors
    /// When the control mode does not allow it, or the model is not known.
    pub async fn unload(&self, name: ModelName, _dependents: bool) -> Result<(), RepositoryError> {
        self.check_explicit()?;
        self.ask(|reply| Command::Unload { name, reply }).await?
    }

    /// One line per version, and one for every model that could be loaded.
    pub fn index(&self, ready_only: bool) -> Vec<IndexEntry> {
        let mut lines = self.catalog().index();
        lines.retain(|line| !ready_only || line.state == Some(State::Ready));
        lines
    }

    /// Takes over what of a new configuration can change while the server runs: paths and times, and the settings of
    /// loads to come. Then looks at the paths, as `rescan` does.
    ///
    /// # Errors
    /// As `rescan`; the new settings hold all the same.
    pub async fn reconfigure(
        &self,
        config: RepositoryConfig,
        batching: BatchingConfig,
        options: LoadOptions,
    ) -> Result<(), RepositoryError> {
        self.ask(|reply| Command::Reconfigure { config, batching, options: Box::new(options), reply }).await?
    }

    /// Looks at the paths now. Unless the control mode is explicit, models that are new or have changed are loaded as
    /// soon as their files have settled, and models that are gone are unloaded.
    ///
    /// # Errors
    /// When a path cannot be read; nothing changes then.
    pub async fn rescan(&self) -> Result<(), RepositoryError> {
        self.ask(|reply| Command::Rescan { reply }).await?
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

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, RepositoryError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| RepositoryError::Stopped)?;
        answer.await.map_err(|_| RepositoryError::Stopped)
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
