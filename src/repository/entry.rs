//! The life of one model: its versions, the loads that run and wait, and what a finished load changes.
//!
//! Only state: nothing here reads a file, spawns a task or publishes anything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::catalog::{Beside, Catalog, Model, State, UNLOADED, Version};
use super::ensemble::{Ensemble, Step, Unlinked};
use super::error::RepositoryError;
use super::fingerprint::{Sighting, Stamp};
use super::inline::LoadOverride;
use super::layout::Place;
use super::loader::{Outcome, Serving};
use super::variant::Variant;
use super::variants::Built;
use crate::infer::{VariantName, VersionId};

/// Who waits for a change, and gets the catalog as it is then: what is in it stays usable, whatever is dropped next.
pub(super) type Reply = oneshot::Sender<Result<Arc<Catalog>, RepositoryError>>;

/// What the other end of a [`Reply`] hears.
pub(super) type Answer = oneshot::Receiver<Result<Arc<Catalog>, RepositoryError>>;

#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) place: Option<Place>,
    sighting: Option<Sighting>,
    /// The files of the last load, whether or not it succeeded: it is not tried again before they change.
    attempted: Option<Stamp>,
    /// Tells a load's end from that of one which was overtaken.
    pub(super) generation: u64,
    records: BTreeMap<VersionId, Record>,
    state: Option<State>,
    reason: String,
    running: Option<Vec<Reply>>,
    waiting: VecDeque<Request>,
    /// When the last load brought something to serve, in milliseconds since the epoch.
    pub(super) loaded_at: u64,
    /// What it is made of, where it is an ensemble, by the last load.
    pub(super) ensemble: Option<Arc<Unlinked>>,
    /// Whether the load that runs waits for other models, since when it runs, and which of them it has asked for.
    pub(super) awaits: bool,
    pub(super) since: Option<Instant>,
    /// Whether a model that it was made of has changed meanwhile.
    pub(super) is_outdated: bool,
    pub(super) asked: Vec<Answer>,
    /// Whether whom to trust has changed since the files were compared.
    is_doubted: bool,
}

/// A load that was asked for.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) over: LoadOverride,
    pub(super) keep_unchanged: bool,
    pub(super) replies: Vec<Reply>,
}

#[derive(Debug)]
struct Record {
    serving: Option<Serving>,
    state: State,
    reason: String,
    /// The generation that took the version out of service, and how many of its builds requests still hold.
    leaving: Option<(u64, usize)>,
}

/// What tells builds of a model apart: the version, and the variant where it is not the version's own.
pub(super) type Name = (VersionId, Option<VariantName>);

/// A build that no longer serves.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) version: VersionId,
    pub(super) generation: u64,
    pub(super) variant: Arc<Variant>,
}

/// What a load's end has changed.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Builds that no longer serve, or never did.
    pub(super) gone: BTreeSet<Name>,
    /// Builds that served until now: of those versions, and of versions that have a newer build.
    pub(super) leaving: Vec<Leaving>,
    /// One line per failure.
    pub(super) failures: Vec<String>,
}

/// What a look at a model's files says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// As at the last load, or a load is under way.
    Same,
    /// New or changed, and whole.
    Whole,
    /// Still changing; `shown` where the model's state says so from now on.
    Unsettled { shown: bool },
}

impl Entry {
    /// Takes note of how the model's files look now.
    pub(super) fn see(&mut self, place: Place, stamp: Stamp, now: Instant, settle: Duration) -> Seen {
        self.place = Some(place);
        let sighting = Sighting::update(self.sighting.take(), stamp, now, SystemTime::now());
        let is_same = self.attempted.as_ref() == Some(&sighting.stamp);
        let is_settled = sighting.is_settled(now, settle);
        self.sighting = Some(sighting);
        if is_same || self.is_loading() {
            Seen::Same
        } else if is_settled {
            Seen::Whole
        } else {
            Seen::Unsettled { shown: !self.is_wanted() && self.await_files() }
        }
    }

    /// Has the files compared anew, whether or not they change.
    pub(super) fn doubt(&mut self) {
        self.is_doubted = true;
        self.attempted = None;
    }

    /// Whether builds whose files are as before may stay as they are.
    pub(super) fn keeps_unchanged(&self) -> bool {
        !self.is_doubted
    }

