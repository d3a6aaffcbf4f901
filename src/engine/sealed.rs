//! Files of a model as they were read once: a load that is given them takes these bytes and opens no file that could have become
//! another meanwhile. Who vouches for them is not known here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::beneath::Folder;

/// Contents by path beneath a model's folder.
#[derive(Clone, Default)]
pub struct Sealed {
    root: PathBuf,
    files: BTreeMap<String, Bytes>,
    /// What else is there, and must not be read; `None` where all else may be.
    closed: Option<BTreeSet<String>>,
}

/// Where files of a load are looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Within<'a> {
    pub(super) folder: &'a Path,
    pub(super) sealed: Option<&'a Sealed>,
}

impl Sealed {
    /// Files beside which everything may be read as it lies on disk.
    pub fn open(root: PathBuf, files: BTreeMap<String, Bytes>) -> Self {
        Self { root, files, closed: None }
    }

    /// Files beside which nothing may be read. What else is there, as far as is known, is told apart from what is not.
    pub fn closed(root: PathBuf, files: BTreeMap<String, Bytes>, others: BTreeSet<String>) -> Self {
        Self { root, files, closed: Some(others) }
    }

    /// Whether nothing beside these files may be read.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// The bytes of a file; `None` where it is to be read from disk.
    ///
    /// # Errors
    /// When it may not be read, is not there, or lies outside of the folder.
    pub fn find(&self, folder: &Path, name: &str) -> io::Result<Option<Bytes>> {
        let Some(path) = self.path(folder, name) else {
            return match self.is_closed() {
                true => Err(io::Error::other("it leads out of the model's folder")),
                false => Ok(None),
            };
        };
        match (self.files.get(&path), &self.closed) {
            (Some(bytes), _) => Ok(Some(bytes.clone())),
            (None, None) => Ok(None),
            (None, Some(others)) if others.contains(&path) => Err(io::Error::other("nobody vouches for it")),
            (None, Some(_)) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// A file's path beneath the root, if it lies beneath the folder.
    fn path(&self, folder: &Path, name: &str) -> Option<String> {
        let mut parts: Vec<&str> = Vec::new();
        for part in Path::new(name).components() {
            match part {
                Component::Normal(part) => parts.push(part.to_str()?),
                Component::CurDir => {}
                Component::ParentDir => _ = parts.pop()?,
                Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        let above = folder.strip_prefix(&self.root).ok()?.to_str()?;
        Some(if above.is_empty() { parts.join("/") } else { format!("{above}/{}", parts.join("/")) })
    }
}

impl Within<'_> {
    /// As `Sealed::find`, from disk where nothing is sealed.
    pub(super) fn find(&self, name: &str) -> io::Result<Option<Bytes>> {
        self.sealed.map_or(Ok(None), |sealed| sealed.find(self.folder, name))
    }
}

/// All bytes of a file beneath a folder, through links that stay there.
///
/// # Errors
/// When there is none, it leads out, is not regular, unreadable, or longer than allowed.
pub fn read_beneath(root: &Path, name: &str, bytes_max: u64) -> io::Result<Bytes> {
    let opened = Folder::open(root)?.open_configured(name)?;
    let mut bytes = Vec::with_capacity(usize::try_from(opened.size.min(bytes_max)).unwrap_or_default());
    opened.file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > bytes_max {
        true => Err(io::Error::other(format!("it is larger than {bytes_max} bytes"))),
        false => Ok(bytes.into()),
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("files", &self.files.len()).field("is_closed", &self.is_closed()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_sealed_is_read() {
        let files: BTreeMap<String, Bytes> =
            [("1/a".into(), Bytes::from_static(b"a")), ("b".into(), Bytes::from_static(b"b"))].into();
        let open = Sealed::open("/m".into(), files.clone());
        let closed = Sealed::closed("/m".into(), files, ["1/other".into()].into());
        let (root, first) = (Path::new("/m"), Path::new("/m/1"));
        for sealed in [&open, &closed] {
            assert_eq!(sealed.find(first, "a").unwrap().unwrap(), "a");
            assert_eq!(sealed.find(first, "./x/../a").unwrap().unwrap(), "a");
            assert_eq!(sealed.find(root, "1/a").unwrap().unwrap(), "a");
        }
        let refusal = |folder, name| closed.find(folder, name).unwrap_err();
        assert_eq!(refusal(first, "other").to_string(), "nobody vouches for it");
        assert_eq!(refusal(first, "none").kind(), io::ErrorKind::NotFound);
        for outside in ["../b", "/m/b", "x/../../b"] {
            assert_eq!(refusal(first, outside).to_string(), "it leads out of the model's folder", "{outside}");
            assert!(open.find(first, outside).unwrap().is_none(), "the disk's own rules hold there");
        }
        assert!(open.find(first, "other").unwrap().is_none());
    }

    #[test]
    fn files_are_read_beneath_the_folder() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("m")).unwrap();
        std::fs::write(root.path().join("m/a"), b"abc").unwrap();
        std::fs::write(root.path().join("secret"), b"s").unwrap();
        std::os::unix::fs::symlink("../secret", root.path().join("m/link")).unwrap();
        let folder = root.path().join("m");
        assert_eq!(read_beneath(&folder, "a", 3).unwrap(), "abc");
        assert_eq!(read_beneath(&folder, "a", 2).unwrap_err().to_string(), "it is larger than 2 bytes");
        assert_eq!(read_beneath(&folder, "none", 2).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(read_beneath(&folder, "link", 9).is_err());
    }
}
