//! The variants of a version: other builds of it, each in a folder `variants/<variant>/` of the version's.
//!
//! They come and go with their version, whose own build decides whether it is ready: one that is broken is told of, and
//! disturbs no other. Which of them answers is routing's matter.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::LoadError;
use super::fingerprint::Fingerprint;
use super::layout;
use super::loader::{Loader, Serving, Target, without_paths};
use super::profile::{Judged, Profile};
use super::settings::MODEL_FILES;
use super::survey::Survey;
use super::variant::{Attachments, Presence, Variant};
use super::workers::Seat;
use crate::engine::{self, ModelFile};
use crate::infer::VariantName;

/// The builds beside a version's own, by name.
pub(super) type Variants = BTreeMap<VariantName, Built>;

/// What became of a variant, and of which files.
#[derive(Clone, Debug)]
pub(super) struct Built {
    /// Also an older one, where the last load failed.
    pub(super) ready: Option<Arc<Variant>>,
    pub(super) reason: String,
    files: Fingerprint,
}

/// The variants of a version that has this file: their names, and their files where they have one.
fn find(own: &ModelFile) -> BTreeMap<VariantName, Option<ModelFile>> {
    let root = own.folder.join(FOLDER);
    let mut found = BTreeMap::new();
    for entry in layout::entries(&root).unwrap_or_default() {
        let folder = root.join(&entry);
        if !folder.is_dir() {
            continue;
        }
        match entry.parse() {
            Ok(name) => {
                let within = folder.canonicalize().ok().filter(|folder| folder.starts_with(&own.folder));
                let file = within.and_then(|folder| Some((layout::model_file(&folder, None)?, folder)));
                found.insert(name, file.map(|(file, folder)| ModelFile { folder, file }));
            }
            Err(error) => tracing::warn!(%error, "a variant is skipped"),
        }
    }
    found
}

/// The names of variants that stand beside a version's own file.
pub fn names(own: &ModelFile) -> Vec<String> {
    find(own).into_keys().map(|name| name.to_string()).collect()
}

/// The folders of a version's builds: its own, and those of variants by their names.
pub(super) fn folders(own: &ModelFile) -> Vec<(Option<VariantName>, PathBuf)> {
    let beside = |(name, file): (VariantName, Option<ModelFile>)| Some((Some(name), file?.folder));
    [(None, own.folder.clone())].into_iter().chain(find(own).into_iter().filter_map(beside)).collect()
}

/// A version's own build as it serves now and as it did before, for the load of its variants.
pub(super) struct Version<'a> {
    pub(super) own: &'a Arc<Variant>,
    pub(super) file: &'a ModelFile,
    pub(super) before: Option<&'a Serving>,
    pub(super) keep_unchanged: bool,
    pub(super) variants_max: usize,
}

/// Builds of this load by what their files hold: a copy of one is that build under one more name.
#[derive(Default)]
struct Known(Vec<(String, Arc<Variant>)>);

impl Known {
    fn find(&self, contents: Option<&str>) -> Option<&Arc<Variant>> {
        self.0.iter().find(|(of, _)| Some(of.as_str()) == contents).map(|(_, build)| build)
    }

    fn add(&mut self, contents: Option<String>, build: &Arc<Variant>) {
        self.0.extend(contents.map(|contents| (contents, Arc::clone(build))));
    }
}

impl Version<'_> {
    /// Whether variants whose files are as before stay as they are.
    fn keeps(&self, survey: &Survey) -> bool {
        self.keep_unchanged && self.before.is_some_and(|before| survey.has_same_settings(before))
    }
}

