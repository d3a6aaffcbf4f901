//! One load of one model, from its files to builds that are ready to serve. Nothing here changes what serves.
//!
//! Reading and preparing run on the loader's own threads, warm-up on the compute pool. Which versions to keep, swap and
//! drop afterwards is `lifecycle`'s matter.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::batching_defaults::BatchingConfig;
use super::declared::Declared;
use super::error::LoadError;
use super::files::{self, TEXT_BYTES_MAX};
use super::fingerprint::{Fingerprint, Stamp};
use super::inline::{InlineFolder, LoadOverride};
use super::layout::{self, CONFIG, MANIFEST, Place, Versions};
use super::profile::{Judged, Profile};
use super::resolve::{self, Defaults, Resolved};
use super::samples::{self, Sample};
use super::settings::MODEL_FILES;
use super::variant::Variant;
use super::variants::{Variants, Version};
use super::workers::{Seat, Workers};
use super::{manifest, triton};
use crate::engine::{Engine, LoadOptions, ModelFile, Pool};
use crate::infer::{ModelName, VariantName, VersionId};
use crate::metering::{Costs, Meter};
use crate::telemetry::{Metrics, PlanMetrics};

/// What loads need of the rest of the server.
#[derive(Clone, Debug)]
pub struct Loading {
    pub engine: Arc<dyn Engine>,
    /// `batch_size_max`, `engine`, `precision` and `plans` are set anew for every model.
    pub options: LoadOptions,
    /// The defaults of models that say nothing of their own.
    pub batching: BatchingConfig,
    pub pool: Pool,
    pub metrics: Arc<Metrics>,
    pub meter: Meter,
}

#[derive(Debug)]
pub(super) struct Loader {
    pub(super) with: Loading,
    pub(super) workers: Workers,
    /// Whether loads come with requests, so that the log has no line for each.
    pub(super) is_routine: bool,
}

/// What to load, and what serves already.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) name: ModelName,
    pub(super) from: Origin,
    pub(super) over: LoadOverride,
    pub(super) serving: BTreeMap<VersionId, Serving>,
    /// Whether versions whose files have not changed are kept as they are.
    pub(super) keep_unchanged: bool,
    /// The folder for folders of files that came with the request.
    pub(super) temporary: PathBuf,
    /// Variants of one version that are loaded.
    pub(super) variants_max: usize,
}

/// Where the files are to be found.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    Known(Place),
    /// Somewhere at these paths; the second part is the name of a path that is one model.
    Search(Vec<PathBuf>, String),
}

/// A version that answers, and the files it was loaded from.
#[derive(Clone, Debug)]
pub(super) struct Serving {
    pub(super) variant: Arc<Variant>,
    pub(super) variants: Variants,
    files: Fingerprint,
    settings: Fingerprint,
}

/// What became of a load.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) place: Option<Place>,
    /// The files as they were when the load began; `None` for files from a request.
    pub(super) stamp: Option<Stamp>,
    /// The versions chosen by the model's policy.
    pub(super) versions: BTreeMap<VersionId, Result<Serving, Failure>>,
}

/// Why a version does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) reason: String,
    /// There is nothing of this version to serve, now or before.
    pub(super) is_absent: bool,
}

/// A build to be made, and what of.
pub(super) struct Target<'a> {
    pub(super) model: &'a ModelName,
    pub(super) version: VersionId,
    pub(super) variant: Option<&'a VariantName>,
    pub(super) file: &'a ModelFile,
}

/// What the files of a model say, before any engine has seen them.
pub(super) struct Survey {
    place: Option<Place>,
    stamp: Option<Stamp>,
    declared: Declared,
    chosen: BTreeMap<VersionId, Step>,
    /// Kept until the load has ended, because the files lie there.
    inline: Option<InlineFolder>,
}

enum Step {
    Keep(Serving, ModelFile),
    Load(ModelFile),
    Fail(LoadError),
}

/// A build that has not run yet.
struct Prepared {
    resolved: Resolved,
    samples: Vec<Sample>,
    /// By the report beside the model.
    judged: Option<Judged>,
}

/// A build that can serve.
struct Proved {
    resolved: Resolved,
    judged: Option<Judged>,
    costs: Costs,
}

