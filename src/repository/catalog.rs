//! An immutable picture of the repository: every known model, its versions and their states.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::variant::Variant;
use crate::infer::{ModelName, VariantName, VersionId};

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
    /// Other builds of the version. It is ready when its own is, whatever has become of these.
    pub variants: BTreeMap<VariantName, Beside>,
}

/// A variant of a version: what answers for it, if anything, and what was wrong with the last load.
#[derive(Clone, Debug)]
pub struct Beside {
    pub ready: Option<Arc<Variant>>,
    /// Empty when all is well.
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
    #[error("model {model:?} has no version with the label {got:?}, expected {expected}")]
    UnknownLabel { model: ModelName, got: String, expected: String },
    #[error("model {0:?} is not ready: {1}")]
    NotReady(ModelName, String),
    #[error("model {model:?} version {version} has no variant {got:?}, expected {expected}")]
    UnknownVariant { model: ModelName, version: VersionId, got: VariantName, expected: String },
    #[error("model {model:?} version {version} variant {name:?} is not ready: {reason}")]
    VariantNotReady { model: ModelName, version: VersionId, name: VariantName, reason: String },
}

/// A line of the repository index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    pub name: ModelName,
    pub version: Option<VersionId>,
    pub state: Option<State>,
    pub reason: String,
    pub variants: Vec<VariantEntry>,
    /// Who vouches for what answers.
    pub signer: Option<Arc<str>>,
}

/// What the repository index says of a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariantEntry {
    pub name: VariantName,
    pub state: State,
    pub reason: String,
    pub signer: Option<Arc<str>>,
}

impl Catalog {
    /// The version that answers: the one asked for, or the highest that is ready.
    ///
    /// # Errors
    /// When the name or version is unknown, or nothing of it is ready.
    pub fn find(&self, name: &ModelName, version: Option<VersionId>) -> Result<&Arc<Variant>, LookupError> {
        self.find_version(name, version).map(|(own, _)| own)
    }

    /// As `find`, with all that is known of that version.
    ///
    /// # Errors
    /// As `find`.
    pub fn find_version(
        &self,
        name: &ModelName,
        version: Option<VersionId>,
    ) -> Result<(&Arc<Variant>, &Version), LookupError> {
        let model = self.models.get(name).ok_or_else(|| LookupError::UnknownModel(name.clone()))?;
        let found = match version {
            Some(id) => Some(model.versions.get(&id).ok_or_else(|| LookupError::UnknownVersion(name.clone(), id))?),
            None => model.newest_ready().or_else(|| model.versions.values().next_back()),
        };
        let Some(found) = found else {
            return Err(LookupError::NotReady(name.clone(), model.explain()));
        };
        let own = found.ready.as_ref().ok_or_else(|| LookupError::NotReady(name.clone(), found.explain()))?;
        Ok((own, found))
    }

    /// As `find`, or the build of that version which a variant's name asks for.
    ///
    /// # Errors
    /// As `find`, and when the version has no such variant or that is not ready.
    pub fn find_variant(
        &self,
        name: &ModelName,
        version: Option<VersionId>,
        variant: Option<&VariantName>,
    ) -> Result<&Arc<Variant>, LookupError> {
        let (own, all) = self.find_version(name, version)?;
        let Some(wanted) = variant else { return Ok(own) };
        let (model, version) = (name.clone(), own.version);
        match all.variants.get(wanted) {
            Some(Beside { ready: Some(build), .. }) => Ok(build),
            Some(Beside { reason, .. }) => {
                Err(LookupError::VariantNotReady { model, version, name: wanted.clone(), reason: reason.clone() })
            }
            None => {
                let names: Vec<String> = all.variants.keys().map(|name| format!("{name:?}")).collect();
                let expected = if names.is_empty() { "none".into() } else { names.join(" or ") };
                Err(LookupError::UnknownVariant { model, version, got: wanted.clone(), expected })
            }
        }
    }

    /// The version that a label stands for, by the settings of the newest version that answers.
    ///
    /// # Errors
    /// When the name or the label is unknown, or nothing of the model is ready.
    pub fn labelled(&self, name: &ModelName, label: &str) -> Result<VersionId, LookupError> {
        let labels = &self.find(name, None)?.settings.version_labels;
        labels.get(label).copied().ok_or_else(|| {
            let names: Vec<String> = labels.keys().map(|label| format!("{label:?}")).collect();
            let expected = if names.is_empty() { "none".into() } else { names.join(" or ") };
            let got = label.chars().take(LABEL_SHOWN_MAX).collect();
            LookupError::UnknownLabel { model: name.clone(), got, expected }
        })
    }

