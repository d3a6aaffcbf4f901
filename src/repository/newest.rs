//! The file that a server would load first of a path, for commands that look at one model without serving it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{LoadError, RepositoryError};
use super::files::Source;
use super::inline::LoadOverride;
use super::layout;
use super::survey::declared;
use super::variants;
use super::vouched::{Part, Rules, Vouched};
use crate::engine::ModelFile;
use crate::infer::ModelName;
use crate::integrity::{Policy, Trust};
use crate::telemetry::Metrics;

/// The highest version that the model's settings choose, or the file itself; `None` where there is no model.
///
/// # Errors
/// When the path or the settings of the model cannot be read, or there are several models.
pub fn newest(path: &Path) -> Result<Option<ModelFile>, RepositoryError> {
    let unreadable = |reason: String| RepositoryError::Start { path: path.display().to_string(), reason };
    let name = name_of(path);
    let found = layout::find(&[path.to_owned()], name.as_str()).map_err(|error| match error {
        RepositoryError::ManyModels(_) => {
            unreadable("expected one model's folder or a file, got a folder of models".into())
        }
        error => error,
    })?;
    let Some(place) = found.models.into_values().next() else { return Ok(None) };
    let settings = place.folder().map(|folder| Source::of(folder, None));
    let declared = declared(&name, settings.as_ref(), &LoadOverride::default()).map_err(|error| match error {
        LoadError::Config(error) => RepositoryError::Config { model: name.clone(), error },
        error => RepositoryError::Load { model: name.clone(), reason: error.to_string() },
    })?;
    let versions = place.versions(declared.model_file.as_deref());
    let mut files = versions.map_err(|error| unreadable(error.to_string()))?.files;
    let chosen = declared.version_policy.unwrap_or_default().choose(&files.keys().copied().collect());
    Ok(chosen.iter().rev().find_map(|version| files.remove(version)))
}

/// Who vouches for the newest version of the model at a path, as a server with these settings finds it; nobody where its policy is to
/// look at no signatures.
///
/// # Errors
/// When nobody does who is trusted, with the reason.
pub fn signer(path: &Path, trust: Trust, bytes_max: u64) -> Result<Option<String>, RepositoryError> {
    let name = name_of(path);
    let unsealed = |error: LoadError| RepositoryError::Load { model: name.clone(), reason: error.to_string() };
    let found = layout::find(&[path.to_owned()], name.as_str())?;
    let Some(place) = found.models.into_values().next() else { return Ok(None) };
    // Whatever is done about it, here it is told.
    let mut trust = trust;
    if trust.settings.policy == Policy::Warn {
        trust.settings.policy = Policy::Require;
    }
    let metrics = Metrics::new().verifications;
    let vouched = Vouched::of(&place, &name, Rules { trust: Arc::new(trust), metrics, bytes_max });
    let settings = vouched.settings().map_err(|error| unsealed(error.into()))?;
    let declared = declared(&name, settings.as_ref(), &LoadOverride::default()).map_err(unsealed)?;
    let vouched = vouched.with_digests(&declared.digests);
    let versions = place.versions(declared.model_file.as_deref());
    let mut files = versions
        .map_err(|error| unsealed(LoadError::File { file: name.to_string(), reason: error.to_string() }))?
        .files;
    let chosen = declared.version_policy.unwrap_or_default().choose(&files.keys().copied().collect());
    let Some((version, file)) = chosen.iter().rev().find_map(|id| Some((*id, files.remove(id)?))) else {
        return Ok(None);
    };
    let mut signer = None;
    for (variant, folder) in variants::folders(&file) {
        let part = Part { version: Some(version), variant: variant.as_ref(), folder: &folder };
        let seal = vouched.seal(part).map_err(|error| unsealed(error.into()))?;
        signer = signer.or(seal.signer);
    }
    Ok(signer.map(|signer| signer.to_string()))
}

/// The folder's name, which settings written for Triton repeat; any other where that is none for a model.
fn name_of(path: &Path) -> ModelName {
    let resolved: PathBuf = path.canonicalize().unwrap_or_default();
    let folder = resolved.file_name().unwrap_or_default().to_string_lossy();
    folder.parse().unwrap_or_else(|_| "model".parse().expect("a plain word is a model's name"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Which file is taken of `m`, or why none is.
    fn check(files: &[(&str, &str)], expected: Result<Option<&str>, &str>) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().canonicalize().unwrap().join("m");
        fs::create_dir(&folder).unwrap();
        for (name, text) in files {
            fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            fs::write(folder.join(name), text).unwrap();
        }
        let got = newest(&folder).map(|file| {
            let path = file.map(|file| file.folder.join(file.file));
            path.map(|path| path.strip_prefix(&folder).unwrap().display().to_string())
        });
        match (got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got.as_deref(), expected, "{files:?}"),
            (Err(got), Err(expected)) => assert!(got.to_string().contains(expected), "{got}"),
            (got, _) => panic!("{files:?}: {got:?}"),
        }
    }

    #[test]
    fn a_model_is_found_as_a_server_finds_it() {
        check(&[("1/model.onnx", ""), ("10/model.onnx", ""), ("9/model.onnx", "")], Ok(Some("10/model.onnx")));
        check(&[("1/model.onnx", ""), ("02/model.onnx", "")], Ok(Some("1/model.onnx")));
        check(&[("net.onnx", "")], Ok(Some("net.onnx")));
        check(&[("1/net.onnx", ""), ("manifest.toml", "model_file = 'net.onnx'")], Ok(Some("1/net.onnx")));
        check(&[("1/n.onnx", ""), ("config.pbtxt", "default_model_filename: 'n.onnx'")], Ok(Some("1/n.onnx")));
        let first = ("manifest.toml", "[versions]\npolicy = 'specific'\nspecific = [1]");
        check(&[("1/model.onnx", ""), ("2/model.onnx", ""), first], Ok(Some("1/model.onnx")));
        check(&[], Ok(None));
        check(&[("1/other", "")], Ok(None));
        check(&[("a/1/model.onnx", "")], Err("got a folder of models"));
        check(&[("1/model.onnx", ""), ("manifest.toml", "x = 1")], Err("manifest.toml"));
        check(&[("1/model.onnx", ""), ("config.pbtxt", "name: 'other'")], Err("expected \"m\""));
    }
}