    /// Takes out which files the last load was of.
    pub(super) fn take_attempted(&mut self) -> Option<Stamp> {
        self.attempted.take()
    }

    /// Takes these for the files of the last load.
    pub(super) fn remember(&mut self, attempted: Option<Stamp>) {
        self.attempted = attempted;
    }

    /// Why the last load came to nothing, as long as the files are those that it read.
    pub(super) fn failure(&self) -> Option<String> {
        let seen = self.sighting.as_ref().map(|sighting| &sighting.stamp);
        let is_known = self.attempted.is_some() && self.attempted.as_ref() == seen && !self.is_wanted();
        if self.ensemble.is_some() {
            // It may be another model's failure, which is past.
            return None;
        }
        let mut reasons = [&self.reason].into_iter().chain(self.records.values().map(|record| &record.reason));
        reasons.rfind(|reason| is_known && !reason.is_empty() && *reason != UNLOADED).cloned()
    }

    /// Bytes of the files that the newest version is made of.
    pub(super) fn file_bytes(&self) -> u64 {
        self.sighting.as_ref().map_or(0, |sighting| sighting.stamp.bytes())
    }

    /// When a request was answered last, or the model was loaded, in milliseconds since the epoch.
    pub(super) fn used_at(&self) -> u64 {
        let served = self.records.values().filter_map(|record| record.serving.as_ref()).flat_map(Serving::builds);
        served.map(|build| build.statistics.last_inference_ms()).fold(self.loaded_at, u64::max)
    }

    /// Is there to be loaded: what was wrong with other files is past. Whether that is news.
    pub(super) fn rest(&mut self) -> bool {
        let is_news = self.attempted.take().is_some() || self.state.is_some();
        self.state = None;
        self.reason.clear();
        self.records.retain(|_, record| record.leaving.is_some());
        is_news
    }

    /// Lets one more wait for the load that runs.
    pub(super) fn await_load(&mut self, reply: Reply) {
        if let Some(waiting) = &mut self.running {
            waiting.push(reply);
        }
    }

    pub(super) fn is_loading(&self) -> bool {
        self.running.is_some()
    }

