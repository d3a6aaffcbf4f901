//! Why shared memory cannot be used. No text has a key, a path, or what the system said.

use rustix::io::Errno;

use super::EXTENSION;
use super::config::NAME_BYTES_MAX;
use crate::error::ErrorCode;
use crate::frontend::Refusal;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    #[error("the {EXTENSION} extension is not served, shared_memory.enabled turns it on")]
    Off,
    #[error("shared memory is for programs, got a call of a page")]
    Page,
    #[error("expected a region's name of 1 to {NAME_BYTES_MAX} bytes, got {0}")]
    Name(usize),
    #[error(
        "expected a key of at most {NAME_BYTES_MAX} printable characters behind its slash, with no other slash, that begins \
         as shared_memory.prefix says"
    )]
    Key,
    #[error(
        "expected the key of a segment that belongs to the server's user and that it may read and write, got another"
    )]
    Segment,
    #[error("expected a region of at least one byte within its segment, got offset {offset} and byte_size {byte_size}")]
    BeyondSegment { offset: u64, byte_size: u64 },
    #[error("shared memory region {0:?} is registered already")]
    Registered(String),
    #[error("shared memory region {0:?} is not registered")]
    Unknown(String),
    #[error("too much shared memory is registered: {what} would pass the limit of {limit}")]
    Full { what: &'static str, limit: u64 },
    #[error(
        "expected a part of shared memory region {region:?}, which has {has} bytes, got offset {offset} and byte_size {byte_size}"
    )]
    BeyondRegion { region: String, has: u64, offset: u64, byte_size: u64 },
    #[error("expected at least {needed} bytes of shared memory, got byte_size {byte_size}")]
    TooSmall { needed: u64, byte_size: u64 },
    #[error("the segment of shared memory is shorter than it was when it was registered")]
    Shrunk,
    #[error("the segment of shared memory cannot be read or written")]
    System,
}

impl MemoryError {
    pub(super) fn system(errno: Errno) -> Self {
        tracing::warn!(error = %errno, "shared memory cannot be read or written");
        Self::System
    }

    fn code(&self) -> ErrorCode {
        match self {
            Self::Off => ErrorCode::Unsupported,
            Self::Page => ErrorCode::PermissionDenied,
            Self::Registered(_) => ErrorCode::AlreadyExists,
            Self::Unknown(_) => ErrorCode::NotFound,
            Self::Full { .. } => ErrorCode::QuotaExceeded,
            Self::Name(_)
            | Self::Key
            | Self::Segment
            | Self::BeyondSegment { .. }
            | Self::BeyondRegion { .. }
            | Self::TooSmall { .. }
            | Self::Shrunk
            | Self::System => ErrorCode::InvalidArgument,
        }
    }
}

impl From<MemoryError> for Refusal {
    fn from(error: MemoryError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
