//! `kinglet compress`: a model as a native model file, compared with what it was made from.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Failure, ModelArgs, load, print};
use crate::config::Config;
use crate::engine::{self, Cores, LoadOptions, ModelFile, Plan, Pool};
use crate::repository::settings::NATIVE_FILE;
use crate::tensor::Tensor;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The version's folder that model.safetensors is put into; it is made where it is missing
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let config = Config::load(None, &[]).map_err(|error| Failure::Config(error.into()))?;
    let source = load::file(&args.model.model)?;
    fs::create_dir_all(&args.output).with_context(|| format!("cannot make {}", args.output.display()))?;
    let path = args.output.join(NATIVE_FILE);
    // Which kernels are fastest shows in no answer.
    let options = LoadOptions { tuning_time_max: Duration::ZERO, ..config.load_options() };
    let written = engine::convert(&source, &options, &path)
        .with_context(|| format!("{} cannot be written as {}", args.model.model.display(), path.display()))?;
    let made = ModelFile { folder: args.output.clone(), file: NATIVE_FILE.into() };
    compare(&source, &made, &options)?;
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