    /// Whether the model is loaded or on its way there.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_loading() || self.is_serving()
    }

    pub(super) fn is_serving(&self) -> bool {
        self.records.values().any(|record| record.serving.is_some())
    }

    /// Whether requests still hold a build that no longer serves.
    pub(super) fn is_leaving(&self) -> bool {
        self.records.values().any(|record| record.leaving.is_some())
    }

    pub(super) fn serving(&self) -> BTreeMap<VersionId, Serving> {
        let serving = |(id, record): (&VersionId, &Record)| Some((*id, record.serving.clone()?));
        self.records.iter().filter_map(serving).collect()
    }

    /// Variants that do not serve as they lie on disk.
    pub(super) fn variants_failed(&self) -> usize {
        let variants =
            self.records.values().filter_map(|record| record.serving.as_ref()).flat_map(|own| own.variants.values());
        variants.filter(|built| !built.reason.is_empty()).count()
    }

    /// Puts a request behind the load that runs. A plain one joins the last plain one in the queue. Where too many wait
    /// already, it comes back.
    pub(super) fn wait(&mut self, mut request: Request) -> Option<Request> {
        if let Some(last) = self.waiting.back_mut().filter(|last| last.over.is_empty() && request.over.is_empty()) {
            last.keep_unchanged &= request.keep_unchanged;
            last.replies.append(&mut request.replies);
            return None;
        }
        if self.waiting.len() >= WAITING_MAX {
            return Some(request);
        }
        self.waiting.push_back(request);
        None
    }

    /// Whether a request would do no more than join one that waits.
    pub(super) fn joins(&self, request: &Request) -> bool {
        let is_plain = |request: &Request| request.over.is_empty();
        is_plain(request) && self.is_loading() && self.waiting.back().is_some_and(is_plain)
    }

    /// Loads behind the one that runs.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn next_waiting(&mut self) -> Option<Request> {
        self.waiting.pop_front()
    }

    /// Marks a load as running; what serves goes on.
    pub(super) fn begin(&mut self, replies: Vec<Reply>) {
        self.generation += 1;
        self.running = Some(replies);
        self.since = Some(Instant::now());
        self.is_outdated = false;
        self.is_doubted = false;
        self.asked.clear();
        self.state = Some(State::Loading);
        self.reason.clear();
        // Beside versions that serve, those that were replaced are told of until the next load.
        let serves = self.is_serving();
        self.records.retain(|_, record| !serves || !record.is_unloaded());
        let is_asked_for = |record: &&mut Record| record.serving.is_none() && !(serves && record.leaving.is_some());
        for record in self.records.values_mut().filter(is_asked_for) {
            record.state = State::Loading;
            record.reason.clear();
        }
    }

    /// Shows that the model is waited for. Whether that is news.
    fn await_files(&mut self) -> bool {
        let is_news = self.state != Some(State::Loading);
        self.state = Some(State::Loading);
        self.reason = "waiting until its files have settled".into();
        is_news
    }

    /// Ends the running load and gives back who waits for it.
    pub(super) fn end(&mut self) -> Vec<Reply> {
        self.awaits = false;
        self.asked.clear();
        self.running.take().unwrap_or_default()
    }

    /// Swaps in what a load brought. A version that serves goes on where its new build failed; versions that were not
    /// chosen again go, unless they may still be needed because a chosen one failed.
    pub(super) fn apply(&mut self, outcome: Outcome) -> Applied {
        let mut applied = Applied::default();
        let mut replaced = true;
        self.place = outcome.place.or(self.place.take());
        self.attempted = outcome.stamp;
        self.state = None;
        self.reason.clear();
        let generation = self.generation;
        let chosen: BTreeSet<VersionId> = outcome.versions.keys().copied().collect();
        for (id, result) in outcome.versions {
            let record = self.records.entry(id).or_insert_with(Record::absent);
            match result {
                Ok(serving) => {
                    let before = record.serving.take();
                    for build in before.iter().flat_map(Serving::builds) {
                        let same = serving.builds().find(|now| now.name == build.name);
                        if same.is_none() {
                            applied.gone.insert((id, build.name.clone()));
                        }
                        if same.is_none_or(|now| !Arc::ptr_eq(now, build)) {
                            applied.leaving.push(Leaving { version: id, generation, variant: Arc::clone(build) });
                        }
                    }
                    *record = Record { serving: Some(serving), state: State::Ready, ..Record::absent() };
                }
                Err(failure) => {
                    replaced &= failure.is_absent;
                    applied.failures.push(format!("version {id}: {}", failure.reason));
                    record.fail(&failure.reason);
                    applied.gone.extend(record.serving.is_none().then_some((id, None)));
                }
            }
        }
        if self.ensembles().next().is_none() {
            applied.gone.extend(self.let_parts_go());
        }
        // It was one, by files that have changed.
        if self.is_serving() && self.ensembles().next().is_none() {
            self.ensemble = None;
        }
        if replaced {
            self.records.retain(|id, record| {
                if chosen.contains(id) {
                    return true;
                }
                applied.retire(*id, record, generation, UNLOADED);
                record.leaving.is_some()
            });
        }
        applied
    }

    /// Notes a load that came to nothing; what serves goes on.
    pub(super) fn fail(&mut self, reason: &str) -> Applied {
        self.state = Some(State::Unavailable);
        self.reason = reason.to_owned();
        // The files that failed are the ones last seen: trying again before they change would fail again.
        self.attempted = self.sighting.as_ref().map(|sighting| sighting.stamp.clone());
        let tried = self.records.values_mut().filter(|record| record.state != State::Unloading);
        tried.for_each(|record| record.fail(reason));
        Applied { failures: vec![reason.to_owned()], ..Applied::default() }
    }

    /// Stops serving and gives up every load. Gives back what served and everybody who waits.
    pub(super) fn clear(&mut self, because: &str) -> (Applied, Vec<Reply>) {
        self.generation += 1;
        self.attempted = None;
        let mut replies = self.end();
        replies.extend(self.waiting.drain(..).flat_map(|request| request.replies));
        let mut applied = Applied::default();
        applied.gone.extend(self.let_parts_go());
        self.ensemble = None;
        for (id, record) in &mut self.records {
            applied.retire(*id, record, self.generation, because);
        }
        self.state = Some(State::Unavailable);
        self.reason = because.into();
        (applied, replies)
    }

    /// Drops the builds of an ensemble's own steps that nothing serves with.
    fn let_parts_go(&mut self) -> Vec<Name> {
        let Some(unlinked) = self.ensemble.take() else { return Vec::new() };
        self.ensemble = Some(Arc::new(unlinked.without_parts()));
        unlinked.names().collect()
    }

    /// What the versions that serve are made of, where they are ensembles.
    pub(super) fn ensembles(&self) -> impl Iterator<Item = &Arc<Ensemble>> {
        self.records.values().filter_map(|record| record.serving.as_ref()?.variant.ensemble.as_ref())
    }

    /// Whether a step runs what it would if it were made now.
    pub(super) fn runs(&self, step: &Step) -> bool {
        let found = match step.version {
            None => self.records.values().rev().find_map(|record| record.serving.as_ref()),
            Some(id) => self.records.get(&id).and_then(|record| record.serving.as_ref()),
        };
        found.is_some_and(|found| {
            let alike = found.alike();
            Arc::ptr_eq(&found.variant, &step.build)
                && alike.len() == step.alike.len()
                && alike.iter().zip(&step.alike).all(|(now, then)| Arc::ptr_eq(now, then))
        })
    }

    /// Why nothing of it serves.
    pub(super) fn why(&self) -> String {
        let reasons = [&self.reason].into_iter().chain(self.records.values().map(|record| &record.reason));
        let state = || self.state.map_or("it is not loaded".into(), |state| state.as_str().to_lowercase());
        reasons.into_iter().find(|reason| !reason.is_empty()).cloned().unwrap_or_else(state)
    }

    /// Notes that nobody holds the build any more which `generation` took out of service. Whether that is news.
    pub(super) fn left(&mut self, id: VersionId, generation: u64) -> bool {
        let Some(record) = self.records.get_mut(&id) else { return false };
        match record.leaving {
            Some((of, 1)) if of == generation => record.leaving = None,
            Some((of, builds)) if of == generation => {
                record.leaving = Some((of, builds - 1));
                return false;
            }
            _ => return false,
        }
        let is_news = record.state == State::Unloading;
        if is_news {
            record.unload(if self.reason.is_empty() { UNLOADED } else { &self.reason });
        }
        is_news
    }

    /// The model as the rest of the server sees it.
    pub(super) fn model(&self) -> Model {
        let beside = |(name, built): (&VariantName, &Built)| {
            (name.clone(), Beside { ready: built.ready.clone(), reason: built.reason.clone() })
        };
        let version = |record: &Record| Version {
            ready: record.serving.as_ref().map(|serving| serving.variant.clone()),
            state: record.state,
            reason: record.reason.clone(),
            variants: record.serving.iter().flat_map(|serving| &serving.variants).map(beside).collect(),
        };
        Model {
            versions: self.records.iter().map(|(id, record)| (*id, version(record))).collect(),
            state: self.state,
            reason: self.reason.clone(),
        }
    }
}

