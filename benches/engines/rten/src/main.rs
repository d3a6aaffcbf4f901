//! rten on one model: `RTEN_NUM_THREADS=1 rten-runs MODEL BATCH SECONDS` prints one line of JSON, times in milliseconds.

use std::time::{Duration, Instant};

use rten::{DataType, Dimension, Model, ModelOptions, Value, ValueOrView, ValueType};
use rustix::time::{ClockId, clock_gettime};

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
    let before = resident_mib()?;
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
    for _ in 0..3 {
        run()?;
    }
    let (started, mut walls, mut cpus) = (Instant::now(), Vec::new(), Vec::new());
    while started.elapsed() < time || walls.len() < 5 {
        let (wall, cpu) = (Instant::now(), cpu_time()?);
        run()?;
        walls.push(wall.elapsed());
        cpus.push(cpu_time()? - cpu);
    }
    walls.sort_unstable();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(serde_json::json!({
        "engine": "rten",
        "median_ms": milliseconds(walls[walls.len() / 2]),
        "min_ms": milliseconds(walls[0]),
        "cpu_ms": milliseconds(cpus.into_iter().min().unwrap_or_default()),
        "load_ms": milliseconds(load),
        "memory_mib": resident_mib()? - before,
    }))
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
        let noise = |at: usize| (at as f32 * 0.7).sin() * 1.4;
        inputs.push(match input.dtype() {
            Some(ValueType::Tensor(DataType::Float)) => {
                Value::from_shape(shape, (0..count).map(noise).collect::<Vec<_>>())?
            }
            Some(ValueType::Tensor(DataType::Int32)) => Value::from_shape(shape, vec![1i32; count])?,
            other => return Err(format!("no made-up values for {other:?}").into()),
        });
    }
    Ok(inputs)
}

fn cpu_time() -> Result<Duration, AnyError> {
    Ok(clock_gettime(ClockId::ProcessCPUTime).try_into()?)
}

/// Pages of this process that are in memory.
fn resident_mib() -> Result<f64, AnyError> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm.split_whitespace().nth(1).ok_or("expected pages")?.parse()?;
    Ok(pages * rustix::param::page_size() as f64 / f64::from(1 << 20))
}
