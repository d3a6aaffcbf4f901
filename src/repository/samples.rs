//! The requests a build answers before it serves: those its configuration makes up, and one of zeros.
//!
//! What they show is that the build runs, and that its outputs are what its signature says.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::error::{ConfigError, LoadError};
use super::files::Source;
use super::resolve::Resolved;
use super::settings::{WarmUp, WarmUpContent, WarmUpInput};
use crate::engine::signature::Bindings;
use crate::engine::{Batch, Cores, Dim, EngineError, Executed, LoadOptions, Merging, Plan, Signature, TensorSpec};
use crate::tensor::{DType, Shape, Tensor};

/// A made-up batch of one request.
#[derive(Debug)]
pub(super) struct Sample {
    name: String,
    count: usize,
    batch: Batch,
}

/// The samples of a build; without time for a warm-up those that its settings ask for.
///
/// # Errors
/// When a configured one does not fit the signature, or its file is missing.
pub(super) fn prepare(
    resolved: &Resolved,
    folder: Option<&Source>,
    options: &LoadOptions,
) -> Result<Vec<Sample>, LoadError> {
    let bytes_max = options.model_bytes_max;
    let configured = resolved.settings.warm_up.iter();
    let runs = configured.clone().fold(0usize, |runs, warm_up| runs.saturating_add(warm_up.count));
    if runs > RUNS_MAX {
        let problem = format!("expected at most {RUNS_MAX} runs of all requests together, got {runs}");
        return Err(ConfigError::field("", "warm-up", problem).into());
    }
    let mut budget = Budget { left: bytes_max, max: bytes_max };
    let mut samples: Vec<Sample> =
        configured.map(|warm_up| sample(warm_up, resolved, folder, &mut budget)).collect::<Result<_, _>>()?;
    if !options.warm_up_time_max.is_zero() {
        samples.extend(zeros(resolved.plan.as_ref(), &mut budget));
    }
    Ok(samples)
}

/// Takes along the request that a model's folder ships. What people try does not decide whether a model serves: where it cannot be
/// had, a note says so.
pub(super) fn ship(resolved: &mut Resolved, folder: Option<&Source>) {
    match shipped(folder) {
        Ok(request) => resolved.settings.sample_request = request,
        Err(error) => resolved.notes.push(error.to_string()),
    }
}

/// The request that a model's folder ships for people to try, as it is in its file.
///
/// # Errors
/// When the file cannot be read or is too large.
fn shipped(folder: Option<&Source>) -> Result<Option<Bytes>, LoadError> {
    let Some(folder) = folder else { return Ok(None) };
    Ok(folder.read(SAMPLE_REQUEST, SAMPLE_REQUEST_BYTES_MAX)?.map(Bytes::from))
}

/// Bytes that the samples of a build may have together: all of them are held until the last has run.
struct Budget {
    left: u64,
    max: u64,
}

impl Budget {
    /// Takes the bytes of a tensor of zeros and says how many those are, unless there are not so many.
    fn take(&mut self, dtype: DType, shape: &Shape) -> Option<usize> {
        let length = byte_length(dtype, shape, self.left)?;
        self.left -= length as u64;
        Some(length)
    }
}

