//! Names, datatypes and shapes of a model's inputs and outputs, and the check of a request against them.

use std::collections::HashMap;
use std::fmt;

use super::{Batch, EngineError};
use crate::tensor::{DType, Elements, Shape};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
}

/// One input or output. Extents include the batch axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub dtype: DType,
    pub dims: Vec<Dim>,
}

/// One extent of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    Fixed(usize),
    /// Decided by each request. Axes of one name have one extent in one request.
    Free(Option<String>),
}

/// A request's shape that does not fit a signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("input {input:?} expects shape {expected}, got {got}{note}")]
pub struct ShapeMismatch {
    pub input: String,
    pub expected: String,
    /// As text: errors stay small.
    pub got: String,
    pub note: String,
}

/// The extents that a request has given to named axes so far.
pub type Bindings<'a> = HashMap<&'a str, usize>;

impl Signature {
    pub fn input(&self, name: &str) -> Option<&TensorSpec> {
        self.inputs.iter().find(|spec| spec.name == name)
    }

    pub fn output(&self, name: &str) -> Option<&TensorSpec> {
        self.outputs.iter().find(|spec| spec.name == name)
    }

    /// Whether axis 0 is free on every input and output: the first condition for merging requests.
    pub fn is_batched(&self) -> bool {
        let mut specs = self.inputs.iter().chain(&self.outputs).peekable();
        specs.peek().is_some() && specs.all(|spec| matches!(spec.dims.first(), Some(Dim::Free(_))))
    }

    /// The batch must be what the signature says: a shape that lies would be read as other bytes.
    ///
    /// # Errors
    /// `InvalidShape`, saying what was expected.
    pub(super) fn check_batch(&self, batch: &Batch, merged: bool) -> Result<(), EngineError> {
        let specs = &self.inputs;
        if batch.inputs.len() != specs.len() {
            let (expected, got) = (specs.len(), batch.inputs.len());
            return Err(EngineError::InvalidShape(format!("expected {expected} inputs, got {got}")));
        }
        for (spec, input) in specs.iter().zip(&batch.inputs) {
            let wrong = |what: String| Err(EngineError::InvalidShape(format!("input {:?}: {what}", spec.name)));
            let fits = |(dim, extent): (&Dim, &usize)| !matches!(dim, Dim::Fixed(fixed) if fixed != extent);
            if spec.dims.len() != input.shape.len() || !spec.dims.iter().zip(input.shape.iter()).all(fits) {
                return wrong(format!("expected shape {}, got {}", spec.shown_dims(), input.shape));
            }
            if spec.dtype != input.dtype {
                return wrong(format!("expected {}, got {}", spec.dtype, input.dtype));
            }
            let (expected, got, what) = match input.dtype.size() {
                Some(size) => {
                    let expected = input.shape.element_count().and_then(|count| count.checked_mul(size));
                    (expected, input.pieces.iter().map(bytes::Bytes::len).sum(), "bytes")
                }
                None => {
                    let elements = input.pieces.iter().map(|piece| Elements::of(piece).count()).sum();
                    (input.shape.element_count(), elements, "elements")
                }
            };
            if expected != Some(got) {
                return wrong(format!("shape {} of {} does not have {got} {what}", input.shape, input.dtype));
            }
            if merged && input.shape.rows() != batch.rows_total() {
                return wrong(format!("expected {} rows, got {}", batch.rows_total(), input.shape.rows()));
            }
        }
        Ok(())
    }
}

