//! Steps before and behind a network, made from settings instead of a model file: pictures and texts become tensors,
//! vectors of tokens one vector, scores labels.
//!
//! Each is a [`Plan`] like any other. What they take was sent by strangers; an input that cannot be taken is
//! [`EngineError::InvalidContents`], so that nobody else's request fails with it.

mod files;
mod image;
mod labels;
mod pool;
#[cfg(test)]
mod testing;
mod text;

use std::fmt::Debug;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

use serde::Deserialize;

use super::{
    Batch, BatchInput, Cores, Dim, EngineError, Executed, LoadOptions, Merging, Part, Plan, Signature, TensorSpec,
    batch,
};
use crate::engine::sealed::Within;
use crate::infer::ComputeTimes;
use crate::tensor::{DType, Elements, Shape, Tensor};

pub use image::{Colour, Datatype, Family, Filter, Fit, ImageSettings, Layout, Position, ResizeTo, Source};
pub use labels::{Activation, LabelsSettings};
pub use pool::{PoolMode, PoolSettings};
pub use text::{PaddedTo, TextOutput, TextSettings};

/// What a step does, as a manifest says it: one table, named for its kind.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum StepSettings {
    Image(ImageSettings),
    Text(TextSettings),
    Pool(PoolSettings),
    Labels(LabelsSettings),
}

/// A step that is ready to run. Files that it names are opened strictly beneath `folder`.
///
/// # Errors
/// When settings contradict each other, or a file cannot be used; the error says what was expected.
pub fn plan(settings: &StepSettings, folder: &Path, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
    let limits = StepLimits::new(options);
    let within = Within { folder, sealed: options.sealed.as_deref() };
    let built = match settings {
        StepSettings::Image(settings) => image::build(settings, &limits)?,
        StepSettings::Text(settings) => text::build(settings, within, &limits)?,
        StepSettings::Pool(settings) => pool::build(*settings, &limits),
        StepSettings::Labels(settings) => labels::build(settings, within, &limits)?,
    };
    let part = Part {
        engine: NAME,
        operators: vec![(built.name.into(), 1)],
        parameters: 0,
        macs: Some(0),
        reason: "settings describe it".into(),
    };
    Ok(Box::new(StepPlan {
        signature: Signature { inputs: built.inputs, outputs: built.outputs },
        merging: built.merging,
        parts: [part],
        memory_bytes: built.memory_bytes,
        follows_contents: matches!(settings, StepSettings::Image(_)),
        step: built.step,
    }))
}

/// One kind of step.
trait Step: Debug + Send + Sync {
    /// The outputs of all rows together, in the signature's order.
    fn run(&self, inputs: &[BatchInput], cores: &Cores) -> Result<Vec<Tensor>, EngineError>;
}

/// What a kind makes of its settings.
struct Built {
    name: &'static str,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    merging: Merging,
    memory_bytes: u64,
    step: Box<dyn Step>,
}

#[derive(Debug)]
struct StepPlan {
    signature: Signature,
    merging: Merging,
    parts: [Part; 1],
    memory_bytes: u64,
    /// Made-up bytes are no picture.
    follows_contents: bool,
    step: Box<dyn Step>,
}

/// What one run, one input and one file may take.
#[derive(Clone, Debug)]
struct StepLimits {
    run_bytes_max: u64,
    file_bytes_max: u64,
    image_bytes_max: usize,
    image_pixels_max: usize,
    #[cfg_attr(not(feature = "tokenizers"), expect(dead_code, reason = "there is no text step in this build"))]
    text_bytes_max: usize,
}

impl Plan for StepPlan {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn merging(&self) -> &Merging {
        &self.merging
    }

    fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    fn follows_contents(&self) -> bool {
        self.follows_contents
    }

    fn run(&self, batch: &Batch, cores: &Cores) -> Result<Executed, EngineError> {
        self.signature.check_batch(batch, self.merging == Merging::Rows)?;
        let started = Instant::now();
        let outputs = self.step.run(&batch.inputs, cores)?;
        let infer = started.elapsed();
        let shares = batch::scatter(&outputs, &batch.rows);
        let scatter = started.elapsed() - infer;
        let times = ComputeTimes { infer, scatter, ..ComputeTimes::default() };
        Ok(Executed { shares, times, helper_cpu: cores.helper_cpu() })
    }

    fn warm_up(&self, _batch_size_max: usize, _cores: &Cores) -> Result<(), EngineError> {
        Ok(())
    }
}

impl StepLimits {
    fn new(options: &LoadOptions) -> Self {
        let length = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            run_bytes_max: options.arena_bytes_max,
            file_bytes_max: options.step_file_bytes_max,
            image_bytes_max: length(options.image_bytes_max),
            image_pixels_max: options.image_pixels_max,
            text_bytes_max: length(options.text_bytes_max),
        }
    }

    /// What an output needs must be allowed before it is taken.
    fn check_run(&self, rows: usize, row_bytes: usize) -> Result<(), EngineError> {
        let needed = (rows as u64).saturating_mul(row_bytes as u64);
        if needed > self.run_bytes_max {
            let reason = format!("the outputs of {rows} rows need {needed} bytes, the limit is {}", self.run_bytes_max);
            return Err(EngineError::InvalidShape(reason));
        }
        Ok(())
    }
}

/// Settings that cannot be followed.
fn wrong(step: &str, expected: &str) -> EngineError {
    EngineError::InvalidStep(format!("{step} expects {expected}"))
}

fn batch_axis() -> Dim {
    Dim::Free(Some("batch".into()))
}

/// The elements of a `BYTES` input, of all entries.
fn elements(input: &BatchInput) -> Vec<&[u8]> {
    input.pieces.iter().flat_map(|piece| Elements::of(piece)).collect()
}

/// A tensor of what a step computed.
fn tensor(dtype: DType, shape: Shape, bytes: Vec<u8>) -> Tensor {
    Tensor::new(dtype, shape, bytes.into()).expect("a step computes as many elements as its shape has")
}

/// What `made` makes of each row, on all cores that are lent.
///
/// # Errors
/// `InvalidContents` with the first reason for which a row is not taken.
fn in_rows<T: Send + Sync>(
    rows: usize,
    cores: &Cores,
    made: &(dyn Fn(usize) -> Result<T, String> + Sync),
) -> Result<Vec<T>, EngineError> {
    let results: Vec<OnceLock<Result<T, String>>> = (0..rows).map(|_| OnceLock::new()).collect();
    cores.team(rows).for_each(rows, &|row| {
        results[row].get_or_init(|| made(row));
    });
    let taken = |result: OnceLock<_>| result.into_inner().expect("every row was asked for");
    results.into_iter().map(taken).collect::<Result<_, _>>().map_err(EngineError::InvalidContents)
}

const NAME: &str = "steps";
