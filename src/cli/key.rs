//! `kinglet key`: an API key, and the digest by which the server knows it.

use std::io::{BufRead, stdin};

use anyhow::{Context, anyhow};

use super::{Failure, print};
use crate::access::key::generate;
use crate::digest::Digest;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Read a key that there is already from standard input, and print its digest alone
    #[arg(long)]
    digest: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if args.digest {
        let mut line = String::new();
        stdin().lock().read_line(&mut line).context("cannot read the key from standard input").map_err(Failure::Run)?;
        let key = line.trim();
        if key.is_empty() {
            return Err(Failure::Run(anyhow!("expected a key on standard input, got nothing")));
        }
        return print(format!("sha256 = \"{}\"\n", Digest::of(key.as_bytes())).as_bytes());
    }
    let key = generate().map_err(|_| Failure::Run(anyhow!("the system has no random bytes")))?;
    let digest = Digest::of(key.as_bytes());
    print(format!("# For the client, and nobody else:\n# {key}\n# For access.tenants_file, among a tenant's keys:\nsha256 = \"{digest}\"\n").as_bytes())
}
