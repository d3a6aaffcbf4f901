//! A region: a part of a segment that was opened once, and is read and written as a file.
//!
//! Nothing is mapped. Whoever made the segment may make it smaller at any time, and a process that touches a mapped page
//! beyond the end is ended by the system; a read beyond the end of a file is a short one. What is read is a copy, so that
//! nobody changes it under the server's hands.

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::{pread, pwrite, retry_on_intr};
use rustix::process::geteuid;

use super::error::MemoryError;

/// What a client has registered, as it said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub key: String,
    /// Of the region in the segment.
    pub offset: u64,
    pub byte_size: u64,
}

/// Lives as long as it is registered or a request uses it.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) registration: Registration,
    segment: OwnedFd,
}

impl Region {
    /// `name` is one plain component, which cannot leave the folder where it is no link.
    ///
    /// # Errors
    /// When there is no such segment, it is none that the server may use, or the region is not within it. Which of these
    /// it was is not told apart: clients could find out what else is there.
    pub(super) fn open(folder: &OwnedFd, name: &str, registration: Registration) -> Result<Self, MemoryError> {
        let told = |errno| {
            tracing::debug!(error = %errno, "a segment of shared memory was not opened");
            MemoryError::Segment
        };
        let segment = openat(folder, name, FLAGS, Mode::empty()).map_err(told)?;
        let stat = fstat(&segment).map_err(told)?;
        // A second name could be one that somebody gave to what is not theirs.
        let is_plain = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1;
        if !is_plain || stat.st_uid != geteuid().as_raw() {
            tracing::debug!(is_plain, owner = stat.st_uid, "a segment of shared memory was refused");
            return Err(MemoryError::Segment);
        }
        let Registration { offset, byte_size, .. } = registration;
        let end = offset.checked_add(byte_size).filter(|end| byte_size > 0 && *end <= size(stat.st_size));
        end.ok_or(MemoryError::BeyondSegment { offset, byte_size })?;
        Ok(Self { registration, segment })
    }

    /// Whether a part of the region is within it.
    pub(super) fn has(&self, offset: u64, byte_size: u64) -> bool {
        offset.checked_add(byte_size).is_some_and(|end| end <= self.registration.byte_size)
    }

    /// A copy of a part that is within the region.
    ///
    /// # Errors
    /// When the segment has become shorter.
    pub(super) fn read(&self, offset: u64, byte_size: usize) -> Result<Bytes, MemoryError> {
        let at = self.registration.offset + offset;
        let mut bytes = Vec::with_capacity(byte_size);
        while bytes.len() < byte_size {
            let from = at + bytes.len() as u64;
            let read = retry_on_intr(|| pread(&self.segment, spare_capacity(&mut bytes), from));
            if read.map_err(MemoryError::system)? == 0 {
                return Err(MemoryError::Shrunk);
            }
        }
        // The allocator may have given more than was asked for.
        bytes.truncate(byte_size);
        Ok(bytes.into())
    }

    /// Writes to a part that is within the region.
    ///
    /// # Errors
    /// When the segment has become shorter.
    pub(super) fn write(&self, offset: u64, mut bytes: &[u8]) -> Result<(), MemoryError> {
        let mut at = self.registration.offset + offset;
        // Writing would make it longer again.
        let end = at + bytes.len() as u64;
        if size(fstat(&self.segment).map_err(MemoryError::system)?.st_size) < end {
            return Err(MemoryError::Shrunk);
        }
        while !bytes.is_empty() {
            let written = retry_on_intr(|| pwrite(&self.segment, bytes, at)).map_err(MemoryError::system)?;
            if written == 0 {
                return Err(MemoryError::Shrunk);
            }
            bytes = &bytes[written..];
            at += written as u64;
        }
        Ok(())
    }
}

/// The system's sizes have a sign.
fn size(of_file: i64) -> u64 {
    u64::try_from(of_file).unwrap_or(0)
}

/// Non-blocking, so that a named pipe cannot hang the call.
const FLAGS: OFlags =
    OFlags::RDWR.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
