//! Rows that a model is calibrated or evaluated with, and what a plan makes of them.

use std::path::Path;
use std::sync::Arc;

use super::CompressError;
use super::npz;
use crate::engine::signature::Bindings;
use crate::engine::{Batch, Dim, Plan, Pool, Signature};
use crate::tensor::{DType, NamedTensor, Tensor};

/// Inputs of some rows, in the order of the signature.
#[derive(Clone, Debug)]
pub struct Samples {
    inputs: Vec<Tensor>,
    /// The class of each row, where the file says.
    pub(super) labels: Option<Vec<usize>>,
    pub(super) rows: usize,
    /// Rows of every run, where the model fixes them.
    fixed: Option<usize>,
    /// Rows of one run.
    step: usize,
}

impl Samples {
    /// Arrays that are named as inputs are, of a model with one input the only one; and `labels`.
    pub fn read(path: &Path, signature: &Signature) -> Result<Self, CompressError> {
        let wrong = |what: String| CompressError::Samples { path: path.display().to_string(), what };
        let arrays = npz::read(path)?;
        let labels = arrays.iter().find(|array| array.name == LABELS);
        let others: Vec<&NamedTensor> = arrays.iter().filter(|array| array.name != LABELS).collect();
        let named: Vec<&str> = others.iter().map(|array| array.name.as_str()).collect();
        let mut inputs = Vec::new();
        for spec in &signature.inputs {
            let array = others.iter().find(|array| array.name == spec.name).or(match others.as_slice() {
                [only] if signature.inputs.len() == 1 => Some(only),
                _ => None,
            });
            let array = array.ok_or_else(|| wrong(format!("expected an array {:?}, got {named:?}", spec.name)))?;
            if array.tensor.dtype() != spec.dtype {
                let got = array.tensor.dtype();
                return Err(wrong(format!("array {:?}: expected {}, got {got}", array.name, spec.dtype)));
            }
            inputs.push(array.tensor.clone());
        }
        let rows = inputs.first().map_or(0, |input| input.shape().rows());
        let fixed = signature.inputs.iter().find_map(|spec| match spec.dims.first() {
            Some(Dim::Fixed(extent)) => Some(*extent),
            _ => None,
        });
        let step = fixed.unwrap_or(STEP);
        if rows == 0 || inputs.iter().any(|input| input.shape().rows() != rows) {
            return Err(wrong("expected as many rows of each input, and one at least".into()));
        }
        if fixed.is_some_and(|fixed| fixed == 0 || !rows.is_multiple_of(fixed)) {
            return Err(wrong(format!(
                "expected a multiple of {step} rows, which the model takes at once, got {rows}"
            )));
        }
        let labels = labels.map(|labels| classes(&labels.tensor, rows).map_err(wrong)).transpose()?;
        let samples = Self { inputs, labels, rows, fixed, step };
        let mut bindings = Bindings::new();
        for (spec, input) in signature.inputs.iter().zip(&samples.batches()[0]) {
            spec.check(input.shape(), &mut bindings).map_err(|error| wrong(error.to_string()))?;
        }
        Ok(samples)
    }

    /// Inputs of no more rows than a run takes.
    fn batches(&self) -> Vec<Vec<Tensor>> {
        self.split(self.step)
    }

    /// Inputs of the fewest rows that a run takes: one, where the model has any number.
    pub fn one_by_one(&self) -> Vec<Vec<Tensor>> {
        self.split(self.fixed.unwrap_or(1))
    }

    fn split(&self, step: usize) -> Vec<Vec<Tensor>> {
        let whole = self.rows / step;
        let mut sizes = vec![step; whole];
        sizes.extend(Some(self.rows % step).filter(|rest| *rest > 0));
        let split: Vec<Vec<Tensor>> = self.inputs.iter().map(|input| input.split_rows(&sizes)).collect();
        (0..sizes.len()).map(|at| split.iter().map(|pieces| pieces[at].clone()).collect()).collect()
    }

