//! What can go wrong in this room, named for the cause.
//!
//! Messages that reach clients name files relative to the model's folder, never a path of this machine; only the
//! errors of a start ([`RepositoryError::Start`]) are for the operator alone.

use std::fmt;
use std::time::Duration;

use super::config::Control;
use crate::digest::Digest;
use crate::engine::EngineError;
use crate::error::ErrorCode;
use crate::infer::{ModelName, NameError, VersionId};
use crate::integrity::SignatureError;

/// Why an operation on the repository failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepositoryError {
    #[error("models cannot be loaded or unloaded by request: repository.control is \"{mode}\", expected \"explicit\"")]
    Refused { mode: Control },
    #[error("model {0:?} is not found in the repository")]
    UnknownModel(ModelName),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("model {model:?}: {error}")]
    Config { model: ModelName, error: ConfigError },
    #[error(transparent)]
    Inline(#[from] InlineError),
    #[error("failed to load model {model:?}: {reason}")]
    Load { model: ModelName, reason: String },
    #[error("model {model:?} has {waiting} loads waiting already")]
    Busy { model: ModelName, waiting: usize },
    #[error("{limit} loads run or wait already, repository.loads_waiting_max allows no more")]
    TooManyLoads { limit: usize },
    #[error("a model's folder is expected beneath one of repository.paths, got {0:?}")]
    Outside(String),
    #[error("model {0:?} was unloaded before its load had finished")]
    Overtaken(ModelName),
    #[error("model {model:?} is not ready: {reason}")]
    NotReady { model: ModelName, reason: String },
    #[error("model {model:?} does not fit: repository.demand_bytes_max is {limit} bytes")]
    NoMemory { model: ModelName, limit: u64 },
    #[error("{limit} requests wait for models to load already, repository.demand_waiting_max allows no more")]
    ManyWait { limit: usize },
    #[error("model {model:?} is not loaded yet after {} ms", .waited.as_millis())]
    NotYet { model: ModelName, waited: Duration },
    #[error("the deadline has passed before model {0:?} was loaded")]
    TooLate(ModelName),
    #[error("the repository is stopping")]
    Stopped,
    #[error("repository path {path:?} cannot be read: {reason}")]
    Start { path: String, reason: String },
    #[error(
        "repository.model_name names one model: expected its folder or an .onnx file, got a folder of models at {0:?}"
    )]
    ManyModels(String),
    #[error("models failed to load: {}", .0.join("; "))]
    Unserved(Vec<String>),
}

/// A setting that is wrong, and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigError {
    /// Relative to the model's folder; empty where no file is at fault.
    pub file: String,
    pub line: Option<usize>,
    /// Dotted, as in `batching.preferred`.
    pub field: String,
    pub problem: String,
}

/// What is wrong with the files that a load request carries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InlineError {
    #[error("file parameter {0:?} is not allowed: expected \"<version>/<filename>\", a number and a plain file name")]
    Name(String),
    #[error("file parameters need a \"config\" parameter beside them")]
    NoConfig,
    #[error("inline files have {got} bytes together, the limit is {limit}")]
    TooLarge { got: u64, limit: u64 },
    #[error("inline files cannot be stored: {0}")]
    Store(String),
}

/// Why nobody vouches for the files of a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum IntegrityError {
    #[error("it is not signed: expected {file} in the model's folder or the version's")]
    Unsigned { file: String },
    #[error("{file}: {error}")]
    Signature { file: String, error: SignatureError },
    #[error("{file} is not what was signed: expected sha256 {expected}, got {got}")]
    Altered { file: String, expected: Digest, got: Digest },
    #[error("{file} is not what the manifest says: expected sha256 {expected}, got {got}")]
    Declared { file: String, expected: Digest, got: Digest },
    #[error("{0} is missing, somebody vouches for it")]
    Missing(String),
    #[error("{0} is not covered by the signature")]
    Extra(String),
    #[error("{file}: {reason}")]
    Unreadable { file: String, reason: String },
    #[error("expected a signature over the file itself, got one over a folder")]
    OfFolder,
    #[error("expected a signature over a folder, got one over a file")]
    OfFile,
    #[error("expected a signature over {expected:?}, got one over {got:?}: signatures.names")]
    Name { expected: String, got: String },
    #[error(
        "{file}: expected a signature over the model's folder, that of a version has no model's name: signatures.names"
    )]
    NoName { file: String },
    #[error("files that come with a request are signed by nobody: signatures.policy")]
    Inline,
}

