//! What the files of a model say before any engine has seen them: its versions, its settings, and what to do for each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::declared::Declared;
use super::error::{IntegrityError, LoadError};
use super::files::{Source, TEXT_BYTES_MAX};
use super::fingerprint::{Fingerprint, Stamp};
use super::inline::{InlineFolder, LoadOverride};
use super::layout::{self, CONFIG, MANIFEST, Place, Versions};
use super::loader::{Failure, Job, Origin, Serving, Target};
use super::settings::MODEL_FILES;
use super::vouched::{Part, Rules, Seal, Vouched};
use super::workers::Seat;
use super::{manifest, triton};
use crate::engine::ModelFile;
use crate::infer::{ModelName, VariantName, VersionId};
use crate::integrity::Policy;

/// The state of a model's files, and what of them is to be loaded.
pub(super) struct Survey {
    pub(super) place: Option<Place>,
    pub(super) stamp: Option<Stamp>,
    pub(super) declared: Declared,
    pub(super) chosen: BTreeMap<VersionId, Chosen>,
    /// The folders of an ensemble's versions.
    pub(super) folders: BTreeMap<VersionId, PathBuf>,
    /// Nothing where files came with the request.
    pub(super) vouched: Option<Arc<Vouched>>,
    /// Kept until the load has ended, because the files lie there.
    pub(super) inline: Option<InlineFolder>,
}

/// What to do for a version that the policy has chosen.
pub(super) enum Chosen {
    Keep(Serving, ModelFile),
    Load(ModelFile),
    Fail(LoadError),
}

impl Survey {
    pub(super) fn take(job: &Job, bytes_max: u64) -> Result<Self, LoadError> {
        let place = match &job.from {
            Origin::Known(place) => Some(place.clone()),
            Origin::Search(paths, name) => find(paths, name, &job.name)?,
        };
        let unreadable = |error: std::io::Error| LoadError::File {
            file: "the model's folder".into(),
            reason: error.kind().to_string(),
        };
        job.over.check(bytes_max)?;
        let inline = match job.over.files.is_empty() {
            true => None,
            false => Some(InlineFolder::write(&job.temporary, &job.over.files)?),
        };
        if place.is_none() && inline.is_none() {
            return Err(LoadError::NotFound);
        }
        let stamp = place.as_ref().filter(|_| inline.is_none()).map(Stamp::take).transpose().map_err(unreadable)?;
        if inline.is_some() {
            refuse_unsigned(job)?;
        }
        let vouched = place.as_ref().map(|place| Vouched::of(place, &job.name, job.rules.clone()));
        let settings = vouched.as_ref().map(Vouched::settings).transpose()?.flatten();
        let declared = declared(&job.name, settings.as_ref(), &job.over)?;
        let vouched = vouched.filter(|_| inline.is_none()).map(|vouched| vouched.with_digests(&declared.digests));
        let vouched = vouched.map(Arc::new);
        if !declared.steps.is_empty() {
            let folder = place.as_ref().and_then(Place::folder).ok_or(LoadError::NoFolder)?;
            let all = layout::ensemble_versions(folder).map_err(unreadable)?;
            let policy = declared.version_policy.clone().unwrap_or_default();
            let chosen = policy.choose(&all.keys().copied().collect());
            if chosen.is_empty() {
                return Err(LoadError::NoVersion { file: String::new() });
            }
            let folders = all.into_iter().filter(|(id, _)| chosen.contains(id)).collect();
            return Ok(Self { place, stamp, declared, chosen: BTreeMap::new(), folders, vouched, inline });
        }
        let named = declared.model_file.as_deref();
        let versions = match (&inline, &place) {
            (Some(inline), _) => inline.versions(named),
            (None, Some(place)) => place.versions(named).map_err(unreadable)?,
            (None, None) => Versions::default(),
        };
        let chosen = choose(job, &declared, versions, stamp.as_ref())?;
        Ok(Self { place, stamp, declared, chosen, folders: BTreeMap::new(), vouched, inline })
    }

    /// The survey of files that say nothing of their own, by who vouches for them.
    pub(super) fn of_settings(declared: Declared, vouched: Option<Arc<Vouched>>) -> Self {
        let (chosen, folders) = (BTreeMap::new(), BTreeMap::new());
        Self { place: None, stamp: None, declared, chosen, folders, vouched, inline: None }
    }

    /// Whether variants may stand beside the files: not beside a file that came alone, or with a request.
    pub(super) fn has_variants(&self) -> bool {
        self.inline.is_none() && self.place.as_ref().is_some_and(|place| place.folder().is_some())
    }

    /// Whether files are compared before they are used.
    pub(super) fn is_vouched(&self) -> bool {
        self.vouched.as_ref().is_some_and(|vouched| vouched.compares())
    }

    /// What the settings say a build is worth.
    pub(super) fn accuracy(&self, target: &Target<'_>) -> Option<f64> {
        self.declared.accuracy.of(target.variant)
    }

    /// The files of a variant as they were when the load began.
    pub(super) fn variant(&self, version: VersionId, name: &VariantName) -> Fingerprint {
        self.stamp.as_ref().map(|stamp| stamp.version(version).variant(name)).unwrap_or_default()
    }

