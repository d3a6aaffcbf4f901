//! The adapter to tract-onnx: loads what tract can run, refuses what it cannot or would answer wrongly, and keeps every
//! answer independent of its company.

mod agreement;
mod bounds;
mod convert;
mod extents;
mod forms;
mod load;
mod merging;
mod parts;
mod plan;
mod probe;
mod refuse;
mod rewrite;
mod rules;
mod runner;
mod shapes;
#[cfg(test)]
mod tests;
mod typed;
mod warm_up;

pub(super) use load::{plan, plan_instead};

use super::{Engine, EngineError, LoadOptions, ModelFile, Plan, model_file};

/// Serves ONNX models with tract.
#[derive(Clone, Copy, Debug)]
pub struct Tract;

impl Engine for Tract {
    fn name(&self) -> &'static str {
        NAME
    }

    fn load(&self, model: &ModelFile, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
        plan(model_file::read(model, options.model_bytes_max)?, options)
    }
}

const NAME: &str = "tract";
