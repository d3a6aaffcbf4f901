//! Request parameters, the same for both wires: which keys mean something, and which value each must have.
//!
//! Keys that mean nothing here are accepted and ignored: the protocol leaves them to whom it may concern.

use std::fmt;
use std::time::Duration;

use super::{Refusal, Report};
use crate::infer::{Schedule, VariantName};

/// A parameter's value on either wire.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
}

/// What the parameters of a whole request say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestParameters {
    pub schedule: Schedule,
    pub variant: Option<VariantName>,
    pub binary_default: bool,
    pub report: Report,
}

impl RequestParameters {
    /// Takes note of one parameter.
    ///
    /// # Errors
    /// When a known key has a value of the wrong kind, or asks for an extension that is not served.
    pub fn set(&mut self, key: &str, value: &Value) -> Result<(), Refusal> {
        match key {
            "priority" => self.schedule.priority = value.as_uint(key)?,
            // 0 asks for the model's default.
            "timeout" => {
                let micros = value.as_uint(key)?;
                self.schedule.queue_timeout = (micros > 0).then(|| Duration::from_micros(micros));
            }
            "variant" => self.variant = value.as_variant(key)?,
            "binary_data_output" => self.binary_default = value.as_bool(key)?,
            REPORT => self.report.batch |= value.as_bool(key)?,
            ENERGY => {
                let energy = value.as_bool(key)?;
                self.report = Report { batch: self.report.batch || energy, energy };
            }
            // 0 and "" say that the request belongs to no sequence.
            "sequence_id"
                if !matches!(value, Value::Int(0) | Value::Uint(0)) && *value != Value::Text(String::new()) =>
            {
                return Err(Refusal::extension("sequence"));
            }
            "sequence_start" | "sequence_end" if *value == Value::Bool(true) => {
                return Err(Refusal::extension("sequence"));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Value {
    /// # Errors
    /// When the value is no boolean.
    pub fn as_bool(&self, key: &str) -> Result<bool, Refusal> {
        match self {
            Self::Bool(value) => Ok(*value),
            other => Err(wrong(key, "a boolean", other)),
        }
    }

    /// Nothing for "", which asks for the version's own build.
    ///
    /// # Errors
    /// When the value cannot name a variant.
    fn as_variant(&self, key: &str) -> Result<Option<VariantName>, Refusal> {
        match self {
            Self::Text(name) if name.is_empty() => Ok(None),
            Self::Text(name) => Ok(Some(name.parse()?)),
            other => Err(wrong(key, "the name of a variant", other)),
        }
    }

    /// # Errors
    /// When the value is no whole number of at least zero.
    pub fn as_uint(&self, key: &str) -> Result<u64, Refusal> {
        match self {
            Self::Uint(value) => Ok(*value),
            Self::Int(value) => u64::try_from(*value).map_err(|_| wrong(key, "a whole number of at least 0", self)),
            other => Err(wrong(key, "a whole number of at least 0", other)),
        }
    }

    /// # Errors
    /// When the value is no whole number, or does not fit a length in memory.
    pub fn as_len(&self, key: &str) -> Result<usize, Refusal> {
        usize::try_from(self.as_uint(key)?).map_err(|_| wrong(key, "a length", self))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Uint(value) => write!(f, "{value}"),
            Self::Double(value) => write!(f, "{value}"),
            // Only the beginning: it is a client's text in an error message.
            Self::Text(value) => write!(f, "{:?}", value.chars().take(SHOWN_MAX).collect::<String>()),
        }
    }
}

fn wrong(key: &str, expected: &str, got: &Value) -> Refusal {
    Refusal::invalid(format!("parameter {key:?} expects {expected}, got {got}"))
}

/// Asks for batch size, reason and times in the response parameters.
const REPORT: &str = "kinglet_report";
/// Asks for joules and CPU time as well.
const ENERGY: &str = "energy";
const SHOWN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, value: Value, expected: Result<RequestParameters, &str>) {
        let mut parameters = RequestParameters::default();
        let got = parameters.set(key, &value).map(|()| parameters).map_err(|refusal| refusal.message);
        assert_eq!(got, expected.map_err(str::to_owned), "{key}");
    }

    #[test]
    fn known_keys_are_typed_and_others_ignored() {
        let none = RequestParameters::default();
        let timed = Schedule { queue_timeout: Some(Duration::from_micros(5)), ..Schedule::default() };
        check("timeout", Value::Int(5), Ok(RequestParameters { schedule: timed, ..none.clone() }));
        check("timeout", Value::Uint(0), Ok(none.clone()));
        check("timeout", Value::Int(-1), Err("parameter \"timeout\" expects a whole number of at least 0, got -1"));
        check(
            "priority",
            Value::Text("1".into()),
            Err("parameter \"priority\" expects a whole number of at least 0, got \"1\""),
        );
        let report = |batch, energy| RequestParameters { report: Report { batch, energy }, ..none.clone() };
        check("kinglet_report", Value::Bool(true), Ok(report(true, false)));
        check("energy", Value::Bool(true), Ok(report(true, true)));
        check("energy", Value::Bool(false), Ok(report(false, false)));
        check("energy", Value::Int(1), Err("parameter \"energy\" expects a boolean, got 1"));
        check("binary_data_output", Value::Int(1), Err("parameter \"binary_data_output\" expects a boolean, got 1"));
        check("anything", Value::Double(0.5), Ok(none.clone()));
        let named = Some("int8".parse().unwrap());
        check("variant", Value::Text("int8".into()), Ok(RequestParameters { variant: named, ..none }));
        check("variant", Value::Text(String::new()), Ok(none.clone()));
        check("variant", Value::Int(8), Err("parameter \"variant\" expects the name of a variant, got 8"));
        let why = "variant name \"../1\" is not allowed: \
                   expected 1 to 128 letters, digits, '-', '_' or '.', not beginning with '.'";
        check("variant", Value::Text("../1".into()), Err(why));
        check("sequence_id", Value::Int(0), Ok(none));
        check("sequence_id", Value::Int(7), Err("the sequence extension is not served"));
        check("sequence_start", Value::Bool(true), Err("the sequence extension is not served"));
    }
}
