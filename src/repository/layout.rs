//! What stands at a path: a folder of models, one model's folder, or a single ONNX file.
//!
//! Nothing is opened here but folders; what a model's files say is not known.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::RepositoryError;
use super::settings::MODEL_FILES;
use crate::engine::{ModelFile, is_model_file};
use crate::infer::{ModelName, VersionId};

/// The models at the configured paths, and what was skipped and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub models: BTreeMap<ModelName, Place>,
    pub skipped: BTreeSet<String>,
}

/// Where a model's files are. Paths are free of symbolic links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder with versions beneath it, or with the model's file directly in it.
    Folder(PathBuf),
    /// One ONNX file, version 1 of a model without settings.
    File(PathBuf),
}

/// The versions at a place: those that have the model's file, and those that lack it.
#[derive(Clone, Debug, Default)]
pub struct Versions {
    pub files: BTreeMap<VersionId, ModelFile>,
    pub empty: BTreeSet<VersionId>,
}

/// Looks for models at `paths`. `model_name`, where not empty, names the model of a path that is one model.
///
/// # Errors
/// When a path cannot be read or holds nothing that could be a model's name.
pub fn find(paths: &[PathBuf], model_name: &str) -> Result<Found, RepositoryError> {
    let mut found = Found::default();
    for path in paths {
        let unreadable = |reason: String| RepositoryError::Start { path: path.display().to_string(), reason };
        let root = path.canonicalize().map_err(|error| unreadable(error.to_string()))?;
        if root.is_file() {
            found.add(given_or(model_name, stem(&root))?, Place::File(root));
        } else if is_model(&root) || (!model_name.is_empty() && only_file(&root).is_some() && !has_models(&root)) {
            let name = given_or(model_name, root.file_name().unwrap_or_default().to_string_lossy().into())?;
            found.add(name, Place::Folder(root));
        } else {
            let entries = entries(&root).map_err(|error| unreadable(error.to_string()))?;
            entries.iter().for_each(|name| found.add_entry(&root, name));
            // One path is allowed beside a name, so that all of these models are from here.
            if !model_name.is_empty() && !found.models.is_empty() {
                return Err(RepositoryError::ManyModels(path.display().to_string()));
            }
        }
    }
    Ok(found)
}

impl Found {
    /// Takes up one entry of a folder of models.
    fn add_entry(&mut self, root: &Path, entry: &str) {
        let path = root.join(entry);
        let name = if path.is_dir() {
            entry.to_owned()
        } else if is_model_file(entry) {
            stem(&path)
        } else {
            return;
        };
        let mut skip = |reason: String| _ = self.skipped.insert(format!("{entry:?}: {reason}"));
        let resolved = match path.canonicalize() {
            Ok(resolved) if resolved.starts_with(root) => resolved,
            Ok(_) => return skip("it leads out of the repository".into()),
            Err(error) => return skip(error.to_string()),
        };
        match name.parse() {
            Err(error) => skip(format!("{error}")),
            Ok(name) if resolved.is_file() => self.add(name, Place::File(resolved)),
            Ok(name) if is_model(&resolved) || only_file(&resolved).is_some() => {
                self.add(name, Place::Folder(resolved))
            }
            Ok(_) => {
                skip(format!("no model: it has no version folder, no {} and no settings", MODEL_FILES.join(", no ")))
            }
        }
    }

    fn add(&mut self, name: ModelName, place: Place) {
        match self.models.entry(name) {
            Entry::Vacant(free) => _ = free.insert(place),
            Entry::Occupied(first) => {
                let (shown, name) = (place.shown(), first.key());
                self.skipped.insert(format!("{shown:?}: model {name:?} is found twice, the first one serves"));
            }
        }
    }
}

