//! A file as a message is decoded from it: what is long goes from the file into memory of its own, so that it can be given
//! back before the rest is. Knows no message.

use std::fs::File;
use std::io::{self, Read};

use bytes::{Buf, Bytes};

/// What is left of a file of a known size.
#[derive(Debug)]
pub(super) struct FileBytes {
    file: File,
    /// Read, and taken up to `at`.
    window: Vec<u8>,
    at: usize,
    /// Bytes behind the window.
    behind: usize,
    /// Why zeros stand for what could not be read: a buffer has no errors.
    failed: Option<io::Error>,
}

impl FileBytes {
    pub(super) fn new(file: File, size: usize) -> Self {
        let mut bytes = Self { file, window: Vec::new(), at: 0, behind: size, failed: None };
        bytes.fill();
        bytes
    }

    /// Whether all was read that the file said it has, and no more is there.
    ///
    /// # Errors
    /// When the file could not be read, or is longer or shorter now.
    pub(super) fn end(mut self) -> io::Result<()> {
        match (self.failed.take(), self.file.read(&mut [0])?) {
            (Some(error), _) => Err(error),
            (None, more) if more > 0 && self.behind == 0 => Err(changed()),
            (None, _) => Ok(()),
        }
    }

    /// The next window, of an empty one.
    fn fill(&mut self) {
        let count = self.behind.min(WINDOW_BYTES);
        let mut window = std::mem::take(&mut self.window);
        window.clear();
        self.read(&mut window, count);
        (self.window, self.at) = (window, 0);
    }

    /// Appends so many bytes that lie behind the window.
    fn read(&mut self, to: &mut Vec<u8>, count: usize) {
        let end = to.len() + count;
        to.reserve_exact(count);
        if self.failed.is_none() {
            let read = (&self.file).take(count as u64).read_to_end(to);
            self.failed = read.err().or_else(|| (to.len() < end).then(changed));
        }
        to.resize(end, 0);
        self.behind -= count;
    }
}

impl Buf for FileBytes {
    fn remaining(&self) -> usize {
        self.window.len() - self.at + self.behind
    }

    fn chunk(&self) -> &[u8] {
        &self.window[self.at..]
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining(), "what is taken is there");
        let mut left = count;
        loop {
            let here = left.min(self.window.len() - self.at);
            self.at += here;
            left -= here;
            if self.at == self.window.len() && self.behind > 0 {
                self.fill();
            }
            if left == 0 {
                return;
            }
        }
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        assert!(count <= self.remaining(), "what is taken is there");
        let here = &self.window[self.at..][..count.min(self.window.len() - self.at)];
        let rest = count - here.len();
        let mut bytes = Vec::with_capacity(count);
        bytes.extend_from_slice(here);
        if rest > 0 {
            self.read(&mut bytes, rest);
        }
        self.advance(count - rest);
        bytes.into()
    }
}

fn changed() -> io::Error {
    io::Error::other("it changed while it was read")
}

/// As much as a read is worth; what is longer passes it by.
const WINDOW_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(size: usize) -> (File, Vec<u8>) {
        let contents: Vec<u8> = (0..=250u8).cycle().take(size).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&contents).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        (file, contents)
    }

    #[test]
    fn pieces_of_any_length_follow_each_other() {
        let (file, contents) = file(3 * WINDOW_BYTES + 7);
        let mut bytes = FileBytes::new(file, contents.len());
        let mut at = 0;
        for (count, copied) in [(1, true), (100, false), (WINDOW_BYTES, true), (0, true), (0, false), (70_000, false)] {
            match copied {
                true => assert_eq!(bytes.copy_to_bytes(count), contents[at..at + count]),
                false => bytes.advance(count),
            }
            at += count;
            assert_eq!(bytes.remaining(), contents.len() - at);
            assert_eq!(bytes.chunk()[0], contents[at]);
        }
        assert_eq!(bytes.copy_to_bytes(contents.len() - at), contents[at..]);
        assert!(bytes.chunk().is_empty());
        assert!(bytes.end().is_ok());
        let (file, _) = self::file(0);
        let bytes = FileBytes::new(file, 0);
        assert_eq!((bytes.remaining(), bytes.chunk().len(), bytes.end().is_ok()), (0, 0, true));
    }

    #[test]
    fn a_file_of_another_length_is_told_at_the_end() {
        for (size, said, taken, is_ok) in [
            (100, 100, 100, true),
            (100, 100, 10, true),
            (100, 200, 200, false),
            (100, 99, 99, false),
            (WINDOW_BYTES, 3 * WINDOW_BYTES, 3 * WINDOW_BYTES, false),
        ] {
            let mut bytes = FileBytes::new(file(size).0, said);
            assert_eq!(bytes.copy_to_bytes(taken).len(), taken);
            assert_eq!(bytes.end().is_ok(), is_ok, "{size} {said} {taken}");
        }
    }
}
