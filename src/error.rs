//! The closed set of codes a client can see, and their two spellings.
//!
//! Rooms have their own error types; `pipeline::InferError::code` maps them here, and the front ends read only
//! this table. Nothing here knows a message or a body.

/// Why a request was refused or failed. New variants are rare: clients switch on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    AlreadyExists,
    BudgetUnmet,
    Cancelled,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    PermissionDenied,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
    Unsupported,
}

/// One row of the table: the code, its name in metrics and bodies, its HTTP status and its gRPC status number.
struct Row(ErrorCode, &'static str, u16, i32);

impl ErrorCode {
    /// Every code, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// The value of the `code` label in metrics and of `"code"` in error bodies.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    pub fn http_status(self) -> u16 {
        self.row().2
    }

    /// The number of the gRPC status (`google.rpc.Code`).
    pub fn grpc_status(self) -> i32 {
        self.row().3
    }

    /// Whether the same request may succeed a moment later, so that `Retry-After` makes sense.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Overloaded | Self::Unavailable | Self::QuotaExceeded)
    }

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}

const TABLE: &[Row] = &[
    Row(ErrorCode::AlreadyExists, "already_exists", 400, 6),
    Row(ErrorCode::BudgetUnmet, "budget_unmet", 412, 9),
    Row(ErrorCode::Cancelled, "cancelled", 499, 1),
    Row(ErrorCode::DeadlineExceeded, "deadline_exceeded", 504, 4),
    Row(ErrorCode::Internal, "internal", 500, 13),
    Row(ErrorCode::InvalidArgument, "invalid_argument", 400, 3),
    Row(ErrorCode::NotFound, "not_found", 404, 5),
    Row(ErrorCode::Overloaded, "overloaded", 429, 8),
    Row(ErrorCode::PayloadTooLarge, "payload_too_large", 413, 8),
    Row(ErrorCode::PermissionDenied, "permission_denied", 403, 7),
    Row(ErrorCode::QuotaExceeded, "quota_exceeded", 429, 8),
    Row(ErrorCode::Unauthenticated, "unauthenticated", 401, 16),
    Row(ErrorCode::Unavailable, "unavailable", 503, 14),
    Row(ErrorCode::Unsupported, "unsupported", 501, 12),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_in_its_own_row() {
        for (position, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, position, "{:?}", row.0);
        }
        assert_eq!(ErrorCode::Unsupported as usize + 1, TABLE.len());
    }
}
