//! Room 3: from a name to the build that answers, and the check of a request against its signature.
//!
//! After this room inputs stand in the signature's order, with the model's own shapes, and nothing needs checking again.

mod bind;

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::admission::Admitted;
use crate::engine::signature::ShapeMismatch;
use crate::infer::{ModelName, VariantName, VersionId};
use crate::repository::catalog::LookupError;
use crate::repository::{Catalog, Variant};
use crate::tensor::{DType, Tensor};

#[derive(Debug)]
pub struct Router {
    catalog: Arc<ArcSwap<Catalog>>,
}

/// A request with the build that will answer it.
#[derive(Debug)]
pub struct Routed {
    pub admitted: Admitted,
    pub variant: Arc<Variant>,
    /// In the plan's order and shapes.
    pub inputs: Vec<Tensor>,
    /// Batch elements; 1 where the model does not batch.
    pub rows: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("unexpected input {got:?}, the model has {expected}")]
    UnknownInput { got: String, expected: String },
    #[error("input {0:?} is given twice")]
    DuplicateInput(String),
    #[error("input {name:?} is missing, expected {expected}")]
    MissingInput { name: String, expected: String },
    #[error("input {input:?} expects datatype {expected}, got {got}")]
    WrongDType { input: String, expected: DType, got: DType },
    #[error(transparent)]
    WrongShape(#[from] ShapeMismatch),
    #[error("input {input:?} has {got} rows, other inputs have {expected}")]
    RowsDiffer { input: String, expected: usize, got: usize },
    #[error("batch of {got} rows is too large, the model takes at most {limit}")]
    TooManyRows { got: usize, limit: usize },
    #[error("unexpected output {got:?}, the model has {expected}")]
    UnknownOutput { got: String, expected: String },
}

impl Router {
    pub fn new(catalog: Arc<ArcSwap<Catalog>>) -> Self {
        Self { catalog }
    }

    /// The build that answers for a request's model, version and variant.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, admitted: &Admitted) -> Result<Arc<Variant>, RouteError> {
        let request = &admitted.request;
        self.named(&request.model, request.version, request.variant.as_ref())
    }

    /// As `find`, for a request that has yet to be decoded.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(
        &self,
        model: &ModelName,
        version: Option<VersionId>,
        variant: Option<&VariantName>,
    ) -> Result<Arc<Variant>, RouteError> {
        Ok(Arc::clone(self.catalog.load().find_variant(model, version, variant)?))
    }

    /// Whether a build's version has no variants, so that requests for it can only be for this build.
    pub fn is_sole(&self, build: &Variant) -> bool {
        self.catalog.load().version_of(build).is_some_and(|version| version.variants.is_empty())
    }

    /// Checks a request against the build's signature and brings its inputs into the plan's form.
    ///
    /// # Errors
    /// When a name, datatype, shape or row count does not fit.
    pub fn bind(&self, mut admitted: Admitted, variant: Arc<Variant>) -> Result<Routed, RouteError> {
        let given = std::mem::take(&mut admitted.request.inputs);
        let (inputs, rows) = bind::inputs(given, &variant)?;
        bind::check_outputs(&admitted.request.outputs, &variant.signature)?;
        Ok(Routed { admitted, variant, inputs, rows })
    }
}

#[cfg(test)]
mod tests;
