//! `kinglet tune`: the settings of a model that take the fewest joules while its answers stay within a time.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime::Builder;

use super::{Failure, above_zero, from_one, print, share};
use crate::config::Config;
use crate::engine::pool::cores_available;
use crate::tune::{self, Job, TuneError};
use crate::units::Span;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Tries builds, batch sizes, delays and cores in this process, under requests that arrive at random, and writes \
    tune.json, tune.svg and manifest.toml: the model's own with the cheapest setting that keeps to the time. Accuracy of builds is \
    that of docs/budgets.md. Exit code 1 where nothing keeps to the time."
)]
pub(super) struct Args {
    /// A model's folder, or its file
    model: PathBuf,
    /// What 99 of 100 answers must keep to, from their arrival on, such as 20ms
    #[arg(long, value_name = "TIME")]
    p99: Span,
    /// Requests of one row a second [default: half of what the default build can do]
    #[arg(long, value_name = "REQUESTS", value_parser = above_zero)]
    rate: Option<f64>,
    /// Rows that requests are made of (.npz), an array for each input [default: made up]
    #[arg(long, value_name = "NPZ")]
    data: Option<PathBuf>,
    /// The extent of free axes other than the batch, for rows that are made up
    #[arg(long, default_value_t = 1, value_name = "EXTENT", value_parser = from_one())]
    extent: usize,
    /// Accuracy that a variant may give up beside the version's own build [default: budgets.balanced_loss_max]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    max_loss: Option<f64>,
    /// How long to try, all settings together
    #[arg(long, default_value = "2m", value_name = "TIME")]
    time: Span,
    /// The folder that files are put into; it is made where it is missing
    #[arg(short, long, default_value = "tuned", value_name = "DIR")]
    output: PathBuf,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let config = Config::load(None, &[]).map_err(|error| Failure::Config(error.into()))?;
    let job = Job {
        model: args.model.clone(),
        p99: args.p99.0,
        rate: args.rate,
        loss_max: args.max_loss.unwrap_or(config.budgets.balanced_loss_max),
        time: args.time.0,
        rows: args.data.clone(),
        extent: args.extent,
    };
    // Shows nothing where standard error is no terminal.
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").context("the template is one")?);
    let threads = config.runtime.io_threads(cores_available());
    let runtime = Builder::new_multi_thread().worker_threads(threads).thread_name("kinglet-io").enable_all().build()?;
    let tuned = runtime.block_on(tune::tune(&job, &config, &mut |done, of, next| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        bar.set_message(next.to_owned());
    }));
    bar.finish_and_clear();
    let report = tuned.map_err(failure)?;
    tune::write(&report, &args.model, &args.output)?;
    let told = if args.json { serde_json::to_string(&report)? + "\n" } else { report.to_string() };
    print(told.as_bytes())?;
    match report.best() {
        Some(_) => Ok(()),
        None => Err(Failure::Run(anyhow!("nothing that was tried keeps p99 within {}", args.p99))),
    }
}

/// What cannot be loaded is a wrong repository.
fn failure(error: TuneError) -> Failure {
    match error {
        TuneError::Repository(_) | TuneError::NotOne { .. } | TuneError::NotReady(_) | TuneError::Source(_) => {
            Failure::Config(error.into())
        }
        other => Failure::Run(other.into()),
    }
}
