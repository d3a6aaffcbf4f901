//! What a front end tells a client that gets no answer: a code, a sentence, and how long to wait.

use std::borrow::Cow;
use std::time::Duration;

use crate::admission::Overloaded;
use crate::error::ErrorCode;
use crate::infer::NameError;
use crate::pipeline::InferError;
use crate::repository::catalog::LookupError;
use crate::tensor::{TensorError, UnknownDType};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: ErrorCode,
    pub message: String,
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unsupported, message)
    }

    /// A call of an extension that this server does not advertise.
    pub fn extension(name: &str) -> Self {
        Self::unsupported(format!("the {name} extension is not served"))
    }

    /// An error of the pipeline, with the wait it or else the configuration suggests.
    pub fn infer(error: &InferError, default_wait: Duration) -> Self {
        Self { code: error.code(), message: error.to_string(), retry_after: error.retry_after(default_wait) }
    }
}

impl Refusal {
    /// The same with a wait, where waiting helps and nothing says how long.
    pub(super) fn or_wait(self, default: Duration) -> Self {
        let wait = self.retry_after.or_else(|| self.code.is_transient().then_some(default));
        Self { retry_after: wait, ..self }
    }

    /// Whole seconds, rounded up: 0 would ask for an immediate retry.
    pub(super) fn retry_after_seconds(&self) -> Option<u64> {
        let wait = self.retry_after?;
        Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
    }

    /// To be called where it becomes an answer, within the span of its request: errors of ours are told in the log.
    pub(super) fn log(&self) {
        if self.code == ErrorCode::Internal {
            tracing::error!(error = self.message, "request failed");
        }
    }
}

impl From<Overloaded> for Refusal {
    fn from(error: Overloaded) -> Self {
        Self { code: ErrorCode::Overloaded, message: error.to_string(), retry_after: Some(error.retry_after) }
    }
}

/// A message as it is sent: what a client sent stands in it, and would come back at any length.
pub(super) fn shortened(message: &str) -> Cow<'_, str> {
    if message.len() <= MESSAGE_BYTES_MAX {
        return Cow::Borrowed(message);
    }
    Cow::Owned(format!("{}...", &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)]))
}

impl From<LookupError> for Refusal {
    fn from(error: LookupError) -> Self {
        let code = match error {
            LookupError::UnknownModel(_)
            | LookupError::UnknownVersion(..)
            | LookupError::UnknownLabel { .. }
            | LookupError::UnknownVariant { .. } => ErrorCode::NotFound,
            LookupError::NotReady(..) | LookupError::VariantNotReady { .. } => ErrorCode::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<TensorError> for Refusal {
    fn from(error: TensorError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<UnknownDType> for Refusal {
    fn from(error: UnknownDType) -> Self {
        Self::invalid(error.to_string())
    }
}

/// gRPC sends a message in a header: percent-encoding can triple it, and together with the other headers it stays below
/// the 8 KiB that clients take.
const MESSAGE_BYTES_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_whole_seconds() {
        for (wait, seconds) in [(0, 1), (900, 1), (1000, 1), (1001, 2)] {
            let refusal = Refusal {
                retry_after: Some(Duration::from_millis(wait)),
                ..Refusal::new(ErrorCode::Overloaded, "too much")
            };
            assert_eq!(refusal.retry_after_seconds(), Some(seconds));
        }
        assert_eq!(Refusal::invalid("x").retry_after_seconds(), None);
    }

    #[test]
    fn a_wait_is_told_where_waiting_helps() {
        let minute = Duration::from_secs(60);
        for (code, wait) in [(ErrorCode::Overloaded, Some(minute)), (ErrorCode::NotFound, None)] {
            assert_eq!(Refusal::new(code, "why").or_wait(minute).retry_after, wait);
        }
        let own = Refusal { retry_after: Some(minute), ..Refusal::new(ErrorCode::Overloaded, "why") };
        assert_eq!(own.or_wait(Duration::ZERO).retry_after, Some(minute));
    }
}
