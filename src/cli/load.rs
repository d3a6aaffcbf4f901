//! One model loaded without a server, for the commands that look at it or time it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use kinglet_sys::allocator;

use super::serve::MAPPED_BYTES_MIN;
use super::{ENGINES, EngineArgs, Failure};
use crate::config::Config;
use crate::engine::{self, Cores, LoadOptions, ModelFile, Plan, Pool};
use crate::repository;
use crate::repository::settings::MODEL_FILES;

/// A loaded model with the name it would have in a repository.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) name: String,
    /// Names of other builds beside it.
    pub(super) variants: Vec<String>,
    pub(super) plan: Arc<dyn Plan>,
}

/// Loads the model at a path: a file, a version's folder, or a model's folder with the newest version that its settings
/// choose.
///
/// # Errors
/// When there is none, which is a wrong repository, or when it cannot be served.
pub(super) fn plan(path: &Path, by: &EngineArgs, config: &Config) -> Result<Loaded, Failure> {
    let file = file(path)?;
    let name = by.engine.as_deref().unwrap_or("auto");
    let engine = engine::by_name(name)
        .ok_or_else(|| anyhow!("unknown engine {name:?}, expected one of {}", ENGINES.join(", ")))?;
    let options = LoadOptions { precision: by.precision, ..config.load_options() };
    // Time and memory are told of what a server would take.
    allocator::map_alone_from(MAPPED_BYTES_MIN);
    let plan = engine.load(&file, &options).with_context(|| format!("{} cannot be served", path.display()))?;
    allocator::give_back();
    let variants = repository::variant_names(&file);
    Ok(Loaded { name: path.display().to_string(), variants, plan: plan.into() })
}

/// The file of the model at a path.
///
/// # Errors
/// When there is none, which is a wrong repository.
pub(super) fn file(path: &Path) -> Result<ModelFile, Failure> {
    let file = repository::newest(path).map_err(|error| Failure::Config(error.into()))?;
    let none = || anyhow!("{} holds no {} and no version of a model", path.display(), MODEL_FILES.join(", no "));
    file.ok_or_else(none).map_err(Failure::Config)
}

/// Runs a job on one core of a pool and waits for it.
pub(super) fn on_core<T: Send + 'static>(pool: &Pool, job: impl FnOnce(&Cores) -> T + Send + 'static) -> Result<T> {
    pool.wait_for(job).context("the pool has no free core, or the run ended in a panic")
}
