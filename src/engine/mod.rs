//! Room 6: tensors in, tensors out. Synchronous; knows no request, no queue and no wire.
//!
//! An [`Engine`] turns a model file into a [`Plan`]; a plan runs batches on cores that the caller holds. Everything
//! the server must know to merge, refuse or explain stands in the plan's [`Signature`], [`Merging`] and [`Part`]s.

pub mod batch;
pub mod config;
pub mod made_up;
pub mod pool;
pub mod signature;
pub mod steps;

mod artifact;
mod beneath;
mod beside;
mod choice;
mod draft;
mod file_bytes;
mod graph;
mod identity;
mod kept;
mod model_file;
mod native;
mod onnx;
mod onnx_parts;
mod onnx_signature;
mod passes;
mod proto;
mod replaced;
mod sealed;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg_attr(not(feature = "tract"), path = "tract/absent.rs")]
mod tract;
mod zip_map;

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use kinglet_kernels::Fill;
use kinglet_kernels::isa::Set;

use crate::telemetry::PlanMetrics;
use crate::tensor::{DType, Shape};

pub use artifact::{Written, digest, stored_bytes};
pub use batch::{Batch, BatchInput, Executed, Share};
pub use choice::{Automatic, EngineChoice, Precision, UnknownPrecision, by_name};
pub use config::EngineConfig;
pub use draft::{Channels, Draft, Integers, Padding, Scale, WeightLayer, Weights, Windows};
pub use identity::Identity;
pub use model_file::is_named as is_model_file;
pub use native::Native;
pub use pool::{Cores, Pool};
pub use sealed::{Sealed, read_beneath};
pub use signature::{Dim, Signature, TensorSpec};

/// Loads models of one kind. One value serves the whole process.
pub trait Engine: Debug + Send + Sync {
    /// The name in configuration, metrics and `inspect`.
    fn name(&self) -> &'static str;

    /// Reads, checks and prepares a model. May take seconds; runs on a loader thread, never on a serving one.
    ///
    /// # Errors
    /// When the model is broken, or needs something this engine does not have; the error names it.
    fn load(&self, model: &ModelFile, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError>;
}

/// A loaded model, ready to run from any number of threads at once.
pub trait Plan: Debug + Send + Sync {
    fn signature(&self) -> &Signature;

    /// Whether several requests may share one run.
    fn merging(&self) -> &Merging;

    /// Which engine runs which part of the model and why, for `inspect` and metadata.
    fn parts(&self) -> &[Part];

    /// Bytes this plan holds for weights and prepared copies, as far as the engine can tell.
    fn memory_bytes(&self) -> u64;

    /// Runs a batch on the calling thread, so many times at least, and says what each layer took; nothing from engines that
    /// do not know.
    ///
    /// # Errors
    /// As `run`.
    fn layers(&self, _batch: &Batch, _runs: usize) -> Result<Vec<LayerReport>, EngineError> {
        Ok(Vec::new())
    }

    /// How long a batch of so many rows takes on one core, where the plan has measured that and needs to prepare nothing
    /// first.
    fn time_of(&self, _rows: usize) -> Option<Duration> {
        None
    }

    /// Whether shapes follow from what inputs contain, so that made-up ones show nothing.
    fn follows_contents(&self) -> bool {
        false
    }

    /// An operator that draws random numbers, so that equal requests get different answers.
    fn random_operator(&self) -> Option<&str> {
        None
    }

    /// Runs one batch. Its answer for an entry is bit for bit the same in any company.
    ///
    /// # Errors
    /// `InvalidShape` when the model cannot take these extents, `InvalidContents` when it cannot take what an entry
    /// contains; `Failed` when the run itself failed.
    fn run(&self, batch: &Batch, cores: &Cores) -> Result<Executed, EngineError>;

