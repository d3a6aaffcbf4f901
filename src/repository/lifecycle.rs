//! The actor that owns what is loaded: the only place where the catalog changes.
//!
//! Loads and looks at the disk run as tasks beside it and come back as events, so that the actor itself never waits.
//! A catalog is published whole; whoever reads one never sees half a change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use kinglet_sys::allocator;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::catalog::{Catalog, UNLOADED};
use super::config::{Control, RepositoryConfig};
use super::demand::Demands;
use super::ensemble::After;
use super::entry::{Entry, Leaving, Name, Reply, Request, WAITING_MAX};
use super::error::{LoadError, RepositoryError};
use super::giving_back::GivingBack;
use super::inline::LoadOverride;
use super::loader::{Job, Loaded, Loader, Loading, Origin, Renewed, Serving};
use super::scan::{Scan, scan};
use super::workers::Workers;
use crate::infer::{ModelName, VariantName, VersionId};

pub(super) enum Command {
    Load { name: ModelName, over: LoadOverride, reply: Reply },
    Demand { name: ModelName, reply: Reply },
    Unload { name: ModelName, dependents: bool, reply: Reply },
    Rescan { reply: Reply },
    Reconfigure { config: RepositoryConfig, with: Box<Renewed>, reply: Reply },
    Stop,
}

pub(super) struct Actor {
    pub(super) config: RepositoryConfig,
    pub(super) loader: Arc<Loader>,
    pub(super) scanner: Workers,
    pub(super) catalog: Arc<ArcSwap<Catalog>>,
    pub(super) change: watch::Sender<u64>,
    pub(super) models: BTreeMap<ModelName, Entry>,
    pub(super) tasks: JoinSet<Event>,
    pub(super) scanning: Scanning,
    pub(super) start: Start,
    pub(super) giving_back: GivingBack,
    pub(super) demands: Demands,
    /// To loads that have ended.
    pub(super) answers: Vec<After>,
    /// Every load that runs holds one, also those that were overtaken.
    pub(super) loads: Arc<()>,
}

/// The end of a task.
pub(super) enum Event {
    Loaded {
        name: ModelName,
        generation: u64,
        result: Result<Loaded, LoadError>,
    },
    Scanned(Result<Scan, RepositoryError>),
    /// Nobody holds a build any more that was taken out of service.
    Left {
        name: ModelName,
        version: VersionId,
        generation: u64,
    },
    /// Free memory has gone back to the system.
    GaveBack,
}

/// Looks at the disk: one at a time, each for all who asked before it began.
#[derive(Default)]
pub(super) struct Scanning {
    pub(super) running: Option<Vec<Reply>>,
    pub(super) asked: Vec<Reply>,
    pub(super) next: Option<Instant>,
    /// What the last looks have found wrong; it is said once, until it is right again.
    pub(super) told: BTreeSet<String>,
}

/// The loads of the start, until all have ended.
pub(super) struct Start {
    pub(super) pending: BTreeSet<ModelName>,
    pub(super) failures: Vec<String>,
    pub(super) finish: watch::Sender<Option<Vec<String>>>,
    /// Models whose files never settle are not waited for beyond this.
    pub(super) patience: Instant,
}

