//! Request parameters, the same for both wires: which keys mean something, and which value each must have.
//!
//! Keys that mean nothing here are accepted and ignored: the protocol leaves them to whom it may concern.

use std::fmt;
use std::time::Duration;

use http::HeaderMap;

use super::{Refusal, Report};
use crate::infer::{Budget, Schedule, Wanted};
use crate::units::Nanojoules;

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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestParameters {
    pub schedule: Schedule,
    pub variant: Wanted,
    pub budget: Budget,
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
            "max_latency_ms" => self.budget.latency_max = Some(latency(value.as_amount(key)?)),
            "max_energy_mj" => self.budget.energy_max = Some(energy(value.as_amount(key)?)),
            "min_accuracy" => self.budget.accuracy_min = Some(value.as_share(key)?),
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

    /// An empty name is that of the version's own build.
    ///
    /// # Errors
    /// When the value cannot name a variant.
    fn as_variant(&self, key: &str) -> Result<Wanted, Refusal> {
        match self {
            Self::Text(name) if name.is_empty() => Ok(Wanted::Own),
            Self::Text(name) => Ok(Wanted::Named(name.parse()?)),
            other => Err(wrong(key, "the name of a variant", other)),
        }
    }

    /// # Errors
    /// When the value is no number above zero.
    fn as_amount(&self, key: &str) -> Result<f64, Refusal> {
        let amount = self.as_number().filter(|number| *number > 0.0);
        amount.ok_or_else(|| wrong(key, "a number above 0", self))
    }

    /// # Errors
    /// When the value is no number from 0 to 1.
    fn as_share(&self, key: &str) -> Result<f64, Refusal> {
        let share = self.as_number().filter(|number| (0.0..=1.0).contains(number));
        share.ok_or_else(|| wrong(key, "a number from 0 to 1", self))
    }

    /// Finite.
    fn as_number(&self) -> Option<f64> {
        let number = match self {
            Self::Int(value) => *value as f64,
            Self::Uint(value) => *value as f64,
            Self::Double(value) => *value,
            Self::Bool(_) | Self::Text(_) => return None,
        };
        number.is_finite().then_some(number)
    }

    /// # Errors
    /// When the value is no text.
    pub fn as_text(&self, key: &str) -> Result<&str, Refusal> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(wrong(key, "a string", other)),
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

/// The budget that a REST request's headers state, for those whose bodies have no parameters.
///
/// # Errors
/// When a value is no number, or none that may stand there.
pub fn budget(headers: &HeaderMap) -> Result<Budget, Refusal> {
    let mut stated = RequestParameters::default();
    for (header, key) in BUDGET_HEADERS {
        let Some(value) = headers.get(header) else { continue };
        let text = value.to_str().unwrap_or("?").trim();
        let value = text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Double);
        stated.set(key, &value).map_err(|refusal| Refusal::invalid(format!("header {header}: {}", refusal.message)))?;
    }
    Ok(stated.budget)
}

/// What is longer than a clock can tell is no limit.
fn latency(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1e3).unwrap_or(Duration::MAX)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "of an amount; beyond the largest is the largest"
)]
fn energy(mj: f64) -> Nanojoules {
    Nanojoules((mj * 1e6) as u64)
}

fn wrong(key: &str, expected: &str, got: &Value) -> Refusal {
    Refusal::invalid(format!("parameter {key:?} expects {expected}, got {got}"))
}

/// Which headers state what parameters of a request state.
const BUDGET_HEADERS: [(&str, &str); 3] = [
    ("kinglet-max-latency-ms", "max_latency_ms"),
    ("kinglet-max-energy-mj", "max_energy_mj"),
    ("kinglet-min-accuracy", "min_accuracy"),
];
/// Asks for batch size, reason and times in the response parameters.
const REPORT: &str = "kinglet_report";
/// Asks for joules and CPU time as well.
const ENERGY: &str = "energy";
const SHOWN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn check(key: &str, value: Value, expected: Result<RequestParameters, &str>) {
        let mut parameters = RequestParameters::default();
        let got = parameters.set(key, &value).map(|()| parameters).map_err(|refusal| refusal.message);
        assert_eq!(got, expected.map_err(str::to_owned), "{key}");
    }

    #[test]
    fn a_budget_may_stand_in_headers() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let headers =
                pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            budget(&headers.collect()).map_err(|refusal| refusal.message)
        };
        assert_eq!(of(&[]), Ok(Budget::default()));
        let both = of(&[("kinglet-max-latency-ms", " 2.5"), ("kinglet-min-accuracy", "1")]).unwrap();
        assert_eq!((both.latency_max, both.accuracy_min), (Some(Duration::from_micros(2500)), Some(1.0)));
        let wrong = "header kinglet-max-energy-mj: parameter \"max_energy_mj\" expects a number above 0, got \"much\"";
        assert_eq!(of(&[("kinglet-max-energy-mj", "much")]), Err(wrong.to_owned()));
        assert!(of(&[("kinglet-max-latency-ms", "inf")]).is_err());
        assert_eq!(of(&[("kinglet-max-latency-ms", "1e300")]).unwrap().latency_max, Some(Duration::MAX));
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
        let named = Wanted::Named("int8".parse().unwrap());
        check("variant", Value::Text("int8".into()), Ok(RequestParameters { variant: named, ..none.clone() }));
        check("variant", Value::Text(String::new()), Ok(RequestParameters { variant: Wanted::Own, ..none.clone() }));
        check("variant", Value::Int(8), Err("parameter \"variant\" expects the name of a variant, got 8"));
        let within = |budget| RequestParameters { budget, ..none.clone() };
        let (any, ms) = (Budget::default(), Duration::from_millis);
        check("max_latency_ms", Value::Int(5), Ok(within(Budget { latency_max: Some(ms(5)), ..any })));
        let half = Some(Nanojoules(500_000));
        check("max_energy_mj", Value::Double(0.5), Ok(within(Budget { energy_max: half, ..any })));
        check("min_accuracy", Value::Double(0.97), Ok(within(Budget { accuracy_min: Some(0.97), ..any })));
        check("max_latency_ms", Value::Int(0), Err("parameter \"max_latency_ms\" expects a number above 0, got 0"));
        check(
            "max_energy_mj",
            Value::Double(f64::NAN),
            Err("parameter \"max_energy_mj\" expects a number above 0, got NaN"),
        );
        check("min_accuracy", Value::Int(97), Err("parameter \"min_accuracy\" expects a number from 0 to 1, got 97"));
        let why = "variant name \"../1\" is not allowed: \
                   expected 1 to 128 letters, digits, '-', '_' or '.', not beginning with '.'";
        check("variant", Value::Text("../1".into()), Err(why));
        check("sequence_id", Value::Int(0), Ok(none));
        check("sequence_id", Value::Int(7), Err("the sequence extension is not served"));
        check("sequence_start", Value::Bool(true), Err("the sequence extension is not served"));
    }
}
