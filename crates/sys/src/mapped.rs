//! A file as memory: pages come when they are touched, and are shared with whoever else has the file mapped.

use std::fs::File;
use std::io;

use memmap2::Mmap;

/// The bytes that a file has, for as long as this lives.
#[derive(Debug)]
pub struct Mapped(Mmap);

impl Mapped {
    /// What is read changes where somebody writes into the file, and a file that somebody cuts short ends the process when
    /// a page behind its new end is touched: files to be mapped are replaced by renaming, and not mapped where that is not
    /// certain.
    ///
    /// # Errors
    /// When the system cannot map the file.
    pub fn of(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is private and read-only. That nobody changes the file in the meantime is asked of callers
        // above, because no call can see to it.
        Ok(Self(unsafe { Mmap::map(file)? }))
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_was_replaced_reads_as_before() {
        let folder = tempfile::tempdir().unwrap();
        let [path, beside] = ["a", "b"].map(|name| folder.path().join(name));
        File::create(&path).unwrap().write_all(b"before").unwrap();
        let mapped = Mapped::of(&File::open(&path).unwrap()).unwrap();
        std::fs::write(&beside, b"after").unwrap();
        std::fs::rename(&beside, &path).unwrap();
        assert_eq!(mapped.as_ref(), b"before");
        assert_eq!(Mapped::of(&File::open(&path).unwrap()).unwrap().as_ref(), b"after");
    }

    #[test]
    fn an_empty_file_has_no_bytes() {
        let mapped = Mapped::of(&tempfile::tempfile().unwrap()).unwrap();
        assert!(mapped.as_ref().is_empty());
    }
}