/// Lets the plan learn, then runs every sample and checks what comes out. Says what the last run took, and its rows.
///
/// # Errors
/// When a run fails or an output is not what the signature says.
pub(super) fn run(
    plan: &dyn Plan,
    samples: &[Sample],
    rows_max: usize,
    cores: &Cores,
) -> Result<Option<(usize, Duration)>, LoadError> {
    match plan.warm_up(rows_max, cores) {
        // Extents and zeros were the engine's own guess: a model may take others.
        Ok(()) | Err(EngineError::InvalidShape(_) | EngineError::InvalidContents(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let mut last = None;
    for sample in samples {
        for _ in 0..sample.count {
            let began = Instant::now();
            let failed =
                |error: EngineError| LoadError::WarmUp { sample: sample.name.clone(), reason: error.to_string() };
            let executed = plan.run(&sample.batch, cores).map_err(failed)?;
            last = Some((sample.batch.rows_total(), began.elapsed()));
            verify(plan, &executed, sample.batch.rows_total())?;
        }
    }
    Ok(last)
}

/// Whether the answer of a run is what the signature says.
fn verify(plan: &dyn Plan, executed: &Executed, rows: usize) -> Result<(), LoadError> {
    let specs = &plan.signature().outputs;
    let outputs = match executed.shares.as_slice() {
        [share] if share.len() == specs.len() => share,
        shares => {
            let expected = format!("{} outputs", specs.len());
            let got = shares.first().map_or(0, Vec::len).to_string();
            return Err(LoadError::WrongOutput { output: String::new(), expected, got });
        }
    };
    for (spec, tensor) in specs.iter().zip(outputs) {
        let shape = tensor.shape();
        let fits = |(dim, &got): (&Dim, &usize)| !matches!(dim, Dim::Fixed(extent) if *extent != got);
        let mut fitting = shape.len() == spec.dims.len() && spec.dims.iter().zip(shape.iter()).all(fits);
        fitting &= *plan.merging() != Merging::Rows || shape.rows() == rows;
        if tensor.dtype() != spec.dtype || !fitting {
            let expected = format!("{} {} for {rows} rows", spec.dtype, spec.shown_dims());
            let got = format!("{} {shape}", tensor.dtype());
            return Err(LoadError::WrongOutput { output: spec.name.clone(), expected, got });
        }
    }
    Ok(())
}

/// One row of zeros, where nothing but the batch is free: other extents would be a guess.
fn zeros(plan: &dyn Plan, budget: &mut Budget) -> Option<Sample> {
    if plan.follows_contents() {
        return None;
    }
    let merges = *plan.merging() == Merging::Rows;
    let extent = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Fixed(extent) => Some(*extent),
        Dim::Free(_) => (axis == 0 && merges).then_some(1),
    };
    let tensor = |spec: &TensorSpec| {
        let shape: Shape = spec.dims.iter().enumerate().map(extent).collect::<Option<_>>()?;
        let length = budget.take(spec.dtype, &shape)?;
        Tensor::new(spec.dtype, shape, vec![0; length].into()).ok()
    };
    let inputs: Vec<Tensor> = plan.signature().inputs.iter().map(tensor).collect::<Option<_>>()?;
    Some(Sample { name: "zeros".into(), count: 1, batch: Batch::merge(&[inputs], vec![1]) })
}

fn sample(
    warm_up: &WarmUp,
    resolved: &Resolved,
    folder: Option<&Source>,
    budget: &mut Budget,
) -> Result<Sample, LoadError> {
    let wrong = |problem: String| ConfigError::field("", format!("warm-up {:?}", warm_up.name), problem);
    check_names(warm_up, &resolved.signature).map_err(wrong)?;
    let rows_max = resolved.settings.batching.batch_size_max;
    if resolved.rows_apart && warm_up.rows > rows_max {
        return Err(wrong(format!("expected at most {rows_max} rows, got {}", warm_up.rows)).into());
    }
    let merges = resolved.merges();
    let mut bindings = Bindings::new();
    let mut inputs = Vec::new();
    for spec in &resolved.signature.inputs {
        let Some(input) = warm_up.inputs.get(&spec.name) else {
            return Err(wrong(format!("expected input {:?} too", spec.name)).into());
        };
        if input.dtype != spec.dtype {
            return Err(wrong(format!("input {:?}: expected {}, got {}", spec.name, spec.dtype, input.dtype)).into());
        }
        let shape: Shape = resolved.rows_apart.then_some(warm_up.rows).into_iter().chain(input.dims.clone()).collect();
        spec.check(&shape, &mut bindings).map_err(|mismatch| wrong(mismatch.to_string()))?;
        let tensor = fill(input, shape, warm_up.rows, folder, budget)?;
        inputs.push(resolved.settings.to_model_shape(&spec.name, tensor, merges));
    }
    let rows = if resolved.rows_apart { warm_up.rows } else { 1 };
    Ok(Sample { name: warm_up.name.clone(), count: warm_up.count, batch: Batch::merge(&[inputs], vec![rows]) })
}

fn check_names(warm_up: &WarmUp, signature: &Signature) -> Result<(), String> {
    match warm_up.inputs.keys().find(|name| signature.input(name).is_none()) {
        None => Ok(()),
        Some(got) => {
            let known: Vec<_> = signature.inputs.iter().map(|spec| format!("{:?}", spec.name)).collect();
            Err(format!("expected the model's inputs, {}, got {got:?}", known.join(", ")))
        }
    }
}

fn fill(
    input: &WarmUpInput,
    shape: Shape,
    rows: usize,
    folder: Option<&Source>,
    budget: &mut Budget,
) -> Result<Tensor, LoadError> {
    let max = budget.max;
    let too_large = || format!("with shape {shape} all requests have more than {max} bytes together");
    let too_large = || ConfigError::field("", "warm-up", too_large());
    let length = budget.take(input.dtype, &shape).ok_or_else(too_large)?;
    let bytes: Bytes = match &input.content {
        WarmUpContent::Zeros => vec![0; length].into(),
        WarmUpContent::Random => random(input.dtype, length).into(),
        WarmUpContent::File(name) => {
            let file = format!("{FOLDER}/{name}");
            let file_max = budget.left + length as u64;
            let read = folder.map(|folder| folder.read(&file, file_max)).transpose()?.flatten();
            let missing = || LoadError::File { file: file.clone(), reason: "the warm-up file is missing".into() };
            let bytes = read.ok_or_else(missing)?;
            // Strings are longer than the empty ones that were counted.
            budget.left -= (bytes.len().saturating_sub(length)) as u64;
            // A file may hold one row or all of them.
            if bytes.len() * rows == length { bytes.repeat(rows).into() } else { bytes.into() }
        }
    };
    Tensor::new(input.dtype, shape, bytes).map_err(|error| ConfigError::field("", "warm-up", error.to_string()).into())
}

/// Bytes of a tensor of zeros, unless they are beyond the limit. An empty string has four: its length.
fn byte_length(dtype: DType, shape: &Shape, bytes_max: u64) -> Option<usize> {
    let length = shape.element_count()?.checked_mul(dtype.size().unwrap_or(4))?;
    (length as u64 <= bytes_max).then_some(length)
}

/// Numbers every model can take: floats from 0 to 1, integers 0 or 1, empty strings; the same on every start.
fn random(dtype: DType, length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let bits = next();
        #[expect(clippy::cast_precision_loss, reason = "24 bits fit a float's significand")]
        let unit = (bits >> 40) as f32 / (1u32 << 24) as f32;
        let bit = bits & 1;
        match dtype {
            DType::F16 => bytes.extend(half::f16::from_f32(unit).to_le_bytes()),
            DType::Bf16 => bytes.extend(half::bf16::from_f32(unit).to_le_bytes()),
            DType::F32 => bytes.extend(unit.to_le_bytes()),
            DType::F64 => bytes.extend(f64::from(unit).to_le_bytes()),
            DType::Bytes => bytes.extend([0; 4]),
            integer => bytes.extend(&bit.to_le_bytes()[..integer.size().unwrap_or(1)]),
        }
    }
    bytes
}

/// A load must end: it holds a core and a loader's thread meanwhile.
const RUNS_MAX: usize = 10_000;
/// Where warm-up files are, as in Triton's repositories.
const FOLDER: &str = "warmup";
/// A request that is kept while its model is loaded: as large as a row of some tens of thousands of numbers.
const SAMPLE_REQUEST: &str = "sample_request.json";
const SAMPLE_REQUEST_BYTES_MAX: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_are_whole_elements_within_bounds() {
        for dtype in DType::ALL {
            let length = byte_length(dtype, &Shape::new(&[5, 3]), 1 << 20).unwrap();
            let tensor = Tensor::new(dtype, Shape::new(&[5, 3]), random(dtype, length).into()).unwrap();
            assert_eq!(tensor.element_count(), 15, "{dtype}");
        }
        let floats = random(DType::F32, 400);
        let floats = floats.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()));
        assert!(floats.clone().all(|value| (0.0..1.0).contains(&value)));
        assert!(floats.clone().any(|value| value > 0.5) && floats.clone().any(|value| value < 0.5));
        assert!(
            random(DType::I64, 80).chunks(8).all(|eight| eight[0] <= 1 && eight[1..].iter().all(|&byte| byte == 0))
        );
    }

    #[test]
    fn samples_share_one_budget() {
        let mut budget = Budget { left: 40, max: 40 };
        let shape = Shape::new(&[2, 3]);
        assert_eq!(budget.take(DType::F32, &shape), Some(24));
        assert_eq!(budget.take(DType::F32, &shape), None);
        assert_eq!(budget.take(DType::U8, &shape), Some(6));
        assert_eq!(budget.left, 10);
    }

    #[test]
    fn a_shipped_request_is_read_within_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        assert!(shipped(None).unwrap().is_none() && shipped(Some(&Source::of(folder.path(), None))).unwrap().is_none());
        let file = folder.path().join(SAMPLE_REQUEST);
        std::fs::write(&file, "{}").unwrap();
        assert_eq!(shipped(Some(&Source::of(folder.path(), None))).unwrap().unwrap(), "{}");
        let beyond = usize::try_from(SAMPLE_REQUEST_BYTES_MAX).unwrap() + 1;
        std::fs::write(&file, vec![b' '; beyond]).unwrap();
        assert!(shipped(Some(&Source::of(folder.path(), None))).is_err());
    }

    #[test]
    fn lengths_are_bounded() {
        assert_eq!(byte_length(DType::F32, &Shape::new(&[2, 3]), 24), Some(24));
        assert_eq!(byte_length(DType::F32, &Shape::new(&[2, 3]), 23), None);
        assert_eq!(byte_length(DType::Bytes, &Shape::new(&[2]), 100), Some(8));
        assert_eq!(byte_length(DType::F64, &Shape::new(&[usize::MAX, 2]), u64::MAX), None);
    }
}
