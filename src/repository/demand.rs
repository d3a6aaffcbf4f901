//! The part of the actor that loads models when requests ask for them, and drops others for them.
//!
//! Who makes room for whom is `residency`'s rule; loading and unloading are `lifecycle`'s.

use std::collections::VecDeque;

use super::config::Control;
use super::entry::{Entry, Reply, Request};
use super::error::RepositoryError;
use super::lifecycle::Actor;
use super::loader::Serving;
use super::residency::{Candidate, Residency, Room};
use crate::infer::ModelName;
use crate::metering::statistics::now_ms;

/// Models that are asked for, and what memory is taken.
#[derive(Default)]
pub(super) struct Demands {
    pub(super) residency: Residency,
    /// In the order of asking; each once.
    wanted: VecDeque<Wanted>,
}

struct Wanted {
    name: ModelName,
    replies: Vec<Reply>,
}

impl Demands {
    pub(super) fn is_wanted(&self, name: &ModelName) -> bool {
        self.wanted.iter().any(|wanted| wanted.name == *name)
    }
}

impl Actor {
    /// Answers when the model serves, or why it does not.
    pub(super) fn demand(&mut self, name: ModelName, reply: Reply) {
        let refused = match self.models.get_mut(&name) {
            Some(entry) if entry.is_serving() => return self.answer(vec![reply], &Ok(())),
            Some(entry) if entry.is_loading() => return entry.await_load(reply),
            Some(entry) if entry.place.is_some() => entry.failure(),
            _ => return self.answer(vec![reply], &Err(RepositoryError::UnknownModel(name))),
        };
        if let Some(reason) = refused {
            return self.answer(vec![reply], &Err(RepositoryError::NotReady { model: name, reason }));
        }
        if let Some(wanted) = self.demands.wanted.iter_mut().find(|wanted| wanted.name == name) {
            return wanted.replies.push(reply);
        }
        // What an ensemble waits for that holds memory already does not stand behind others, who wait for that memory.
        let is_urgent = self.awaited().contains(&name);
        let wanted = Wanted { name, replies: vec![reply] };
        match is_urgent {
            true => self.demands.wanted.push_front(wanted),
            false => self.demands.wanted.push_back(wanted),
        }
    }

    /// Loads what is asked for, as far as there is room. To be called when anything has changed.
    pub(super) fn load_demanded(&mut self) {
        self.serve_next_ensemble();
        while let Some(Wanted { name, mut replies }) = self.demands.wanted.pop_front() {
            replies.retain(|reply| !reply.is_closed());
            if replies.is_empty() {
                continue;
            }
            match self.room_for(&name) {
                Room::Free => self.load(&name, Request { replies, ..Request::default() }),
                Room::Never => self.refuse(&name, replies),
                room => {
                    self.demands.wanted.push_front(Wanted { name, replies });
                    let Room::Instead(others) = room else { break };
                    others.iter().for_each(|other| self.evict(other));
                }
            }
        }
        self.tell_residency();
    }

    /// Whether there is room; what there is is reserved.
    fn room_for(&mut self, name: &ModelName) -> Room {
        let bytes_max = self.config.demand_bytes_max.0;
        let file_bytes = self.models.get(name).map_or(0, Entry::file_bytes);
        let residency = &self.demands.residency;
        let need = residency.need(name, file_bytes, bytes_max);
        let awaited = self.awaited();
        let is_needed = |other: &ModelName| awaited.contains(name) && awaited.contains(other);
        let stay = self.models.keys().filter(|other| (self.is_pinned(other) || is_needed(other)) && *other != name);
        let stays = stay.map(|other| residency.taken(other)).sum();
        let room = residency.room(need, bytes_max, stays, self.candidates());
        if room == Room::Free {
            self.demands.residency.reserve(name, need);
        }
        room
    }

    fn candidates(&self) -> Vec<Candidate> {
        let awaited = self.awaited();
        let is_free = |name: &ModelName| !self.is_pinned(name) && !awaited.contains(name);
        let idle =
            self.models.iter().filter(|(name, entry)| entry.is_serving() && !entry.is_loading() && is_free(name));
        idle.map(|(name, entry)| (name.clone(), entry.used_at())).collect()
    }

    pub(super) fn is_pinned(&self, name: &ModelName) -> bool {
        let is_or_runs = |pinned: &String| {
            let runs =
                |(other, entry): (&ModelName, &Entry)| entry.ensemble.is_some() && self.needed_by(other).contains(name);
            pinned == name.as_str()
                || pinned.parse().is_ok_and(|pinned| self.models.get_key_value(&pinned).is_some_and(runs))
        };
        self.config.pinned.iter().any(is_or_runs)
    }

    pub(super) fn evict(&mut self, name: &ModelName) {
        self.loader.with.metrics.residency.evicted();
        // What is known of its files stays known.
        let attempted = self.models.get_mut(name).and_then(Entry::take_attempted);
        self.drop_model(name);
        if let Some(entry) = self.models.get_mut(name) {
            entry.remember(attempted);
        }
    }

    fn refuse(&mut self, name: &ModelName, replies: Vec<Reply>) {
        let error = RepositoryError::NoMemory { model: name.clone(), limit: self.config.demand_bytes_max.0 };
        tracing::warn!(model = %name, %error, "model cannot be loaded");
        self.start.ended(name, vec![error.to_string()]);
        self.refuse_ensembles(name, &error.to_string());
        self.answer(replies, &Err(error));
    }

    /// Takes note of what a load has brought, and keeps to the limit where that is more than was thought.
    pub(super) fn settle_residency(&mut self, name: &ModelName) {
        let Some(entry) = self.models.get_mut(name).filter(|_| self.config.control == Control::Demand) else { return };
        let serving = entry.serving();
        if serving.is_empty() {
            return self.demands.residency.release(name);
        }
        entry.loaded_at = now_ms();
        let bytes = serving.values().flat_map(Serving::builds).map(|build| build.plan.memory_bytes()).sum();
        let file_bytes = entry.file_bytes();
        self.demands.residency.settle(name, bytes, file_bytes);
        let bytes_max = self.config.demand_bytes_max.0;
        if bytes > bytes_max && !self.is_pinned(name) {
            return self.evict(name);
        }
        self.keep_to_limit(Some(name));
    }

    /// Drops what is too much, `but` one.
    pub(super) fn keep_to_limit(&mut self, but: Option<&ModelName>) {
        let mut others = self.candidates();
        others.retain(|(other, _)| Some(other) != but);
        if let Room::Instead(others) = self.demands.residency.room(0, self.config.demand_bytes_max.0, 0, others) {
            others.iter().for_each(|other| self.evict(other));
        }
    }

    /// Files of a model have changed, and lie still: what was loaded of them is the past. The next request loads what they are now.
    pub(super) fn files_are_others(&mut self, name: &ModelName) {
        self.demands.residency.forget(name);
        let is_pinned = self.is_pinned(name);
        let Some(entry) = self.models.get_mut(name) else { return };
        if is_pinned {
            self.load(name, Request { keep_unchanged: true, ..Request::default() });
        } else if entry.is_serving() {
            self.drop_model(name);
        } else if entry.rest() {
            self.publish();
        }
    }

    fn tell_residency(&self) {
        let loaded = self.models.values().filter(|entry| entry.is_serving()).count();
        self.loader.with.metrics.residency.tell(loaded, self.demands.residency.held(), self.config.demand_bytes_max.0);
    }
}
