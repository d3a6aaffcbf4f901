//! Opens files strictly beneath a folder: a model is untrusted, and so is every path it names.
//!
//! The folder is resolved once; after that the kernel itself keeps every look-up beneath it (openat2), so there is no
//! gap between checking a path and opening it. What the files mean is not known here.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};

/// A folder that was resolved once and is held open.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
}

/// A regular file and the size it had when it was opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) size: u64,
}

impl Folder {
    /// Follows symbolic links on the way to the folder: whoever configured the path may use them.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let resolved = path.canonicalize()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: openat(rustix::fs::CWD, resolved, flags, Mode::empty())? })
    }

    /// Opens the file that the configuration named. Links are followed, because a Kubernetes ConfigMap mounts
    /// `model.onnx -> ..data/model.onnx`, but only while they stay beneath the folder.
    pub(super) fn open_configured(&self, name: &str) -> io::Result<Opened> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match openat2(&self.fd, name, FILE_FLAGS, Mode::empty(), resolve) {
            // A kernel without openat2: one plain component that is no link cannot leave the folder either.
            Err(rustix::io::Errno::NOSYS) if is_one_component(name) => {
                regular(openat(&self.fd, name, FILE_FLAGS | OFlags::NOFOLLOW, Mode::empty())?.into())
            }
            opened => regular(opened?.into()),
        }
    }

    /// Opens a file that the model named: no link anywhere on its path, a regular file, and no second name (a hard
    /// link) under which somebody else's file could have been brought in.
    pub(super) fn open_untrusted(&self, location: &str) -> io::Result<Opened> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let fd = openat2(&self.fd, location, FILE_FLAGS, Mode::empty(), resolve).map_err(|errno| match errno {
            rustix::io::Errno::XDEV => refused("it leads out of the model's folder"),
            rustix::io::Errno::LOOP => refused("its path has a symbolic link"),
            rustix::io::Errno::NOSYS => refused("this kernel lacks openat2, which external data needs"),
            other => other.into(),
        })?;
        let opened = regular(fd.into())?;
        let links = rustix::fs::fstat(&opened.file)?.st_nlink;
        match links {
            1 => Ok(opened),
            links => Err(refused(&format!("it has {links} hard links, expected 1"))),
        }
    }
}

fn regular(file: File) -> io::Result<Opened> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(refused("it is not a regular file"));
    }
    Ok(Opened { file, size: metadata.len() })
}

fn is_one_component(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains('/')
}

fn refused(reason: &str) -> io::Error {
    io::Error::other(reason.to_owned())
}

/// Non-blocking, so that a named pipe cannot hang the loader; it has no effect on regular files.
const FILE_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn folder() -> (TempDir, Folder) {
        let root = tempfile::tempdir().unwrap();
        let inside = root.path().join("1");
        fs::create_dir(&inside).unwrap();
        fs::create_dir(inside.join("sub")).unwrap();
        fs::write(inside.join("weights"), b"in").unwrap();
        fs::write(inside.join("sub/weights"), b"in").unwrap();
        fs::write(root.path().join("secret"), b"out").unwrap();
        let folder = Folder::open(&inside).unwrap();
        (root, folder)
    }

    fn refusal(folder: &Folder, location: &str) -> String {
        folder.open_untrusted(location).unwrap_err().to_string()
    }

    #[test]
    fn untrusted_paths_stay_beneath() {
        let (root, folder) = folder();
        assert_eq!(folder.open_untrusted("weights").unwrap().size, 2);
        assert_eq!(folder.open_untrusted("./sub/../sub/weights").unwrap().size, 2);
        let absolute = root.path().join("secret");
        for outside in ["../secret", "sub/../../secret", absolute.to_str().unwrap(), "/etc/passwd"] {
            assert_eq!(refusal(&folder, outside), "it leads out of the model's folder", "{outside}");
        }
        assert_eq!(refusal(&folder, "sub"), "it is not a regular file");
        for broken in ["", "missing", "a\0b"] {
            assert!(folder.open_untrusted(broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn untrusted_links_are_refused() {
        let (root, folder) = folder();
        let inside = root.path().join("1");
        symlink("weights", inside.join("soft")).unwrap();
        symlink("sub", inside.join("parent")).unwrap();
        symlink(root.path().join("secret"), inside.join("absolute")).unwrap();
        fs::hard_link(root.path().join("secret"), inside.join("hard")).unwrap();
        for soft in ["soft", "parent/weights", "absolute"] {
            assert_eq!(refusal(&folder, soft), "its path has a symbolic link", "{soft}");
        }
        assert_eq!(refusal(&folder, "hard"), "it has 2 hard links, expected 1");
    }

    #[test]
    fn a_pipe_does_not_hang() {
        let (root, folder) = folder();
        let pipe = root.path().join("1/pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!(refusal(&folder, "pipe"), "it is not a regular file");
    }

    #[test]
    fn a_config_map_is_followed_and_no_further() {
        let (root, folder) = folder();
        let inside = root.path().join("1");
        fs::create_dir(inside.join("..2024")).unwrap();
        fs::write(inside.join("..2024/model.onnx"), b"onnx").unwrap();
        symlink("..2024", inside.join("..data")).unwrap();
        symlink("..data/model.onnx", inside.join("model.onnx")).unwrap();
        symlink("../secret", inside.join("escape.onnx")).unwrap();
        assert_eq!(folder.open_configured("model.onnx").unwrap().size, 4);
        assert!(folder.open_configured("escape.onnx").is_err());
        assert!(folder.open_configured("../secret").is_err());
    }
}