    /// The version that a build belongs to, while it is known.
    pub fn version_of(&self, build: &Variant) -> Option<&Version> {
        self.models.get(&build.model)?.versions.get(&build.version)
    }

    /// Every version that answers, by name and version.
    pub fn ready(&self) -> impl Iterator<Item = &Arc<Variant>> {
        self.models.values().flat_map(Model::ready)
    }

    /// Everything that answers.
    pub fn builds(&self) -> impl Iterator<Item = &Arc<Variant>> {
        self.models.values().flat_map(|model| model.versions.values()).flat_map(Version::builds)
    }

    /// One line per version, sorted; models without a version get one line.
    pub fn index(&self) -> Vec<IndexEntry> {
        let mut lines: Vec<IndexEntry> = self.models.iter().flat_map(|(name, model)| model.index(name)).collect();
        lines.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
        lines
    }
}

impl Model {
    pub fn is_ready(&self) -> bool {
        self.ready().next().is_some()
    }

    /// Whether nothing is known that would keep it from being loaded.
    pub fn is_loadable(&self) -> bool {
        let reasons = [&self.reason].into_iter().chain(self.versions.values().map(|version| &version.reason));
        reasons.into_iter().all(|reason| reason.is_empty() || reason == UNLOADED)
    }

    pub fn ready(&self) -> impl Iterator<Item = &Arc<Variant>> {
        self.versions.values().filter_map(|version| version.ready.as_ref())
    }

    fn newest_ready(&self) -> Option<&Version> {
        self.versions.values().rev().find(|version| version.ready.is_some())
    }

    fn index(&self, name: &ModelName) -> Vec<IndexEntry> {
        if self.versions.is_empty() {
            let reason = self.reason.clone();
            let name = name.clone();
            let (version, state, variants) = (None, self.state, Vec::new());
            return vec![IndexEntry { name, version, state, reason, variants, signer: None }];
        }
        let line = |(id, version): (&VersionId, &Version)| IndexEntry {
            name: name.clone(),
            version: Some(*id),
            state: Some(version.state),
            reason: version.reason.clone(),
            variants: version.variants.iter().map(|(name, beside)| beside.entry(name)).collect(),
            signer: version.ready.as_ref().and_then(|build| build.signer.clone()),
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

impl Beside {
    fn entry(&self, name: &VariantName) -> VariantEntry {
        let state = if self.ready.is_some() { State::Ready } else { State::Unavailable };
        let signer = self.ready.as_ref().and_then(|build| build.signer.clone());
        VariantEntry { name: name.clone(), state, reason: self.reason.clone(), signer }
    }
}

impl IndexEntry {
    /// The reason, who vouches for it, and the variants where a line has no other place for them.
    pub fn told(&self) -> String {
        let told = |entry: &VariantEntry| {
            let shown = format!("{} {}", entry.name, entry.state.as_str());
            if entry.reason.is_empty() { shown } else { format!("{shown} ({})", entry.reason) }
        };
        let variants: Vec<String> = self.variants.iter().map(told).collect();
        let variants = if variants.is_empty() { None } else { Some(format!("variants: {}", variants.join(", "))) };
        let signer = self.signer.as_ref().map(|signer| format!("signer: {signer}"));
        let reason = Some(self.reason.clone()).filter(|text| !text.is_empty());
        let parts: Vec<String> = reason.into_iter().chain(signer).chain(variants).collect();
        parts.join("; ")
    }
}

impl Version {
    /// Everything of it that answers, its own build first.
    pub fn builds(&self) -> impl Iterator<Item = &Arc<Variant>> {
        self.ready.iter().chain(self.variants.values().filter_map(|beside| beside.ready.as_ref()))
    }

    /// Variants that answer and take what the version's own build takes: only those can stand in for it.
    pub fn alike<'a>(&'a self, own: &'a Variant) -> impl Iterator<Item = &'a Arc<Variant>> {
        let ready = self.variants.values().filter_map(|beside| beside.ready.as_ref());
        ready.filter(|build| build.signature == own.signature)
    }

    /// Names of variants that answer.
    pub fn ready_variants(&self) -> impl Iterator<Item = &VariantName> {
        self.variants.iter().filter(|(_, beside)| beside.ready.is_some()).map(|(name, _)| name)
    }

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

/// The reason of what was there and was let go.
pub(super) const UNLOADED: &str = "unloaded";
/// An error repeats this much of a label that a client sent.
const LABEL_SHOWN_MAX: usize = 64;
