//! Where energy is read from: counters of the hardware, a meter outside, or a model. Each gives cumulative numbers; which one
//! is taken is decided once, at the start.

mod file;
mod hwmon;
mod model;
mod perf;
mod powercap;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::config::{MeteringConfig, SourceChoice};
use super::counter::{Reading, Zone};
use super::moment::Moment;
use crate::units::Nanojoules;

pub use model::Coefficients;
use model::Model;
pub(super) use model::nanowatts;

/// Gives the counters as they are at a moment.
pub(super) trait Source: Send {
    /// # Errors
    /// When any of the counters cannot be read: a sum of the others would be too small.
    fn read(&mut self, moment: &Moment) -> Result<Vec<Zone>, SourceError>;
}

/// What kind a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Powercap,
    Perf,
    Hwmon,
    File,
    Model,
}

/// What a number is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// A counter of hardware said so.
    Measured,
    /// A power model said so, from CPU time.
    Modelled,
}

/// A source that is at work.
pub(super) struct Opened {
    pub kind: Kind,
    /// Of the model.
    pub coefficients: Option<Coefficients>,
    pub source: Box<dyn Source>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("kind", &self.kind).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(
        "{}: expected a readable counter of microjoules, got permission denied: Linux lets root alone read it, because it \
         tells what others compute (CVE-2020-8694); docs/energy.md says how a container is given it",
        path.display()
    )]
    RootOnly { path: PathBuf },
    #[error("{}: expected {expected}", path.display())]
    Unreadable { path: PathBuf, expected: &'static str, source: io::Error },
    #[error("{}: expected {expected}, got {got:?}", path.display())]
    Garbage { path: PathBuf, expected: &'static str, got: String },
    #[error("{}: expected {expected}, got none", path.display())]
    Absent { path: PathBuf, expected: &'static str },
    #[error("metering.file_path: expected a path for the source \"file\", got an empty one")]
    NoFile,
    #[error("expected two differences of readings within {0:?}, got counters that do not move")]
    Still(Duration),
    #[error("expected two differences of readings, got counters that {0}")]
    Unsteady(&'static str),
    #[error("the machine's CPU time cannot be read")]
    Clock(#[from] io::Error),
    #[error("metering.source: the source {kind:?} does not work")]
    Refused { kind: &'static str, source: Box<Self> },
}

/// The source that the settings ask for. `auto` takes the first that works, and the log says what became of the others.
/// `after` lets a time pass and gives the moment after it.
///
/// # Errors
/// When a source that was named does not work.
pub(super) fn choose(
    config: &MeteringConfig,
    mut after: impl FnMut(Duration) -> io::Result<Moment>,
) -> Result<Option<Opened>, SourceError> {
    let kind = match config.source {
        SourceChoice::None => return Ok(None),
        SourceChoice::Auto => return Ok(first_that_works(config, after)),
        SourceChoice::Powercap => Kind::Powercap,
        SourceChoice::Perf => Kind::Perf,
        SourceChoice::Hwmon => Kind::Hwmon,
        SourceChoice::File => Kind::File,
        SourceChoice::Model => Kind::Model,
    };
    let refused = |source| SourceError::Refused { kind: kind.as_str(), source: Box::new(source) };
    let mut opened = open(kind, config).map_err(refused)?;
    // What it counts may stand still for now, as a file that is written every minute.
    let moment = after(Duration::ZERO).map_err(|error| refused(error.into()))?;
    opened.source.read(&moment).map_err(refused)?;
    Ok(Some(opened))
}

fn first_that_works(config: &MeteringConfig, mut after: impl FnMut(Duration) -> io::Result<Moment>) -> Option<Opened> {
    let mut passed_over = Vec::new();
    for kind in Kind::IN_ORDER {
        if kind == Kind::File && config.file_path.as_os_str().is_empty() {
            continue;
        }
        let proved = open(kind, config).and_then(|mut opened| {
            prove(opened.source.as_mut(), kind.proof_time(), &mut after)?;
            Ok(opened)
        });
        match proved {
            Ok(opened) => {
                let quality = opened.kind.quality().as_str();
                let passed_over = passed_over.join("; ");
                tracing::info!(source = kind.as_str(), quality, passed_over, "energy source chosen");
                return Some(opened);
            }
            Err(error) => passed_over.push(format!("{}: {}", kind.as_str(), with_causes(&error))),
        }
    }
    let passed_over = passed_over.join("; ");
    tracing::info!(passed_over, "no energy source works: energy is not told");
    None
}

/// Whether it yields two differences in which something was used.
fn prove(
    source: &mut dyn Source,
    within: Duration,
    after: &mut impl FnMut(Duration) -> io::Result<Moment>,
) -> Result<(), SourceError> {
    let mut read = |step| -> Result<Reading, SourceError> {
        let moment = after(step)?;
        Ok(Reading { at: moment.at, zones: source.read(&moment)? })
    };
    let first = read(Duration::ZERO)?;
    if within.is_zero() {
        return Ok(());
    }
    let (mut last, mut moved) = (first.clone(), 0);
    while last.at.saturating_sub(first.at) < within {
        let now = read(PROOF_STEP)?;
        let difference = now.since(&last).map_err(|why| SourceError::Unsteady(why.as_str()))?;
        moved += usize::from(difference.total.0 > 0);
        if moved == 2 {
            return Ok(());
        }
        last = now;
    }
    Err(SourceError::Still(within))
}

fn open(kind: Kind, config: &MeteringConfig) -> Result<Opened, SourceError> {
    let mut coefficients = None;
    let source: Box<dyn Source> = match kind {
        Kind::Powercap => Box::new(powercap::Powercap::open(&config.powercap_path)),
        Kind::Perf => Box::new(perf::Perf::open(Path::new(perf::EVENTS))?),
        Kind::Hwmon => Box::new(hwmon::Hwmon::open(&config.hwmon_path)?),
        Kind::File if config.file_path.as_os_str().is_empty() => return Err(SourceError::NoFile),
        Kind::File => Box::new(file::Meter::open(&config.file_path)),
        Kind::Model => {
            let chosen = Coefficients::of(config);
            coefficients = Some(chosen);
            Box::new(Model::new(chosen))
        }
    };
    Ok(Opened { kind, coefficients, source })
}

/// A file's whole number of microjoules.
fn read_microjoules(path: &Path, expected: &'static str) -> Result<Nanojoules, SourceError> {
    let microjoules = read_number(path, expected)?;
    let too_great = || SourceError::Garbage { path: path.to_owned(), expected, got: microjoules.to_string() };
    microjoules.checked_mul(1000).map(Nanojoules).ok_or_else(too_great)
}

/// A file's whole number.
fn read_number(path: &Path, expected: &'static str) -> Result<u64, SourceError> {
    let text = read_text(path, expected)?;
    text.parse().map_err(|_| SourceError::Garbage { path: path.to_owned(), expected, got: text })
}

/// A file's one line, of which only the beginning is looked at.
fn read_text(path: &Path, expected: &'static str) -> Result<String, SourceError> {
    let read = || {
        let mut text = Vec::new();
        File::open(path)?.take(TEXT_BYTES_MAX).read_to_end(&mut text)?;
        io::Result::Ok(String::from_utf8_lossy(&text).trim().to_owned())
    };
    read().map_err(|source| SourceError::Unreadable { path: path.to_owned(), expected, source })
}

/// Names in a folder that begin with `prefix`, in order.
fn names(folder: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)?.take(NAMES_MAX) {
        names.extend(entry?.file_name().into_string().ok().filter(|name| name.starts_with(prefix)));
    }
    names.sort_unstable();
    Ok(names)
}

/// An error with its causes, on one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl Kind {
    const IN_ORDER: [Self; 5] = [Self::Powercap, Self::Perf, Self::Hwmon, Self::File, Self::Model];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Powercap => "powercap",
            Self::Perf => "perf",
            Self::Hwmon => "hwmon",
            Self::File => "file",
            Self::Model => "model",
        }
    }

    pub fn quality(self) -> Quality {
        if self == Self::Model { Quality::Modelled } else { Quality::Measured }
    }

    /// How long it may take to move twice. Counters of hardware move every few milliseconds; who writes a file may do so
    /// once a second; a model has nothing to prove.
    fn proof_time(self) -> Duration {
        Duration::from_millis(match self {
            Self::Model => 0,
            Self::File => 3000,
            Self::Powercap | Self::Perf | Self::Hwmon => 100,
        })
    }
}

impl Quality {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Modelled => "modelled",
        }
    }
}

/// Numbers and names are shorter.
const TEXT_BYTES_MAX: u64 = 64;
/// Zones and sensors of one machine are far fewer.
const NAMES_MAX: usize = 4096;
/// Between two readings while a source is tried.
const PROOF_STEP: Duration = Duration::from_millis(20);