    /// Runs the plan on made-up rows to learn what only a run can tell, such as which batch form is faster. Called
    /// once before the plan serves.
    ///
    /// # Errors
    /// As `run`.
    fn warm_up(&self, batch_size_max: usize, cores: &Cores) -> Result<(), EngineError>;
}

/// Where a model's bytes are: an ONNX file in a folder that also holds its external data, or a native model file.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// The folder of the version; external data is opened strictly beneath it.
    pub folder: PathBuf,
    /// The file's name in the folder.
    pub file: String,
}

/// What a load may use, and what configuration says about the model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The most bytes a model file and its external data may have together.
    pub model_bytes_max: u64,
    /// The most bytes that the values of one run may need, where the engine knows.
    pub arena_bytes_max: u64,
    /// The most plans for distinct shapes that a model may keep.
    pub shape_plans_max: usize,
    /// The largest batch that will be run.
    pub batch_size_max: usize,
    /// The longest a warm-up may probe batch sizes.
    pub warm_up_time_max: Duration,
    /// Which engines may run parts of the model.
    pub engine: EngineChoice,
    /// How exactly the native engine computes.
    pub precision: Precision,
    /// Cores that a run may have at most.
    pub cores_max: usize,
    /// The most that kernels of the native engine may use of this processor's instruction sets.
    pub isa_max: Set,
    /// Rounds of one loop in a model.
    pub loop_rounds_max: u64,
    /// The longest a load may measure which kernels run a model fastest.
    pub tuning_time_max: Duration,
    /// Where choices of earlier loads are; an engine that is given a file looks beside it.
    pub choices_folder: Option<PathBuf>,
    /// Whether new choices are kept there.
    pub keep_choices: bool,
    /// Whether native model files are mapped, or else copied.
    pub mapped: bool,
    /// Where plans that are built for a shape are counted.
    pub plans: PlanMetrics,
    /// Files that were read before the load and found to be as somebody vouches for, and are not read again.
    pub sealed: Option<Arc<Sealed>>,
    /// The most bytes of a file that a step names, such as a tokenizer.
    pub step_file_bytes_max: u64,
    /// The most bytes of one file of an image.
    pub image_bytes_max: u64,
    /// The most pixels of one image.
    pub image_pixels_max: usize,
    /// The most bytes of one text that is cut into tokens.
    pub text_bytes_max: u64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            model_bytes_max: 2 << 30,
            arena_bytes_max: 2 << 30,
            shape_plans_max: 16,
            batch_size_max: 64,
            cores_max: pool::cores_available(),
            warm_up_time_max: Duration::from_millis(200),
            engine: EngineChoice::Auto,
            precision: Precision::Exact,
            isa_max: Set::Avx512Bf16,
            loop_rounds_max: 1_000_000,
            tuning_time_max: Duration::ZERO,
            choices_folder: None,
            keep_choices: false,
            mapped: true,
            plans: PlanMetrics::default(),
            sealed: None,
            step_file_bytes_max: 64 << 20,
            image_bytes_max: 16 << 20,
            image_pixels_max: 32_000_000,
            text_bytes_max: 64 << 10,
        }
    }
}

impl LoadOptions {
    /// With the choices of kernels that lie in the folder of a model.
    fn beside(&self, model: &ModelFile) -> Self {
        Self { choices_folder: Some(model.folder.clone()), ..self.clone() }
    }
}

/// Writes a model, of either format, as a native model file.
///
/// # Errors
/// When the model cannot be read, or the file not be written.
pub fn convert(model: &ModelFile, options: &LoadOptions, to: &Path) -> Result<Written, EngineError> {
    artifact::write(model_file::read(model, options)?, &model.file, to)
}

/// What tells the contents of a native model file from others, without reading all of it: the digest of its header, which has
/// the graph and the digests of all tensors. Nothing for other files.
pub fn contents(model: &ModelFile) -> Option<String> {
    if !artifact::is_named(&model.file) {
        return None;
    }
    let opened = beneath::Folder::open(&model.folder).ok()?.open_configured(&model.file).ok()?;
    artifact::header_digest(&opened.file, opened.size)
}

