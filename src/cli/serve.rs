//! `kinglet serve`: configuration, start, signals, drain.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use kinglet_sys::allocator;
use tokio::runtime::Builder;

use super::Failure;
use super::signals::Signals;
use crate::app::{self, Running};
use crate::config::{Config, Flag};
use crate::engine::pool::cores_available;
use crate::frontend::Address;
use crate::telemetry::logs;

#[derive(Debug, clap::Args)]
#[command(after_help = "Settings: flags override KINGLET__ROOM__FIELD in the environment, which overrides the file,\n\
    which overrides the defaults (docs/config.md lists every key).\n\
    Signals: SIGTERM or SIGINT drain and end, a second one ends at once; SIGHUP reads the configuration again.")]
pub(super) struct Args {
    /// A model repository (<model>/<version>/model.onnx), one model's folder, or an .onnx file; may be repeated
    #[arg(long, short, value_name = "DIR|FILE.onnx")]
    repository: Vec<PathBuf>,
    /// A configuration file (TOML); only what differs from the defaults [default: KINGLET_CONFIG, or none]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where REST listens, a port or unix:/path [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR")]
    http: Option<Address>,
    /// Where gRPC listens; the same address as --http serves both on one port [default: 127.0.0.1:8001]
    #[arg(long, value_name = "ADDR")]
    grpc: Option<Address>,
    /// Where metrics and control listen [default: 127.0.0.1:8002]
    #[arg(long, value_name = "ADDR")]
    admin: Option<Address>,
    /// The name of the model, where the repository is one model's folder (as KServe mounts it)
    #[arg(long, value_name = "NAME")]
    model_name: Option<String>,
    /// Check configuration and repository, load every model once, and exit
    #[arg(long)]
    check: bool,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let flags = args.flags();
    let config = Config::load(args.config.as_deref(), &flags).map_err(|error| Failure::Config(error.into()))?;
    let logs = logs::start(&config.telemetry)?;
    allocator::map_alone_from(MAPPED_BYTES_MIN);
    allocator::share_heaps(cores_available().max(2));
    let threads = config.runtime.io_threads(cores_available());
    let runtime = Builder::new_multi_thread().worker_threads(threads).thread_name("kinglet-io").enable_all().build()?;
    let reread = move || Config::load(args.config.as_deref(), &flags);
    let outcome = runtime.block_on(async move {
        if args.check {
            let summary = app::check(&config, logs).await.map_err(Failure::Config)?;
            print(&summary);
            return Ok(());
        }
        // From here on: a signal during the start must not kill the process as it would by default.
        let mut signals = Signals::listen()?;
        let started = tokio::select! {
            biased;
            () = signals.end() => {
                tracing::info!("asked to end while the first models load; ending");
                return Ok(());
            }
            started = app::start(config, logs, Box::new(reread)) => started,
        };
        let running = started.map_err(Failure::of_start)?;
        print(&running.summary(std::io::stdout().is_terminal()));
        serve(running, signals).await;
        Ok(())
    });
    // Whoever still runs after the grace is not waited for.
    runtime.shutdown_background();
    outcome
}

async fn serve(running: Running, mut signals: Signals) {
    while signals.hangup().await {
        // A look at the disk may take long; what is left of it ends with the server.
        tokio::select! {
            biased;
            () = signals.end() => break,
            () = running.reload() => {}
        }
    }
    tokio::select! {
        finished = running.drain() => {
            if !finished {
                tracing::warn!("the grace has passed with requests in flight; ending");
            }
        }
        () = signals.end() => tracing::warn!("second signal; ending at once"),
    }
}

fn print(text: &str) {
    // A closed standard output is no reason to stop serving.
    let _ = std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush());
}

impl Args {
    fn flags(&self) -> Vec<Flag> {
        let mut flags = Vec::new();
        if !self.repository.is_empty() {
            let paths = self.repository.iter().map(|path| path.display().to_string());
            flags.push(Flag::new("--repository", "repository.paths", paths));
        }
        let one = [
            ("--http", "http.listen", self.http.as_ref().map(Address::to_string)),
            ("--grpc", "grpc.listen", self.grpc.as_ref().map(Address::to_string)),
            ("--admin", "admin.listen", self.admin.as_ref().map(Address::to_string)),
            ("--model-name", "repository.model_name", self.model_name.clone()),
        ];
        flags.extend(one.into_iter().filter_map(|(name, key, value)| Some(Flag::new(name, key, [value?]))));
        flags
    }
}

/// Weights are larger, most tensors of requests smaller: those are worth keeping for the next request.
pub(super) const MAPPED_BYTES_MIN: usize = 4 << 20;
