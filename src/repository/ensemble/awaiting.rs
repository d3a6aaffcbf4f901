//! The part of the actor that has ensembles wait for the models of their steps, and makes them anew when one of those changes.
//!
//! A model that is let go takes the ensembles along that run it; they come back with it. What an ensemble is made of is
//! `loading`'s matter.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Step;
use super::loading::{Models, Unlinked};
use crate::infer::ModelName;
use crate::repository::catalog::UNLOADED;
use crate::repository::config::Control;
use crate::repository::entry::{Entry, Reply, Request};
use crate::repository::error::RepositoryError;
use crate::repository::lifecycle::{Actor, Event};
use crate::repository::loader::Loaded;

/// An answer that waits for ensembles to be made anew.
pub(in super::super) struct After {
    ensembles: BTreeSet<ModelName>,
    replies: Vec<Reply>,
    result: Result<(), RepositoryError>,
}

impl Actor {
    /// The files of an ensemble are read: it serves as soon as the models that it needs do.
    pub(in super::super) fn await_steps(&mut self, name: &ModelName, unlinked: Arc<Unlinked>) {
        let Some(entry) = self.models.get_mut(name) else { return };
        if self.config.control == Control::Demand {
            self.demands.residency.reserve(name, unlinked.memory_bytes());
        }
        entry.ensemble = Some(unlinked);
        entry.awaits = true;
        if let Some(cycle) = self.cycle(name) {
            return self.fail_ensemble(name, &format!("ensembles wait for one another: {cycle}"));
        }
        // Where memory is shared out, ensembles are served one after the other: two that each hold a half would wait for ever.
        if self.config.control != Control::Demand {
            self.ask_for_steps(name);
        }
        self.try_link(name);
    }

    /// Has the models loaded that an ensemble needs, where nobody else does.
    pub(in super::super) fn ask_for_steps(&mut self, name: &ModelName) {
        let Some(unlinked) = self.models.get(name).and_then(|entry| entry.ensemble.clone()) else { return };
        for model in unlinked.models() {
            if self.models.get(model).is_some_and(Entry::is_wanted) {
                continue;
            }
            match self.config.control {
                Control::Explicit => self.load(model, Request::default()),
                Control::Demand => {
                    let (reply, answer) = oneshot::channel();
                    if let Some(entry) = self.models.get_mut(name) {
                        entry.asked.push(answer);
                    }
                    self.demand(model.clone(), reply);
                }
                // All that there is loads by itself.
                Control::None | Control::Poll => {}
            }
        }
    }

    /// Makes an ensemble that waits, if all that it needs is there.
    fn try_link(&mut self, name: &ModelName) {
        let waiting = self.models.get(name).filter(|entry| entry.awaits && entry.is_loading());
        let Some(unlinked) = waiting.and_then(|entry| entry.ensemble.clone()) else { return };
        let has_asked = self.config.control != Control::Demand || waiting.is_some_and(|entry| !entry.asked.is_empty());
        let mut models = Models::new();
        let mut is_whole = true;
        for model in unlinked.models() {
            match self.models.get(model) {
                Some(entry) if entry.is_loading() || self.is_to_come(model) => is_whole = false,
                Some(entry) if entry.is_serving() => _ = models.insert(model.clone(), entry.serving()),
                Some(_) if !has_asked => is_whole = false,
                other => {
                    let reason = match other {
                        Some(entry) => format!("model {model:?} is not ready: {}", entry.why()),
                        None => format!("model {model:?} is not found in the repository"),
                    };
                    return self.fail_ensemble(name, &unlinked.because_of(model, &reason));
                }
            }
        }
        if !is_whole {
            return;
        }
        let Some(entry) = self.models.get_mut(name) else { return };
        entry.awaits = false;
        let (loader, name, generation) = (Arc::clone(&self.loader), name.clone(), entry.generation);
        let steps_max = self.config.ensemble_steps_max;
        self.tasks.spawn(async move {
            let outcome = loader.link(&name, &unlinked, &models, steps_max).await;
            Event::Loaded { name, generation, result: Ok(Loaded::Builds(outcome)) }
        });
    }