impl Loader {
    /// Loads what stands beside a version's own build, one after the other.
    pub(super) async fn load_variants(&self, seat: &Seat, survey: &Survey, version: &Version<'_>) -> Variants {
        let (own, mut all) = (version.own, Variants::new());
        let file = version.file.clone();
        let Ok(found) = seat.run(move || find(&file)).await else { return all };
        if found.is_empty() {
            return all;
        }
        let mut known = Known::default();
        known.add(contents(seat, version.file).await, own);
        for (at, (name, file)) in found.into_iter().enumerate() {
            let files = survey.variant(own.version, &name);
            let before = version.before.and_then(|before| before.variants.get(&name));
            if let Some(kept) = before.filter(|built| version.keeps(survey) && built.files == files) {
                all.insert(name, kept.clone());
                continue;
            }
            let made = match file {
                _ if at >= version.variants_max => {
                    Err(format!("repository.variants_max allows no more than {}", version.variants_max))
                }
                None => Err(format!("it has no {}", MODEL_FILES.join(" or "))),
                Some(file) => {
                    let target = Target {
                        model: &own.model,
                        version: own.version,
                        variant: Some(&name),
                        file: &file,
                        step: None,
                    };
                    let made = self.load_variant(seat, survey, &target, own, &mut known).await;
                    made.map_err(|error| without_paths(&error, &file.folder))
                }
            };
            let built = Built::of(made, before.and_then(|built| built.ready.clone()), files);
            if !built.reason.is_empty() {
                let (model, version, reason) = (&own.model, own.version, &built.reason);
                tracing::warn!(%model, %version, variant = %name, %reason, "variant failed to load");
            }
            all.insert(name, built);
        }
        let judged = Judged::most_rows(all.values().filter_map(|built| built.ready.as_ref()?.profile.judged));
        own.profile.learn_accuracy(judged.map(|judged| judged.original));
        own.tell_accuracy();
        all
    }

    async fn load_variant(
        &self,
        seat: &Seat,
        survey: &Survey,
        target: &Target<'_>,
        own: &Arc<Variant>,
        known: &mut Known,
    ) -> Result<Arc<Variant>, LoadError> {
        // What somebody vouches for is read and compared for every build.
        let contents = if survey.is_vouched() { None } else { contents(seat, target.file).await };
        let made = match known.find(contents.as_deref()) {
            Some(twin) => Ok(Arc::new(self.again(twin, survey, target))),
            None => self.load_build(seat, target, survey, Some(own)).await,
        };
        self.with.metrics.count_load(own.model.as_str(), made.is_ok());
        if let Ok(made) = &made {
            known.add(contents, made);
        }
        made
    }

    /// A build under one more name: with the same plan, and a queue of its own.
    fn again(&self, twin: &Variant, survey: &Survey, target: &Target<'_>) -> Variant {
        let version = target.version.to_string();
        let labels = [target.model.as_str(), &version, target.variant()];
        let metrics = self.with.metrics.model(target.model.as_str(), &version, target.variant());
        let account = self.with.meter.account(labels, &twin.statistics);
        let accuracy = survey.accuracy(target).or(twin.profile.accuracy());
        let profile = Profile::new(accuracy, twin.profile.judged, twin.profile.costs(|costs| costs.clone()));
        // Its plan's memory is counted where it was loaded.
        metrics.memory.set(0);
        let mut settings = twin.settings.clone();
        settings.model_file.clone_from(&target.file.file);
        let variant = Variant {
            model: twin.model.clone(),
            version: twin.version,
            name: target.variant.cloned(),
            plan: Arc::clone(&twin.plan),
            ensemble: None,
            signer: None,
            signature: twin.signature.clone(),
            settings,
            metrics,
            statistics: Arc::clone(&twin.statistics),
            profile: Arc::new(profile),
            account,
            attachments: Attachments::default(),
            presence: Presence::default(),
        };
        variant.tell_accuracy();
        variant
    }
}

impl Built {
    fn of(made: Result<Arc<Variant>, String>, before: Option<Arc<Variant>>, files: Fingerprint) -> Self {
        match made {
            Ok(made) => Self { ready: Some(made), reason: String::new(), files },
            Err(reason) if before.is_some() => {
                Self { ready: before, reason: format!("reload failed: {reason}"), files }
            }
            Err(reason) => Self { ready: None, reason, files },
        }
    }

    /// Made of files that have changed meanwhile: what served before goes on.
    pub(super) fn refuse_changed(&mut self, before: Option<Arc<Variant>>, now: &Fingerprint) {
        if self.files != *now {
            *self = Self::of(Err(LoadError::Changed.to_string()), before, self.files.clone());
        }
    }
}

/// What a native model file holds, if it is one.
async fn contents(seat: &Seat, file: &ModelFile) -> Option<String> {
    let file = file.clone();
    seat.run(move || engine::contents(&file)).await.ok().flatten()
}

/// Where they stand in a version's folder.
pub(super) const FOLDER: &str = "variants";