/// Why one version, or every version of a model, could not be loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Inline(#[from] InlineError),
    #[error(transparent)]
    Integrity(#[from] IntegrityError),
    #[error("it is not found in the repository")]
    NotFound,
    #[error("{file}: {reason}")]
    File { file: String, reason: String },
    #[error("an ensemble is expected in a folder of its own")]
    NoFolder,
    #[error("step {step:?}: {reason}")]
    Step { step: String, reason: String },
    #[error("{0}")]
    Steps(String),
    #[error(
        "an ensemble has at most {limit} steps, those of ensembles among them included, got {got}: repository.ensemble_steps_max"
    )]
    TooManySteps { got: usize, limit: usize },
    #[error("version {version} has no {file}")]
    NoModelFile { version: VersionId, file: String },
    #[error("it has no version: expected <version>/{file}")]
    NoVersion { file: String },
    #[error("warm-up {sample:?} failed: {reason}")]
    WarmUp { sample: String, reason: String },
    #[error("output {output:?} does not match the model's signature: expected {expected}, got {got}")]
    WrongOutput { output: String, expected: String, got: String },
    #[error("files changed while they were loaded")]
    Changed,
    #[error("the engine panicked while {0}")]
    Panicked(&'static str),
}

impl RepositoryError {
    /// The code clients see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Refused { .. } => ErrorCode::PermissionDenied,
            Self::UnknownModel(_) => ErrorCode::NotFound,
            Self::Inline(InlineError::TooLarge { .. }) => ErrorCode::PayloadTooLarge,
            Self::Inline(InlineError::Store(_)) | Self::Start { .. } | Self::ManyModels(_) | Self::Unserved(_) => {
                ErrorCode::Internal
            }
            Self::Name(_) | Self::Outside(_) | Self::Config { .. } | Self::Inline(_) | Self::Load { .. } => {
                ErrorCode::InvalidArgument
            }
            Self::Busy { .. } | Self::TooManyLoads { .. } => ErrorCode::Overloaded,
            Self::TooLate(_) => ErrorCode::DeadlineExceeded,
            Self::Overtaken(_)
            | Self::NotReady { .. }
            | Self::NoMemory { .. }
            | Self::ManyWait { .. }
            | Self::NotYet { .. }
            | Self::Stopped => ErrorCode::Unavailable,
        }
    }
}

impl IntegrityError {
    /// The word for it in metrics.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::Unsigned { .. } | Self::Inline => "unsigned",
            Self::Signature { error, .. } => error.outcome(),
            Self::Altered { .. } | Self::Declared { .. } | Self::Missing(_) | Self::Extra(_) => "altered",
            Self::Unreadable { .. } | Self::OfFolder | Self::OfFile => "broken",
            Self::Name { .. } | Self::NoName { .. } => "untrusted",
        }
    }
}

impl ConfigError {
    /// A wrong field of a file.
    pub(super) fn field(file: &str, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { file: file.into(), line: None, field: field.into(), problem: problem.into() }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match (self.file.is_empty(), self.line) {
            (false, Some(line)) => parts.push(format!("{}:{line}", self.file)),
            (false, None) => parts.push(self.file.clone()),
            (true, Some(line)) => parts.push(format!("line {line}")),
            (true, None) => {}
        }
        if !self.field.is_empty() {
            parts.push(self.field.clone());
        }
        parts.push(self.problem.clone());
        f.write_str(&parts.join(": "))
    }
}

/// The number of the line, counted from 1, on which a byte offset stands.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_errors_say_where() {
        let mut error = ConfigError::field("manifest.toml", "batching.preferred", "expected a list, got 3");
        error.line = Some(4);
        assert_eq!(error.to_string(), "manifest.toml:4: batching.preferred: expected a list, got 3");
        let bare = ConfigError { problem: "empty".into(), ..ConfigError::default() };
        assert_eq!(bare.to_string(), "empty");
    }

    #[test]
    fn lines_count_from_one() {
        let text = "a\nbc\n";
        assert_eq!([0, 1, 2, 4, 5, 99].map(|at| line_at(text, at)), [1, 1, 2, 2, 3, 3]);
    }
}
