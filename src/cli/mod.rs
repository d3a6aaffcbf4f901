//! The command line. Thin: each command is a file that turns flags into calls.

mod bench;
mod compress;
mod design;
mod healthcheck;
mod inspect;
mod key;
mod load;
mod serve;
mod signals;
mod tune;

use std::io::Write;
use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{CommandFactory, Parser, Subcommand};

use crate::engine::Precision;
use crate::metering::SourceError;
use crate::repository::RepositoryError;

/// An inference server that serves neural networks on CPUs for the fewest joules.
#[derive(Debug, Parser)]
#[command(name = "kinglet", version, max_term_width = 100)]
#[command(after_help = "Start with: kinglet serve --repository models\n\
    Exit codes: 0 success, 1 failure while running, 2 wrong configuration or repository, 64 wrong command line.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the models of a repository over REST and gRPC.
    Serve(serve::Args),
    /// Show a model's signature, operators, parameters, and which engine runs which part and why.
    Inspect(inspect::Args),
    /// Write a model as a native model file, which is mapped and not decoded when it loads.
    Compress(compress::Args),
    /// Measure a model's latency and throughput in this process, without a network.
    Bench(bench::Args),
    /// Find the settings of a model that take the fewest joules while its answers stay within a time.
    Tune(tune::Args),
    /// Ask a running server whether it is ready; exit code 0 says yes.
    Healthcheck(healthcheck::Args),
    /// Make an API key, and print what the file of tenants has of it.
    Key(key::Args),
    /// Print a completion script for a shell.
    Completions { shell: clap_complete::Shell },
}

/// Why a command failed; the kinds have exit codes of their own.
#[derive(Debug)]
pub enum Failure {
    Config(anyhow::Error),
    Run(anyhow::Error),
}

/// Which model a command is about, for commands that load one without serving it.
#[derive(Debug, clap::Args)]
struct ModelArgs {
    /// An .onnx or native .safetensors file, a version's folder, or a model's folder (its newest version).
    model: PathBuf,
}

/// Counts from 1: nothing can be measured on none, nor on more than fit any memory.
fn from_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=COUNT_MAX)
}

/// A share or a loss.
fn share(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| format!("expected a number from 0 to 1, got {text:?}"))
}

fn above_zero(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| format!("expected a number above 0, got {text:?}"))
}

const COUNT_MAX: u64 = 1 << 20;

/// How a model that a command loads is run.
#[derive(Debug, clap::Args)]
struct EngineArgs {
    /// Which engine runs the model
    #[arg(long, value_name = "NAME", value_parser = ENGINES)]
    engine: Option<String>,
    /// Whether products of constant weights are exact, or of operands rounded to bf16
    #[arg(long, value_name = "exact|bf16", default_value = "exact")]
    precision: Precision,
}

/// What `--engine` takes.
const ENGINES: [&str; 3] = ["auto", "native", "identity"];

/// Runs a command to its end.
///
/// # Errors
/// When it fails; the message is for the user.
pub fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Compress(args) => compress::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::Key(args) => key::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kinglet", &mut script);
            print(&script)
        }
    }
}

/// Writes to standard output. Who reads it may have seen enough: that is no failure.
fn print(text: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

impl Failure {
    /// A repository that cannot be read or served, and a source of energy that does not work, are mistakes of the
    /// configuration; all else went wrong while running.
    fn of_start(error: anyhow::Error) -> Self {
        if error.is::<RepositoryError>() || error.is::<SourceError>() { Self::Config(error) } else { Self::Run(error) }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Run(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_repository_has_the_exit_code_of_a_wrong_configuration() {
        let unreadable = RepositoryError::Start { path: "x".into(), reason: "gone".into() };
        assert!(matches!(Failure::of_start(unreadable.into()), Failure::Config(_)));
        assert!(matches!(Failure::of_start(SourceError::NoFile.into()), Failure::Config(_)));
        let in_use = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        assert!(matches!(Failure::of_start(in_use.into()), Failure::Run(_)));
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
