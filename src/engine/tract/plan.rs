//! A loaded model: cuts a batch, runs the pieces on free cores, and hands the rows out.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tract_onnx::tract_hir::internal::{TValue, TVec};

use super::forms::{Forms, Single};
use super::shapes::Shapes;
use super::{convert, warm_up};
use crate::engine::batch::{regroup, scatter};
use crate::engine::{Batch, BatchInput, Cores, Dim, EngineError, Executed, Merging, Part, Plan, Share, Signature};
use crate::infer::ComputeTimes;
use crate::tensor::{Shape, Tensor};

/// A model served by tract.
#[derive(Debug)]
pub(super) struct TractPlan {
    pub(super) model: Model,
    pub(super) parts: [Part; 1],
    /// Bytes of the model's weights.
    pub(super) bytes: u64,
    pub(super) forms: OnceLock<Forms>,
    pub(super) warm_up_time_max: Duration,
}

/// What a run on another core needs.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) signature: Signature,
    pub(super) merging: Merging,
    pub(super) shapes: Shapes,
}

impl Plan for TractPlan {
    fn signature(&self) -> &Signature {
        &self.model.signature
    }

    fn merging(&self) -> &Merging {
        &self.model.merging
    }

    fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn memory_bytes(&self) -> u64 {
        self.model.shapes.copies() * self.bytes
    }

    fn time_of(&self, rows: usize) -> Option<Duration> {
        self.forms.get()?.time(rows)
    }

    fn run(&self, batch: &Batch, cores: &Cores) -> Result<Executed, EngineError> {
        self.model.signature.check_batch(batch, self.model.merging == Merging::Rows)?;
        let helped = cores.helper_cpu();
        let (shares, times) = match self.model.merging {
            Merging::Rows => self.run_rows(batch, cores)?,
            Merging::Alone { .. } => self.run_alone(batch)?,
        };
        Ok(Executed { shares, times, helper_cpu: cores.helper_cpu().saturating_sub(helped) })
    }

    fn warm_up(&self, batch_size_max: usize, _cores: &Cores) -> Result<(), EngineError> {
        if self.forms.get().is_none() {
            let forms = warm_up::forms(&self.model, batch_size_max, self.warm_up_time_max);
            // Somebody else may have been faster; either result is right.
            let _ = self.forms.set(forms);
        }
        Ok(())
    }
}

impl TractPlan {
    /// Entries one after the other, each as a whole.
    fn run_alone(&self, batch: &Batch) -> Result<(Vec<Share>, ComputeTimes), EngineError> {
        let mut times = ComputeTimes::default();
        let mut shares = Vec::with_capacity(batch.rows.len());
        for position in 0..batch.rows.len() {
            let started = Instant::now();
            let entry = if batch.rows.len() == 1 { None } else { Some(batch.entry(position)) };
            let inputs = &entry.as_ref().unwrap_or(batch).inputs;
            let values =
                inputs.iter().map(|input| convert::gather(input, &input.shape, 0, 1)).collect::<Result<_, _>>()?;
            let gathered = Instant::now();
            let shapes: SmallVec<[Shape; 4]> = inputs.iter().map(|input| input.shape.clone()).collect();
            let outputs = self.model.run(Form::Whole, &shapes, values)?;
            let ran = Instant::now();
            shares.push(self.model.outputs(outputs)?);
            times.gather += gathered - started;
            times.infer += ran - gathered;
            times.scatter += ran.elapsed();
        }
        Ok((shares, times))
    }

    /// Rows of all entries, cut into the sizes that warm-up found fastest.
    fn run_rows(&self, batch: &Batch, cores: &Cores) -> Result<(Vec<Share>, ComputeTimes), EngineError> {
        let started = Instant::now();
        let rows = batch.rows_total();
        if rows == 0 {
            return Ok((vec![self.model.no_rows()?; batch.rows.len()], ComputeTimes::default()));
        }
        let unlearned = Forms::default();
        let forms = self.forms.get().unwrap_or(&unlearned);
        let sizes = forms.cut(rows);
        let mut pieces = Vec::with_capacity(sizes.len());
        let mut from = 0;
        for &size in &sizes {
            pieces.push(Piece::gather(&batch.inputs, from, size, forms.single)?);
            from += size;
        }
        let gathered = Instant::now();
        let outputs = if pieces.len() == 1 || !worth_sharing(forms.time(rows)) {
            pieces.into_iter().map(|piece| piece.run(&self.model)).collect::<Result<Vec<_>, _>>()?
        } else {
            run_shared(&self.model, pieces, cores)?
        };
        let ran = Instant::now();
        let shares = match <[_; 1]>::try_from(outputs) {
            Ok([whole]) => scatter(&whole, &batch.rows),
            Err(pieces) => regroup(&pieces, &sizes, &batch.rows),
        };
        let times = ComputeTimes { gather: gathered - started, infer: ran - gathered, scatter: ran.elapsed() };
        Ok((shares, times))
    }
}