    /// Whether a model that does not load yet will.
    fn is_to_come(&self, model: &ModelName) -> bool {
        let is_serving = self.models.get(model).is_some_and(Entry::is_serving);
        !is_serving && (self.start.pending.contains(model) || self.demands.is_wanted(model))
    }

    fn fail_ensemble(&mut self, name: &ModelName, reason: &str) {
        let Some(entry) = self.models.get_mut(name) else { return };
        entry.awaits = false;
        let (generation, unlinked) = (entry.generation, entry.ensemble.clone());
        if let Some(outcome) = unlinked.map(|unlinked| unlinked.failed(reason)) {
            self.loader.with.metrics.count_load(name.as_str(), false);
            self.loaded(name, generation, Ok(Loaded::Builds(outcome)));
        }
    }

    /// A model has been loaded, failed to, or let go: so it is with the ensembles that run it. Gives back those that load for it.
    pub(in super::super) fn tell_ensembles(&mut self, model: &ModelName) -> BTreeSet<ModelName> {
        let mut renewed = BTreeSet::new();
        for name in self.dependents(model) {
            let is_there = self.models.get(model).is_some_and(Entry::is_serving);
            let Some(entry) = self.models.get_mut(&name) else { continue };
            if entry.is_loading() {
                entry.is_outdated = !entry.awaits;
                self.try_link(&name);
                continue;
            }
            if is_there && entry.is_serving() {
                self.renew(&name);
            } else if is_there && self.config.control != Control::Demand {
                self.load(&name, Request::default());
            }
            if self.models.get(&name).is_some_and(Entry::is_loading) {
                renewed.insert(name);
            }
        }
        renewed
    }

    /// Answers who asked for a load, once ensembles run what it has brought: who loads a model and then asks an ensemble gets
    /// that one's answer.
    pub(in super::super) fn answer_after(
        &mut self,
        loaded: &ModelName,
        renewed: BTreeSet<ModelName>,
        replies: Vec<Reply>,
        result: Result<(), RepositoryError>,
    ) {
        for after in &mut self.answers {
            if after.ensembles.remove(loaded) {
                after.ensembles.extend(renewed.iter().cloned());
            }
        }
        self.answers.push(After { ensembles: renewed, replies, result });
        for After { replies, result, .. } in
            self.answers.extract_if(.., |after| after.ensembles.is_empty()).collect::<Vec<_>>()
        {
            self.answer(replies, &result);
        }
    }

    /// Has all ensembles that wait look once more for what they need.
    pub(in super::super) fn tell_all_ensembles(&mut self) {
        let waiting: Vec<ModelName> =
            self.models.iter().filter(|(_, entry)| entry.awaits).map(|(name, _)| name.clone()).collect();
        waiting.iter().for_each(|name| self.try_link(name));
    }

    /// Makes an ensemble anew of what serves now.
    fn relink(&mut self, name: &ModelName) {
        let Some(entry) = self.models.get_mut(name) else { return };
        entry.begin(Vec::new());
        entry.awaits = true;
        self.publish();
        self.try_link(name);
    }

    /// Whether an ensemble runs builds that others have replaced.
    fn is_stale(&self, name: &ModelName) -> bool {
        let Some(entry) = self.models.get(name) else { return false };
        let is_current = |step: &Step| {
            let model = self.models.get(&step.build.model);
            step.is_own || model.is_some_and(|entry| entry.runs(step))
        };
        !entry.ensembles().flat_map(|ensemble| &ensemble.steps).all(is_current)
    }

    /// Makes an ensemble anew of which a model has changed.
    fn renew(&mut self, name: &ModelName) {
        let Some(entry) = self.models.get(name) else { return };
        if entry.is_serving() && !entry.is_loading() && self.is_stale(name) {
            self.relink(name);
        }
    }

    /// After a load of an ensemble: the same, of which a model has changed while it was made.
    pub(in super::super) fn renew_outdated(&mut self, name: &ModelName) {
        let Some(entry) = self.models.get(name).filter(|entry| entry.is_outdated) else { return };
        if entry.is_serving() {
            self.renew(name);
        } else if self.config.control != Control::Demand {
            self.load(name, Request::default());
        }
    }