/// Whether rows of different requests may be merged into one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merging {
    /// Axis 0 is free on every input and output, and no operator mixes rows.
    Rows,
    /// Requests run one at a time; `operator` names the obstacle, `reason` says why it is one.
    Alone { operator: String, reason: String },
}

/// A part of a model and who runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub engine: &'static str,
    /// Operators of the part, each with how often it occurs.
    pub operators: Vec<(String, usize)>,
    pub parameters: u64,
    /// Multiply-accumulates of one row, where the engine can count them.
    pub macs: Option<u64>,
    pub reason: String,
}

/// One layer of a plan, as it ran.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerReport {
    /// The ONNX operator it began as, and that node's name.
    pub name: String,
    /// What became of it.
    pub operator: &'static str,
    /// Of its output.
    pub shape: Shape,
    /// What its output lies in memory as.
    pub dtype: DType,
    pub macs: u64,
    pub kernel: String,
    /// The shortest of all runs.
    pub time: Duration,
    /// Multiply-accumulates that one core can do in a second at most, of the kind that the kernel does.
    pub peak: Option<f64>,
    /// Weights, biases and other constants that it takes, as they were in the model.
    pub parameters: u64,
    /// Elements of operands and output.
    pub activations: u64,
    /// Bytes of operands, output and weights.
    pub bytes: u64,
    /// Of them, bytes of weights as they lie in memory.
    pub weight_bytes: u64,
    /// What is left of weights that are multiplied without their zeros.
    pub fill: Option<Fill>,
}

impl LayerReport {
    /// How many times as fast as a dense product the layer would be, if zeros took no time: all weights over those that are
    /// not zero.
    pub fn speed_up_max(&self) -> Option<f64> {
        self.fill.map(|fill| fill.all as f64 / fill.nonzero.max(1) as f64)
    }

    /// Multiply-accumulates whose weight is not zero.
    pub fn macs_effective(&self) -> u64 {
        let Some(fill) = self.fill else { return self.macs };
        let macs = u128::from(self.macs) * fill.nonzero as u128 / fill.all.max(1) as u128;
        u64::try_from(macs).unwrap_or(self.macs)
    }

    /// How many times as fast as a dense product at the processor's peak it was, where that is known.
    pub fn speed_up(&self) -> Option<f64> {
        Some(self.macs as f64 / self.time.as_secs_f64() / self.peak?)
    }

    /// What one core can do of the products of several layers one after the other, where all that have some know it.
    pub fn peak_of(layers: &[Self]) -> Option<f64> {
        let with_products = layers.iter().filter(|layer| layer.macs > 0);
        let seconds: f64 =
            with_products.clone().map(|layer| Some(layer.macs as f64 / layer.peak?)).sum::<Option<_>>()?;
        let macs: u64 = with_products.map(|layer| layer.macs).sum();
        (macs > 0).then(|| macs as f64 / seconds)
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The file cannot be read or is no valid model.
    #[error("invalid model: {0}")]
    InvalidModel(String),
    /// The model is valid, but this engine lacks or refuses an operator.
    #[error("operator {operator} is not served: {reason}")]
    UnsupportedOperator { operator: String, reason: String },
    /// A tensor type that no engine has.
    #[error("tensor {tensor:?} has type {dtype}, which is not served")]
    UnsupportedType { tensor: String, dtype: String },
    /// The extents of this request do not fit the model.
    #[error("the model cannot take these input shapes: {0}")]
    InvalidShape(String),
    /// What the inputs of this request contain does not fit the model: an index outside of an axis, for one.
    #[error("the model cannot take what these inputs contain: {0}")]
    InvalidContents(String),
    /// A step whose settings or files cannot be used.
    #[error("invalid step: {0}")]
    InvalidStep(String),
    #[error("the run failed: {0}")]
    Failed(String),
    #[error("the model file needs {needed} bytes, the limit is {limit}")]
    TooLarge { needed: u64, limit: u64 },
}