impl Actor {
    pub(super) async fn start(
        config: RepositoryConfig,
        with: Loading,
        catalog: Arc<ArcSwap<Catalog>>,
        change: watch::Sender<u64>,
        finish: watch::Sender<Option<Vec<String>>>,
    ) -> Result<Self, RepositoryError> {
        let workers = Workers::start("kinglet-load", config.loads_max, LOAD_NICE);
        let scanner = Workers::start("kinglet-scan", 1, 0);
        let patience = Instant::now() + config.settle_time.0 * SETTLE_PATIENCE;
        let start = Start { pending: BTreeSet::new(), failures: Vec::new(), finish, patience };
        let is_routine = config.control == Control::Demand;
        let mut actor = Self {
            config,
            loader: Arc::new(Loader { with, workers, is_routine }),
            scanner,
            catalog,
            change,
            models: BTreeMap::new(),
            tasks: JoinSet::new(),
            scanning: Scanning::default(),
            start,
            giving_back: GivingBack::default(),
            demands: Demands::default(),
            answers: Vec::new(),
            loads: Arc::default(),
        };
        let seat = actor.scanner.seat().await;
        let (paths, name) = (actor.config.paths.clone(), actor.config.model_name.clone());
        let first = seat.run(move || scan(&paths, &name)).await.map_err(|_| RepositoryError::Stopped)??;
        actor.first_scan(first);
        Ok(actor)
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            if self.config.control == Control::Demand {
                self.load_demanded();
            }
            let (next_scan, give_back_at) = (self.scanning.next, self.giving_back.due());
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Stop) | None => break,
                    Some(command) => self.obey(command),
                },
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(event) => self.ended(event),
                    Err(error) => tracing::error!(%error, "a task of the repository has ended without a result"),
                },
                () = sleep_until(next_scan.unwrap_or_else(Instant::now)), if next_scan.is_some() => {
                    self.scanning.next = None;
                    self.begin_scan();
                }
                () = sleep_until(give_back_at.unwrap_or_else(Instant::now)), if give_back_at.is_some() => {
                    self.give_back();
                }
            }
        }
        self.tasks.abort_all();
    }

    pub(super) fn ended(&mut self, event: Event) {
        match event {
            Event::Loaded { name, generation, result } => self.loaded(&name, generation, result),
            Event::Scanned(result) => self.scanned(result),
            Event::Left { name, version, generation } => self.left(&name, version, generation),
            Event::GaveBack => self.giving_back.end(),
        }
    }

    pub(super) fn give_back(&mut self) {
        self.giving_back.begin();
        let workers = self.loader.workers.clone();
        self.tasks.spawn(async move {
            // What it frees shows in the process's memory, and nowhere else.
            let _ = workers.seat().await.run(allocator::give_back).await;
            Event::GaveBack
        });
    }

    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Load { name, over, reply } => {
                self.accept(&name, Request { over, keep_unchanged: false, replies: vec![reply] });
            }
            Command::Demand { name, reply } => self.demand(name, reply),
            Command::Unload { name, dependents, reply } => self.unload(&name, dependents, reply),
            Command::Rescan { reply } => {
                self.scanning.asked.push(reply);
                self.begin_scan();
            }
            Command::Reconfigure { config, with, reply } => {
                // Who decides what is loaded, and the loads of the start, are as they were.
                self.config = RepositoryConfig { control: self.config.control, ..config };
                let Renewed { batching, options, trust } = *with;
                let trust = trust.unwrap_or_else(|| Arc::clone(&self.loader.with.trust));
                if trust != self.loader.with.trust {
                    self.models.values_mut().for_each(Entry::doubt);
                }
                let with = Loading { batching, options, trust, ..self.loader.with.clone() };
                let (workers, is_routine) = (self.loader.workers.clone(), self.loader.is_routine);
                self.loader = Arc::new(Loader { with, workers, is_routine });
                self.keep_to_limit(None);
                self.scanning.asked.push(reply);
                self.begin_scan();
            }
            Command::Stop => {}
        }
    }

    /// Everything there is at the start is loaded, but for the modes that wait: explicit for a request, poll for files
    /// that are still being written.
    fn first_scan(&mut self, first: Scan) {
        if self.config.control == Control::Explicit {
            self.names_changed(first);
            let all = self.config.load_at_start.iter().any(|name| name == "*");
            let named = self.config.load_at_start.iter().filter(|name| *name != "*");
            let named = named.filter_map(|name| self.checked_name(name));
            let listed: BTreeSet<ModelName> = named.chain(self.models.keys().filter(|_| all).cloned()).collect();
            for name in listed {
                self.start.pending.insert(name.clone());
                self.load(&name, Request::default());
            }
        } else {
            let is_awaited = |name: &&ModelName| self.config.control != Control::Demand || self.is_pinned(name);
            self.start.pending = first.found.models.keys().filter(is_awaited).cloned().collect();
            self.files_changed(first, self.config.control != Control::Poll);
        }
        self.schedule_poll();
        self.publish();
        self.start.check();
    }

    fn checked_name(&self, name: &str) -> Option<ModelName> {
        name.parse().inspect_err(|error| tracing::warn!(%error, "repository.load_at_start: skipped")).ok()
    }

    /// Loads a model by request, unless too many loads are in line.
    fn accept(&mut self, name: &ModelName, request: Request) {
        if !request.over.is_beneath(&self.config.paths) {
            let got = request.over.folder.as_deref().map(|folder| folder.display().to_string()).unwrap_or_default();
            return self.answer(request.replies, &Err(RepositoryError::Outside(got)));
        }
        let running = Arc::strong_count(&self.loads) - 1;
        let in_line = running + self.models.values().map(Entry::waiting).sum::<usize>();
        let joins = self.models.get(name).is_some_and(|entry| entry.joins(&request));
        let limit = self.config.loads_waiting_max;
        match joins || in_line < limit {
            true => self.load(name, request),
            false => self.answer(request.replies, &Err(RepositoryError::TooManyLoads { limit })),
        }
    }

    /// Loads a model now, or after the load that runs.
    pub(super) fn load(&mut self, name: &ModelName, request: Request) {
        let entry = self.models.entry(name.clone()).or_default();
        if entry.is_loading() {
            if let Some(refused) = entry.wait(request) {
                self.answer(refused.replies, &Err(RepositoryError::Busy { model: name.clone(), waiting: WAITING_MAX }));
            }
            return;
        }
        entry.begin(request.replies);
        let from = match (&entry.place, self.config.control) {
            _ if request.over.folder.is_some() => {
                Origin::Search(request.over.folder.iter().cloned().collect(), name.to_string())
            }
            (Some(place), Control::None | Control::Poll | Control::Demand) => Origin::Known(place.clone()),
            _ => Origin::Search(self.config.paths.clone(), self.config.model_name.clone()),
        };
        let job = Job {
            name: name.clone(),
            from,
            over: request.over,
            serving: entry.serving(),
            keep_unchanged: request.keep_unchanged,
            temporary: self.config.temporary_path.clone(),
            variants_max: self.config.variants_max,
            ensemble_steps_max: self.config.ensemble_steps_max,
            rules: self.loader.with.rules(),
        };
        let (loader, name, generation) = (Arc::clone(&self.loader), name.clone(), entry.generation);
        let one_of = Arc::clone(&self.loads);
        self.tasks.spawn(async move {
            let result = loader.load(job).await;
            drop(one_of);
            Event::Loaded { name, generation, result }
        });
        self.publish();
    }

    pub(super) fn loaded(&mut self, name: &ModelName, generation: u64, result: Result<Loaded, LoadError>) {
        let Some(entry) = self.models.get_mut(name).filter(|entry| entry.generation == generation) else {
            return self.overtaken(name, result);
        };
        let (applied, replies, error) = match result {
            Ok(Loaded::Steps(unlinked)) => return self.await_steps(name, unlinked),
            Ok(Loaded::Builds(outcome)) => {
                let replies = entry.end();
                (entry.apply(outcome), replies, None)
            }
            Err(error) => {
                let replies = entry.end();
                (entry.fail(&error.to_string()), replies, Some(error))
            }
        };
        // Of what it read and did not keep, also where all went well.
        self.giving_back.ask(Instant::now());
        for build in entry.serving().values().flat_map(Serving::builds) {
            build.metrics.ready.set(1);
            let requests_max = build.settings.batching.queue_requests_max();
            build.metrics.queue_requests_max.set(i64::try_from(requests_max).unwrap_or(i64::MAX));
        }
        let failed = applied.failures.len() + entry.variants_failed();
        let next = entry.next_waiting();
        self.loader.with.metrics.set_builds_failed(name.as_str(), failed);
        if matches!(error, Some(LoadError::NotFound)) && next.is_none() {
            self.forget_unless_held(name);
        }
        self.forget(name, &applied.gone);
        for reason in &applied.failures {
            tracing::warn!(model = %name, %reason, "model failed to load");
        }
        self.publish_without(name, applied.leaving);
        let result = outcome_of(name, error, &applied.failures);
        let mut later = Vec::new();
        match self.config.control {
            // At once: what has no room is dropped next.
            Control::Demand => self.answer(replies, &result),
            _ => later = replies,
        }
        self.settle_residency(name);
        self.start.ended(name, applied.failures);
        let renewed = self.tell_ensembles(name);
        self.answer_after(name, renewed, later, result);
        match next {
            Some(request) => self.load(name, request),
            None => self.renew_outdated(name),
        }
    }

    /// The end of a load whose model was unloaded meanwhile. Who waited has been told; the build is dropped here.
    fn overtaken(&mut self, name: &ModelName, result: Result<Loaded, LoadError>) {
        self.giving_back.ask(Instant::now());
        let Some(entry) = self.models.get(name) else { return self.loader.with.metrics.forget_model(name.as_str()) };
        // A load that came after it says itself which versions there are.
        if !entry.is_wanted() {
            let builds = |(id, result): (&VersionId, &Result<Serving, _>)| {
                let names = result.iter().flat_map(Serving::builds).map(|build| build.name.clone());
                names.chain([None]).map(|name| (*id, name)).collect::<Vec<_>>()
            };
            let built = match result {
                Ok(Loaded::Builds(outcome)) => outcome.versions.iter().flat_map(builds).collect(),
                Ok(Loaded::Steps(unlinked)) => unlinked.names().collect(),
                Err(_) => BTreeSet::new(),
            };
            self.forget(name, &built);
        }
    }

    fn unload(&mut self, name: &ModelName, dependents: bool, reply: Reply) {
        if self.models.contains_key(name) {
            let needed = if dependents { self.needed_by(name) } else { BTreeSet::new() };
            self.drop_model(name);
            needed.iter().for_each(|model| self.drop_model(model));
            self.answer(vec![reply], &Ok(()));
        } else {
            self.answer(vec![reply], &Err(RepositoryError::UnknownModel(name.clone())));
        }
    }

    /// Takes a model out of service. It stays known while its files are there.
    pub(super) fn drop_model(&mut self, name: &ModelName) {
        self.drop_model_because(name, UNLOADED);
    }

    pub(super) fn drop_model_because(&mut self, name: &ModelName, reason: &str) {
        self.drop_ensembles(name);
        let Some(entry) = self.models.get_mut(name) else { return };
        match entry.is_wanted() {
            true if self.loader.is_routine => tracing::debug!(model = %name, "model is unloaded"),
            true => tracing::info!(model = %name, "model is unloaded"),
            false => {}
        }
        if entry.is_serving() {
            self.demands.residency.leave(name);
        } else {
            self.demands.residency.release(name);
        }
        let (applied, replies) = entry.clear(reason);
        // Nothing is wanted of it any more.
        self.loader.with.metrics.set_builds_failed(name.as_str(), 0);
        if entry.place.is_none() {
            self.forget_unless_held(name);
        }
        self.forget(name, &applied.gone);
        self.publish_without(name, applied.leaving);
        self.answer(replies, &Err(RepositoryError::Overtaken(name.clone())));
        self.start.ended(name, Vec::new());
        let renewed = self.tell_ensembles(name);
        self.answer_after(name, renewed, Vec::new(), Ok(()));
    }

    /// Drops what is known of a model, unless some build of it serves, loads or answers its last requests. Whether it
    /// was.
    fn forget_unless_held(&mut self, name: &ModelName) -> bool {
        let is_held = |entry: &Entry| entry.is_wanted() || entry.is_leaving();
        let is_forgotten = !self.models.get(name).is_some_and(is_held) && self.models.remove(name).is_some();
        if is_forgotten {
            self.loader.with.metrics.forget_model(name.as_str());
        }
        is_forgotten
    }

    /// Publishes, and waits for the last requests of builds that no longer serve.
    fn publish_without(&mut self, name: &ModelName, leaving: Vec<Leaving>) {
        let listen = |build: Leaving| (build.version, build.generation, build.variant.presence.end());
        let ends: Vec<_> = leaving.into_iter().map(listen).collect();
        self.publish();
        for (version, generation, mut end) in ends {
            if end.try_recv() == Err(TryRecvError::Closed) {
                self.left(name, version, generation);
                continue;
            }
            let name = name.clone();
            self.tasks.spawn(async move {
                // Nothing is ever sent: the sender ends with the build.
                let _ = end.await;
                Event::Left { name, version, generation }
            });
        }
    }

    fn left(&mut self, name: &ModelName, version: VersionId, generation: u64) {
        self.giving_back.ask(Instant::now());
        let Some(entry) = self.models.get_mut(name) else { return };
        let mut is_news = entry.left(version, generation);
        if !entry.is_leaving() {
            self.demands.residency.gone(name);
        }
        if entry.place.is_none() {
            is_news |= self.forget_unless_held(name);
        }
        if is_news {
            self.publish();
        }
    }

    fn forget(&self, name: &ModelName, gone: &BTreeSet<Name>) {
        for (id, variant) in gone {
            let variant = variant.as_ref().map_or("", VariantName::as_str);
            self.loader.with.metrics.forget([name.as_str(), &id.to_string(), variant]);
        }
    }

    pub(super) fn answer(&self, replies: Vec<Reply>, result: &Result<(), RepositoryError>) {
        for reply in replies {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(result.clone().map(|()| self.catalog.load_full()));
        }
    }

    pub(super) fn publish(&self) {
        let models = self.models.iter().map(|(name, entry)| (name.clone(), entry.model())).collect();
        self.catalog.store(Arc::new(Catalog { models }));
        self.change.send_modify(|revision| *revision += 1);
    }
}

impl Start {
    pub(super) fn ended(&mut self, name: &ModelName, failures: Vec<String>) {
        if self.pending.remove(name) {
            self.failures.extend(failures.into_iter().map(|reason| format!("{name}: {reason}")));
            self.check();
        }
    }

    pub(super) fn check(&self) {
        if self.pending.is_empty() && self.finish.borrow().is_none() {
            self.finish.send_replace(Some(self.failures.clone()));
        }
    }
}

/// What whoever asked for a load is told.
fn outcome_of(name: &ModelName, error: Option<LoadError>, failures: &[String]) -> Result<(), RepositoryError> {
    let model = name.clone();
    match error {
        Some(LoadError::Config(error)) => Err(RepositoryError::Config { model, error }),
        Some(LoadError::Inline(error)) => Err(RepositoryError::Inline(error)),
        Some(LoadError::NotFound) => Err(RepositoryError::UnknownModel(model)),
        _ if failures.is_empty() => Ok(()),
        _ => Err(RepositoryError::Load { model, reason: failures.join("; ") }),
    }
}

/// Steps below the process's own priority at which models load.
const LOAD_NICE: i32 = 10;
/// Settle times that the start waits for files which keep changing.
const SETTLE_PATIENCE: u32 = 5;
