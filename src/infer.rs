//! The words every room shares: a request, its answer, and what it cost.
//!
//! No wire, no queue and no engine is known here.

use std::fmt;
use std::ops::AddAssign;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::tensor::NamedTensor;
use crate::units::Nanojoules;

/// A model's name: one path component that cannot leave the repository.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName(Arc<str>);

/// A variant's name, as in `<model>/<version>/variants/<variant>/`: one path component too.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VariantName(Arc<str>);

/// A version of a model, as in `<model>/<version>/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionId(pub u64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "model name {0:?} is not allowed: expected 1 to {NAME_LENGTH_MAX} letters, digits, '-', '_' or '.', not beginning with '.'"
    )]
    Model(String),
    #[error(
        "variant name {0:?} is not allowed: expected 1 to {NAME_LENGTH_MAX} letters, digits, '-', '_' or '.', not beginning with '.'"
    )]
    Variant(String),
    #[error("version {0:?} is not a number")]
    Version(String),
}

/// One inference call after decoding, the same for every wire.
#[derive(Debug)]
pub struct InferRequest {
    pub model: ModelName,
    /// `None` lets the server choose by the model's version policy.
    pub version: Option<VersionId>,
    pub variant: Wanted,
    pub budget: Budget,
    pub id: Option<String>,
    pub inputs: Vec<NamedTensor>,
    /// Names of the outputs wanted; empty means all of them, in the signature's order.
    pub outputs: Vec<String>,
    pub schedule: Schedule,
    pub received_at: Instant,
    /// Time spent decoding, for the `decode` stage.
    pub decode: Duration,
}

impl InferRequest {
    /// Bytes of the input tensors.
    pub fn input_bytes(&self) -> u64 {
        self.inputs.iter().map(|input| input.tensor.bytes().len() as u64).sum()
    }
}

/// Which build of a version a request is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// The server chooses.
    #[default]
    Any,
    /// The version's own.
    Own,
    Named(VariantName),
}

/// What the answer to a request may cost, and what it must be worth.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Budget {
    /// From the server's door to the answer.
    pub latency_max: Option<Duration>,
    /// Of the whole request.
    pub energy_max: Option<Nanojoules>,
    /// The share of rows with the right answer.
    pub accuracy_min: Option<f64>,
}

/// How a request wants to be queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// 1 is the highest priority; 0 asks for the model's default level.
    pub priority: u64,
    /// The longest time in the queue before the queue policy's timeout action applies.
    pub queue_timeout: Option<Duration>,
    /// After this instant nobody waits for the answer.
    pub deadline: Option<Instant>,
}

#[derive(Debug)]
pub struct InferResponse {
    pub model: ModelName,
    pub version: VersionId,
    /// That has answered, where it is not the version's own build.
    pub variant: Option<VariantName>,
    /// Where there was a choice.
    pub variant_reason: Option<VariantReason>,
    /// Where the model's answers are kept.
    pub cache: Option<CacheOutcome>,
    pub id: Option<String>,
    pub outputs: Vec<NamedTensor>,
    pub usage: Usage,
}

/// What one request cost, and how it was batched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// From the room's door to the start of its batch, or waiting for the answer to an equal request.
    pub queue: Duration,
    pub compute: ComputeTimes,
    /// That the request was part of; nothing where the answer was there already, or every step had its own.
    pub batch: Option<Batched>,
    /// CPU time of the batch's threads, shared by rows, or of looking the answer up.
    pub cpu: Duration,
}

/// The batch of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batched {
    pub rows: usize,
    pub reason: BatchReason,
}

/// The stages of one execution, in wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ComputeTimes {
    /// Gathering the inputs into the engine's memory.
    pub gather: Duration,
    pub infer: Duration,
    /// Handing the outputs out to the requests.
    pub scatter: Duration,
}

impl ComputeTimes {
    pub fn total(&self) -> Duration {
        self.gather + self.infer + self.scatter
    }
}

