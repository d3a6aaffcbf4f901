//! Model files that a load request carries: checked names, and a private folder for as long as the load takes.
//!
//! Both parts of a name come from the network. Neither is joined to a path before it is known to be one plain number
//! and one plain file name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::error::InlineError;
use super::files;
use super::layout::{self, Versions};
use crate::engine::ModelFile;
use crate::infer::VersionId;

/// What a load request says about the model, instead of what is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOverride {
    /// A model configuration as JSON; it takes the place of `config.pbtxt`.
    pub config_json: Option<String>,
    /// By `<version>/<filename>`: contents that take the place of the version folders.
    pub files: BTreeMap<String, Bytes>,
    /// The model's folder, beneath one of the repository's paths, where it is not the one of its name.
    pub folder: Option<PathBuf>,
}

/// A folder with the files of one request. Dropping it removes it.
#[derive(Debug)]
pub(super) struct InlineFolder {
    path: PathBuf,
    versions: BTreeSet<VersionId>,
}

impl LoadOverride {
    pub fn is_empty(&self) -> bool {
        self.config_json.is_none() && self.files.is_empty() && self.folder.is_none()
    }

    /// Whether its folder, if it names one, lies beneath one of these paths as it is written.
    pub(super) fn is_beneath(&self, paths: &[PathBuf]) -> bool {
        let climbs = |folder: &Path| folder.components().any(|part| part == Component::ParentDir);
        let lies = |folder: &PathBuf| !climbs(folder) && paths.iter().any(|path| folder.starts_with(path));
        self.folder.as_ref().is_none_or(lies)
    }

    /// Checks everything that can be checked without the disk.
    ///
    /// # Errors
    /// When a name is not allowed, the configuration is missing beside files, or they are too large.
    pub(super) fn check(&self, bytes_max: u64) -> Result<(), InlineError> {
        for name in self.files.keys() {
            split(name)?;
        }
        if !self.files.is_empty() && self.config_json.is_none() {
            return Err(InlineError::NoConfig);
        }
        let got = self.files.values().map(|bytes| bytes.len() as u64).fold(0, u64::saturating_add);
        if got > bytes_max {
            return Err(InlineError::TooLarge { got, limit: bytes_max });
        }
        Ok(())
    }
}

impl InlineFolder {
    /// Writes the files beneath a fresh folder in `parent` that only this user can enter.
    ///
    /// # Errors
    /// When a name is not allowed or the file system refuses.
    pub(super) fn write(parent: &Path, files: &BTreeMap<String, Bytes>) -> Result<Self, InlineError> {
        // Kinds of errors, not their texts: those could name paths of this machine.
        let store = |error: io::Error| InlineError::Store(error.kind().to_string());
        let path = create_private(parent).map_err(store)?;
        let mut folder = Self { path, versions: BTreeSet::new() };
        for (name, bytes) in files {
            let (version, file) = split(name)?;
            let beneath = folder.path.join(version.to_string());
            if folder.versions.insert(version) {
                private_folder(&beneath).map_err(store)?;
            }
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(beneath.join(file)).map_err(store)?;
            file.write_all(bytes).map_err(store)?;
        }
        Ok(folder)
    }

    /// The versions that were carried, each with the file of this name.
    pub(super) fn versions(&self, configured: Option<&str>) -> Versions {
        let mut versions = Versions::default();
        for &id in &self.versions {
            let folder = self.path.join(id.to_string());
            match layout::model_file(&folder, configured) {
                Some(file) => _ = versions.files.insert(id, ModelFile { folder, file }),
                None => _ = versions.empty.insert(id),
            }
        }
        versions
    }
}

impl Drop for InlineFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, "the folder of inline model files could not be removed");
        }
    }
}

/// The two parts of `<version>/<filename>`.
fn split(name: &str) -> Result<(VersionId, &str), InlineError> {
    let wrong = || InlineError::Name(name.chars().take(NAME_SHOWN_MAX).collect());
    let (version, file) = name.split_once('/').ok_or_else(wrong)?;
    let version = version.parse().map_err(|_| wrong())?;
    if files::is_file_name(file) { Ok((version, file)) } else { Err(wrong()) }
}

fn create_private(parent: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..ATTEMPTS {
        let path = parent.join(format!("kinglet-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        match private_folder(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Names that may be taken already, by a process of the same id before this one.
const ATTEMPTS: usize = 1000;
/// An error repeats at most this much of a name from the network.
const NAME_SHOWN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn check(name: &str, allowed: bool) {
        let over = LoadOverride {
            config_json: Some("{}".into()),
            files: [(name.to_owned(), Bytes::from_static(b"x"))].into(),
            ..LoadOverride::default()
        };
        let result = over.check(10);
        assert_eq!(result.is_ok(), allowed, "{name:?}: {result:?}");
    }

    #[test]
    fn names_cannot_leave_the_folder() {
        for good in ["1/model.onnx", "0/weights.bin", "12/..data"] {
            check(good, true);
        }
        for bad in [
            "model.onnx",
            "1/",
            "/model.onnx",
            "1/../2/model.onnx",
            "../1/model.onnx",
            "1/..",
            "1/.",
            "1//etc/passwd",
            "1/a/b",
            "1/a\\b",
            "1/a\0",
            "01/model.onnx",
            "+1/model.onnx",
            "-1/model.onnx",
            "a/model.onnx",
            "99999999999999999999999/model.onnx",
        ] {
            check(bad, false);
        }
    }

    #[test]
    fn a_folder_lies_beneath_a_path() {
        let paths = ["/opt/models".into(), "more".into()];
        for (folder, allowed) in [
            (Some("/opt/models/a/model"), true),
            (Some("/opt/models"), true),
            (Some("more/a"), true),
            (None, true),
            (Some("/opt/models/../a"), false),
            (Some("/opt/models2/a"), false),
            (Some("/etc"), false),
            (Some(""), false),
        ] {
            let over = LoadOverride { folder: folder.map(PathBuf::from), ..LoadOverride::default() };
            assert_eq!(over.is_beneath(&paths), allowed, "{folder:?}");
        }
    }

    #[test]
    fn files_need_a_configuration_and_have_a_limit() {
        let mut over =
            LoadOverride { files: [("1/m".to_owned(), Bytes::from_static(b"abc"))].into(), ..LoadOverride::default() };
        assert_eq!(over.check(10), Err(InlineError::NoConfig));
        over.config_json = Some("{}".into());
        assert_eq!(over.check(3), Ok(()));
        assert_eq!(over.check(2), Err(InlineError::TooLarge { got: 3, limit: 2 }));
    }

    #[test]
    fn the_folder_is_private_and_goes_with_its_handle() {
        let parent = tempfile::tempdir().unwrap();
        let files = [
            ("1/model.onnx".to_owned(), Bytes::from_static(b"a")),
            ("1/weights".to_owned(), Bytes::from_static(b"b")),
            ("3/other".to_owned(), Bytes::from_static(b"c")),
        ];
        let folder = InlineFolder::write(parent.path(), &files.into()).unwrap();
        let versions = folder.versions(Some("model.onnx"));
        assert_eq!(fs::read(versions.files[&VersionId(1)].folder.join("weights")).unwrap(), b"b");
        assert_eq!(versions.empty, [VersionId(3)].into());
        assert_eq!(fs::metadata(&folder.path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(folder);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
