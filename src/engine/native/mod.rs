//! The engine of our own: a graph becomes layers with packed weights, and layers become steps over one arena for the
//! extents of a request.

mod chain;
mod factors;
mod halves;
mod layers;
mod load;
mod memory;
mod model;
mod plan;
mod prepared;
mod run;
mod spare;
mod specialise;
mod stepwise;
mod stepwise_plan;
#[cfg(test)]
mod tests;
mod times;
mod tuning;

use super::model_file;
use super::{Engine, EngineError, LoadOptions, ModelFile, Plan};

pub(super) use load::plan;

/// Serves what has a row in the importer's table, and refuses the rest by name.
#[derive(Clone, Copy, Debug)]
pub struct Native;

impl Engine for Native {
    fn name(&self) -> &'static str {
        NAME
    }

    fn load(&self, model: &ModelFile, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
        plan(model_file::read(model, options)?, &options.beside(model))
    }
}

const NAME: &str = "native";