    /// Whether a version was loaded with the settings that the model has now.
    pub(super) fn has_same_settings(&self, serving: &Serving) -> bool {
        self.stamp.as_ref().is_some_and(|stamp| serving.settings.is_own_of(stamp.settings()))
    }

    /// How the files look now.
    pub(super) async fn now(&self, seat: &Seat) -> Option<Stamp> {
        let place = self.place.clone().filter(|_| self.stamp.is_some())?;
        Some(seat.run(move || Stamp::take(&place)).await.ok().and_then(Result::ok).unwrap_or_default())
    }

    pub(super) fn has_changed(&self, version: VersionId, now: &Stamp) -> bool {
        let is_same = |before: &Stamp| {
            now.version(version).is_own_of(before.version(version)) && now.settings().is_own_of(before.settings())
        };
        !self.stamp.as_ref().is_none_or(is_same)
    }

    /// Replaces builds whose files have changed meanwhile by a failure: they may be made of two states.
    pub(super) async fn refuse_changed(
        &self,
        seat: &Seat,
        before: &BTreeMap<VersionId, Serving>,
        versions: &mut BTreeMap<VersionId, Result<Serving, Failure>>,
    ) {
        let Some(now) = self.now(seat).await else { return };
        for (id, result) in versions {
            match result {
                Ok(_) if self.has_changed(*id, &now) => {
                    *result = Err(Failure { reason: LoadError::Changed.to_string(), is_absent: false });
                }
                Ok(serving) => {
                    for (name, built) in &mut serving.variants {
                        let before = before.get(id).and_then(|before| before.variants.get(name)?.ready.clone());
                        built.refuse_changed(before, &now.version(*id).variant(name));
                    }
                }
                Err(_) => {}
            }
        }
    }
}

/// What a build is to be made of, as far as somebody vouches for it. Reads all of its files.
///
/// # Errors
/// When nobody does whom the policy asks for.
pub(super) fn seal(vouched: Option<&Vouched>, part: Part<'_>) -> Result<Seal, LoadError> {
    Ok(vouched.map(|vouched| vouched.seal(part)).transpose()?.unwrap_or_default())
}

/// Nobody has signed what came with a request.
fn refuse_unsigned(job: &Job) -> Result<(), LoadError> {
    let Rules { trust, metrics, .. } = &job.rules;
    let error = IntegrityError::Inline;
    if trust.settings.policy != Policy::Off {
        metrics.ended(error.outcome());
    }
    match trust.settings.policy {
        Policy::Require => Err(error.into()),
        Policy::Warn => {
            tracing::warn!(model = %job.name, reason = %error, "model is served although nobody whom signatures trust vouches for it");
            Ok(())
        }
        Policy::Off => Ok(()),
    }
}

fn find(paths: &[PathBuf], one: &str, wanted: &ModelName) -> Result<Option<Place>, LoadError> {
    // The paths are the operator's: a client learns that they cannot be read, not what they are.
    let hidden = |error| {
        tracing::warn!(%error, "the repository cannot be searched");
        LoadError::File { file: "the repository".into(), reason: "it cannot be read".into() }
    };
    Ok(layout::find(paths, one).map_err(hidden)?.models.remove(wanted))
}

/// What the model's files say. A request's configuration takes the place of `config.pbtxt` and stands above the
/// manifest, which otherwise stands above `config.pbtxt`.
pub(super) fn declared(
    name: &ModelName,
    settings: Option<&Source>,
    over: &LoadOverride,
) -> Result<Declared, LoadError> {
    let text = |file| settings.map_or(Ok(None), |settings| settings.read_text(file, TEXT_BYTES_MAX));
    let manifest = text(MANIFEST)?.map(|text| manifest::read(&text)).transpose()?.unwrap_or_default();
    if let Some(json) = &over.config_json {
        return Ok(triton::read_json(name, json)?.over(manifest).settled());
    }
    let config = text(CONFIG)?.map(|text| triton::read_text(name, &text)).transpose()?.unwrap_or_default();
    Ok(manifest.over(config).settled())
}

/// The policy's versions, and what to do for each.
fn choose(
    job: &Job,
    declared: &Declared,
    mut versions: Versions,
    stamp: Option<&Stamp>,
) -> Result<BTreeMap<VersionId, Chosen>, LoadError> {
    let file = declared.model_file.clone().unwrap_or_else(|| MODEL_FILES.join(" or "));
    let on_disk = versions.files.keys().copied().collect();
    let policy = declared.version_policy.clone().unwrap_or_default();
    let chosen = policy.choose(&on_disk);
    if chosen.is_empty() {
        return Err(match versions.empty.last() {
            Some(&version) => LoadError::NoModelFile { version, file },
            None => LoadError::NoVersion { file },
        });
    }
    let step = |id: VersionId| {
        let unchanged = job.serving.get(&id).filter(|serving| {
            job.keep_unchanged
                && stamp.is_some_and(|now| {
                    serving.files.is_own_of(now.version(id)) && serving.settings.is_own_of(now.settings())
                })
        });
        match (unchanged, versions.files.remove(&id)) {
            (Some(serving), Some(file)) => Chosen::Keep(serving.clone(), file),
            (_, Some(file)) => Chosen::Load(file),
            (_, None) => Chosen::Fail(LoadError::NoModelFile { version: id, file: file.clone() }),
        }
    };
    let mut step = step;
    Ok(chosen.into_iter().map(|id| (id, step(id))).collect())
}
