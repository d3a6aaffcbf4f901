//! tract on one model: `tract-runs MODEL BATCH SECONDS THREADS` prints one line of JSON, times in milliseconds.

#[path = "../../timing.rs"]
mod timing;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tract_linalg::multithread::{Executor, set_default_executor};
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::{
    DimLike, Framework, InferenceFact, InferenceModelExt, IntoRunnable, IntoTValue, TDim, TValue, TVec, Tensor,
    TractErrorContext, TractResult, TypedSimplePlan, bail,
};

fn main() -> ExitCode {
    // It panics on some models.
    std::panic::set_hook(Box::new(|panic| say(&panic.to_string())));
    match asked() {
        Ok(line) => println!("{line}"),
        Err(error) => {
            say(&format!("{error:#}"));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// In one line.
fn say(error: &str) {
    eprintln!("error: {}", error.replace('\n', " "));
}

fn asked() -> TractResult<serde_json::Value> {
    let [model, batch, seconds, threads] = &std::env::args().skip(1).collect::<Vec<_>>()[..] else {
        bail!("expected MODEL BATCH SECONDS THREADS");
    };
    let (batch, time) = (batch.parse()?, Duration::from_secs_f64(seconds.parse()?));
    let threads = threads.parse()?;
    if threads == 1 {
        return measured(model, batch, time);
    }
    let executor = Executor::multithread(threads);
    set_default_executor(executor.clone());
    match executor {
        // On a thread of the pool, so that no run begins with a change of threads.
        Executor::MultiThread(pool) => pool.install(|| measured(model, batch, time)),
        other => bail!("{other:?} has no threads"),
    }
}

fn measured(model: &str, batch: usize, time: Duration) -> TractResult<serde_json::Value> {
    let before = timing::resident_mib()?;
    let started = Instant::now();
    let plan = load(model, batch)?;
    let load = started.elapsed();
    let inputs = made_up(&plan)?;
    let mut state = plan.spawn()?;
    timing::line("tract", (before, load), time, || state.run(inputs.clone()).map(drop))
}

/// A plan for the shapes of this batch. What the model says of other shapes may name free axes, which tract does not take
/// for numbers.
fn load(path: &str, batch: usize) -> TractResult<Arc<TypedSimplePlan>> {
    let onnx = tract_onnx::onnx().with_ignore_output_shapes(true).with_ignore_value_info(true);
    let mut model = onnx.model_for_path(path)?;
    for at in 0..model.inputs.len() {
        let fact = model.input_fact(at)?;
        fact.shape.rank().concretize().context("an input without a shape")?;
        let dims = fact.shape.dims().enumerate();
        let shape = dims.map(|(axis, dim)| match dim.concretize().and_then(|extent| extent.to_usize().ok()) {
            Some(extent) => extent,
            None if axis == 0 => batch,
            None => 1,
        });
        let shape: TVec<TDim> = shape.map(TDim::from).collect();
        let fact = InferenceFact::dt_shape(fact.datum_type.concretize().context("an input without a type")?, shape);
        model.set_input_fact(at, fact)?;
    }
    model.into_optimized()?.into_runnable()
}

/// Integers are indices and masks.
fn made_up(plan: &TypedSimplePlan) -> TractResult<TVec<TValue>> {
    let mut inputs = TVec::new();
    for at in 0..plan.model().inputs.len() {
        let fact = plan.model().input_fact(at)?;
        let shape = fact.shape.as_concrete().context("an input with a free axis")?;
        let count = shape.iter().product();
        let made: Vec<f32> = match fact.datum_type.is_float() {
            true => (0..count).map(timing::noise).collect(),
            false => vec![1.; count],
        };
        inputs.push(Tensor::from_shape(shape, &made)?.cast_to_dt(fact.datum_type)?.into_owned().into_tvalue());
    }
    Ok(inputs)
}
