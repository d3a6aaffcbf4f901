//! An immutable picture of the repository: every known model, its versions and their states.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::variant::Variant;
use crate::infer::{ModelName, VersionId};

/// What is known and loaded at one instant.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub models: HashMap<ModelName, Model>,
}

/// One model: its versions in ascending order.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub versions: BTreeMap<VersionId, Version>,
    /// Where the model's life stands while it has no version; `None` before it is first asked for.
    pub state: Option<State>,
    /// Why there is no version; empty when all is well.
    pub reason: String,
}

/// One version: what answers for it, if anything, and where its life stands.
#[derive(Clone, Debug)]
pub struct Version {
    /// Serves while it is here, also while a newer build of the same version loads or has failed to.
    pub ready: Option<Arc<Variant>>,
    pub state: State,
    /// Why the state is what it is: a failure's message; empty when all is well.
    pub reason: String,
}

/// The life of a version, as the repository index reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Loading,
    Ready,
    Unloading,
    Unavailable,
}

/// Why no version can answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    #[error("model {0:?} is not found")]
    UnknownModel(ModelName),
    #[error("model {0:?} version {1} is not found")]
    UnknownVersion(ModelName, VersionId),
    #[error("model {0:?} is not ready: {1}")]
    NotReady(ModelName, String),
}

/// A line of the repository index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    pub name: ModelName,
    pub version: Option<VersionId>,
    pub state: Option<State>,
    pub reason: String,
}

impl Catalog {
    /// The version that answers: the one asked for, or the highest that is ready.
    ///
    /// # Errors
    /// When the name or version is unknown, or nothing of it is ready.
    pub fn find(&self, name: &ModelName, version: Option<VersionId>) -> Result<&Arc<Variant>, LookupError> {
        let model = self.models.get(name).ok_or_else(|| LookupError::UnknownModel(name.clone()))?;
        let found = match version {
            Some(id) => Some(model.versions.get(&id).ok_or_else(|| LookupError::UnknownVersion(name.clone(), id))?),
            None => model.newest_ready().or_else(|| model.versions.values().next_back()),
        };
        let Some(found) = found else {
            return Err(LookupError::NotReady(name.clone(), model.explain()));
        };
        found.ready.as_ref().ok_or_else(|| LookupError::NotReady(name.clone(), found.explain()))
    }

    /// Every version that answers, by name and version.
    pub fn ready(&self) -> impl Iterator<Item = &Arc<Variant>> {
        self.models.values().flat_map(Model::ready)
    }

    /// One line per version, sorted; models without a version get one line.
    pub fn index(&self) -> Vec<IndexEntry> {
        let mut lines: Vec<IndexEntry> = self.models.iter().flat_map(|(name, model)| model.index(name)).collect();
        lines.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
        lines
    }
}

impl Model {
    pub fn ready(&self) -> impl Iterator<Item = &Arc<Variant>> {
        self.versions.values().filter_map(|version| version.ready.as_ref())
    }

    fn newest_ready(&self) -> Option<&Version> {
        self.versions.values().rev().find(|version| version.ready.is_some())
    }

    fn index(&self, name: &ModelName) -> Vec<IndexEntry> {
        if self.versions.is_empty() {
            let reason = self.reason.clone();
            return vec![IndexEntry { name: name.clone(), version: None, state: self.state, reason }];
        }
        let line = |(id, version): (&VersionId, &Version)| IndexEntry {
            name: name.clone(),
            version: Some(*id),
            state: Some(version.state),
            reason: version.reason.clone(),
        };
        self.versions.iter().map(line).collect()
    }
}

impl Model {
    fn explain(&self) -> String {
        match self.state {
            _ if !self.reason.is_empty() => self.reason.clone(),
            Some(state) => state.as_str().to_lowercase(),
            None => "it is not loaded".into(),
        }
    }
}

impl Version {
    fn explain(&self) -> String {
        if self.reason.is_empty() { self.state.as_str().to_lowercase() } else { self.reason.clone() }
    }
}

impl State {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "LOADING",
            Self::Ready => "READY",
            Self::Unloading => "UNLOADING",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}
