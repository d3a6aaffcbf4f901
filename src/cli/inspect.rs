//! `kinglet inspect`: what a model is, and who runs it.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;

use super::load::Loaded;
use super::{EngineArgs, Failure, ModelArgs, design, from_one, load, print, share};
use crate::config::Config;
use crate::engine::{LayerReport, Merging, Part, TensorSpec, made_up};
use crate::integrity::Trust;
use crate::repository;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Run the model and show every layer: what it takes, at what rate, and at what share of what one core can do in its
    /// nearest cache (transformed convolutions and those without zeros count as direct ones, and may be above 100: "% ideal" is
    /// where zeros would take no time, "% fill" what is not zero of what is multiplied); then what each moves and how often it is used
    #[arg(long)]
    layers: bool,
    /// Do no more than hold the model's files against its signature and the digests of its manifest, as a server with these settings
    /// (KINGLET_CONFIG, the environment) does; fails where it would be refused by the policy "require"
    #[arg(long, conflicts_with = "layers")]
    verify: bool,
    /// Rows of that run
    #[arg(long, default_value_t = 1, value_name = "ROWS", value_parser = from_one())]
    batch: usize,
    /// The extent of free axes other than the batch in that run
    #[arg(long, default_value_t = 1, value_name = "EXTENT", value_parser = from_one())]
    extent: usize,
    /// What the reuse of weights counts in weighted arithmetic intensity, from 0 to 1; that of activations counts the rest
    #[arg(long, default_value_t = 0.5, value_name = "SHARE", value_parser = share)]
    weights_share: f64,
    #[command(flatten)]
    by: EngineArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let config = Config::load(None, &[]).map_err(|error| Failure::Config(error.into()))?;
    let vouched = signer(&args.model.model, &config);
    if args.verify {
        let line = verified(vouched)?;
        return print(format!("{}\n", line.unwrap_or_else(|| NOT_LOOKED_AT.into())).as_bytes());
    }
    let loaded = load::plan(&args.model.model, &args.by, &config)?;
    let mut text = describe(&loaded, &vouched);
    if args.layers {
        let layers = loaded.plan.layers(&made_up::batch(&*loaded.plan, args.batch, args.extent)?, RUNS)?;
        text.push_str(&describe_layers(&layers));
        text.push_str(&design::describe(&layers, args.weights_share));
    }
    print(text.as_bytes())
}

/// Who vouches for the model, or why nobody does.
fn signer(path: &Path, config: &Config) -> anyhow::Result<Option<String>> {
    let trust = Trust::read(&config.signatures).context("signatures cannot be checked")?;
    Ok(repository::signer(path, trust, config.engine.model_bytes_max.0)?)
}

fn verified(vouched: anyhow::Result<Option<String>>) -> anyhow::Result<Option<String>> {
    Ok(vouched?.map(|signer| format!("signed by {signer}")))
}

fn describe(loaded: &Loaded, vouched: &anyhow::Result<Option<String>>) -> String {
    let plan = &*loaded.plan;
    let mut text = format!("{}\n\n", loaded.name);
    tensors(&mut text, "inputs", &plan.signature().inputs);
    tensors(&mut text, "outputs", &plan.signature().outputs);
    let batching = match plan.merging() {
        Merging::Rows => "requests are merged along axis 0: no operator mixes rows".to_owned(),
        Merging::Alone { operator, reason } => format!("one request at a time: {operator}: {reason}"),
    };
    let _ = writeln!(text, "batching  {batching}");
    let _ = writeln!(text, "memory    {:.1} MiB", megabytes(plan.memory_bytes()));
    if !loaded.variants.is_empty() {
        let _ = writeln!(text, "variants  {}", loaded.variants.join(", "));
    }
    match vouched {
        Ok(Some(signer)) => _ = writeln!(text, "signer    {signer}"),
        Ok(None) => {}
        Err(error) => _ = writeln!(text, "signer    none: {error}"),
    }
    for part in plan.parts() {
        text.push_str(&describe_part(part));
    }
    text
}

fn tensors(text: &mut String, what: &str, specs: &[TensorSpec]) {
    for (index, spec) in specs.iter().enumerate() {
        let head = if index == 0 { what } else { "" };
        let _ = writeln!(text, "{head:<9} {} {} {}", spec.name, spec.dtype, spec.shown_dims());
    }
}

fn describe_part(part: &Part) -> String {
    let mut text = format!("\nengine    {} ({})\n", part.engine, part.reason);
    let _ = writeln!(text, "parameters {}", part.parameters);
    match part.macs {
        Some(macs) => {
            let _ = writeln!(text, "MACs/row  {macs}");
        }
        None => text.push_str("MACs/row  not counted: they depend on the input's shape\n"),
    }
    let _ = writeln!(text, "operators {}", part.operators.iter().map(|(_, count)| count).sum::<usize>());
    for (operator, count) in &part.operators {
        let _ = writeln!(text, "  {count:>4} {operator}");
    }
    text
}

/// A row for every layer, in the order they run.
fn describe_layers(layers: &[LayerReport]) -> String {
    let mut text = format!(
        "\n{:>9} {:>6} {:>9} {:>9} {:>7} {:>7} {:>6} {:>6} {:>9}  {:<10} {:<26} {:<5} {:<18} node\n",
        "us",
        "%",
        "MMAC",
        "GMAC/s",
        "% peak",
        "% ideal",
        "% zero",
        "% fill",
        "MiB",
        "operator",
        "kernel",
        "type",
        "output"
    );
    let total: f64 = layers.iter().map(|layer| layer.time.as_secs_f64()).sum();
    for layer in layers {
        let (seconds, macs) = (layer.time.as_secs_f64(), layer.macs as f64);
        let _ = writeln!(
            text,
            "{:>9.1} {:>6.1} {:>9.2} {:>9.1} {:>7} {:>7} {:>6} {:>6} {:>9.2}  {:<10} {:<26} {:<5} {:<18} {}",
            seconds * 1e6,
            100.0 * seconds / total,
            macs / 1e6,
            macs / seconds / 1e9,
            of_peak(macs / seconds, layer.peak),
            percent(layer.speed_up_max()),
            percent(layer.fill.map(|fill| 1.0 - fill.nonzero as f64 / fill.all.max(1) as f64)),
            percent(layer.fill.map(|fill| fill.nonzero as f64 / fill.multiplied.max(1) as f64)),
            megabytes(layer.bytes),
            layer.operator,
            layer.kernel,
            layer.dtype.name(),
            layer.shape.to_string(),
            layer.name
        );
    }
    let macs: u64 = layers.iter().map(|layer| layer.macs).sum();
    let _ = writeln!(
        text,
        "{:>9.1} {:>6.1} {:>9.2} {:>9.1} {:>7}",
        total * 1e6,
        100.0,
        macs as f64 / 1e6,
        macs as f64 / total / 1e9,
        of_peak(macs as f64 / total, LayerReport::peak_of(layers))
    );
    text
}

/// A rate in percent of what one core can do.
fn of_peak(rate: f64, peak: Option<f64>) -> String {
    percent(peak.map(|peak| rate / peak))
}

/// A part of one in percent, or nothing.
fn percent(part: Option<f64>) -> String {
    part.map_or_else(String::new, |part| format!("{:.0}", 100.0 * part))
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1u32 << 20)
}

/// Digests of the manifest, where it has some, are as they should be.
const NOT_LOOKED_AT: &str = "signatures are not looked at: signatures.policy is \"off\"";
/// Of which the shortest counts for each layer.
const RUNS: usize = 20;