    /// Lets the ensembles go that run a model which is let go. They come back with it.
    pub(in super::super) fn drop_ensembles(&mut self, model: &ModelName) {
        for name in self.dependents(model) {
            let Some(entry) = self.models.get(&name).filter(|entry| entry.is_serving()) else { continue };
            let Some(unlinked) = entry.ensemble.clone() else { continue };
            if self.config.control == Control::Demand {
                self.evict(&name);
                continue;
            }
            let reason = unlinked.because_of(model, &format!("model {model:?} is not ready: {UNLOADED}"));
            tracing::warn!(model = %name, reason, "ensemble is out of service");
            self.drop_model_because(&name, &reason);
            if let Some(entry) = self.models.get_mut(&name) {
                entry.ensemble = Some(Arc::new(unlinked.without_parts()));
            }
        }
    }

    /// Ensembles that run a model.
    fn dependents(&self, model: &ModelName) -> Vec<ModelName> {
        let needs = |entry: &Entry| entry.ensemble.as_ref().is_some_and(|unlinked| unlinked.needs(model));
        self.models.iter().filter(|(_, entry)| needs(entry)).map(|(name, _)| name.clone()).collect()
    }

    /// The models that an ensemble needs, those of ensembles among them included.
    pub(in super::super) fn needed_by(&self, name: &ModelName) -> BTreeSet<ModelName> {
        let mut all = BTreeSet::new();
        let mut next = vec![name.clone()];
        while let Some(name) = next.pop() {
            let unlinked = self.models.get(&name).and_then(|entry| entry.ensemble.as_ref());
            for model in unlinked.iter().flat_map(|unlinked| unlinked.models()) {
                if all.insert(model.clone()) {
                    next.push(model.clone());
                }
            }
        }
        all
    }

    /// A way from an ensemble back to itself.
    fn cycle(&self, name: &ModelName) -> Option<String> {
        let mut path = vec![name.clone()];
        while let Some(last) = path.last().filter(|_| path.len() <= self.models.len()) {
            let unlinked = self.models.get(last)?.ensemble.as_ref()?;
            let leads_back = |model: &&ModelName| *model == name || self.needed_by(model).contains(name);
            let next = unlinked.models().find(leads_back)?.clone();
            path.push(next);
            if path.last() == Some(name) {
                break;
            }
        }
        let names: Vec<String> = path.iter().map(|name| format!("{name:?}")).collect();
        Some(names.join(" -> "))
    }

    /// Where memory is shared out: has the models loaded of the ensemble that has waited the longest.
    pub(in super::super) fn serve_next_ensemble(&mut self) {
        let Some(first) = self.next_ensemble().cloned() else { return };
        let mut all = self.needed_by(&first);
        all.insert(first);
        for name in all {
            if self.models.get(&name).is_some_and(|entry| entry.awaits && entry.asked.is_empty()) {
                self.ask_for_steps(&name);
                self.try_link(&name);
            }
        }
    }

    fn next_ensemble(&self) -> Option<&ModelName> {
        let waiting = self.models.iter().filter(|(_, entry)| entry.awaits && entry.is_loading());
        waiting.min_by_key(|(_, entry)| entry.since).map(|(name, _)| name)
    }

    /// Where memory is shared out: what must not be dropped for others, because the ensemble whose turn it is needs it.
    pub(in super::super) fn awaited(&self) -> BTreeSet<ModelName> {
        let Some(name) = self.next_ensemble() else { return BTreeSet::new() };
        let mut all = self.needed_by(name);
        all.insert(name.clone());
        all
    }

    /// A model does not fit beside those that an ensemble needs too.
    pub(in super::super) fn refuse_ensembles(&mut self, model: &ModelName, reason: &str) {
        for name in self.dependents(model) {
            let Some(entry) = self.models.get(&name).filter(|entry| entry.awaits) else { continue };
            if let Some(reason) = entry.ensemble.as_ref().map(|unlinked| unlinked.because_of(model, reason)) {
                self.fail_ensemble(&name, &reason);
            }
        }
    }
}
