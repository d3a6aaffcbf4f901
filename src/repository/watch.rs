//! The part of the actor that follows the disk: when to look, and what a look changes.
//!
//! A look itself is `scan`'s; loading and unloading are `lifecycle`'s.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::config::Control;
use super::entry::{Entry, Request, Seen};
use super::error::RepositoryError;
use super::lifecycle::{Actor, Event};
use super::scan::{Scan, scan};
use crate::infer::ModelName;

impl Actor {
    pub(super) fn begin_scan(&mut self) {
        if self.scanning.running.is_some() {
            return;
        }
        self.scanning.running = Some(std::mem::take(&mut self.scanning.asked));
        let (scanner, paths, name) = (self.scanner.clone(), self.config.paths.clone(), self.config.model_name.clone());
        self.tasks.spawn(async move {
            let looked = scanner.seat().await.run(move || scan(&paths, &name)).await;
            Event::Scanned(looked.unwrap_or(Err(RepositoryError::Stopped)))
        });
    }

    pub(super) fn scanned(&mut self, result: Result<Scan, RepositoryError>) {
        let replies = self.scanning.running.take().unwrap_or_default();
        let answered = result.map(|scan| match self.config.control {
            Control::Explicit => self.names_changed(scan),
            Control::None | Control::Poll | Control::Demand => self.files_changed(scan, false),
        });
        if let Err(error) = &answered {
            self.tell_unreadable(error);
        }
        self.schedule_poll();
        self.answer(replies, &answered);
        if !self.scanning.asked.is_empty() {
            self.begin_scan();
        }
    }

    /// Brings the list of known models up to date without touching what serves.
    pub(super) fn names_changed(&mut self, scan: Scan) {
        self.tell(scan.found.skipped);
        for (name, entry) in &mut self.models {
            entry.place = scan.found.models.get(name).cloned();
        }
        let is_held = |entry: &Entry| entry.place.is_some() || entry.is_wanted() || entry.is_leaving();
        let gone: Vec<ModelName> =
            self.models.extract_if(.., |_, entry| !is_held(entry)).map(|(name, _)| name).collect();
        for name in &gone {
            self.loader.with.metrics.forget_model(name.as_str());
        }
        let mut changed = !gone.is_empty();
        for (name, place) in scan.found.models {
            changed |= !self.models.contains_key(&name);
            self.models.entry(name).or_default().place = Some(place);
        }
        if changed {
            self.publish();
        }
    }

    /// Loads what is new or has changed, once it has settled (`at_once`: without waiting for that), and unloads what is
    /// gone.
    pub(super) fn files_changed(&mut self, mut scan: Scan, at_once: bool) {
        let mut wrong = std::mem::take(&mut scan.found.skipped);
        let is_gone = |(name, entry): &(&ModelName, &Entry)| {
            !scan.found.models.contains_key(*name) && (entry.place.is_some() || entry.is_wanted())
        };
        let gone: Vec<ModelName> = self.models.iter().filter(is_gone).map(|(name, _)| name.clone()).collect();
        let mut changed = false;
        for name in gone {
            self.models.entry(name.clone()).and_modify(|entry| entry.place = None);
            self.drop_model(&name);
        }
        let settle = if at_once { Duration::ZERO } else { self.config.settle_time.0 };
        let now = Instant::now();
        let mut whole = Vec::new();
        for (name, place) in scan.found.models {
            let Some(stamp) = scan.stamps.remove(&name) else {
                self.start.pending.remove(&name);
                wrong.insert(format!("the files of model {:?} cannot be looked at", name.as_str()));
                continue;
            };
            let entry = self.models.entry(name.clone()).or_default();
            match entry.see(place, stamp, now, settle) {
                Seen::Same => {}
                Seen::Whole => whole.push(name),
                Seen::Unsettled { shown } => {
                    changed |= shown;
                    let again = now + settle.max(LOOK_INTERVAL_MIN);
                    self.scanning.next = Some(self.scanning.next.map_or(again, |next| next.min(again)));
                    if now >= self.start.patience {
                        self.start.pending.remove(&name);
                    }
                }
            }
        }
        self.tell(wrong);
        if changed {
            self.publish();
        }
        for name in whole {
            match self.config.control {
                Control::Demand => self.files_are_others(&name),
                _ => {
                    let keep_unchanged = self.models.get(&name).is_none_or(Entry::keeps_unchanged);
                    self.load(&name, Request { keep_unchanged, ..Request::default() });
                }
            }
        }
        self.tell_all_ensembles();
        self.start.check();
    }

    pub(super) fn schedule_poll(&mut self) {
        if self.config.control != Control::None {
            let regular = Instant::now() + self.config.poll_interval.0.max(LOOK_INTERVAL_MIN);
            self.scanning.next = Some(self.scanning.next.map_or(regular, |next| next.min(regular)));
        }
    }

    /// Says what a look has found wrong, unless the one before has found it too.
    fn tell(&mut self, wrong: BTreeSet<String>) {
        for reason in wrong.difference(&self.scanning.told) {
            tracing::warn!(%reason, "skipped in the repository");
        }
        self.scanning.told = wrong;
    }

    /// What the last whole look has found is still told of.
    fn tell_unreadable(&mut self, error: &RepositoryError) {
        if self.scanning.told.insert(error.to_string()) {
            tracing::warn!(%error, "the repository cannot be read");
        }
    }
}

/// Between two looks at the disk at least, whatever the configuration says.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(10);
