//! `kinglet inspect`: what a model is, and who runs it.

use std::fmt::Write;

use super::{Failure, ModelArgs, load, print};
use crate::config::Config;
use crate::engine::{Merging, Part, Plan, TensorSpec};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let config = Config::load(None, &[]).map_err(|error| Failure::Config(error.into()))?;
    let loaded = load::plan(&args.model.model, None, &config)?;
    let text = describe(&loaded.name, &*loaded.plan);
    print(text.as_bytes())
}

fn describe(name: &str, plan: &dyn Plan) -> String {
    let mut text = format!("{name}\n\n");
    tensors(&mut text, "inputs", &plan.signature().inputs);
    tensors(&mut text, "outputs", &plan.signature().outputs);
    let batching = match plan.merging() {
        Merging::Rows => "requests are merged along axis 0: no operator mixes rows".to_owned(),
        Merging::Alone { operator, reason } => format!("one request at a time: {operator}: {reason}"),
    };
    let _ = writeln!(text, "batching  {batching}");
    let _ = writeln!(text, "memory    {:.1} MiB", megabytes(plan.memory_bytes()));
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

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1u32 << 20)
}
