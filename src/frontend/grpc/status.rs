//! A refusal as a gRPC status. The code comes from the table of codes and from nowhere else.

use std::error::Error;
use std::sync::Arc;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::error::ErrorCode;
use crate::frontend::Refusal;
use crate::frontend::refusal::shortened;

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        refusal.log();
        let code = Code::from_i32(refusal.code.grpc_status());
        let mut status = Self::new(code, shortened(&refusal.message));
        if let Some(seconds) = refusal.retry_after_seconds() {
            status.metadata_mut().insert(RETRY_AFTER, MetadataValue::from(seconds));
        }
        // Several codes share a status; whoever counts this one asks for its code.
        status.set_source(Arc::new(refusal));
        status
    }
}

/// The code behind a status. The library's own have the first of the table that clients see alike.
pub(super) fn code(status: &Status) -> ErrorCode {
    if let Some(refusal) = status.source().and_then(|source| source.downcast_ref::<Refusal>()) {
        return refusal.code;
    }
    if status.code() == Code::OutOfRange {
        return ErrorCode::PayloadTooLarge;
    }
    let number = i32::from(status.code());
    ErrorCode::all().find(|code| code.grpc_status() == number).unwrap_or(ErrorCode::Internal)
}

/// The status that the table has for what the gRPC library refuses by a code of its own.
pub(super) fn in_our_codes(status: Status) -> Status {
    if status.code() == Code::OutOfRange {
        let code = Code::from_i32(ErrorCode::PayloadTooLarge.grpc_status());
        return Status::new(code, status.message());
    }
    status
}

const RETRY_AFTER: &str = "retry-after";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn statuses_follow_the_table() {
        for code in ErrorCode::all() {
            let status = Status::from(Refusal::new(code, "why"));
            assert_eq!(i32::from(status.code()), code.grpc_status());
            assert_eq!(status.message(), "why");
            assert!(status.metadata().get(RETRY_AFTER).is_none());
            assert_eq!(super::code(&status), code);
        }
    }

    #[test]
    fn a_wait_is_told_in_seconds() {
        let wait = Some(Duration::from_secs(2));
        let refusal = Refusal { retry_after: wait, ..Refusal::new(ErrorCode::Overloaded, "too much") };
        assert_eq!(Status::from(refusal).metadata().get(RETRY_AFTER).unwrap(), "2");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let status = Status::from(Refusal::invalid("ü".repeat(2000)));
        assert_eq!(status.message().chars().filter(|c| *c == 'ü').count(), 1024);
        assert!(status.message().ends_with("..."));
    }

    #[test]
    fn a_message_too_large_is_resource_exhausted() {
        assert_eq!(in_our_codes(Status::out_of_range("found 9 bytes")).code(), Code::ResourceExhausted);
        assert_eq!(in_our_codes(Status::internal("x")).code(), Code::Internal);
        assert_eq!(code(&Status::out_of_range("found 9 bytes")), ErrorCode::PayloadTooLarge);
        assert_eq!(code(&Status::unknown("x")), ErrorCode::Internal);
    }
}
