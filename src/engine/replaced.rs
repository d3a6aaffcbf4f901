//! Files that are written beside where they belong, and take their name when they are whole: nobody reads, or has mapped, a
//! part of one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

/// Puts a file with what `fill` writes at a path, in the place of one that may be there. Its name until then is hidden.
pub(super) fn replace<T>(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{}.{}.tmp", name.trim_start_matches('.'), std::process::id()));
    // What a process of the same number has left.
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&beside)?;
    let written = fill(&mut file).and_then(|written| fs::rename(&beside, path).map(|()| written));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_there_whole_or_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let names = || fs::read_dir(folder.path()).unwrap().count();
        replace(&path, |file| file.write_all(b"first")).unwrap();
        let failed = replace(&path, |file| file.write_all(b"sec").and(Err::<(), _>(io::Error::other("on purpose"))));
        assert_eq!((failed.unwrap_err().to_string(), names()), ("on purpose".into(), 1));
        assert_eq!(fs::read(&path).unwrap(), b"first");
        fs::write(folder.path().join(format!(".a.{}.tmp", std::process::id())), "left").unwrap();
        replace(&path, |file| file.write_all(b"third")).unwrap();
        assert_eq!((fs::read(&path).unwrap(), names()), (b"third".to_vec(), 1));
    }
}
