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
use super::ensemble::{Ensemble, Unlinked};
use super::error::LoadError;
use super::files::Source;
use super::fingerprint::{Fingerprint, Stamp};
use super::inline::LoadOverride;
use super::layout::Place;
use super::profile::{Judged, Profile};
use super::resolve::{self, Defaults, Resolved};
use super::samples::{self, Sample};
use super::survey::{self, Chosen, Survey};
use super::variant::Variant;
use super::variants::{FOLDER, Variants, Version};
use super::vouched::{Part, Rules, Seal};
use super::workers::{Seat, Workers};
use crate::engine::steps::{self, StepSettings};
use crate::engine::{Engine, LoadOptions, ModelFile, Pool};
use crate::infer::{ModelName, VariantName, VersionId};
use crate::integrity::Trust;
use crate::metering::{Costs, Meter, Statistics};
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
    /// Whose signatures over models count.
    pub trust: Arc<Trust>,
}

/// What a new configuration says of loads to come.
pub(super) struct Renewed {
    pub(super) batching: BatchingConfig,
    pub(super) options: LoadOptions,
    /// Whom to trust, where that can be read.
    pub(super) trust: Option<Arc<Trust>>,
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
    pub(super) ensemble_steps_max: usize,
    /// By which files are held against signatures.
    pub(super) rules: Rules,
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
    pub(super) files: Fingerprint,
    pub(super) settings: Fingerprint,
}

/// What a load has brought.
pub(super) enum Loaded {
    Builds(Outcome),
    /// Builds come when the models of all steps serve.
    Steps(Arc<Unlinked>),
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
    /// What stands in the place of a file; its folder counts then.
    pub(super) step: Option<&'a StepSettings>,
}

/// A build that has proved to run, and what is known of it.
pub(super) struct Whole {
    pub(super) resolved: Resolved,
    pub(super) profile: Profile,
    pub(super) statistics: Arc<Statistics>,
    pub(super) plans: PlanMetrics,
    pub(super) ensemble: Option<Arc<Ensemble>>,
    pub(super) signer: Option<Arc<str>>,
    pub(super) took: Duration,
}

/// A build that has not run yet.
struct Prepared {
    resolved: Resolved,
    signer: Option<Arc<str>>,
    samples: Vec<Sample>,
    /// By the report beside the model.
    judged: Option<Judged>,
}

/// A build that can serve.
struct Proved {
    resolved: Resolved,
    signer: Option<Arc<str>>,
    judged: Option<Judged>,
    costs: Costs,
}

impl Loading {
    pub(super) fn rules(&self) -> Rules {
        let metrics = self.metrics.verifications.clone();
        Rules { trust: Arc::clone(&self.trust), metrics, bytes_max: self.options.model_bytes_max }
    }
}

