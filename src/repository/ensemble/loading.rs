//! From an ensemble's files to its builds: first its own steps, then, when the models of the others serve, the whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::Instant;

use super::chain::Chain;
use super::declared::{DeclaredStep, Runs};
use super::wiring::{self, Miswired, Wiring};
use super::{Ensemble, Step, Wire};
use crate::engine::{ModelFile, Signature};
use crate::infer::{ModelName, VariantName, VersionId};
use crate::metering::{Costs, Statistics};
use crate::repository::declared::{BatchAxis, Declared};
use crate::repository::entry::Name;
use crate::repository::error::LoadError;
use crate::repository::files::Source;
use crate::repository::fingerprint::Stamp;
use crate::repository::layout::Place;
use crate::repository::loader::{Failure, Loader, Outcome, Serving, Target, Whole, without_paths};
use crate::repository::profile::Profile;
use crate::repository::resolve::{self, Defaults};
use crate::repository::samples;
use crate::repository::survey::{self, Survey};
use crate::repository::variant::Variant;
use crate::repository::variants::Variants;
use crate::repository::vouched::{Part, Seal, Vouched};
use crate::repository::workers::Seat;
use crate::telemetry::PlanMetrics;

/// What an ensemble's files have brought: all that does not depend on other models.
#[derive(Debug)]
pub(in super::super) struct Unlinked {
    place: Option<Place>,
    pub(super) stamp: Option<Stamp>,
    vouched: Option<Arc<Vouched>>,
    pub(super) declared: Declared,
    pub(super) versions: BTreeMap<VersionId, Result<Parts, Failure>>,
}

/// One version of an ensemble.
#[derive(Debug)]
pub(super) struct Parts {
    folder: PathBuf,
    /// Builds of its own steps, by position.
    own: BTreeMap<usize, Arc<Variant>>,
    statistics: Arc<Statistics>,
}

/// The builds that serve of each model.
pub(super) type Models = BTreeMap<ModelName, BTreeMap<VersionId, Serving>>;

impl Unlinked {
    /// The other models that steps run; each once.
    pub(super) fn models(&self) -> impl Iterator<Item = &ModelName> {
        let models: BTreeSet<&ModelName> = self.declared.steps.iter().filter_map(DeclaredStep::model).collect();
        models.into_iter()
    }

    pub(super) fn needs(&self, model: &ModelName) -> bool {
        self.models().any(|needed| needed == model)
    }

    /// What is wrong with a model, as it is with the step that runs it.
    pub(super) fn because_of(&self, model: &ModelName, reason: &str) -> String {
        let step = self.declared.steps.iter().find(|step| step.model() == Some(model));
        let step = step.map(|step| step.name.clone()).unwrap_or_default();
        LoadError::Step { step, reason: reason.to_owned() }.to_string()
    }

    /// The end of a load for one reason alone.
    pub(super) fn failed(&self, reason: &str) -> Outcome {
        let failure = || Err(Failure { reason: reason.to_owned(), is_absent: false });
        let versions = self.versions.keys().map(|&id| (id, failure())).collect();
        Outcome { place: self.place.clone(), stamp: self.stamp.clone(), versions }
    }

    /// With what is known of other models alone.
    pub(in super::super) fn without_parts(&self) -> Self {
        let (place, stamp, declared) = (self.place.clone(), self.stamp.clone(), self.declared.clone());
        Self { place, stamp, vouched: self.vouched.clone(), declared, versions: BTreeMap::new() }
    }

    /// What its own builds hold.
    pub(super) fn memory_bytes(&self) -> u64 {
        let own = self.versions.values().flatten().flat_map(|parts| parts.own.values());
        own.map(|build| build.plan.memory_bytes()).sum()
    }

    /// The names of its own builds.
    pub(in super::super) fn names(&self) -> impl Iterator<Item = Name> {
        let own = self.versions.iter().filter_map(|(id, parts)| Some((id, parts.as_ref().ok()?)));
        own.flat_map(|(id, parts)| parts.own.values().map(|build| (*id, build.name.clone())))
    }
}

