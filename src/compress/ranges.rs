//! Which floats the bytes of a value stand for, from the values that calibration rows leave there.

use std::str::FromStr;

use crate::engine::Scale;
use crate::tensor::Tensor;

/// How a range is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ranges {
    /// From the least to the greatest that was seen.
    MinMax,
    /// Without the outermost ten-thousandth on both sides.
    Percentile,
    /// The part of that with the least mean square of what rounding and cutting leave.
    #[default]
    Mse,
}

/// A name that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown rule {0:?}, expected min-max, percentile or mse")]
pub struct UnknownRanges(String);

impl FromStr for Ranges {
    type Err = UnknownRanges;

    fn from_str(name: &str) -> Result<Self, UnknownRanges> {
        match name {
            "min-max" => Ok(Self::MinMax),
            "percentile" => Ok(Self::Percentile),
            "mse" => Ok(Self::Mse),
            _ => Err(UnknownRanges(name.to_owned())),
        }
    }
}

/// Values that were seen: the outermost, and some of all.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    low: f32,
    high: f32,
    some: Vec<f32>,
    /// Of values so many of which one is kept, and how many to go before the next.
    step: usize,
    skip: usize,
}

impl Seen {
    /// Of rows that a value has, all together.
    pub(super) fn new() -> Self {
        Self { low: 0.0, high: 0.0, some: Vec::new(), step: 1, skip: 0 }
    }

    pub(super) fn add(&mut self, tensor: &Tensor) {
        let elements = tensor.bytes().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        for value in elements {
            (self.low, self.high) = (self.low.min(value), self.high.max(value));
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            self.some.push(value);
            self.skip = self.step - 1;
            if self.some.len() == SEEN_MAX {
                // Half of them, from now on half as often.
                self.some = self.some.iter().copied().step_by(2).collect();
                self.step *= 2;
            }
        }
    }

    /// Bytes for a range with zero in it, because images are padded with it.
    pub(super) fn scale(&mut self, rule: Ranges) -> Scale {
        match rule {
            Ranges::MinMax => between(self.low, self.high),
            Ranges::Percentile => {
                self.some.sort_unstable_by(f32::total_cmp);
                let outer = self.some.len() / OUTER;
                let [low, high] = [self.some.get(outer), self.some.iter().nth_back(outer)];
                between(low.map_or(0.0, |low| low.min(0.0)), high.map_or(0.0, |high| high.max(0.0)))
            }
            Ranges::Mse => {
                let parts = (1..=PARTS).map(|part| f32::from(part) / f32::from(PARTS));
                let tried = parts.map(|part| between(self.low * part, self.high * part));
                let tried = tried.map(|scale| (self.loss(scale), scale));
                let best = tried.min_by(|a, b| a.0.total_cmp(&b.0));
                best.map_or(between(self.low, self.high), |(_, scale)| scale)
            }
        }
    }

    fn loss(&self, to: Scale) -> f64 {
        let rest = |value: &f32| {
            let byte = (value / to.scale).round_ties_even() + f32::from(to.zero);
            let meant = (byte.clamp(0.0, 255.0) - f32::from(to.zero)) * to.scale;
            f64::from(value - meant).powi(2)
        };
        self.some.iter().step_by((self.some.len() / TRIED_MAX).max(1)).map(rest).sum()
    }
}

fn between(low: f32, high: f32) -> Scale {
    let scale = (high - low) / 255.0;
    // Of nothing but zeros any scale is right.
    if !(scale.is_normal() && scale.is_finite()) {
        return Scale { scale: 1.0, zero: 0 };
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
    let zero = (-low / scale).round() as u8;
    Scale { scale, zero }
}

/// Values kept at most, and those that each part is tried with.
const SEEN_MAX: usize = 1 << 20;
const TRIED_MAX: usize = 1 << 16;

/// One in so many is cut on each side.
const OUTER: usize = 10_000;

/// Parts of the whole range that are tried.
const PARTS: u8 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{DType, Shape};

    fn seen(values: &[f32]) -> Seen {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut seen = Seen::new();
        seen.add(&Tensor::new(DType::F32, Shape::new(&[values.len()]), bytes.into()).unwrap());
        seen
    }

    fn check(values: &[f32], rule: Ranges, scale: f32, zero: u8) {
        let got = seen(values).scale(rule);
        assert!((got.scale - scale).abs() < 0.02 * scale && got.zero == zero, "{rule:?}: {got:?}");
    }

    #[test]
    fn ranges_follow_their_rules() {
        // Most values are small, one in forty thousand is not.
        let mut values: Vec<f32> = (0..40_000u16).map(|at| f32::from(at % 100) / 100.0).collect();
        values[7] = 51.0;
        check(&values, Ranges::MinMax, 0.2, 0);
        check(&values, Ranges::Percentile, 0.99 / 255.0, 0);
        // A step of s costs s^2 / 12 for each small value, and (51 - 255 s)^2 for the large one.
        check(&values, Ranges::Mse, 0.19, 0);
        check(&[-1.0, 3.0], Ranges::MinMax, 4.0 / 255.0, 64);
        // Zero is within.
        check(&[2.0, 5.1], Ranges::MinMax, 0.02, 0);
        check(&[-5.1, -2.0], Ranges::MinMax, 0.02, 255);
        for rule in [Ranges::MinMax, Ranges::Percentile, Ranges::Mse] {
            assert_eq!(seen(&[0.0; 5]).scale(rule), Scale { scale: 1.0, zero: 0 });
        }
    }

    #[test]
    fn some_of_many_are_kept() {
        let values: Vec<f32> = (0..u16::MAX).map(f32::from).collect();
        let mut seen = seen(&values);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = Tensor::new(DType::F32, Shape::new(&[values.len()]), bytes.into()).unwrap();
        (0..40).for_each(|_| seen.add(&tensor));
        assert!(seen.some.len() < SEEN_MAX && seen.step == 4, "{}", seen.step);
        assert_eq!(seen.scale(Ranges::MinMax).zero, 0);
    }

    #[test]
    fn rules_have_names() {
        let refusal = "maximum".parse::<Ranges>().unwrap_err().to_string();
        assert_eq!(refusal, "unknown rule \"maximum\", expected min-max, percentile or mse");
        assert_eq!("percentile".parse(), Ok(Ranges::Percentile));
    }
}