impl Loader {
    /// # Errors
    /// When nothing can be said about any version: the model is not found, or its settings are wrong.
    pub(super) async fn load(&self, job: Job) -> Result<Loaded, LoadError> {
        let seat = self.workers.seat().await;
        let bytes_max = self.with.options.model_bytes_max;
        let (name, variants_max, keep_unchanged) = (job.name.clone(), job.variants_max, job.keep_unchanged);
        let (serving, steps_max) = (job.serving.clone(), job.ensemble_steps_max);
        let survey = seat.run(move || Survey::take(&job, bytes_max)).await;
        let mut survey = survey.map_err(|_| LoadError::Panicked("reading the model's settings"))??;
        if !survey.declared.steps.is_empty() {
            return Ok(Loaded::Steps(Arc::new(self.load_steps(&seat, &name, survey, &serving, steps_max).await?)));
        }
        let mut versions = BTreeMap::new();
        for (id, chosen) in std::mem::take(&mut survey.chosen) {
            let before = serving.get(&id);
            let (own, file) = match chosen {
                Chosen::Keep(serving, file) => (Ok(serving.variant), file),
                Chosen::Fail(error) => {
                    versions.insert(id, Err(Failure { reason: error.to_string(), is_absent: true }));
                    continue;
                }
                Chosen::Load(file) => {
                    let target = Target { model: &name, version: id, variant: None, file: &file, step: None };
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
                    Ok(Serving::of(own, variants, survey.stamp.as_ref()))
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
        Ok(Loaded::Builds(Outcome { place, stamp, versions }))
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
            let (mut with, declared) = (self.with.clone(), survey.declared.clone());
            let (file, step) = (target.file.clone(), target.step.cloned());
            with.options.plans = plans.clone();
            let folder = survey.place.as_ref().and_then(Place::folder).map(Path::to_owned);
            let (vouched, version, variant) = (survey.vouched.clone(), target.version, target.beside().cloned());
            let prepare = move || {
                let part = Part { version: Some(version), variant: variant.as_ref(), folder: &file.folder };
                let seal = survey::seal(vouched.as_deref(), part)?;
                Prepared::new(with, (&file, step.as_ref()), declared, folder.as_deref(), seal)
            };
            seat.run(prepare).await.map_err(|_| LoadError::Panicked("reading the model"))??
        };
        let Proved { resolved, signer, judged, costs } = self.warm_up(prepared).await?;
        let profile = Profile::new(survey.accuracy(target), judged, costs);
        let statistics = before.map(|before| Arc::clone(&before.statistics)).unwrap_or_default();
        let whole = Whole { resolved, profile, statistics, plans, ensemble: None, signer, took: started.elapsed() };
        Ok(self.finish(target.model, target.version, target.variant, whole))
    }

    /// Gives a build what it needs to serve. Only now: a name that never serves must leave no series.
    pub(super) fn finish(
        &self,
        model: &ModelName,
        version: VersionId,
        name: Option<&VariantName>,
        whole: Whole,
    ) -> Arc<Variant> {
        let Whole { resolved, profile, statistics, plans, ensemble, signer, took } = whole;
        for note in &resolved.notes {
            tracing::warn!(%model, %version, "{note}");
        }
        let shown = version.to_string();
        let labels = [model.as_str(), &shown, name.map_or("", VariantName::as_str)];
        let metrics = self.with.metrics.model(labels[0], labels[1], labels[2]);
        self.with.metrics.export_plans(&plans, labels);
        let account = self.with.meter.account(labels, &statistics);
        metrics.load_duration.set(took.as_secs_f64());
        metrics.memory.set(i64::try_from(resolved.plan.memory_bytes()).unwrap_or(i64::MAX));
        let variant = Variant {
            model: model.clone(),
            version,
            name: name.cloned(),
            plan: Arc::from(resolved.plan),
            ensemble,
            signer,
            signature: resolved.signature,
            settings: resolved.settings,
            metrics,
            statistics,
            profile: Arc::new(profile),
            account,
            attachments: super::variant::Attachments::default(),
            presence: super::variant::Presence::default(),
        };
        variant.tell_accuracy();
        tell(&variant, took, self.is_routine);
        Arc::new(variant)
    }

    /// Runs the build's samples on the compute pool, as requests will.
    async fn warm_up(&self, prepared: Prepared) -> Result<Proved, LoadError> {
        let (send, receive) = oneshot::channel();
        let limit = prepared.resolved.settings.cores_max;
        let core = self.with.pool.acquire().await;
        self.with.pool.spawn(core, limit, move |cores| {
            let Prepared { resolved, signer, samples, judged } = prepared;
            let rows = if resolved.merges() { resolved.settings.batching.batch_size_max } else { 1 };
            let outcome = samples::run(resolved.plan.as_ref(), &samples, rows, &cores);
            drop(cores);
            let proved = outcome.map(|last| {
                let mut costs = Costs::measured(rows, |rows| resolved.plan.time_of(rows));
                if let Some((rows, time)) = last.filter(|_| costs.points().next().is_none()) {
                    costs.learn(rows, time, time);
                }
                Proved { resolved, signer, judged, costs }
            });
            // The caller may have stopped waiting.
            let _ = send.send(proved);
        });
        receive.await.map_err(|_| LoadError::Panicked("warming up the model"))?
    }
}

impl Target<'_> {
    /// The variant that it is, unless it is a step of an ensemble, whose files lie in the version's folder itself.
    fn beside(&self) -> Option<&VariantName> {
        let folder = self.file.folder.parent().and_then(Path::file_name);
        self.variant.filter(|_| self.step.is_none() && folder.is_some_and(|folder| folder == FOLDER))
    }

    /// The variant's name as a label.
    pub(super) fn variant(&self) -> &str {
        self.variant.map_or("", VariantName::as_str)
    }
}

impl Serving {
    /// A build with the state of the files it was made of.
    pub(super) fn of(variant: Arc<Variant>, variants: Variants, stamp: Option<&Stamp>) -> Self {
        let files = stamp.map(|stamp| stamp.version(variant.version).clone()).unwrap_or_default();
        let settings = stamp.map(|stamp| stamp.settings().clone()).unwrap_or_default();
        Self { variant, variants, files, settings }
    }

    /// Variants that answer and take what the version's own build takes.
    pub(super) fn alike(&self) -> Vec<Arc<Variant>> {
        let ready = self.variants.values().filter_map(|built| built.ready.as_ref());
        ready.filter(|build| build.signature == self.variant.signature).cloned().collect()
    }

    /// All builds, the version's own first, those of an ensemble's own steps last.
    pub(super) fn builds(&self) -> impl Iterator<Item = &Arc<Variant>> {
        let variants = self.variants.values().filter_map(|built| built.ready.as_ref());
        [&self.variant].into_iter().chain(variants).chain(self.variant.own_steps())
    }
}

impl Prepared {
    fn new(
        with: Loading,
        (file, step): (&ModelFile, Option<&StepSettings>),
        declared: Declared,
        folder: Option<&Path>,
        seal: Seal,
    ) -> Result<Self, LoadError> {
        let Seal { sealed, signer } = seal;
        let source = |folder: &Path| Source::of(folder, sealed.clone());
        let (folder, beside) = (folder.map(source), source(&file.folder));
        let rows = declared.batch_size_max().unwrap_or(with.batching.batch_size_max);
        let (engine, precision) = (declared.engine.unwrap_or_default(), declared.precision.unwrap_or_default());
        // A folder that was signed stays as it is.
        let keep_choices = sealed.as_ref().is_none_or(|sealed| !sealed.is_closed());
        let options = LoadOptions { batch_size_max: rows, engine, precision, keep_choices, sealed, ..with.options };
        let plan = match step {
            None => with.engine.load(file, &options)?,
            Some(settings) => steps::plan(settings, &file.folder, &options)?,
        };
        let defaults = Defaults { batching: &with.batching, cores: with.pool.size() };
        let mut resolved = resolve::resolve(declared, plan, folder.as_ref(), defaults)?;
        resolved.settings.model_file.clone_from(&file.file);
        samples::ship(&mut resolved, folder.as_ref());
        let judged = Judged::read(&beside).unwrap_or_else(|error| {
            resolved.notes.push(error.to_string());
            None
        });
        let samples = samples::prepare(&resolved, folder.as_ref(), &options)?;
        Ok(Self { resolved, signer, samples, judged })
    }
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
