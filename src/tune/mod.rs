//! The settings of a model that take the fewest joules an inference while its answers stay within a time: a search over
//! builds, batch sizes, delays and cores (`space`), each tried under a load of random arrivals (`load`), the promising ones
//! for longer (`search`); what came of it as a table (`report`), a picture (`picture`) and a manifest (`manifest`).

mod load;
mod manifest;
mod picture;
mod report;
mod search;
mod space;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

pub use report::{Report, Row};

use self::load::Load;
use self::space::Setting;
use crate::admission::Admission;
use crate::batching::Batcher;
use crate::compress::{CompressError, Samples};
use crate::config::Config;
use crate::engine::{Automatic, Batch, Cores, EngineError, Pool, made_up};
use crate::integrity::{Trust, TrustError};
use crate::metering::{Meter, SourceError, Stopwatch};
use crate::repository::{Loading, Repository, RepositoryError, Variant};
use crate::routing::{Router, is_level};
use crate::telemetry::Metrics;
use crate::tensor::Tensor;

/// What to tune, and for what.
#[derive(Debug)]
pub struct Job {
    /// A model's folder, or its file.
    pub model: PathBuf,
    /// What 99 of 100 answers must keep to, from their arrival on.
    pub p99: Duration,
    /// Requests a second; by itself half of what the default build can do.
    pub rate: Option<f64>,
    /// Accuracy that may be given up beside the default build.
    pub loss_max: f64,
    /// For all trials together.
    pub time: Duration,
    /// Rows that requests are made of, one each.
    pub rows: Option<PathBuf>,
    /// Of free axes besides the rows, where there is no such file.
    pub extent: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Rows(#[from] CompressError),
    #[error("the model cannot run on made-up inputs; expected a file of rows (--data), or another extent")]
    MadeUp(#[source] EngineError),
    #[error("expected one model at {path}, found {got}")]
    NotOne { path: String, got: usize },
    #[error("the model is not ready: {0}")]
    NotReady(String),
    #[error("expected a model, got an ensemble: each of its models is tuned by itself")]
    Ensemble,
    #[error("no build runs one row within {p99:?}: the fastest takes {fastest:?}")]
    TooSlow { p99: Duration, fastest: Duration },
    #[error("cannot write {path}")]
    Unwritable { path: String, source: io::Error },
    #[error("cannot read {path}: {reason}")]
    Manifest { path: String, reason: String },
}

/// Tries settings until the time is over. `progress` is told how many trials are done, of how many, and which is next.
///
/// # Errors
/// When the model cannot be loaded, its inputs cannot be made up, or no build is fast enough.
pub async fn tune(
    job: &Job,
    config: &Config,
    progress: &mut (dyn FnMut(usize, usize, &str) + Send),
) -> Result<Report, TuneError> {
    let pool = Pool::start_spinning(Some(config.engine.cores()), config.engine.spin_time_max.0);
    let metrics = Arc::new(Metrics::new());
    let repository = repository(job, config, &pool, &metrics).await?;
    let builds = builds(job, &repository)?;
    let rows = rows(job, &builds[0])?;
    time_unknown(&builds, &rows[0], &pool)?;
    let settings = space::settings(&builds, job, pool.size())?;
    let rate = job.rate.unwrap_or_else(|| space::half_of_all(&builds[0], pool.size()));
    let mut watch = Stopwatch::open(&config.metering)?;
    let batcher = Batcher::new(pool.clone(), config.engine.inline_time_max.0);
    let load = Load {
        admission: Admission::new(config.admission.clone(), Arc::clone(&metrics)),
        router: Router::new(config.budgets.clone(), &metrics),
        batcher,
        rows,
        rate,
        runtime: Handle::current(),
    };
    let load = Arc::new(load);
    let all = search::trials(settings.len());
    let mut done = 0;
    let mut measure = async |setting: &Setting, time: Duration| {
        progress(done, all, &setting.told(&builds));
        done += 1;
        let trial = Arc::new(setting.apply(&builds[setting.build]));
        if let Some(watch) = &mut watch {
            watch.start();
        }
        let mut measured = load::run(&load, &trial, time, 2 * job.p99).await;
        measured.energy = watch.as_mut().and_then(|watch| watch.stop(measured.cpu));
        measured
    };
    let found = search::search(settings, job.p99, job.time, &mut measure).await;
    let report = Report::of(job, rate, &builds, found);
    repository.stop().await;
    Ok(report)
}

/// Puts a report into a folder as `tune.json`, `tune.svg` and, where a setting keeps to the time, `manifest.toml`: the
/// model's own with what was found.
///
/// # Errors
/// When the folder cannot be written, or the model's manifest cannot be read.
pub fn write(report: &Report, model: &Path, folder: &Path) -> Result<(), TuneError> {
    let unwritable = |path: &Path| {
        let path = path.display().to_string();
        move |source| TuneError::Unwritable { path, source }
    };
    std::fs::create_dir_all(folder).map_err(unwritable(folder))?;
    let json = serde_json::to_string_pretty(report).expect("a report has a form in JSON") + "\n";
    let mut files = vec![("tune.json", json), ("tune.svg", picture::of(report))];
    if let Some(best) = report.best() {
        files.push((manifest::FILE, manifest::with(model, best, report)?));
    }
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(unwritable(&path))?;
    }
    Ok(())
}

async fn repository(
    job: &Job,
    config: &Config,
    pool: &Pool,
    metrics: &Arc<Metrics>,
) -> Result<Arc<Repository>, TuneError> {
    let mut settings = config.repository.clone();
    settings.paths = vec![job.model.clone()];
    settings.start_with_failures = false;
    let loading = Loading {
        batching: config.batching.clone(),
        engine: Arc::new(Automatic),
        options: config.load_options(),
        pool: pool.clone(),
        metrics: Arc::clone(metrics),
        meter: Meter::silent(&config.metering, metrics),
        trust: Arc::new(Trust::read(&config.signatures)?),
    };
    let repository = Repository::start(settings, loading).await?;
    repository.wait_loaded().await?;
    Ok(repository)
}

/// The default build first, then those that may stand in for it.
fn builds(job: &Job, repository: &Repository) -> Result<Vec<Arc<Variant>>, TuneError> {
    let catalog = repository.catalog();
    let got = catalog.models.len();
    let not_one = || TuneError::NotOne { path: job.model.display().to_string(), got };
    let name = catalog.models.keys().next().filter(|_| got == 1).ok_or_else(not_one)?;
    let found = catalog.find_version(name, None);
    let (own, version) = found.map_err(|error| TuneError::NotReady(error.to_string()))?;
    if own.ensemble.is_some() {
        return Err(TuneError::Ensemble);
    }
    let best = own.profile.accuracy();
    let is_worth_it = |build: &&Arc<Variant>| {
        best.zip(build.profile.accuracy()).is_some_and(|(best, worth)| is_level(worth, best, job.loss_max))
    };
    Ok([own].into_iter().chain(version.alike(own).filter(is_worth_it)).cloned().collect())
}

/// Runs builds once of which loads could measure nothing, because they have free axes besides the rows.
fn time_unknown(builds: &[Arc<Variant>], row: &[Tensor], pool: &Pool) -> Result<(), TuneError> {
    for build in builds.iter().filter(|build| build.profile.costs(|costs| costs.points().next().is_none())) {
        let (plan, batch) = (Arc::clone(&build.plan), Batch::merge(&[row.to_vec()], vec![1]));
        let run = move |cores: &Cores| {
            let began = Instant::now();
            plan.run(&batch, cores).map(|_| began.elapsed())
        };
        let ended = || EngineError::Failed("the run ended in a panic".into());
        let took = pool.wait_for(run).ok_or_else(ended).flatten().map_err(TuneError::MadeUp)?;
        build.profile.costs(|costs| costs.learn(1, took, took));
    }
    Ok(())
}

/// Requests' inputs, each of one row.
fn rows(job: &Job, build: &Variant) -> Result<Vec<Vec<Tensor>>, TuneError> {
    if let Some(path) = &job.rows {
        return Ok(Samples::read(path, &build.signature)?.one_by_one());
    }
    let batch = made_up::batch(&*build.plan, 1, job.extent).map_err(TuneError::MadeUp)?;
    Ok(vec![batch.inputs.iter().map(|input| input.to_tensor()).collect()])
}
