//! `kinglet compress`: a model as a native model file, as it is or made smaller, compared with what it was made from.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ArgGroup;
use clap::builder::RangedU64ValueParser;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, ModelArgs, above_zero, load, print, share};
use crate::compress::{self, Factorize, Format, Job, Pattern, Prune, Ranges, Recipe, Scope};
use crate::config::Config;
use crate::engine::{self, Cores, LoadOptions, ModelFile, Plan, Pool};
use crate::repository::settings::NATIVE_FILE;
use crate::tensor::Tensor;

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("pruned").args(["prune", "target_speedup"])))]
#[command(group(ArgGroup::new("smaller").args(["prune", "target_speedup", "factorize", "quantize"]).multiple(true)))]
#[command(
    after_help = "Without --prune, --factorize and --quantize the model is written as it is. With one of them a report is put beside it: \
    compression.json, .md and .svg. Files of rows (.npz) hold an array for each input, named as it is, and of classes 'labels'."
)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The version's folder that model.safetensors is put into; it is made where it is missing
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// The share of weights that become zero, from 0 to 1
    #[arg(long, value_name = "SHARE", value_parser = share)]
    prune: Option<f64>,
    /// How zeros lie: unstructured, block (4 outputs by 1 input), block:ROWSxCOLUMNS, nm (2 of 4 stay), nm:N:M, or channels, which go
    /// with what makes them [default: unstructured; with --target-speedup channels]
    #[arg(long, requires = "pruned")]
    pattern: Option<Pattern>,
    /// Prune as few as let one row take this many times less time on one core
    #[arg(long, value_name = "TIMES", value_parser = above_zero)]
    target_speedup: Option<f64>,
    /// Prune the least weights of all layers, not the same share of each
    #[arg(long, requires = "prune", conflicts_with = "sensitivity")]
    global: bool,
    /// Prune layers the more, the less calibration rows show of it
    #[arg(long, requires = "prune")]
    sensitivity: bool,
    /// Make two layers of one where that takes fewer weights and keeps so much of its responses' energy, from 0 to 1
    #[arg(long, value_name = "ENERGY", value_parser = share)]
    factorize: Option<f64>,
    /// Split layers by up to so many blocks of their outputs or inputs, where that takes fewer weights
    #[arg(long, default_value_t = 1, value_name = "BLOCKS", requires = "factorize", value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    blocks: usize,
    /// What weights are stored as: int8 (multiplied as bytes), bf16, int4, ternary, binary, codebook:K
    #[arg(long, value_name = "FORMAT")]
    quantize: Option<Format>,
    /// How ranges of bytes between layers are chosen: min-max, percentile, mse
    #[arg(long, default_value = "mse", value_name = "RULE", requires = "quantize")]
    ranges: Ranges,
    /// Layers that stay as they are, by their nodes' names, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "LAYERS", requires = "smaller")]
    keep: Vec<String>,
    /// Rows that weights are fitted to
    #[arg(long, value_name = "NPZ", requires = "smaller")]
    calibrate: Option<PathBuf>,
    /// Rows that the model is judged by [default: those of --calibrate]
    #[arg(long, value_name = "NPZ", requires = "smaller")]
    evaluate: Option<PathBuf>,
    /// Write nothing if more is lost: of accuracy where rows have labels, else of agreement with the original, from 0 to 1
    #[arg(long, value_name = "LOSS", value_parser = share, requires = "smaller")]
    max_loss: Option<f64>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let config = Config::load(None, &[]).map_err(|error| Failure::Config(error.into()))?;
    let source = load::file(&args.model.model)?;
    // Which kernels are fastest shows in no answer.
    let options = LoadOptions { tuning_time_max: Duration::ZERO, ..config.load_options() };
    match args.recipe() {
        Some(recipe) => made_smaller(args, source, recipe, options),
        None => as_it_is(args, &source, &options),
    }
}

impl Args {
    fn recipe(&self) -> Option<Recipe> {
        let scope = match (self.global, self.sensitivity) {
            (true, _) => Scope::Global,
            (_, true) => Scope::Sensitivity,
            _ => Scope::Layer,
        };
        let pattern = self.pattern.unwrap_or(match self.target_speedup {
            Some(_) => Pattern::Channels,
            None => Pattern::Unstructured,
        });
        let share = self.prune.or(self.target_speedup.map(|_| 0.0));
        let prune = share.map(|share| Prune { share, pattern, scope });
        let factorize = self.factorize.map(|energy| Factorize { energy, blocks: self.blocks });
        let quantize = self.quantize;
        let recipe = Recipe { factorize, prune, quantize, ranges: self.ranges, leave: self.keep.clone() };
        (factorize.is_some() || prune.is_some() || quantize.is_some()).then_some(recipe)
    }
}

fn made_smaller(args: &Args, source: ModelFile, recipe: Recipe, load: LoadOptions) -> Result<(), Failure> {
    let engine = engine::by_name("auto").context("there is an engine for any model")?;
    let row = engine::made_up::batch(&*engine.load(&source, &load).context("the model cannot be served")?, 1, 1)?;
    let job = Job {
        source,
        folder: args.output.clone(),
        recipe,
        calibrate: args.calibrate.clone(),
        evaluate: args.evaluate.clone(),
        loss_max: args.max_loss,
        speedup_min: args.target_speedup,
        row,
        load,
    };
    // Shows nothing where standard error is no terminal.
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").context("the template is one")?);
    let report = compress::compress(&job, &mut |done, of, layer| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        bar.set_message(layer.to_owned());
    });
    bar.finish_and_clear();
    print(report.map_err(anyhow::Error::from)?.to_string().as_bytes())
}

fn as_it_is(args: &Args, source: &ModelFile, options: &LoadOptions) -> Result<(), Failure> {
    fs::create_dir_all(&args.output).with_context(|| format!("cannot make {}", args.output.display()))?;
    let path = args.output.join(NATIVE_FILE);
    let written = engine::convert(source, options, &path)
        .with_context(|| format!("{} cannot be written as {}", args.model.model.display(), path.display()))?;
    let made = ModelFile { folder: args.output.clone(), file: NATIVE_FILE.into() };
    compare(source, &made, options)?;
    let text = format!(
        "{}: {} bytes, {} of them in {} tensors; answers as {} does\n",
        path.display(),
        written.bytes,
        written.weight_bytes,
        written.tensors,
        source.folder.join(&source.file).display()
    );
    print(text.as_bytes())
}

/// Whether two files of one model answer the same, where made-up inputs show anything.
fn compare(source: &ModelFile, made: &ModelFile, options: &LoadOptions) -> Result<()> {
    let engine = engine::by_name("auto").context("there is an engine for any model")?;
    let pool = Pool::start(Some(1));
    let answer = |file: &ModelFile| {
        let plan = engine.load(file, options).with_context(|| format!("{} cannot be served", file.file))?;
        load::on_core(&pool, move |cores| answer(&*plan, cores))
    };
    ensure!(answer(source)? == answer(made)?, "the written model answers otherwise than the one it was made from");
    Ok(())
}

/// What a model makes of one made-up row; nothing where it takes no such extents.
fn answer(plan: &dyn Plan, cores: &Cores) -> Option<Vec<Tensor>> {
    if plan.follows_contents() {
        return None;
    }
    let batch = engine::made_up::batch(plan, 1, 1).ok()?;
    plan.run(&batch, cores).ok()?.shares.pop()
}