impl Place {
    /// The folder that holds the model's settings; a single file has none.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::File(_) => None,
        }
    }

    /// The versions, each with its file: the configured name, or the first of [`MODEL_FILES`] that is there. Where the file
    /// stands in the model's folder itself it is version 1, and may have any name as long as it is the only model file.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn versions(&self, configured: Option<&str>) -> io::Result<Versions> {
        let mut versions = Versions::default();
        let folder = match self {
            Self::File(path) => {
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let folder = path.parent().unwrap_or(path).to_owned();
                versions.files.insert(FLAT_VERSION, ModelFile { folder, file });
                return Ok(versions);
            }
            Self::Folder(folder) => folder,
        };
        for id in version_folders(folder)? {
            let beneath = folder.join(id.to_string()).canonicalize()?;
            match model_file(&beneath, configured).filter(|_| beneath.starts_with(folder)) {
                Some(file) => _ = versions.files.insert(id, ModelFile { folder: beneath, file }),
                None => _ = versions.empty.insert(id),
            }
        }
        if versions.files.is_empty() && versions.empty.is_empty() {
            let flat = model_file(folder, configured).or_else(|| only_file(folder));
            if let Some(file) = flat.filter(|file| configured.is_none_or(|name| name == file)) {
                versions.files.insert(FLAT_VERSION, ModelFile { folder: folder.clone(), file });
            }
        }
        Ok(versions)
    }

    fn shown(&self) -> String {
        let (Self::Folder(path) | Self::File(path)) = self;
        path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The folders of a model that are named like a version.
pub(super) fn version_folders(folder: &Path) -> io::Result<BTreeSet<VersionId>> {
    let is_folder = |name: &String| folder.join(name).is_dir();
    Ok(entries(folder)?.iter().filter(|name| is_folder(name)).filter_map(|name| name.parse().ok()).collect())
}

/// The versions of an ensemble, which needs no model file, and their folders; version 1 where it has none.
pub(super) fn ensemble_versions(folder: &Path) -> io::Result<BTreeMap<VersionId, PathBuf>> {
    let mut folders = BTreeMap::new();
    for id in version_folders(folder)? {
        let beneath = folder.join(id.to_string()).canonicalize()?;
        if beneath.starts_with(folder) {
            folders.insert(id, beneath);
        }
    }
    if folders.is_empty() {
        folders.insert(FLAT_VERSION, folder.to_owned());
    }
    Ok(folders)
}

/// Whether a folder is one model's.
fn is_model(folder: &Path) -> bool {
    MODEL_FILES.iter().chain(&[MANIFEST, CONFIG]).any(|name| folder.join(name).is_file())
        || version_folders(folder).is_ok_and(|versions| !versions.is_empty())
}

fn has_models(folder: &Path) -> bool {
    entries(folder).is_ok_and(|names| names.iter().any(|name| is_model(&folder.join(name))))
}

/// The file of a version: of the configured name, or the first of the usual ones that is there.
pub(super) fn model_file(folder: &Path, configured: Option<&str>) -> Option<String> {
    let names = configured.as_ref().map_or(&MODEL_FILES[..], std::slice::from_ref);
    names.iter().find(|name| folder.join(name).is_file()).map(|name| (*name).to_owned())
}

/// The only model file directly in a folder.
fn only_file(folder: &Path) -> Option<String> {
    let mut files = entries(folder).ok()?;
    files.retain(|name| is_model_file(name) && folder.join(name).is_file());
    if files.len() == 1 { files.pop() } else { None }
}

/// The names in a folder, sorted; hidden ones are left out.
pub(super) fn entries(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn given_or(model_name: &str, otherwise: String) -> Result<ModelName, RepositoryError> {
    let name = if model_name.is_empty() { otherwise } else { model_name.to_owned() };
    Ok(name.parse()?)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The settings files of a model's folder.
pub(super) const MANIFEST: &str = "manifest.toml";
pub(super) const CONFIG: &str = "config.pbtxt";
/// The version of a model that has no version folders.
const FLAT_VERSION: VersionId = VersionId(1);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        root
    }

    /// Finds models and shows each as `name/version:file`.
    fn check(root: &Path, model_name: &str, expected: &[&str]) -> Found {
        let found = find(&[root.to_owned()], model_name).unwrap();
        let shown = found.models.iter().flat_map(|(name, place)| {
            let versions = place.versions(None).unwrap();
            let file = |(id, file): (VersionId, ModelFile)| format!("{name}/{id}:{}", file.file);
            versions.files.into_iter().map(file).collect::<Vec<_>>()
        });
        assert_eq!(shown.collect::<Vec<_>>(), expected);
        found
    }

    #[test]
    fn a_folder_of_models() {
        let root = tree(&[
            "a/1/model.onnx",
            "a/10/model.onnx",
            "a/2/other.txt",
            "b/model.onnx",
            "c/only.onnx",
            "loose.onnx",
            "loose2.safetensors",
            "native/3/model.safetensors",
            "both/1/model.safetensors",
            "both/1/model.onnx",
            "training/fetch.py",
            "bad name/1/model.onnx",
            ".git/config",
        ]);
        let outside = tree(&["1/model.onnx"]);
        symlink(outside.path(), root.path().join("escape")).unwrap();
        symlink("a", root.path().join("alias")).unwrap();
        let expected = [
            "a/1:model.onnx",
            "a/10:model.onnx",
            "alias/1:model.onnx",
            "alias/10:model.onnx",
            "b/1:model.onnx",
            "both/1:model.onnx",
            "c/1:only.onnx",
            "loose/1:loose.onnx",
            "loose2/1:loose2.safetensors",
            "native/3:model.safetensors",
        ];
        let found = check(root.path(), "", &expected);
        let skipped: Vec<_> = found.skipped.iter().map(String::as_str).collect();
        assert_eq!(skipped.len(), 3, "{skipped:?}");
        assert!(skipped[0].starts_with("\"bad name\": model name \"bad name\" is not allowed"), "{skipped:?}");
        assert_eq!(skipped[1], "\"escape\": it leads out of the repository");
        assert!(skipped[2].starts_with("\"training\": no model"), "{skipped:?}");
        assert_eq!(found.models[&"a".parse().unwrap()].versions(None).unwrap().empty, [VersionId(2)].into());
    }

    #[test]
    fn one_model() {
        for files in [&["model.onnx"][..], &["net.onnx"], &["1/model.onnx"]] {
            let root = tree(files);
            let file = files[0].trim_start_matches("1/");
            check(root.path(), "m", &[&format!("m/1:{file}")]);
        }
        let root = tree(&["iris/1/model.onnx", "iris/manifest.toml"]);
        check(&root.path().join("iris"), "", &["iris/1:model.onnx"]);
        check(&root.path().join("iris/1/model.onnx"), "", &["model/1:model.onnx"]);
        check(&root.path().join("iris/1/model.onnx"), "x", &["x/1:model.onnx"]);
        let named = find(&[root.path().to_owned()], "x").unwrap_err();
        assert!(named.to_string().contains("expected its folder or an .onnx file, got a folder of models"), "{named}");
        assert!(find(&[tempfile::tempdir().unwrap().path().to_owned()], "x").unwrap().models.is_empty());
        let missing = find(&[root.path().join("none")], "").unwrap_err();
        assert!(missing.to_string().contains("cannot be read"), "{missing}");
    }

    #[test]
    fn a_config_map_is_one_model() {
        let root = tree(&["..2024/model.onnx"]);
        symlink("..2024", root.path().join("..data")).unwrap();
        symlink("..data/model.onnx", root.path().join("model.onnx")).unwrap();
        check(root.path(), "m", &["m/1:model.onnx"]);
    }

    #[test]
    fn a_configured_file_name_is_honoured() {
        let root = tree(&["m/1/net.onnx", "m/2/model.onnx"]);
        let place = Place::Folder(root.path().join("m").canonicalize().unwrap());
        let versions = place.versions(Some("net.onnx")).unwrap();
        assert_eq!(versions.files.keys().copied().collect::<Vec<_>>(), [VersionId(1)]);
        assert_eq!(versions.empty, [VersionId(2)].into());
    }
}
