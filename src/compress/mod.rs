//! Makes models smaller without training: weights become zeros or short numbers, layer by layer, and those that stay are
//! fitted so that each layer answers on calibration rows as the original did.
//!
//! Takes a model file and gives another; how a file is laid out and what runs it is the engine's. Layers are gone through in
//! the order they run, each with the inputs that the compressed ones before it make, so that errors do not add up.

mod algebra;
mod evaluate;
mod factorize;
mod fit;
mod kept;
mod layers;
mod moments;
mod npz;
mod numbers;
mod pattern;
mod picture;
mod ranges;
mod rates;
mod recipe;
mod report;
mod samples;
mod windows;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::{self, Batch, Draft, EngineError, LoadOptions, ModelFile, Plan, Pool};
use crate::repository::settings::NATIVE_FILE;
use kept::Kept;
use layers::Layers;

pub use evaluate::Compared;
pub use factorize::Factored;
pub use npz::NpzError;
pub use pattern::{Pattern, UnknownPattern};
pub use ranges::{Ranges, UnknownRanges};
pub use recipe::{Factorize, Format, Prune, Recipe, Scope, UnknownFormat};
pub use report::{Report, Row};
pub use samples::Samples;

/// What to make of which model.
#[derive(Clone, Debug)]
pub struct Job {
    pub source: ModelFile,
    /// Where the model file and the report are put, and what is kept of a job that did not end.
    pub folder: PathBuf,
    pub recipe: Recipe,
    /// Rows that weights are fitted to.
    pub calibrate: Option<PathBuf>,
    /// Rows that the model is judged by; those of the calibration where there are no others.
    pub evaluate: Option<PathBuf>,
    /// The most that may be lost (`Compared::loss`).
    pub loss_max: Option<f64>,
    /// How many times as fast the model is to be at least; the share that is pruned follows.
    pub speedup_min: Option<f64>,
    /// One made-up row, to time models with.
    pub row: Batch,
    pub load: LoadOptions,
}

/// Told with each layer: how many are done, of how many, and which is next.
pub type OnLayer<'a> = &'a mut dyn FnMut(usize, usize, &str);