/// The plan that runs some rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The one for any number of rows.
    Whole,
    /// The one for a single row.
    Row,
}

/// Rows that run together.
pub(super) struct Piece {
    form: Form,
    rows: usize,
    /// As they are run: a row that runs as a pair has two.
    shapes: SmallVec<[Shape; 4]>,
    values: TVec<TValue>,
}

impl Piece {
    pub(super) fn gather(inputs: &[BatchInput], from: usize, rows: usize, single: Single) -> Result<Self, EngineError> {
        let form = if rows == 1 && single == Single::Row { Form::Row } else { Form::Whole };
        let times = if rows == 1 && single == Single::Pair { 2 } else { 1 };
        let shapes: SmallVec<[Shape; 4]> = inputs.iter().map(|input| input.shape.with_rows(rows * times)).collect();
        let values = inputs.iter().zip(&shapes).map(|(input, shape)| convert::gather(input, shape, from, times));
        Ok(Self { form, rows, values: values.collect::<Result<_, _>>()?, shapes })
    }

    pub(super) fn run(self, model: &Model) -> Result<Vec<Tensor>, EngineError> {
        let run = self.shapes.first().map_or(1, |shape| shape.rows());
        let mut outputs = model.outputs(model.run(self.form, &self.shapes, self.values)?)?;
        if let Some(odd) = outputs.iter().find(|output| output.shape().is_empty() || output.shape().rows() != run) {
            return Err(EngineError::Failed(format!("{run} rows went in, shape {} came out", odd.shape())));
        }
        if run != self.rows {
            for output in &mut outputs {
                *output = output.split_rows(&[self.rows, run - self.rows]).swap_remove(0);
            }
        }
        Ok(outputs)
    }
}

impl Model {
    pub(super) fn run(&self, form: Form, shapes: &[Shape], values: TVec<TValue>) -> Result<TVec<TValue>, EngineError> {
        let runner = match form {
            Form::Whole => self.shapes.runner(shapes),
            Form::Row => self.shapes.row_runner(shapes),
        };
        runner.and_then(|runner| runner.run(values)).map_err(|error| self.error(shapes, error))
    }

    fn outputs(&self, values: TVec<TValue>) -> Result<Vec<Tensor>, EngineError> {
        let specs = &self.signature.outputs;
        values.into_iter().zip(specs).map(|(value, spec)| convert::output(value, spec.dtype, &spec.name)).collect()
    }

    /// Where requests decide more than the number of rows, a failure is taken for their shapes' fault.
    fn error(&self, shapes: &[Shape], error: String) -> EngineError {
        let decided = usize::from(self.merging == Merging::Rows);
        let free = |dim: &Dim| matches!(dim, Dim::Free(_));
        if !self.signature.inputs.iter().any(|spec| spec.dims.iter().skip(decided).any(free)) {
            return EngineError::Failed(error);
        }
        let given = self.signature.inputs.iter().zip(shapes);
        let given: Vec<String> = given.map(|(spec, shape)| format!("{}: {shape}", spec.name)).collect();
        EngineError::InvalidShape(format!("got {}: {error}", given.join(", ")))
    }

    /// The answer to a request without rows, where the shapes of rows are known.
    fn no_rows(&self) -> Result<Share, EngineError> {
        let empty = |spec: &crate::engine::TensorSpec| {
            let extents = spec.dims.iter().skip(1).map(|dim| match dim {
                Dim::Fixed(extent) => Some(*extent),
                Dim::Free(_) => None,
            });
            let shape: Option<Shape> = std::iter::once(Some(0)).chain(extents).collect();
            let shape = shape.ok_or_else(|| EngineError::InvalidShape("expected at least one row, got 0".into()))?;
            Tensor::new(spec.dtype, shape, bytes::Bytes::new()).map_err(|error| EngineError::Failed(error.to_string()))
        };
        self.signature.outputs.iter().map(empty).collect()
    }
}

/// Waking another core takes longer than the smallest models run.
fn worth_sharing(time: Option<Duration>) -> bool {
    time.is_none_or(|time| time >= SHARED_TIME_MIN)
}

/// Runs pieces on this core and on free ones.
fn run_shared(model: &Model, pieces: Vec<Piece>, cores: &Cores) -> Result<Vec<Vec<Tensor>>, EngineError> {
    let pieces: Vec<Mutex<Option<Piece>>> = pieces.into_iter().map(|piece| Mutex::new(Some(piece))).collect();
    let outputs: Vec<OnceLock<_>> = pieces.iter().map(|_| OnceLock::new()).collect();
    cores.team().for_each(pieces.len(), &|position| {
        let piece = pieces[position].lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(piece) = piece {
            // Each position is run once.
            let _ = outputs[position].set(piece.run(model));
        }
    });
    let lost = || EngineError::Failed("a part of the batch was not run".into());
    outputs.into_iter().map(|output| output.into_inner().unwrap_or_else(|| Err(lost()))).collect()
}

/// A batch that takes less time than this on one core stays there.
const SHARED_TIME_MIN: Duration = Duration::from_micros(100);
