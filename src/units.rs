//! Durations and sizes as configuration writes them: always with a unit, such as `"5ms"` or `"64MiB"`. Energy as rooms
//! count it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A length of time; `"0s"` where a limit allows none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Energy in whole nanojoules, so that sums are exact. As many as fit are 18 GJ, which a machine of 300 W takes in two
/// years: that is enough for differences and counters since a start, and totals are kept wider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanojoules(pub u64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, got {got:?}")]
pub struct WrongUnit {
    expected: &'static str,
    got: String,
}

impl ByteSize {
    /// The size as a length in memory; sizes beyond the address space are the whole of it.
    pub fn as_len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Nanojoules {
    pub const ZERO: Self = Self(0);

    #[expect(clippy::cast_precision_loss, reason = "for display and for counters that are floats")]
    pub fn as_joules(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// For people, without digits that conversion makes up.
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    pub fn as_millijoules(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// What a power, in nanowatts, comes to over a time; rounded down.
    pub fn of_power(nanowatts: u64, time: Duration) -> Self {
        let product = u128::from(nanowatts) * time.as_nanos() / NANOS_PER_SECOND;
        Self(u64::try_from(product).unwrap_or(u64::MAX))
    }

    /// The mean power over a time, in nanowatts; nothing for no time.
    pub fn power_over(self, time: Duration) -> Option<u64> {
        let nanowatts = (u128::from(self.0) * NANOS_PER_SECOND).checked_div(time.as_nanos())?;
        Some(u64::try_from(nanowatts).unwrap_or(u64::MAX))
    }
}

impl std::iter::Sum for Nanojoules {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        Self(parts.map(|part| part.0).sum())
    }
}

impl FromStr for Span {
    type Err = WrongUnit;

    fn from_str(text: &str) -> Result<Self, WrongUnit> {
        let wrong = || WrongUnit { expected: EXPECTED_SPAN, got: text.to_owned() };
        let nanos = scaled(text, SPAN_UNITS).ok_or_else(wrong)?;
        Ok(Self(Duration::from_nanos(nanos)))
    }
}

impl FromStr for ByteSize {
    type Err = WrongUnit;

    fn from_str(text: &str) -> Result<Self, WrongUnit> {
        let wrong = || WrongUnit { expected: EXPECTED_SIZE, got: text.to_owned() };
        scaled(text, SIZE_UNITS).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        write_scaled(f, nanos, SPAN_UNITS, "0s")
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0, SIZE_UNITS, "0B")
    }
}

/// A whole number and one of the units, largest unit first in the table; `None` for anything else.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale = units.iter().find(|(name, _)| *name == unit.trim_start())?.1;
    number.parse::<u64>().ok()?.checked_mul(scale)
}

fn write_scaled(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)], zero: &str) -> fmt::Result {
    if value == 0 {
        return f.write_str(zero);
    }
    let (name, scale) =
        units.iter().find(|(_, scale)| value.is_multiple_of(*scale)).expect("the smallest unit divides every value");
    write!(f, "{}{name}", value / scale)
}

struct FromText<T> {
    expected: &'static str,
    kind: std::marker::PhantomData<T>,
}

impl<T: FromStr<Err = WrongUnit>> Visitor<'_> for FromText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(FromText { expected: EXPECTED_SPAN, kind: std::marker::PhantomData })
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(FromText { expected: EXPECTED_SIZE, kind: std::marker::PhantomData })
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

const EXPECTED_SPAN: &str = "a duration with a unit (ns, us, ms, s, m, h), such as \"5ms\"";
const EXPECTED_SIZE: &str = "a size with a unit (B, KiB, MiB, GiB, TiB), such as \"64MiB\"";

const NANOS_PER_SECOND: u128 = 1_000_000_000;
/// In nanoseconds.
const SPAN_UNITS: &[(&str, u64)] = &[
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];
const SIZE_UNITS: &[(&str, u64)] = &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_printed() {
        for (text, nanos) in [("5ms", 5_000_000), ("0s", 0), ("90s", 90_000_000_000), ("2h", 7_200_000_000_000)] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_nanos(nanos))), "{text}");
        }
        assert_eq!("90s".parse::<Span>().unwrap().to_string(), "90s");
        assert_eq!("120s".parse::<Span>().unwrap().to_string(), "2m");
        assert_eq!("64MiB".parse(), Ok(ByteSize(64 << 20)));
        assert_eq!("64 KiB".parse::<ByteSize>().unwrap().to_string(), "64KiB");
        for wrong in ["", "5", "ms", "5 parsecs", "-1s", "1.5s", "99999999999999h"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong:?}");
        }
        assert!("5MB".parse::<ByteSize>().is_err());
    }
}