    /// What several plans make of the same rows, a batch at a time.
    pub(super) fn each(
        &self,
        plans: &[&Arc<dyn Plan>],
        pool: &Pool,
        mut look: impl FnMut(&[Vec<Tensor>]) -> Result<(), CompressError>,
    ) -> Result<(), CompressError> {
        for inputs in self.batches() {
            let rows = inputs.first().map_or(1, |input| input.shape().rows());
            let mut answers = Vec::new();
            for &plan in plans {
                let (plan, batch) = (Arc::clone(plan), Batch::merge(std::slice::from_ref(&inputs), vec![rows]));
                let executed = pool.wait_for(move |cores| plan.run(&batch, cores)).ok_or(CompressError::Panicked)??;
                answers.extend(executed.shares);
            }
            look(&answers)?;
        }
        Ok(())
    }
}

/// Classes as numbers from 0 on.
fn classes(tensor: &Tensor, rows: usize) -> Result<Vec<usize>, String> {
    let bytes = tensor.bytes();
    let classes: Option<Vec<usize>> = match tensor.dtype() {
        DType::U8 => Some(bytes.iter().map(|&class| class.into()).collect()),
        DType::I32 => bytes.as_chunks().0.iter().map(|class| i32::from_le_bytes(*class).try_into().ok()).collect(),
        DType::I64 => bytes.as_chunks().0.iter().map(|class| i64::from_le_bytes(*class).try_into().ok()).collect(),
        other => return Err(format!("array {LABELS:?}: expected UINT8, INT32 or INT64, got {other}")),
    };
    let classes = classes.ok_or_else(|| format!("array {LABELS:?}: expected classes from 0 on, got a negative one"))?;
    match classes.len() == rows {
        true => Ok(classes),
        false => Err(format!("array {LABELS:?}: expected a class for each of {rows} rows, got {}", classes.len())),
    }
}

/// The array that holds classes.
const LABELS: &str = "labels";

/// Rows of one run, where the model takes any number.
const STEP: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::TensorSpec;

    fn read(file: &str, inputs: &[(&str, DType, &[Option<usize>])]) -> Result<Samples, String> {
        let dim = |extent: &Option<usize>| extent.map_or(Dim::Free(None), Dim::Fixed);
        let spec = |(name, dtype, dims): &(&str, DType, &[Option<usize>])| TensorSpec {
            name: (*name).into(),
            dtype: *dtype,
            dims: dims.iter().map(dim).collect(),
        };
        let signature = Signature { inputs: inputs.iter().map(spec).collect(), outputs: Vec::new() };
        Samples::read(&Path::new("tests/fixtures").join(file), &signature).map_err(|error| error.to_string())
    }

    #[test]
    fn arrays_become_rows_of_inputs() {
        let digits = read("digits_test.npz", &[("image", DType::U8, &[None, Some(28), None])]).unwrap();
        assert_eq!((digits.rows, digits.labels.as_ref().map(Vec::len)), (2000, Some(2000)));
        let batches = digits.batches();
        assert_eq!((batches.len(), batches[62][0].shape().rows()), (63, 16));
        assert_eq!(digits.labels.unwrap()[..5], [3, 8, 8, 0, 9]);
    }

    #[test]
    fn rows_that_do_not_fit_are_refused() {
        for (file, inputs, why) in [
            ("iris_test.npz", ("z", DType::F32, &[None, Some(4)][..]), "expected an array \"z\", got [\"x\", \"y\"]"),
            ("iris_test.npz", ("x", DType::F64, &[None, Some(4)]), "array \"x\": expected FP64, got FP32"),
            ("iris_test.npz", ("x", DType::F32, &[None, Some(5)]), "expects shape [-1,5], got [32,4]"),
            ("iris_test.npz", ("x", DType::F32, &[Some(7), Some(4)]), "expected a multiple of 7 rows"),
            ("vowels_test.npz", ("series", DType::F32, &[None, Some(12)]), "expects shape [-1,12], got [32,12,25]"),
        ] {
            let refusal = read(file, &[inputs]).unwrap_err();
            assert!(refusal.contains(why), "{refusal}");
        }
    }
}