impl Applied {
    fn retire(&mut self, version: VersionId, record: &mut Record, generation: u64, because: &str) {
        self.gone.insert((version, None));
        for variant in record.retire(generation, because) {
            self.gone.insert((version, variant.name.clone()));
            self.leaving.push(Leaving { version, generation, variant });
        }
    }
}

impl Record {
    fn absent() -> Self {
        Self { serving: None, state: State::Unavailable, reason: String::new(), leaving: None }
    }

    /// Takes the version out of service. Its builds are unloading as long as they are held.
    fn retire(&mut self, generation: u64, because: &str) -> Vec<Arc<Variant>> {
        let builds: Vec<_> = self.serving.take().iter().flat_map(Serving::builds).map(Arc::clone).collect();
        if !builds.is_empty() {
            self.leaving = Some((generation, builds.len()));
        }
        self.unload(because);
        builds
    }

    fn unload(&mut self, because: &str) {
        let (state, reason) =
            if self.leaving.is_some() { (State::Unloading, "") } else { (State::Unavailable, because) };
        self.state = state;
        self.reason = reason.into();
    }

    fn is_unloaded(&self) -> bool {
        self.state == State::Unavailable && self.reason == UNLOADED
    }

    /// Notes a failure; what served before still does.
    fn fail(&mut self, reason: &str) {
        let serves = self.serving.is_some();
        self.state = if serves { State::Ready } else { State::Unavailable };
        self.reason = if serves { format!("reload failed: {reason}") } else { reason.to_owned() };
    }
}

/// Loads of one model that may wait for the one that runs; each may hold its files in memory.
pub(super) const WAITING_MAX: usize = 8;