impl Loader {
    /// Loads the steps that are an ensemble's own.
    pub(in super::super) async fn load_steps(
        &self,
        seat: &Seat,
        name: &ModelName,
        mut survey: Survey,
        serving: &BTreeMap<VersionId, Serving>,
        steps_max: usize,
    ) -> Result<Unlinked, LoadError> {
        check_steps(survey.declared.steps.len(), steps_max)?;
        let mut versions = BTreeMap::new();
        for (id, folder) in std::mem::take(&mut survey.folders) {
            let before = serving.get(&id).map(|serving| &*serving.variant);
            let own = self.own_steps(seat, (name, id), &folder, &survey, before).await;
            let statistics = before.map(|before| Arc::clone(&before.statistics)).unwrap_or_default();
            let parts = own.map(|own| Parts { folder: folder.clone(), own, statistics });
            let failed = |error: LoadError| Failure { reason: without_paths(&error, &folder), is_absent: false };
            versions.insert(id, parts.map_err(failed));
        }
        if let Some(now) = survey.now(seat).await {
            for (id, parts) in &mut versions {
                if survey.has_changed(*id, &now) {
                    *parts = Err(Failure { reason: LoadError::Changed.to_string(), is_absent: false });
                }
            }
        }
        let Survey { place, stamp, vouched, declared, .. } = survey;
        Ok(Unlinked { place, stamp, vouched, declared, versions })
    }

    async fn own_steps(
        &self,
        seat: &Seat,
        (model, version): (&ModelName, VersionId),
        folder: &std::path::Path,
        whole: &Survey,
        before: Option<&Variant>,
    ) -> Result<BTreeMap<usize, Arc<Variant>>, LoadError> {
        let declared = &whole.declared;
        let survey = Survey::of_settings(of_steps(declared), whole.vouched.clone());
        let mut own = BTreeMap::new();
        for (at, step) in declared.steps.iter().enumerate() {
            let (file, said) = match &step.runs {
                Runs::Model { .. } => continue,
                Runs::File(file) => (file.clone(), None),
                Runs::Said(settings) => (String::new(), Some(settings)),
            };
            let wrong = |reason: String| LoadError::Step { step: step.name.clone(), reason };
            let name: VariantName = step.name.parse().map_err(|error| wrong(format!("{error}")))?;
            let file = ModelFile { folder: folder.to_owned(), file };
            let target = Target { model, version, variant: Some(&name), file: &file, step: said };
            let before = before.and_then(|before| before.own_steps().find(|step| step.name.as_ref() == Some(&name)));
            let made = self.load_build(seat, &target, &survey, before).await;
            own.insert(at, made.map_err(|error| wrong(error.to_string()))?);
        }
        Ok(own)
    }

    /// Makes an ensemble of its parts and of what serves of the models it needs.
    pub(super) async fn link(
        &self,
        name: &ModelName,
        unlinked: &Unlinked,
        models: &Models,
        steps_max: usize,
    ) -> Outcome {
        let seat = self.workers.seat().await;
        let mut versions = BTreeMap::new();
        for (&id, parts) in &unlinked.versions {
            let linked = match parts {
                Ok(parts) => {
                    let linked = self.link_version(&seat, (name, id), (unlinked, parts), models, steps_max).await;
                    linked.map_err(|error| Failure { reason: without_paths(&error, &parts.folder), is_absent: false })
                }
                Err(failure) => Err(failure.clone()),
            };
            self.with.metrics.count_load(name.as_str(), linked.is_ok());
            let stamp = unlinked.stamp.as_ref();
            versions.insert(id, linked.map(|variant| Serving::of(variant, Variants::new(), stamp)));
        }
        Outcome { place: unlinked.place.clone(), stamp: unlinked.stamp.clone(), versions }
    }

    async fn link_version(
        &self,
        seat: &Seat,
        (name, id): (&ModelName, VersionId),
        (unlinked, parts): (&Unlinked, &Parts),
        models: &Models,
        steps_max: usize,
    ) -> Result<Arc<Variant>, LoadError> {
        let started = Instant::now();
        let declared = unlinked.declared.clone();
        let (ensemble, signature) = ensemble(&declared, parts, models)?;
        check_steps(ensemble.steps_total(), steps_max)?;
        let ensemble = Arc::new(ensemble);
        let plan = Box::new(Chain::new(Arc::clone(&ensemble), signature));
        let (batching, cores) = (self.with.batching.clone(), self.with.pool.size());
        let folder = unlinked.place.as_ref().and_then(Place::folder).map(ToOwned::to_owned);
        let accuracy = declared.accuracy.own;
        let (vouched, lies) = (unlinked.vouched.clone(), parts.folder.clone());
        let resolve = move || {
            let part = Part { version: Some(id), variant: None, folder: &lies };
            let Seal { sealed, signer } = survey::seal(vouched.as_deref(), part)?;
            let folder = folder.map(|folder| Source::of(&folder, sealed));
            let defaults = Defaults { batching: &batching, cores };
            let mut resolved = resolve::resolve(declared, plan, folder.as_ref(), defaults)?;
            resolved.settings.model_file.clear();
            samples::ship(&mut resolved, folder.as_ref());
            Ok::<_, LoadError>((resolved, signer))
        };
        let (resolved, signer) =
            seat.run(resolve).await.map_err(|_| LoadError::Panicked("reading the model's settings"))??;
        let whole = Whole {
            resolved,
            profile: Profile::new(accuracy, None, Costs::default()),
            statistics: Arc::clone(&parts.statistics),
            plans: PlanMetrics::default(),
            ensemble: Some(ensemble),
            signer,
            took: started.elapsed(),
        };
        Ok(self.finish(name, id, None, whole))
    }
}

