//! Small files that a model's folder holds beside the model: settings, labels, warm-up tensors.
//!
//! Every one is read beneath the folder, as a regular file, up to a limit. What they mean is not known here.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::error::LoadError;
use crate::engine::Sealed;

/// The bytes of a file, or `None` where there is none of this name.
///
/// # Errors
/// When the name leads out of the folder, or the file is not regular, too large or unreadable.
fn read(folder: &Path, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, LoadError> {
    let wrong = |reason: String| LoadError::File { file: name.to_owned(), reason };
    if !is_relative(name) {
        return Err(wrong("expected a path within the model's folder".into()));
    }
    // Links are followed, because Kubernetes mounts files as links, but only beneath the folder. Whoever could swap a
    // link between this check and the opening could write the file as well.
    let resolved = match folder.join(name).canonicalize() {
        Ok(resolved) => resolved,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let beneath = folder.canonicalize().is_ok_and(|folder| resolved.starts_with(folder));
    if !beneath {
        return Err(wrong("it leads out of the model's folder".into()));
    }
    let io = |error: std::io::Error| wrong(error.to_string());
    let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(resolved).map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        return Err(wrong("it is not a regular file".into()));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > bytes_max {
        return Err(wrong(format!("it is larger than {bytes_max} bytes")));
    }
    Ok(Some(bytes))
}

fn text(name: &str, bytes: Vec<u8>) -> Result<String, LoadError> {
    let not_text = |_| LoadError::File { file: name.to_owned(), reason: "it is not utf-8 text".into() };
    String::from_utf8(bytes).map_err(not_text)
}

/// A folder of a model, and what of it was read before.
#[derive(Clone, Debug)]
pub(super) struct Source {
    folder: PathBuf,
    sealed: Option<Arc<Sealed>>,
}

impl Source {
    pub(super) fn of(folder: &Path, sealed: Option<Arc<Sealed>>) -> Self {
        Self { folder: folder.to_owned(), sealed }
    }

    /// As `read`.
    ///
    /// # Errors
    /// As `read`, and when nobody vouches for the file although somebody must.
    pub(super) fn read(&self, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, LoadError> {
        let wrong = |reason: String| LoadError::File { file: name.to_owned(), reason };
        let Some(sealed) = &self.sealed else { return read(&self.folder, name, bytes_max) };
        match sealed.find(&self.folder, name) {
            Ok(None) => read(&self.folder, name, bytes_max),
            Ok(Some(bytes)) if bytes.len() as u64 > bytes_max => {
                Err(wrong(format!("it is larger than {bytes_max} bytes")))
            }
            Ok(Some(bytes)) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// As `read`, for text.
    ///
    /// # Errors
    /// As `read`, and when the bytes are not UTF-8.
    pub(super) fn read_text(&self, name: &str, bytes_max: u64) -> Result<Option<String>, LoadError> {
        self.read(name, bytes_max)?.map(|bytes| text(name, bytes)).transpose()
    }
}

/// Whether a name is a path of plain components.
fn is_relative(name: &str) -> bool {
    let mut components = Path::new(name).components().peekable();
    components.peek().is_some() && components.all(|component| matches!(component, Component::Normal(_)))
}

/// Whether a name is one plain component.
pub(super) fn is_file_name(name: &str) -> bool {
    is_relative(name) && !name.contains(['/', '\\', '\0'])
}

/// A named pipe must not hang the loader; regular files do not notice.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// Bytes of a settings or labels file at most.
pub(super) const TEXT_BYTES_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn reads_beneath_the_folder_only() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("m");
        fs::create_dir_all(folder.join("..real")).unwrap();
        fs::write(root.path().join("secret"), "s").unwrap();
        fs::write(folder.join("..real/labels.txt"), "one").unwrap();
        symlink("..real/labels.txt", folder.join("labels.txt")).unwrap();
        symlink("../secret", folder.join("escape")).unwrap();
        assert_eq!(Source::of(&folder, None).read_text("labels.txt", 3).unwrap().as_deref(), Some("one"));
        assert!(read(&folder, "none", 3).unwrap().is_none());
        for (name, reason) in [
            ("labels.txt", "labels.txt: it is larger than 2 bytes"),
            ("escape", "escape: it leads out of the model's folder"),
            ("../secret", "../secret: expected a path within the model's folder"),
            ("/etc/passwd", "/etc/passwd: expected a path within the model's folder"),
            ("", ": expected a path within the model's folder"),
            ("..real", "..real: it is not a regular file"),
        ] {
            assert_eq!(read(&folder, name, 2).unwrap_err().to_string(), reason);
        }
    }

    #[test]
    fn file_names_are_one_component() {
        for good in ["model.onnx", "a b", "..a"] {
            assert!(is_file_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "/a", "a/", "a\\b", "a\0"] {
            assert!(!is_file_name(bad), "{bad:?}");
        }
    }
}