/// Why a model was not compressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Npz(#[from] NpzError),
    #[error("{path}: {what}")]
    Samples { path: String, what: String },
    #[error("the model has no layer of constant FP32 weights that could be compressed")]
    NoLayers,
    #[error("the model has no layer {name:?}, expected some of {known}")]
    UnknownLayer { name: String, known: String },
    #[error("layer {layer}: expected finite weights, {count} of {total} are not")]
    NotFinite { layer: String, count: usize, total: usize },
    #[error("layer {layer}: expected finite values on calibration rows, got others")]
    NotPositive { layer: String },
    #[error("layer {layer}: weights {weights:?} do not fit values {got}")]
    Unfit { layer: String, weights: Vec<usize>, got: String },
    #[error("{option} needs calibration rows, expected --calibrate with an .npz file")]
    NeedsRows { option: &'static str },
    #[error("--max-loss needs rows to judge by, expected --evaluate or --calibrate with an .npz file")]
    NothingToJudge,
    #[error("{option} needs operators of opset {needed} or later, the model has those of {got}")]
    Opset { option: &'static str, needed: i64, got: i64 },
    #[error("{option} does not go together with {with}")]
    NotTogether { option: &'static str, with: &'static str },
    #[error("the pattern {0} has a share of its own, expected --prune {1}")]
    OtherShare(Pattern, f64),
    #[error("{measured:.4} is lost of {what}, at most {limit} may be; nothing was written")]
    Loss { what: &'static str, measured: f64, limit: f64 },
    #[error("expected a model {wanted} times as fast, {most:.2} times is the most that was found; nothing was written")]
    Speedup { wanted: f64, most: f64 },
    #[error("the run ended in a panic")]
    Panicked,
    #[error("cannot write {path}: {source}")]
    Unwritable { path: String, source: io::Error },
}

/// Compresses a model, and writes it with a report, unless too much is lost or too little won.
///
/// # Errors
/// When the model cannot be read or run, has nothing to compress, lost too much, or is too slow.
pub fn compress(job: &Job, on_layer: OnLayer<'_>) -> Result<Report, CompressError> {
    let original = Draft::read(&job.source, &job.load)?;
    job.recipe.check(&original, job.calibrate.is_some())?;
    if job.loss_max.is_some() && job.evaluate.is_none() && job.calibrate.is_none() {
        return Err(CompressError::NothingToJudge);
    }
    let plan: Arc<dyn Plan> = original.plan(&job.load)?.into();
    let read = |path: &Option<PathBuf>| path.as_deref().map(|path| Samples::read(path, plan.signature())).transpose();
    let (calibration, evaluation) = (read(&job.calibrate)?, read(&job.evaluate)?);
    let given = Given { original, plan, calibration, evaluation, pool: Pool::start(None) };
    match job.speedup_min {
        None => given.make(job, on_layer)?.judged(job),
        Some(wanted) => given.fast_enough(job, wanted, on_layer),
    }
}

/// What models are made from, and judged by.
struct Given {
    original: Draft,
    plan: Arc<dyn Plan>,
    calibration: Option<Samples>,
    evaluation: Option<Samples>,
    pool: Pool,
}

/// A model that was made and has no name yet.
struct Made {
    kept: Kept,
    report: Report,
}

impl Given {
    fn make(&self, job: &Job, on_layer: OnLayer<'_>) -> Result<Made, CompressError> {
        let kept = Kept::open(&job.folder, &job.identity(&self.original))?;
        match self.fill(&kept, job, on_layer) {
            Ok(report) => Ok(Made { kept, report }),
            // What failed once would again.
            Err(error) => {
                kept.remove();
                Err(error)
            }
        }
    }

    /// Makes the model with the least share of zeros that is so many times as fast, by halving what is left to try.
    fn fast_enough(&self, job: &Job, wanted: f64, on_layer: OnLayer<'_>) -> Result<Report, CompressError> {
        let with = |share: f64| {
            let mut job = job.clone();
            job.recipe.prune.iter_mut().for_each(|prune| prune.share = share);
            job
        };
        let (mut most, mut range) = (0.0, 0..SHARES.len());
        let mut last: Option<(usize, Made)> = None;
        while !range.is_empty() {
            if let Some((_, slower)) = last.take() {
                slower.kept.remove();
            }
            let middle = usize::midpoint(range.start, range.end);
            let made = self.make(&with(SHARES[middle]), on_layer)?;
            let won = made.report.milliseconds[0] / made.report.milliseconds[1];
            most = f64::max(most, won);
            range = if won >= wanted { range.start..middle } else { middle + 1..range.end };
            last = Some((middle, made));
        }
        let (place, made) = last.expect("there are shares to try");
        if place == range.start {
            return made.judged(job);
        }
        made.kept.remove();
        match SHARES.get(range.start) {
            Some(&share) => self.make(&with(share), on_layer)?.judged(job),
            None => Err(CompressError::Speedup { wanted, most }),
        }
    }

    /// Makes a model where it is until it was judged.
    fn fill(&self, kept: &Kept, job: &Job, on_layer: OnLayer<'_>) -> Result<Report, CompressError> {
        let calibration = self.calibration.as_ref();
        let mut base = self.original.clone();
        let factored = factorize::all(&mut base, kept, job, calibration, &self.pool, on_layer)?;
        let mut layers = Layers::of(&base, job, calibration, &self.pool);
        let changes = layers.compress(kept, on_layer)?;
        let written = layers.draft.write(&kept.candidate())?;
        let engine = engine::by_name("auto").expect("there is an engine for any model");
        let file = ModelFile { folder: kept.folder().to_owned(), file: NATIVE_FILE.into() };
        let plans = [Arc::clone(&self.plan), engine.load(&file, &job.load)?.into()];
        let judges = self.evaluation.as_ref().or(calibration);
        let compared = judges.map(|rows| Compared::of(&plans, rows, &self.pool)).transpose()?;
        let zeros: Vec<usize> = changes.iter().map(|(layer, _)| base.weights(layer).zeros()).collect();
        Report::of(job, factored, &changes, &zeros, written, compared, &plans)
    }
}

impl Made {
    /// Gives the model its name, if not too much is lost.
    fn judged(self, job: &Job) -> Result<Report, CompressError> {
        if let (Some(compared), Some(limit)) = (&self.report.compared, job.loss_max)
            && compared.loss() > limit
        {
            self.kept.remove();
            return Err(CompressError::Loss { what: compared.what(), measured: compared.loss(), limit });
        }
        put(&self.kept.candidate(), &job.folder.join(NATIVE_FILE))?;
        self.report.write(&job.folder)?;
        self.kept.remove();
        Ok(self.report)
    }
}

impl Job {
    /// What tells this job from others: what was done for one is of no use to another.
    fn identity(&self, original: &Draft) -> String {
        let rows = self.calibrate.as_ref().map(fs::read).transpose().unwrap_or_default().unwrap_or_default();
        engine::digest(format!("{} {:?} {}", original.digest(), self.recipe, engine::digest(&rows)).as_bytes())
    }
}

fn put(from: &Path, to: &Path) -> Result<(), CompressError> {
    fs::rename(from, to).map_err(|source| CompressError::Unwritable { path: to.display().to_string(), source })
}

/// Shares of which the least is found that makes a model fast enough.
const SHARES: [f64; 9] = [0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95];