fn check_steps(got: usize, limit: usize) -> Result<(), LoadError> {
    if got <= limit { Ok(()) } else { Err(LoadError::TooManySteps { got, limit }) }
}

/// What an ensemble's files say of its own steps: all but what is said of the whole.
fn of_steps(declared: &Declared) -> Declared {
    Declared {
        engine: declared.engine,
        precision: declared.precision,
        batch: declared.batch_size_max().map(BatchAxis::AtMost),
        batching: declared.batching.clone(),
        instances_max: declared.instances_max,
        cores_max: declared.cores_max,
        ..Declared::default()
    }
}

fn ensemble(declared: &Declared, parts: &Parts, models: &Models) -> Result<(Ensemble, Signature), LoadError> {
    let builds: Vec<Runner<'_>> = declared
        .steps
        .iter()
        .enumerate()
        .map(|(at, step)| Runner::find(step, parts.own.get(&at), models))
        .collect::<Result<_, _>>()?;
    let faces: Vec<&Signature> = builds.iter().map(|runner| &runner.build.signature).collect();
    let names = |tensors: &[crate::repository::declared::DeclaredTensor]| {
        tensors.iter().map(|tensor| tensor.name.clone()).collect::<Vec<_>>()
    };
    let wiring = wiring::wire(&declared.steps, &faces, &names(&declared.inputs), &names(&declared.outputs))?;
    let Wiring { order, inputs, outputs, tensors, signature, results } = wiring;
    let mut readers = vec![0; tensors.len()];
    inputs.iter().flatten().chain(&results).for_each(|&tensor| readers[tensor] += 1);
    let step = |&at: &usize| {
        let (declared, runner) = (&declared.steps[at], &builds[at]);
        let wire = |(spec, tensor): (&crate::engine::TensorSpec, usize)| Wire { name: spec.name.clone(), tensor };
        let made = runner.build.signature.outputs.iter().zip(&outputs[at]);
        Step {
            name: declared.name.as_str().into(),
            build: Arc::clone(runner.build),
            alike: runner.alike.clone(),
            version: runner.version,
            is_own: declared.model().is_none(),
            inputs: runner.build.signature.inputs.iter().zip(inputs[at].iter().copied()).map(wire).collect(),
            outputs: made.filter_map(|(spec, tensor)| Some(wire((spec, (*tensor)?)))).collect(),
        }
    };
    let steps = order.iter().map(step).collect();
    Ok((Ensemble { steps, tensors, outputs: results, readers }, signature))
}

/// The builds that can run a step.
struct Runner<'a> {
    build: &'a Arc<Variant>,
    alike: Vec<Arc<Variant>>,
    version: Option<VersionId>,
}

impl<'a> Runner<'a> {
    fn find(step: &DeclaredStep, own: Option<&'a Arc<Variant>>, models: &'a Models) -> Result<Self, LoadError> {
        let wrong = |reason: &str| LoadError::Step { step: step.name.clone(), reason: reason.to_owned() };
        let Runs::Model { model, version } = &step.runs else {
            let build = own.ok_or_else(|| wrong("it is not loaded"))?;
            return Ok(Self { build, alike: Vec::new(), version: None });
        };
        let versions = models.get(model).ok_or_else(|| wrong("its model is not ready"))?;
        let serving = match version {
            None => versions.values().next_back(),
            Some(id) => versions.get(id),
        };
        let found = serving.ok_or_else(|| match version {
            None => wrong("its model is not ready"),
            Some(id) => wrong(&format!("model {model:?} has no version {id} that is ready")),
        })?;
        Ok(Self { build: &found.variant, alike: found.alike(), version: *version })
    }
}

impl From<Miswired> for LoadError {
    fn from(Miswired { step, problem }: Miswired) -> Self {
        match step {
            Some(step) => Self::Step { step, reason: problem },
            None => Self::Steps(problem),
        }
    }
}