impl AddAssign for ComputeTimes {
    fn add_assign(&mut self, other: Self) {
        self.gather += other.gather;
        self.infer += other.infer;
        self.scatter += other.scatter;
    }
}

/// Why a batch was sent when it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BatchReason {
    /// It reached its largest or a preferred size.
    Full,
    /// The longest delay had passed.
    Delay,
    /// Waiting longer would have cost somebody's deadline.
    Deadline,
    /// A core was idle and waiting was not worth it.
    Idle,
}

impl BatchReason {
    pub const ALL: [Self; 4] = [Self::Full, Self::Delay, Self::Deadline, Self::Idle];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Delay => "delay",
            Self::Deadline => "deadline",
            Self::Idle => "idle",
        }
    }
}

/// Where an answer came from, of a model whose answers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheOutcome {
    /// It was kept.
    Hit,
    /// It was computed for this request.
    Miss,
    /// It was computed for an equal request that came before and was not answered yet.
    Coalesced,
}

impl CacheOutcome {
    pub const ALL: [Self; 3] = [Self::Hit, Self::Miss, Self::Coalesced];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Coalesced => "coalesced",
        }
    }
}

/// Why a build of a version was chosen among several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VariantReason {
    /// Nothing spoke for another than the one that answers by default.
    Default,
    /// The request has named it.
    Named,
    /// The most accurate one within the request's budget.
    Budget,
    /// The server's mode.
    Balanced,
    /// The server's mode.
    Eco,
    /// The machine would take more power than it may.
    PowerCap,
    /// The grid's electricity comes with more carbon than allowed.
    Carbon,
}

impl VariantReason {
    pub const ALL: [Self; 7] =
        [Self::Default, Self::Named, Self::Budget, Self::Balanced, Self::Eco, Self::PowerCap, Self::Carbon];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Named => "named",
            Self::Budget => "budget",
            Self::Balanced => "balanced",
            Self::Eco => "eco",
            Self::PowerCap => "power_cap",
            Self::Carbon => "carbon",
        }
    }
}

impl Budget {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latency = self.latency_max.map(|max| format!("max_latency_ms {}", max.as_secs_f64() * 1e3));
        let energy = self.energy_max.map(|max| format!("max_energy_mj {}", max.as_millijoules()));
        let accuracy = self.accuracy_min.map(|min| format!("min_accuracy {min}"));
        let parts: Vec<String> = [latency, energy, accuracy].into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}

impl ModelName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ModelName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        if is_name(name) { Ok(Self(name.into())) } else { Err(NameError::Model(beginning(name))) }
    }
}

/// Whether a text may name a folder.
fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=NAME_LENGTH_MAX).contains(&text.len()) && !text.starts_with('.') && text.chars().all(allowed)
}

/// As much of a text as a name may have.
fn beginning(text: &str) -> String {
    text.chars().take(NAME_LENGTH_MAX).collect()
}

impl VariantName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VariantName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        if is_name(name) { Ok(Self(name.into())) } else { Err(NameError::Variant(beginning(name))) }
    }
}

impl fmt::Display for VariantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for VariantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for VersionId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Version(beginning(text));
        // `parse` alone would take "+1"; "01" would be a second name for "1".
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) || (text.len() > 1 && text.starts_with('0')) {
            return Err(wrong());
        }
        text.parse().map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Names of models and variants are folder names.
const NAME_LENGTH_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_repository() {
        for good in ["digits", "a", "resnet-50", "x_1.v2"] {
            assert!(good.parse::<ModelName>().is_ok() && good.parse::<VariantName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a\\b", "a b", "é", "a\0", "%2e%2e", &"x".repeat(129)] {
            assert!(bad.parse::<ModelName>().is_err() && bad.parse::<VariantName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn versions_are_plain_numbers() {
        assert_eq!("12".parse(), Ok(VersionId(12)));
        for bad in ["", "v1", "+1", "-1", "01", "1.0", "99999999999999999999999"] {
            assert!(bad.parse::<VersionId>().is_err(), "{bad:?}");
        }
    }
}
