//! One model loaded without a server, for the commands that look at it or time it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};

use super::Failure;
use crate::config::Config;
use crate::engine::{self, Cores, ModelFile, Plan, Pool};

/// A loaded model with the name it would have in a repository.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) name: String,
    pub(super) plan: Arc<dyn Plan>,
}

/// Loads the model at a path: a file, a version's folder, or a model's folder with its newest version.
///
/// # Errors
/// When there is none, which is a wrong repository, or when it cannot be served.
pub(super) fn plan(path: &Path, engine: Option<&str>, config: &Config) -> Result<Loaded, Failure> {
    let file = find(path).map_err(Failure::Config)?;
    let name = engine.unwrap_or("auto");
    let engine =
        engine::by_name(name).ok_or_else(|| anyhow!("unknown engine {name:?}, expected auto, tract or identity"))?;
    let plan =
        engine.load(&file, &config.load_options()).with_context(|| format!("{} cannot be served", path.display()))?;
    Ok(Loaded { name: path.display().to_string(), plan: plan.into() })
}

/// Runs a job on one core of a pool and waits for it.
pub(super) fn on_core<T: Send + 'static>(pool: &Pool, job: impl FnOnce(&Cores) -> T + Send + 'static) -> Result<T> {
    let core = pool.try_acquire().context("the pool has no free core")?;
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    pool.spawn(core, pool.size(), move |cores| {
        let result = job(&cores);
        // Whoever waits below may want the core for the next job at once.
        drop(cores);
        let _ = send.send(result);
    });
    receive.recv().context("the run ended in a panic")
}

fn find(path: &Path) -> Result<ModelFile> {
    if path.is_file() {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = path.file_name().and_then(|name| name.to_str()).context("the file's name is no text")?;
        return Ok(ModelFile { folder: folder.to_owned(), file: file.to_owned() });
    }
    if path.join(MODEL_FILE).is_file() {
        return Ok(ModelFile { folder: path.to_owned(), file: MODEL_FILE.into() });
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("{} is no model", path.display()))?;
    let newest = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok())
        .filter(|version| path.join(version.to_string()).join(MODEL_FILE).is_file())
        .max()
        .with_context(|| format!("{} holds no {MODEL_FILE} and no version of a model", path.display()))?;
    Ok(ModelFile { folder: path.join(newest.to_string()), file: MODEL_FILE.into() })
}

const MODEL_FILE: &str = "model.onnx";
