//! Parse, call, exit code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use kinglet::cli::{self, Cli, Failure};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are printed this way too, and are no mistakes.
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match cli::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Config(error)) => report(&error, EXIT_CONFIG),
        Err(Failure::Run(error)) => report(&error, EXIT_FAILURE),
    }
}

fn report(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("kinglet: {error:#}");
    ExitCode::from(code)
}

/// It ran and failed: a model that cannot be loaded, a server that is not ready, an address in use.
const EXIT_FAILURE: u8 = 1;
/// Configuration or repository are wrong; nothing was started.
const EXIT_CONFIG: u8 = 2;
/// The command line is wrong (EX_USAGE of sysexits).
const EXIT_USAGE: u8 = 64;