impl Loader {
    /// # Errors
    /// When nothing can be said about any version: the model is not found, or its settings are wrong.
    pub(super) async fn load(&self, job: Job) -> Result<Outcome, LoadError> {
        let seat = self.workers.seat().await;
        let bytes_max = self.with.options.model_bytes_max;
        let (name, variants_max, keep_unchanged) = (job.name.clone(), job.variants_max, job.keep_unchanged);
        let serving = job.serving.clone();
        let survey = seat.run(move || Survey::take(&job, bytes_max)).await;
        let mut survey = survey.map_err(|_| LoadError::Panicked("reading the model's settings"))??;
        let mut versions = BTreeMap::new();
        for (id, step) in std::mem::take(&mut survey.chosen) {
            let before = serving.get(&id);
            let (own, file) = match step {
                Step::Keep(serving, file) => (Ok(serving.variant), file),
                Step::Fail(error) => {
                    versions.insert(id, Err(Failure { reason: error.to_string(), is_absent: true }));
                    continue;
                }
                Step::Load(file) => {
                    let target = Target { model: &name, version: id, variant: None, file: &file };
                    let own = self.load_build(&seat, &target, &survey, before.map(|before| &before.variant)).await;
                    self.with.metrics.count_load(name.as_str(), own.is_ok());
                    (own, file)
                }
            };
            let result = match own {
                Ok(own) => {
                    let version = Version { own: &own, file: &file, before, keep_unchanged, variants_max };
                    let variants = if survey.has_variants() {
                        self.load_variants(&seat, &survey, &version).await
                    } else {
                        Variants::new()
                    };
                    Ok(survey.serving(own, variants))
                }
                Err(error) => Err(Failure { reason: without_paths(&error, &file.folder), is_absent: false }),
            };
            versions.insert(id, result);
        }
        survey.refuse_changed(&seat, &serving, &mut versions).await;
        let Survey { place, stamp, inline, .. } = survey;
        if let Some(inline) = inline {
            // Removing files blocks, as writing them does; what cannot be removed is told in the log.
            let _ = seat.run(move || drop(inline)).await;
        }
        Ok(Outcome { place, stamp, versions })
    }

    /// Counts go on from `before`: over a reload, so that differences of two samples stay true, and for a version with all
    /// its variants.
    pub(super) async fn load_build(
        &self,
        seat: &Seat,
        target: &Target<'_>,
        survey: &Survey,
        before: Option<&Arc<Variant>>,
    ) -> Result<Arc<Variant>, LoadError> {
        let started = Instant::now();
        let plans = PlanMetrics::default();
        let prepared = {
            let (mut with, file, declared) = (self.with.clone(), target.file.clone(), survey.declared.clone());
            with.options.plans = plans.clone();
            let folder = survey.place.as_ref().and_then(Place::folder).map(Path::to_owned);
            let prepare = move || Prepared::new(&with, &file, declared, folder.as_deref());
            seat.run(prepare).await.map_err(|_| LoadError::Panicked("reading the model"))??
        };
        let Proved { resolved, judged, costs } = self.warm_up(prepared).await?;
        for note in &resolved.notes {
            tracing::warn!(model = %target.model, version = %target.version, "{note}");
        }
        // Only now: a name that never serves must leave no series.
        let (version, variant) = (target.version.to_string(), target.variant());
        let labels = [target.model.as_str(), &version, variant];
        let metrics = self.with.metrics.model(target.model.as_str(), &version, variant);
        self.with.metrics.export_plans(&plans, labels);
        let statistics = before.map(|before| Arc::clone(&before.statistics)).unwrap_or_default();
        let account = self.with.meter.account(labels, &statistics);
        let took = started.elapsed();
        metrics.load_duration.set(took.as_secs_f64());
        metrics.memory.set(i64::try_from(resolved.plan.memory_bytes()).unwrap_or(i64::MAX));
        let variant = Variant {
            model: target.model.clone(),
            version: target.version,
            name: target.variant.cloned(),
            plan: Arc::from(resolved.plan),
            signature: resolved.signature,
            settings: resolved.settings,
            metrics,
            statistics,
            profile: Arc::new(Profile::new(survey.accuracy(target), judged, costs)),
            account,
            attachments: super::variant::Attachments::default(),
            presence: super::variant::Presence::default(),
        };
        variant.tell_accuracy();
        tell(&variant, took, self.is_routine);
        Ok(Arc::new(variant))
    }

    /// Runs the build's samples on the compute pool, as requests will.
    async fn warm_up(&self, prepared: Prepared) -> Result<Proved, LoadError> {
        let (send, receive) = oneshot::channel();
        let limit = prepared.resolved.settings.cores_max;
        let core = self.with.pool.acquire().await;
        self.with.pool.spawn(core, limit, move |cores| {
            let Prepared { resolved, samples, judged } = prepared;
            let rows = if resolved.merges() { resolved.settings.batching.batch_size_max } else { 1 };
            let outcome = samples::run(resolved.plan.as_ref(), &samples, rows, &cores);
            drop(cores);
            let proved = outcome.map(|last| {
                let mut costs = Costs::measured(rows, |rows| resolved.plan.time_of(rows));
                if let Some((rows, time)) = last.filter(|_| costs.points().next().is_none()) {
                    costs.learn(rows, time, time);
                }
                Proved { resolved, judged, costs }
            });
            // The caller may have stopped waiting.
            let _ = send.send(proved);
        });
        receive.await.map_err(|_| LoadError::Panicked("warming up the model"))?
    }
}

impl Target<'_> {
    /// The variant's name as a label.
    pub(super) fn variant(&self) -> &str {
        self.variant.map_or("", VariantName::as_str)
    }
}

impl Serving {
    /// All builds, the version's own first.
    pub(super) fn builds(&self) -> impl Iterator<Item = &Arc<Variant>> {
        [&self.variant].into_iter().chain(self.variants.values().filter_map(|built| built.ready.as_ref()))
    }
}

