//! rten on one model: `RTEN_NUM_THREADS=1 rten-runs MODEL BATCH SECONDS` prints one line of JSON, times in milliseconds.

#[path = "../../timing.rs"]
mod timing;

use std::time::{Duration, Instant};

use rten::{DataType, Dimension, Model, ModelOptions, Value, ValueOrView, ValueType};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), AnyError> {
    let [model, batch, seconds] = &std::env::args().skip(1).collect::<Vec<_>>()[..] else {
        return Err("expected MODEL BATCH SECONDS".into());
    };
    let (batch, time) = (batch.parse()?, Duration::from_secs_f64(seconds.parse()?));
    // On a thread of the pool, so that no run begins with a change of threads.
    let line = rten::thread_pool().run(|| measured(model, batch, time))?;
    println!("{line}");
    Ok(())
}

fn measured(model: &str, batch: usize, time: Duration) -> Result<serde_json::Value, AnyError> {
    let before = timing::resident_mib()?;
    let started = Instant::now();
    let model = ModelOptions::with_all_ops().prepack_weights(true).load_file(model)?;
    let load = started.elapsed();
    let inputs = made_up(&model, batch)?;
    let run = || -> Result<(), AnyError> {
        let inputs = model.input_ids().iter().zip(&inputs);
        let views = inputs.map(|(id, value)| (*id, ValueOrView::View(value.as_view()))).collect();
        model.run(views, model.output_ids(), None)?;
        Ok(())
    };
    timing::line("rten", (before, load), time, run)
}

/// Integers are indices and masks, which rten has in 32 bits.
fn made_up(model: &Model, batch: usize) -> Result<Vec<Value>, AnyError> {
    let mut inputs = Vec::new();
    for &id in model.input_ids() {
        let input = model.node_info(id).ok_or("an input without a description")?;
        let mut shape = Vec::new();
        for (axis, dim) in input.shape().ok_or("an input without a shape")?.into_iter().enumerate() {
            shape.push(match dim {
                Dimension::Fixed(extent) => extent,
                Dimension::Symbolic(_) if axis == 0 => batch,
                Dimension::Symbolic(_) => 1,
            });
        }
        let count = shape.iter().product();
        inputs.push(match input.dtype() {
            Some(ValueType::Tensor(DataType::Float)) => {
                Value::from_shape(shape, (0..count).map(timing::noise).collect::<Vec<_>>())?
            }
            Some(ValueType::Tensor(DataType::Int32)) => Value::from_shape(shape, vec![1i32; count])?,
            other => return Err(format!("no made-up values for {other:?}").into()),
        });
    }
    Ok(inputs)
}