impl TensorSpec {
    /// Takes note of the extents that a shape gives to named axes.
    pub fn bind<'a>(&'a self, shape: &Shape, bindings: &mut Bindings<'a>) {
        for (dim, &extent) in self.dims.iter().zip(shape.iter()) {
            if let Dim::Free(Some(name)) = dim {
                bindings.insert(name, extent);
            }
        }
    }

    /// What a tensor of these extents takes at least. A free axis that nothing has bound has one element, and an element
    /// that says its own length has its length alone.
    pub fn bytes_min(&self, bindings: &Bindings<'_>) -> u64 {
        let extent = |dim: &Dim| match dim {
            Dim::Fixed(extent) => *extent as u64,
            Dim::Free(name) => name.as_ref().and_then(|name| bindings.get(name.as_str())).map_or(1, |got| *got as u64),
        };
        let element = self.dtype.size().unwrap_or(size_of::<u32>()) as u64;
        self.dims.iter().map(extent).fold(element, u64::saturating_mul)
    }

    /// Checks one shape, and that axes of one name agree over the request.
    ///
    /// # Errors
    /// When rank or an extent differ.
    pub fn check<'a>(&'a self, shape: &Shape, bindings: &mut Bindings<'a>) -> Result<(), ShapeMismatch> {
        if shape.len() != self.dims.len() {
            return Err(self.mismatch(shape, String::new()));
        }
        for (dim, &got) in self.dims.iter().zip(shape.iter()) {
            match dim {
                Dim::Fixed(expected) if *expected != got => return Err(self.mismatch(shape, String::new())),
                Dim::Free(Some(name)) => {
                    let bound = *bindings.entry(name).or_insert(got);
                    if bound != got {
                        return Err(self.mismatch(shape, format!(" ({name} is {bound} in another input)")));
                    }
                }
                Dim::Fixed(_) | Dim::Free(None) => {}
            }
        }
        Ok(())
    }

    /// The extents as the protocol prints them: -1 for a free one.
    pub fn wire_dims(&self) -> impl Iterator<Item = i64> {
        self.dims.iter().map(|dim| match dim {
            Dim::Fixed(extent) => i64::try_from(*extent).unwrap_or(i64::MAX),
            Dim::Free(_) => -1,
        })
    }

    /// The extents with their names, as `inspect` and error messages show them.
    pub fn shown_dims(&self) -> String {
        let dims: Vec<String> = self.dims.iter().map(ToString::to_string).collect();
        format!("[{}]", dims.join(","))
    }

    fn mismatch(&self, got: &Shape, note: String) -> ShapeMismatch {
        ShapeMismatch { input: self.name.clone(), expected: self.shown_dims(), got: got.to_string(), note }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(extent) => fmt::Display::fmt(extent, f),
            Self::Free(Some(name)) => f.write_str(name),
            Self::Free(None) => f.write_str("-1"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dims: Vec<Dim>) -> TensorSpec {
        TensorSpec { name: "x".into(), dtype: DType::F32, dims }
    }

    fn named(name: &str) -> Dim {
        Dim::Free(Some(name.into()))
    }

    fn check(dims: Vec<Dim>, shape: &[usize], refused: Option<&str>) {
        let spec = spec(dims);
        let mut bindings = Bindings::from([("n", 2)]);
        let result = spec.check(&Shape::new(shape), &mut bindings).map_err(|e| e.to_string());
        assert_eq!(result.err().as_deref(), refused);
    }

    #[test]
    fn bytes_are_foreseen_by_what_is_bound() {
        let mut bindings = Bindings::new();
        let input = spec(vec![named("n"), Dim::Free(None), Dim::Fixed(3)]);
        input.bind(&Shape::new(&[5, 7, 3]), &mut bindings);
        let bytes = |dims| spec(dims).bytes_min(&bindings);
        assert_eq!(bytes(vec![]), 4);
        assert_eq!(bytes(vec![named("n"), Dim::Fixed(10)]), 200);
        assert_eq!(bytes(vec![named("m"), Dim::Free(None), Dim::Fixed(2)]), 8);
        assert_eq!(bytes(vec![Dim::Fixed(usize::MAX), Dim::Fixed(usize::MAX)]), u64::MAX);
    }

    #[test]
    fn shapes_are_checked_with_names() {
        check(vec![], &[], None);
        check(vec![Dim::Fixed(3)], &[3], None);
        check(vec![Dim::Fixed(3)], &[4], Some("input \"x\" expects shape [3], got [4]"));
        check(vec![Dim::Fixed(3)], &[3, 1], Some("input \"x\" expects shape [3], got [3,1]"));
        check(vec![Dim::Free(None), named("h")], &[9, 0], None);
        check(
            vec![named("h"), named("h")],
            &[4, 5],
            Some("input \"x\" expects shape [h,h], got [4,5] (h is 4 in another input)"),
        );
        check(vec![named("n")], &[3], Some("input \"x\" expects shape [n], got [3] (n is 2 in another input)"));
    }
}