impl Survey {
    fn take(job: &Job, bytes_max: u64) -> Result<Self, LoadError> {
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
        let declared = declared(&job.name, place.as_ref(), &job.over)?;
        let named = declared.model_file.as_deref();
        let versions = match (&inline, &place) {
            (Some(inline), _) => inline.versions(named),
            (None, Some(place)) => place.versions(named).map_err(unreadable)?,
            (None, None) => Versions::default(),
        };
        let chosen = choose(job, &declared, versions, stamp.as_ref())?;
        Ok(Self { place, stamp, declared, chosen, inline })
    }

    /// A build with the state of the files it was made of.
    fn serving(&self, variant: Arc<Variant>, variants: Variants) -> Serving {
        let files = self.stamp.as_ref().map(|stamp| stamp.version(variant.version).clone()).unwrap_or_default();
        let settings = self.stamp.as_ref().map(|stamp| stamp.settings().clone()).unwrap_or_default();
        Serving { variant, variants, files, settings }
    }

    /// Whether variants may stand beside the files: not beside a file that came alone, or with a request.
    fn has_variants(&self) -> bool {
        self.inline.is_none() && self.place.as_ref().is_some_and(|place| place.folder().is_some())
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

    /// Replaces builds whose files have changed meanwhile by a failure: they may be made of two states.
    async fn refuse_changed(
        &self,
        seat: &Seat,
        before: &BTreeMap<VersionId, Serving>,
        versions: &mut BTreeMap<VersionId, Result<Serving, Failure>>,
    ) {
        let (Some(place), Some(stamp)) = (&self.place, &self.stamp) else { return };
        let place = place.clone();
        let now = seat.run(move || Stamp::take(&place)).await.ok().and_then(Result::ok).unwrap_or_default();
        for (id, result) in versions {
            let same = now.version(*id).is_own_of(stamp.version(*id)) && now.settings().is_own_of(stamp.settings());
            match result {
                Ok(_) if !same => {
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

impl Prepared {
    fn new(with: &Loading, file: &ModelFile, declared: Declared, folder: Option<&Path>) -> Result<Self, LoadError> {
        let rows = declared.batch_size_max().unwrap_or(with.batching.batch_size_max);
        let (engine, precision) = (declared.engine.unwrap_or_default(), declared.precision.unwrap_or_default());
        let options =
            LoadOptions { batch_size_max: rows, engine, precision, keep_choices: true, ..with.options.clone() };
        let plan = with.engine.load(file, &options)?;
        let defaults = Defaults { batching: &with.batching, cores: with.pool.size() };
        let mut resolved = resolve::resolve(declared, plan, folder, defaults)?;
        resolved.settings.model_file.clone_from(&file.file);
        match samples::shipped(folder) {
            Ok(request) => resolved.settings.sample_request = request,
            // What people try does not decide whether a model serves.
            Err(error) => resolved.notes.push(error.to_string()),
        }
        let judged = Judged::read(&file.folder).unwrap_or_else(|error| {
            resolved.notes.push(error.to_string());
            None
        });
        let samples = samples::prepare(&resolved, folder, &options)?;
        Ok(Self { resolved, samples, judged })
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
pub(super) fn declared(name: &ModelName, place: Option<&Place>, over: &LoadOverride) -> Result<Declared, LoadError> {
    let text = |file| match place.and_then(Place::folder) {
        Some(folder) => files::read_text(folder, file, TEXT_BYTES_MAX),
        None => Ok(None),
    };
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
) -> Result<BTreeMap<VersionId, Step>, LoadError> {
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
            (Some(serving), Some(file)) => Step::Keep(serving.clone(), file),
            (_, Some(file)) => Step::Load(file),
            (_, None) => Step::Fail(LoadError::NoModelFile { version: id, file: file.clone() }),
        }
    };
    let mut step = step;
    Ok(chosen.into_iter().map(|id| (id, step(id))).collect())
}

fn tell(variant: &Variant, took: Duration, is_routine: bool) {
    let shown = |specs: &[crate::engine::TensorSpec]| {
        let specs: Vec<_> =
            specs.iter().map(|spec| format!("{} {}{}", spec.name, spec.dtype, spec.shown_dims())).collect();
        specs.join(", ")
    };
    let (inputs, outputs) = (shown(&variant.signature.inputs), shown(&variant.signature.outputs));
    let (model, version, batch) = (&variant.model, variant.version, variant.batch_size_max());
    match &variant.name {
        _ if is_routine => tracing::debug!(%model, %version, ?took, "model is loaded"),
        None => tracing::info!(%model, %version, %inputs, %outputs, batch_size_max = batch, ?took, "model is loaded"),
        Some(name) => tracing::info!(%model, %version, variant = %name, ?took, "variant is loaded"),
    }
}

/// An error's text with files named relative to the folder they are in.
pub(super) fn without_paths(error: &LoadError, folder: &Path) -> String {
    let folder = folder.display().to_string();
    error.to_string().replace(&format!("{folder}/"), "").replace(&folder, "the model's folder")
}
