//! What can be wrong with a configuration, and where it was said.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::environment;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// Everything that is wrong, one line each.
    #[error("{}", lines(.0))]
    Refused(Vec<Problem>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub place: Place,
    /// Empty where a file cannot be parsed at all.
    pub key: String,
    pub cause: Cause,
}

/// Where a value was set, from the weakest to the strongest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Default,
    File { name: String, line: usize },
    Environment { variable: String },
    Flag { name: &'static str },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    Syntax {
        message: String,
    },
    UnknownKey {
        nearest: Option<String>,
    },
    Wrong {
        expected: String,
        got: String,
    },
    /// Each value is right by itself; together they cannot work.
    Impossible {
        expected: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Default => write!(f, "default: {}: ", self.key)?,
            Place::File { name, line } if self.key.is_empty() => write!(f, "{name}:{line}: ")?,
            Place::File { name, line } => write!(f, "{name}:{line}: {}: ", self.key)?,
            Place::Environment { variable } => write!(f, "{variable}: ")?,
            Place::Flag { name } => write!(f, "{name}: ")?,
        }
        match &self.cause {
            Cause::Syntax { message } => f.write_str(message),
            Cause::UnknownKey { nearest } => self.write_unknown(f, nearest.as_deref()),
            Cause::Wrong { expected, got } => write!(f, "expected {expected}, got {got}"),
            Cause::Impossible { expected } => write!(f, "expected {expected}"),
        }
    }
}

impl Problem {
    fn write_unknown(&self, f: &mut fmt::Formatter<'_>, nearest: Option<&str>) -> fmt::Result {
        let variable = matches!(self.place, Place::Environment { .. });
        f.write_str(if variable { "unknown variable" } else { "unknown key" })?;
        match nearest {
            Some(key) if variable => write!(f, ", the nearest is {}", environment::variable_of(key)),
            Some(key) => write!(f, ", the nearest is {key}"),
            None => Ok(()),
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
