//! Who vouches for the files of a model: bytes of a signature -> a [`Statement`] about files, and the [`Signer`] who made it.
//!
//! `bundle` takes the envelope apart, `trust` holds it against keys and certificates from files, `statement` reads what was
//! signed. Nothing here knows a model's folder: what is done with a statement is the repository's matter, docs/signatures.md
//! says what operators do with it.

mod bundle;
mod certificate;
pub mod config;
mod statement;
#[cfg(test)]
mod tests;
mod trust;

pub use config::{Policy, SignaturesConfig};
pub use statement::{SINGLE, Statement, is_within, relative};
pub use trust::{Signed, Signer, Trust, TrustError};

/// Why a signature does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("the signature cannot be read: {0}")]
    Broken(String),
    /// A whole signature of a kind that is not checked here.
    #[error("the signature is of a kind that is not supported: {0}")]
    Unsupported(String),
    #[error("the signature has {what}, the limit is {limit}")]
    TooLarge { what: String, limit: u64 },
    /// By somebody else.
    #[error("the signer is not trusted: {0}")]
    Untrusted(String),
    /// What is signed is not what is here.
    #[error("the signature does not belong to its contents")]
    Forged,
}

impl SignatureError {
    /// The word for it in metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Broken(_) | Self::Unsupported(_) | Self::TooLarge { .. } => "broken",
            Self::Untrusted(_) => "untrusted",
            Self::Forged => "altered",
        }
    }
}
