//! One look at the repository's paths: which models are there, and how their files look.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::RepositoryError;
use super::fingerprint::Stamp;
use super::layout::{self, Found, Place};
use crate::infer::ModelName;

#[derive(Debug)]
pub(super) struct Scan {
    pub(super) found: Found,
    /// A model whose files could not be looked at has none.
    pub(super) stamps: BTreeMap<ModelName, Stamp>,
}

/// # Errors
/// When a path cannot be read: then nothing is known, which is not the same as nothing being there.
pub(super) fn scan(paths: &[PathBuf], model_name: &str) -> Result<Scan, RepositoryError> {
    let found = layout::find(paths, model_name)?;
    let stamp = |(name, place): (&ModelName, &Place)| Some((name.clone(), Stamp::take(place).ok()?));
    let stamps = found.models.iter().filter_map(stamp).collect();
    Ok(Scan { found, stamps })
}
